"""The backup of a database that an aggregator holds: what is in it, while the aggregator goes on."""

import json
import threading
import zipfile

import pytest

from deerfield.errors import InvalidInput
from deerfield.runspec import Privacy
from services.aggregator.backups import archive
from tests.fakes import run_spec
from tests.integration.aggregator.backups.conftest import step
from tests.integration.aggregator.teaching import sites

NAMES = ("north", "south")


def test_a_backup_holds_no_secret_and_nothing_that_a_site_sent(pair):
    first = pair.open(pair.folder / "a")
    privacy = Privacy(unit="site", epsilon=8.0, clip=1.0, delta=1e-6)
    run = first.runs.start(run_spec(*NAMES, rounds=1, privacy=privacy), "once")
    with first.desk.store.edge() as edge:
        secret = edge.newest_phase(edge.run(run)).noise_key
    pair.backup()
    assert pair.archive.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(pair.archive) as found:
        parts = [found.read(name) for name in found.namelist()]
        rows = [json.loads(line) for line in found.read("rows/phases.jsonl").splitlines()]
    assert [row["noise_key"] for row in rows] == [None]
    assert not any(secret in part or secret.hex().encode() in part for part in parts)
    pair.restore()
    second = pair.open(pair.folder / "b")
    with second.desk.store.edge() as edge:
        fresh = edge.newest_phase(edge.run(run)).noise_key
    assert len(fresh) == 32
    assert fresh != secret


def test_updates_are_left_out(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec(*NAMES, rounds=1), "once")
    (north, _) = sites(first, run, *NAMES)
    assignment = north.link.next_task()
    update = north.update(assignment)
    north.link.send(assignment, update)
    with first.desk.store.edge() as edge:
        (sent,) = edge.uploads.sealed(assignment.key)
    pair.backup()
    with archive.reading(pair.archive) as found:
        assert not sent.announcement.manifest.chunks & {sha for sha, _ in found.blobs()}


def test_a_backup_is_of_one_instant_while_the_aggregator_goes_on(pair):
    """Runs are started and aborted all the while: each is in the rows whole or not at all."""
    first = pair.open(pair.folder / "a")
    stop, started = threading.Event(), threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            run = first.runs.start(run_spec("north", rounds=1, name="same"), f"request {number}")
            first.runs.abort(run, "enough")
            number += 1
            if number == 3:
                started.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(60)
        for _ in range(5):
            pair.archive.unlink(missing_ok=True)
            pair.backup()
            with archive.reading(pair.archive) as found:
                runs = {row["run"]: row["state"] for row in found.rows("runs")}
                assert {row["run"] for row in found.rows("phases")} == set(runs)
                assert {row["run"] for row in found.rows("tasks")} == set(runs)
                told = {"run_started": set(), "run_aborted": set()}
                for row in found.rows("events"):
                    told[row["kind"]].add(row["run"])
                assert told["run_started"] == set(runs)
                assert told["run_aborted"] == {run for run, state in runs.items() if state == "ABORTED"}
    finally:
        stop.set()
        thread.join(60)


def test_what_retention_has_removed_is_not_missed_and_what_a_run_needs_is(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=2, strategy="fedavg"), "once")
    old = first.runs.get(run).model.chunks
    step(first, sites(first, run, "north"))
    new = first.runs.get(run).model.chunks
    for sha in old - new:
        (pair.folder / "a" / "published" / sha[:2] / sha).unlink()
    pair.backup()
    pair.archive.unlink()
    gone = min(new - old)
    (pair.folder / "a" / "published" / gone[:2] / gone).unlink()
    with pytest.raises(InvalidInput, match=f"blobs: {gone} is named by the database"):
        pair.backup()
    assert not pair.archive.exists()
    assert [path.name for path in pair.folder.iterdir() if path.suffix == ".part"] == []
