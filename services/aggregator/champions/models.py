"""The model registry, as promotions need it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deerfield.promotion import Verdict

CHAMPION, CANDIDATE = "champion", "candidate"  # aliases


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a model, as the registry has it."""

    model: str
    version: str
    mlflow_run: str  # the MLflow run that its artifacts are kept with
    run: str  # ours, by its tag; empty: it is not of this federation
    digest: str
    previous_champion: str  # by its tag; empty: none


class Models(Protocol):
    """Each method reads or writes one thing, and may be asked again: what is there already changes nothing.

    All of them raise Unreachable while the registry is away, InvalidInput where it does not let us in, and Malfunction
    for anything else that it says.
    """

    @property
    def where(self) -> str:
        """The registry, for people."""
        ...

    def aliases(self, model: str) -> Mapping[str, str] | None:
        """Versions by alias; None if there is no such model."""
        ...

    def version(self, model: str, version: str) -> Version | None:
        """One version; None if there is none, or it was deleted."""
        ...

    def artifact(self, version: Version, path: str) -> bytes | None:
        """The content of an artifact of the version's MLflow run; None where there is none."""
        ...

    def judge(self, version: Version, verdict: Verdict) -> None:
        """Writes the verdict as tags and as the artifact verdict.json, in the place of an earlier one."""

    def remember(self, version: Version, previous: str) -> None:
        """Writes the champion before this one as a tag; an empty one takes the tag away."""

    def crown(self, version: Version) -> None:
        """Moves the alias `champion`."""

    def retire(self, version: Version) -> None:
        """Takes the alias `candidate` away from a version that has it."""
