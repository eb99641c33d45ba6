"""Backup of a database that an aggregator holds, and restore into an empty one; over both kinds of database."""

import json
import shutil
import threading
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from deerfield import mirror
from deerfield.certificates import load
from deerfield.errors import InvalidInput, RoundClosed
from deerfield.identity import Peer
from deerfield.privacy import epsilon
from deerfield.proof import prove
from deerfield.restoration import Trust, check
from deerfield.runspec import Privacy
from services.aggregator.auditing.audit_chain import Walk
from services.aggregator.auditing.trail import entries
from services.aggregator.backups import archive
from services.aggregator.backups.backup import backup
from services.aggregator.backups.restore import restore
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.ledger_mirror import phase_mirror
from tests import pki
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import folder_in
from tests.integration.aggregator.teaching import kinds, last, sites
from tests.pki import NOW

NAMES = ("north", "south")
RECORD = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)


@pytest.fixture
def ca(tmp_path):
    return pki.authority(tmp_path / "ca")


@pytest.fixture
def ada(ca, tmp_path):
    return load(pki.files(ca, tmp_path / "ada", Peer(federation=pki.FEDERATION, role="operator", name="ada")), NOW)


@pytest.fixture
def place():
    """Folders, whose files the tests look into."""
    return folder_in


@pytest.fixture
def pair(tmp_path, open_in, database, ada):
    """An aggregator in `a`, its backup, and what it is restored to in `b`."""
    return Place(tmp_path, open_in, database, ada)


class Place:
    def __init__(self, folder: Path, open_in, database, ada):
        self.folder, self.open, self.url, self.ada = folder, open_in, database, ada
        self.archive = folder / "backup.zip"

    def blobs(self, name: str) -> FolderBlobs:
        return FolderBlobs(self.folder / name / "published")

    def backup(self, name: str = "a"):
        return backup(self.archive, self.url(self.folder / name), self.blobs(name))

    def restore(self, name: str = "b", now=NOW, operator=None):
        (self.folder / name).mkdir(exist_ok=True)
        url = self.url(self.folder / name)
        return restore(self.archive, url, self.folder / name, operator or self.ada, now)


def step(aggregator, both):
    for site in both:
        site.step()
    aggregator.coordinator.close_due()


def test_a_run_goes_on_from_a_backup_under_a_new_incarnation(pair, ca):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec(*NAMES, rounds=2, privacy=RECORD), "once")
    both = sites(first, run, *NAMES, noise_multiplier=4.0)
    step(first, both)
    both[0].step()
    done = pair.backup()
    assert (done["rows"]["runs"], done["rows"]["heads"]) == (1, 2)
    late = both[1].link.next_task()
    both[1].step()
    first.coordinator.close_due()  # what is lost: phase 1 was published, and told to everybody
    lost_events = first.runs.events(run, 0)

    number = pair.restore()["incarnations"][run]
    second = pair.open(pair.folder / "b")
    view = second.runs.get(run)
    assert (view.state, view.incarnation, view.round, view.phase) == ("RUNNING", number, 0, 1)
    assert view.sites == {"north": "WAITING", "south": "WAITING"}
    assert view.model == first.runs.get(run, (0, 0)).model
    again = sites(second, run, *NAMES, noise_multiplier=4.0)
    with pytest.raises(RoundClosed, match="incarnation 1"):
        again[1].link.send(late, both[1].update(late))
    offered = again[0].link.aggregator.coordinator.next_task("north", run)
    trust = Trust(federation=pki.FEDERATION, authority=(ca.folder / "ca.crt").read_bytes())
    assert check(offered.restoration, run, number, trust, NOW) == "ada"
    for _ in range(3):
        step(second, again)
    assert second.runs.get(run).state == "FINISHED"
    assert second.runs.get(run, (0, 0)).model == first.runs.get(run, (0, 0)).model  # of the incarnation before
    events = second.runs.events(run, 0)
    restored = next(event for event in events if event.kind == "run_restored")
    assert restored.number > max(event.number for event in lost_events)
    assert [event.number for event in events] == sorted({event.number for event in events})
    assert restored.detail["operator"] == "ada"
    # all of the first incarnation counts, whatever of it was lost, and three phases of the second
    spend = both[0].update(late).attestation.spend
    told = last(second, run, "phase_published")["epsilon"]["north"]
    assert told == pytest.approx(epsilon([spend] * (4 + 3), RECORD.delta))


def test_the_mirror_of_a_restored_run_proves_what_both_incarnations_cost(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec(*NAMES, rounds=1, privacy=RECORD), "once")
    both = sites(first, run, *NAMES, noise_multiplier=4.0)
    step(first, both)
    pair.backup()
    step(first, both)  # what is lost
    known = [(0, 0), (0, 1)]
    with first.desk.store.edge() as edge:
        row = edge.run(run)
    old = [phase_mirror(first.desk, row, place) for place in known]
    pair.restore()
    shutil.copy(pair.folder / "a" / "aggregator.key", pair.folder / "b")
    second = pair.open(pair.folder / "b")
    step(second, sites(second, run, *NAMES, noise_multiplier=4.0))
    with second.desk.store.edge() as edge:
        row = edge.run(run)
    new = [phase_mirror(second.desk, row, place) for place in known]
    assert new[0] == old[0]  # told again after the restore, it is the same object
    assert new[1].key.incarnation == row.incarnation
    proof = prove([json.loads(mirror.encode(each)) for each in (*old, new[1])], row.spec)
    assert proof.findings == ()
    assert proof.epsilon == pytest.approx(last(second, run, "phase_published")["epsilon"])


