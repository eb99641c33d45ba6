"""MLflow's registry as a `models.Models`, and what its errors mean."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any

from deerfield.endpoint import without_password
from deerfield.errors import DeerfieldError, InvalidInput, Malfunction, Unreachable
from deerfield.promotion import Rule, Verdict
from services.aggregator.champions.models import CANDIDATE, CHAMPION, Version
from services.aggregator.ledger_mirror import artifact
from services.aggregator.outage import Outage

RUN, DIGEST, PREVIOUS = "deerfield.run", "deerfield.digest", "deerfield.previous_champion"
VERDICT, VERDICT_SHA256, RULE = "deerfield.verdict", "deerfield.verdict_sha256", "deerfield.rule."
ARTIFACT = "verdict.json"
MISSING = "RESOURCE_DOES_NOT_EXIST"
SHUT = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")
AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "CANCELLED")
HOST_GUARD = "Invalid Host header"
REASON_CHARS = 300


class MlflowModels:
    """Asks MLflow through clients that `client` makes; `registering` is held while a candidate gets its alias."""

    def __init__(self, client: Callable[[], Any], uri: str, registering: AbstractContextManager[Any]) -> None:
        self._client = client
        self.where = f"MLflow at {without_password(uri)}"
        self._registering = registering
        self._outage = Outage("MLflow")

    def aliases(self, model: str) -> Mapping[str, str] | None:
        """Versions by alias; None if there is no such model."""
        found = self._found(lambda client: client.get_registered_model(model))
        return {alias: str(version) for alias, version in found.aliases.items()} if found else None

    def version(self, model: str, version: str) -> Version | None:
        """One version; None if there is none, or it was deleted."""
        found = self._found(lambda client: client.get_model_version(model, version))
        if found is None:
            return None
        return Version(
            model=model,
            version=version,
            mlflow_run=found.run_id or "",
            run=found.tags.get(RUN, ""),
            digest=found.tags.get(DIGEST, ""),
            previous_champion=found.tags.get(PREVIOUS, ""),
        )

    def artifact(self, version: Version, path: str) -> bytes | None:
        """The content of an artifact of the version's MLflow run; None where there is none."""
        with self._reached() as client:
            return artifact(client, version.mlflow_run, path)

    def judge(self, version: Version, verdict: Verdict) -> None:
        """Writes the verdict as tags and as the artifact verdict.json, in the place of an earlier one."""
        tags = {
            VERDICT: "passed" if verdict.passed else "refused",
            VERDICT_SHA256: verdict.sha256,
            **{f"{RULE}{rule.rule}": _short(rule) for rule in verdict.rules},
        }
        with self._reached() as client:
            if version.mlflow_run:
                client.log_text(version.mlflow_run, verdict.text, ARTIFACT)
            written = client.get_model_version(version.model, version.version).tags
            for stale in sorted(name for name in written if name.startswith(RULE) and name not in tags):
                client.delete_model_version_tag(version.model, version.version, stale)
            for name, value in tags.items():
                client.set_model_version_tag(version.model, version.version, name, value)

    def remember(self, version: Version, previous: str) -> None:
        """Writes the champion before this one as a tag; an empty one takes the tag away."""
        with self._reached() as client:
            if previous:
                client.set_model_version_tag(version.model, version.version, PREVIOUS, previous)
            else:
                client.delete_model_version_tag(version.model, version.version, PREVIOUS)

    def crown(self, version: Version) -> None:
        """Moves the alias `champion`."""
        with self._reached() as client:
            client.set_registered_model_alias(version.model, CHAMPION, version.version)

    def retire(self, version: Version) -> None:
        """Takes the alias `candidate` away from a version that has it."""
        with self._registering, self._reached() as client:
            if str(client.get_registered_model(version.model).aliases.get(CANDIDATE, "")) == version.version:
                client.delete_registered_model_alias(version.model, CANDIDATE)

    def _found(self, read: Callable[[Any], Any]) -> Any:
        """What MLflow has; None if there is no such thing."""
        with self._reached() as client:
            from mlflow.exceptions import MlflowException  # behind the client, which sets MLflow's environment first

            try:
                return read(client)
            except MlflowException as error:
                if error.error_code == MISSING:
                    return None
                raise

    @contextmanager
    def _reached(self) -> Iterator[Any]:
        """A client; what MLflow raises in the block is raised as what it means."""
        began = monotonic()
        try:
            yield self._client()
        except Exception as error:  # foreign code, which reaches databases, servers and object stores in its own ways
            trouble = _meaning(error, self.where, monotonic() - began)
            if isinstance(trouble, Unreachable):
                self._outage.began(trouble)
            raise trouble from error
        self._outage.ended()


def _meaning(error: Exception, where: str, seconds: float) -> DeerfieldError:
    from mlflow.exceptions import MlflowException

    said = " ".join(str(error).split())[:REASON_CHARS] or type(error).__name__
    code = error.error_code if isinstance(error, MlflowException) else ""
    if HOST_GUARD in said:
        return InvalidInput(
            f"{where} does not answer to that host name (403): start its server with the name in --allowed-hosts "
            "(MLFLOW_SERVER_ALLOWED_HOSTS)"
        )
    if code in SHUT:
        return InvalidInput(
            f"{where} does not let the aggregator in ({said}): set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of the aggregator"
        )
    foreign = type(error).__module__.partition(".")[0] in {"boto3", "botocore", "urllib3", "sqlalchemy"}
    if code in AWAY or foreign or isinstance(error, OSError):
        return Unreachable(f"{where} did not answer as it should, for {seconds:.1f} s: {said}")
    return Malfunction(f"{where} failed: {type(error).__name__}: {said}")


def _short(rule: Rule) -> str:
    """A rule in a tag: `passed (0.91, limit 0.8)`."""
    numbers = [f"{rule.value:.6g}"] if rule.value is not None else []
    numbers += [f"limit {rule.limit:.6g}"] if rule.limit is not None else []
    return ("passed" if rule.passed else "refused") + (f" ({', '.join(numbers)})" if numbers else "")
