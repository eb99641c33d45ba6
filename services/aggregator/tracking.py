"""MLflow, and its only writer: parameters when a run starts, one batch of metrics and one object for each phase.

A phase is one step; what sites have spent is by round, once it is over. Everything carries the time of its event, so
that telling an event twice changes nothing.
"""

import logging
import os
import threading
from collections.abc import Mapping
from math import inf
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, cast

from deerfield import mirror
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.exchange import Event, Key
from deerfield.manifest import assemble
from services.aggregator import lineage
from services.aggregator.champions.mlflow_models import MlflowModels
from services.aggregator.desk import Desk
from services.aggregator.ledger_mirror import artifact, keep, phase_mirror
from services.aggregator.mlflow_errors import may_pass
from services.aggregator.registry import Release, register
from services.aggregator.rounds.recorder import Registered, TrackingAway
from services.aggregator.sql.attachments import Attachment
from services.aggregator.sql.records import RunRow

RUN_TAG = "deerfield.run"
STATUS = {"run_finished": "FINISHED", "run_failed": "FAILED", "run_aborted": "KILLED"}
NUMBERS = ("deviation", "bytes_up", "bytes_down", "seconds")  # of a phase_published event
EPSILONS = ("epsilon", "epsilon_total")  # of this run; of the site's population over all runs
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a hospital's run is nobody else's business
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # one line of our own stands there, and nothing else
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own 7, with pauses that double, take minutes; 1 has no pause
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # its pause has no bound, and nothing could stop it
}
NOT_PARAMETERS = ("adapter", "convolutions", "labels")  # too long for a table; run.json has them