def test_heads_keys_events_and_ended_runs_stay_as_they_were(pair):
    first = pair.open(pair.folder / "a")
    over = first.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    step(first, sites(first, over, "north"))
    aborted = first.runs.start(run_spec("north", rounds=1), "twice")
    first.runs.abort(aborted, "enough")
    pair.backup()
    assert pair.restore()["incarnations"] == {}
    second = pair.open(pair.folder / "b")
    assert second.runs.list() == first.runs.list()
    for run in (over, aborted):
        assert second.runs.events(run, 0) == first.runs.events(run, 0)
    assert second.intake.head("north", "patients") == first.intake.head("north", "patients") is not None
    with first.desk.store.edge() as one, second.desk.store.edge() as two:
        assert one.heads.pinned("north") == two.heads.pinned("north") is not None
    later = second.runs.start(run_spec("north", rounds=1), "thrice")
    numbers = [event.number for run in (over, aborted, later) for event in second.runs.events(run, 0)]
    assert len(numbers) == len(set(numbers))


def test_a_paused_run_stays_paused_and_its_deadline_does_not_count_the_pause(pair, clock):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    first.runs.pause(run, "night")
    pair.backup()
    clock.now = NOW.timestamp() + 5000
    pair.restore()
    second = pair.open(pair.folder / "b")
    assert second.runs.get(run).state == "PAUSED"
    clock.advance(5000)
    second.runs.resume(run)
    assert last(second, run, "run_resumed") == {"paused_s": 10000}
    clock.advance(3599)
    second.coordinator.due()
    assert second.runs.get(run).state == "RUNNING"


def test_a_backup_restored_twice_gives_no_task_the_same_name_twice(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    one = pair.restore("b")["incarnations"][run]
    two = pair.restore("c", NOW + timedelta(hours=1))["incarnations"][run]
    assert 1 < one < two


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


def test_a_restore_refuses_what_it_should_not_touch(pair, tmp_path, ca):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    with pytest.raises(InvalidInput, match="never overwritten"):
        pair.backup()
    north = load(pki.files(ca, tmp_path / "north"), NOW)
    with pytest.raises(InvalidInput, match="only an operator restores"):
        pair.restore(operator=north)
    first.desk.store.close()
    with pytest.raises(InvalidInput, match="holds rows already"):
        pair.restore("a")
    pair.restore("b")
    with pytest.raises(InvalidInput, match="holds rows already"):
        pair.restore("b")
    second = pair.open(pair.folder / "b")
    assert second.runs.get(run).state == "RUNNING"
    with pytest.raises(InvalidInput, match="is in use by"):
        pair.restore("b")


def damaged(path: Path, change) -> None:
    """The same archive with other parts, as a zip that is whole in itself."""
    with zipfile.ZipFile(path) as found:
        parts = {name: found.read(name) for name in found.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in parts.items():
            made.writestr(name, data)


def manifest(**changes):
    def change(parts):
        parts["manifest.json"] = json.dumps({**json.loads(parts["manifest.json"]), **changes}).encode()

    return change


def forged(parts):
    parts["rows/runs.jsonl"] = parts["rows/runs.jsonl"].replace(b'"RUNNING"', b'"ABORTED"')


def without_a_blob(parts):
    del parts[next(name for name in parts if name.startswith("blobs/"))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (forged, r"rows/runs.jsonl does not have its sha256"),
        (without_a_blob, "is in its manifest or in the file alone"),
        (lambda parts: parts.update(extra=b""), "extra is in its manifest or in the file alone"),
        (lambda parts: parts.pop("manifest.json"), "no manifest.json of a backup"),
        (manifest(format="deerfield backup 9"), "of format 'deerfield backup 9'"),
        (manifest(revision="9999"), "tables are of revision 9999, and this version of deerfield has"),
    ],
)
def test_a_damaged_or_foreign_archive_is_refused_before_anything_is_made(tmp_path, pair, change, said):
    first = pair.open(pair.folder / "a")
    first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    damaged(pair.archive, change)
    with pytest.raises(InvalidInput, match=said):
        pair.restore()
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("where", [0.05, 0.1, 0.3, 0.5])  # the end lists names and times, whose bits may not matter
def test_a_flipped_bit_or_a_cut_is_noticed(pair, where):
    first = pair.open(pair.folder / "a")
    first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    data = bytearray(pair.archive.read_bytes())
    data[int(len(data) * where)] ^= 1
    for changed in (data, data[: int(len(data) * where)], b"no zip"):
        pair.archive.write_bytes(changed)
        with pytest.raises(InvalidInput, match=r"damaged|cannot be read|no manifest"):
            pair.restore()


def test_a_database_that_is_not_there_or_is_of_another_revision_is_one_sentence(tmp_path, pair, database):
    with pytest.raises(InvalidInput, match=r"does not exist|of revision none"):
        pair.backup("nowhere")
    assert not list((tmp_path / "nowhere").glob("*.db*"))


def test_a_restore_is_an_event(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    pair.restore()
    restored = pair.open(pair.folder / "b")
    assert kinds(restored, run) == ["run_started", "run_restored"]
    with restored.desk.store.edge() as edge:
        log = list(entries(edge._connection))
    assert list(Walk().findings(log)) == []
    told = {entry.what: json.loads(entry.actor) for entry in log if '"call":"restore"' in entry.detail.replace(" ", "")}
    assert {"run_restored", "phase_open"} <= set(told)
    assert {(actor["role"], actor["name"]) for actor in told.values()} == {("operator", "ada")}
