"""Brings the mirror of a run's ledgers into MLflow: one object for each published phase, never another in its place."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deerfield import mirror
from deerfield.errors import Malfunction
from deerfield.exchange import Key
from deerfield.mirror import Mirror, Repinned, Taker
from services.aggregator.desk import Desk
from services.aggregator.sql.records import RunRow
from services.aggregator.sql.store import Edge


def phase_mirror(desk: Desk, row: RunRow, place: tuple[int, int]) -> Mirror:
    """What was signed about the published phase (round, phase) `place`; the same whenever it is asked for.

    Raises:
        LookupError: the phase has published nothing.
    """
    with desk.store.edge() as edge:
        key = edge.published_key(Key(run=row.run, incarnation=row.incarnation, round=place[0], phase=place[1]))
        if key is None:
            raise LookupError(f"round {place[0]}, phase {place[1]} of run {row.run} has published nothing")
        state, sealed, took = edge.published(key), edge.uploads.sealed(key), edge.took(key)
        restores = edge.operations.restores(row.run, until=key.incarnation)
        repinned = _repinned(edge, row.run, place)
    if state is None:
        raise LookupError(f"{key} is said to be published and has no state")
    plain = Mirror(
        key=key,
        spec=row.spec.sha256,
        digest=state.shared.digest,
        restores=restores,
        took=tuple(Taker(site=site, epochs=epochs) for site, epochs in took),
        sealed=(),
        repinned=repinned,
    )
    return mirror.signed(desk.key, plain, [each.announcement.attestation for each in sealed])


def _repinned(edge: Edge, run: str, place: tuple[int, int]) -> tuple[Repinned, ...]:
    """The keys that operators had pinned anew when a run published a phase; the same whenever it is asked for."""
    if not (steps := edge.events_of(run, "site_repinned")):
        return ()
    published = edge.events_of(run, "phase_published")
    until = next(each.number for each in published if (each.detail["round"], each.detail["phase"]) == place)
    names = ("site", "before", "public_key")
    return tuple(Repinned(**{name: each.detail[name] for name in names}) for each in steps if each.number < until)


def run_mirror(desk: Desk, row: RunRow) -> list[Mapping[str, Any]]:
    """The parsed objects of the phases that a run has published, in their order, from our own rows."""
    declares = desk.make(row.spec).declares
    places = [(round_, phase) for round_ in range(declares.rounds) for phase in range(len(declares.phases))]
    found = []
    for place in places:
        with suppress(LookupError):
            found.append(json.loads(mirror.encode(phase_mirror(desk, row, place))))
    return found


def keep(client: Any, mlflow_run: str, path: str, content: bytes) -> None:
    """Logs an object as the artifact `path`, unless it is there already; `client` is an `mlflow.MlflowClient`.

    Raises:
        Malfunction: something else is there.
    """
    held = artifact(client, mlflow_run, path)
    if held == content:
        return
    # what begins as it should and ends too soon was torn by a crash in the middle of writing it
    if held is not None and not content.startswith(held):
        raise Malfunction(
            f"artifact {path} of MLflow run {mlflow_run} is not what this aggregator wrote, and stays as it is: "
            "find out who changed it, or which aggregator.key was used before"
        )
    client.log_text(mlflow_run, content.decode(), path)


def artifact(client: Any, mlflow_run: str, path: str) -> bytes | None:
    """The content of an artifact of a run; None where there is none."""
    folder = str(Path(path).parent)
    if path not in {each.path for each in client.list_artifacts(mlflow_run, None if folder == "." else folder)}:
        return None
    with TemporaryDirectory() as place:
        return Path(client.download_artifacts(mlflow_run, path, place)).read_bytes()