class MlflowTracking:
    """A `recorder.Tracking` over an MLflow tracking server or database.

    New experiments keep their models under `artifacts`, where it is given. `adopted` is an MLflow run that somebody
    else has opened; the first run that starts is written into it.
    """

    def __init__(self, desk: Desk, uri: str, artifacts: str = "", adopted: str = "") -> None:
        self._desk = desk
        self._uri = uri
        self._artifacts = artifacts
        self._adopted = adopted
        self._runs: dict[str, str] = {}  # by our run id
        self._registering = threading.Lock()  # the alias of a candidate is about to move
        self.models = MlflowModels(self._client, uri, self._registering)

    def record(self, event: Event) -> Registered | None:
        """Writes an event down; after a run's last phase, registers its adapter."""
        try:
            return self._record(event)
        except Exception as error:  # foreign code, which reaches databases, servers and object stores in its own ways
            if may_pass(error):
                raise TrackingAway(f"{type(error).__name__}: {error}") from error
            raise

    def _record(self, event: Event) -> Registered | None:
        with self._desk.store.edge() as edge:
            row = edge.run(event.run)
        if event.kind == "run_started":
            self._started(row)
        elif event.kind == "phase_published":
            return self._published(row, event)
        elif event.kind == "evaluated":
            metrics = cast("Mapping[str, float]", event.detail["metrics"])
            self._log(row, event, {f"evaluation/{name}": value for name, value in metrics.items()})
        elif event.kind in STATUS:
            self._client().set_terminated(self._run(row), status=STATUS[event.kind], end_time=_milliseconds(event))
        return None

    def attach(self, file: Attachment) -> None:
        """Logs a file as an artifact of the run's, in the place of one before it."""
        with self._desk.store.edge() as edge:
            row = edge.run(file.run)
        content = self._desk.published.get(file.sha256)
        mlflow_run, where = self._run(row), PurePosixPath(file.name)
        with TemporaryDirectory() as folder:
            path = Path(folder) / where.name
            path.write_bytes(content)
            self._client().log_artifact(mlflow_run, str(path), str(where.parent) if len(where.parts) > 1 else None)
        if file.name == MANIFEST:  # whenever it comes
            self._client().log_dict(mlflow_run, self._lineage(row), lineage.NAME)

    def _started(self, row: RunRow) -> None:
        from mlflow.entities import Param, RunTag

        parameters = _flat(row.spec.model_dump(mode="json", exclude=set(NOT_PARAMETERS)))
        known = {"deerfield.spec_sha256": row.spec.sha256, "deerfield.strategy": str(row.spec.strategy["name"])}
        tags = {**known, **lineage.tags(row)}
        self._client().log_batch(
            self._run(row),
            params=[Param(name, value) for name, value in parameters.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self._client().log_text(self._run(row), row.spec.canonical(), "run.json")
        self._client().log_dict(self._run(row), self._lineage(row), lineage.NAME)

    def _published(self, row: RunRow, event: Event) -> Registered | None:
        detail = event.detail
        numbers = {name: detail[name] for name in NUMBERS}
        told = {f"{name}/{site}": value for site, each in detail["metrics"].items() for name, value in each.items()}
        self._log(row, event, numbers | told)
        declares = self._desk.make(row.spec).declares
        if detail["phase"] == len(declares.phases) - 1:
            spent = {f"privacy/{name}/{site}": value for name in EPSILONS for site, value in detail[name].items()}
            self._log(row, event, spent, step=detail["round"])
        path = f"phases/{self._step(row, event):06d}.json"
        self._client().log_dict(self._run(row), {"time": event.time, **detail}, path)
        self._mirror(row, event)
        if detail["last"]:
            self._client().log_dict(self._run(row), self._lineage(row), lineage.NAME)
        # where sites keep models of their own, nobody trained the shared one
        is_new = declares.epochs and not detail["personal"]
        return self._register(row, event) if detail["last"] and is_new else None

    def _mirror(self, row: RunRow, event: Event) -> None:
        found = phase_mirror(self._desk, row, (event.detail["round"], event.detail["phase"]))
        path = mirror.name(self._step(row, event), found.key.incarnation)
        keep(self._client(), self._run(row), path, mirror.encode(found))

    def _lineage(self, row: RunRow) -> Mapping[str, object]:
        with self._desk.store.edge() as edge:
            attested = edge.uploads.attested(row)
        return lineage.lineage(row, attested, artifact(self._client(), self._run(row), MANIFEST))

    def _register(self, row: RunRow, event: Event) -> Registered:
        detail = event.detail
        key = Key(run=row.run, incarnation=row.incarnation, round=detail["round"], phase=detail["phase"])
        with self._desk.store.edge() as edge:
            state = edge.published(key)
        if state is None:
            raise LookupError(f"{key} is said to be published and has no state")
        epsilon = {site: inf if value is None else float(value) for site, value in detail["epsilon"].items()}
        release = Release(
            run=row.run,
            spec=row.spec,
            adapter=assemble(state.shared, self._desk.published.get),
            digest=state.shared.digest,
            epsilon=epsilon,
            step=self._step(row, event),
        )
        with self._registering:
            return register(self._client(), self._run(row), release)

    def _log(self, row: RunRow, event: Event, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Logs what is known of `values`, by `step`, or else by that of the phase."""
        from mlflow.entities import Metric

        time, step = _milliseconds(event), self._step(row, event) if step is None else step
        known = {name: float(value) for name, value in values.items() if value is not None}
        metrics = [Metric(name, value, time, step) for name, value in known.items()]
        self._client().log_batch(self._run(row), metrics=metrics)

    def _step(self, row: RunRow, event: Event) -> int:
        round_, phase = cast(int, event.detail["round"]), cast(int, event.detail["phase"])
        return round_ * len(self._desk.make(row.spec).declares.phases) + phase

    def _run(self, row: RunRow) -> str:
        """The MLflow run of a run; found again by its tag after a restart."""
        if row.run not in self._runs:
            self._runs[row.run] = self._adopt(row) or self._find(row) or self._create(row)
        return self._runs[row.run]

    def _adopt(self, row: RunRow) -> str | None:
        if not self._adopted:
            return None
        client = self._client()
        owner = client.get_run(self._adopted).data.tags.get(RUN_TAG, row.run)
        if owner != row.run:
            return None
        client.set_tag(self._adopted, RUN_TAG, row.run)
        return self._adopted

    def _find(self, row: RunRow) -> str | None:
        found = self._client().search_runs([self._experiment(row)], f"tags.`{RUN_TAG}` = '{row.run}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create(self, row: RunRow) -> str:
        tags, started = {RUN_TAG: row.run}, int(row.started_at * 1000)
        run = self._client().create_run(self._experiment(row), start_time=started, tags=tags, run_name=row.run)
        return str(run.info.run_id)

    def _experiment(self, row: RunRow) -> str:
        client, name = self._client(), row.spec.name
        known = client.get_experiment_by_name(name)
        found = known.experiment_id if known else client.create_experiment(name, self._artifacts or None)
        return str(found)

    def _client(self) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        _quieten()
        mlflow.set_tracking_uri(self._uri)
        return mlflow.MlflowClient(tracking_uri=self._uri)


def _quieten() -> None:
    """MLflow prints to stderr beside its logger; what is an error goes through the log of this process instead."""
    from mlflow.utils.logging_utils import disable_logging

    disable_logging()
    theirs = logging.getLogger("mlflow")
    theirs.handlers.clear()
    theirs.propagate = True
    theirs.setLevel(logging.ERROR)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined by dots, values as text."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _milliseconds(event: Event) -> int:
    return int(event.time * 1000)
