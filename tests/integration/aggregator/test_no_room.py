"""A disk that is full or read-only under an aggregator: said once, nothing is broken, and it goes on by itself."""

import errno
import resource
import sqlite3
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from deerfield.errors import NoRoom
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from services.aggregator.blobstore.folder_blobs import FolderBlobs, tidy
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.processes import command, digest_undisturbed, running, working
from tests.integration.federation import wait_for

FULL, ROOM = "a store failed", "a store works again"
ONCE = Backoff(patience_s=0)


@dataclass
class Disk:
    """A small one of its own."""

    folder: Path

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(OSError, match="No space") as full:
            (self.folder / "trial").write_bytes(b"x")
        assert full.value.errno == errno.ENOSPC
        (self.folder / "trial").unlink()

    def clear(self) -> None:
        (self.folder / "ballast").unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)


@contextmanager
def disk(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", "size=2m", "deerfield-test", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here, so no disk can be filled")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small(tmp_path):
    with disk(tmp_path / "small") as found:
        yield found


def blob(size: int) -> tuple[str, bytes]:
    data = bytes(size - 1) + b"x"
    return sha256(data).hexdigest(), data


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("how", ["full", "ro"])
def test_a_blob_that_cannot_be_written_is_refused_and_leaves_nothing(small, how):
    blobs = FolderBlobs(small.folder / "blobs")
    blobs.put(*blob(10_000))
    for path in (small.folder / "blobs").iterdir():
        assert path.is_dir()
    small.remount("ro") if how == "ro" else small.fill()
    sha, data = blob(20_000)
    for _ in range(2):
        with pytest.raises(NoRoom, match=r"blobs cannot be written \((No space left|Read-only file)"):
            blobs.put(sha, data)
        assert not blobs.has(sha)
        assert len(files(small.folder / "blobs")) == 1
    assert blobs.get(blob(10_000)[0]) == blob(10_000)[1]
    small.remount("rw") if how == "ro" else small.clear()
    blobs.put(sha, data)
    assert blobs.get(sha) == data


def test_a_blob_that_only_half_fits_is_not_there(small):
    blobs = FolderBlobs(small.folder / "blobs")
    sha, data = blob(3 << 20)
    with pytest.raises(NoRoom):
        blobs.put(sha, data)
    assert not blobs.has(sha)
    assert files(small.folder) == []


def test_what_a_killed_process_left_half_written_is_removed_at_the_start(tmp_path):
    sha, data = blob(100)
    FolderBlobs(tmp_path).put(sha, data)
    (tmp_path / sha[:2] / f"{sha}.0123.part").write_bytes(data[:50])
    tidy(tmp_path)
    assert FolderBlobs(tmp_path).get(sha) == data
    assert files(tmp_path) == [tmp_path / sha[:2] / sha]


def written_until_refused(store: Store, said: str) -> int:
    """How many events there are once one is refused: some fit into what the database has already taken."""
    kept = 0
    with pytest.raises(NoRoom, match=said):  # noqa: PT012
        for _ in range(100):
            with store.edge() as edge:
                edge.add_event("r", "kind", {"text": "x" * 20_000}, 0.0)
            kept += 1
    return kept


@pytest.mark.parametrize("how", ["full disk", "failing write"])
def test_a_transaction_that_cannot_be_written_is_refused_and_leaves_nothing(small, how):
    path = small.folder / "a.db"
    store = Store(open_database(f"sqlite:///{path}"))
    if how == "full disk":
        small.fill()
        kept = written_until_refused(store, r"the database cannot be written \(.*full")
        small.clear()
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            kept = written_until_refused(store, r"the database cannot be written \(disk I/O error")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with store.edge() as edge:
        assert len(edge.events(0)) == kept
        edge.add_event("r", "kind", {}, 0.0)
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_server_that_may_only_be_read_is_a_disk_without_room(postgres_server):
    name = postgres_server.create()
    store = Store(open_database(postgres_server.url(name)))

    def let_write(which: str) -> None:
        with postgres_server.connect() as connection:
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {which}")
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    let_write("on")
    with pytest.raises(NoRoom, match=r"cannot be written \(.*read-only transaction"), store.edge() as edge:
        edge.set_cursor("r", 1)
    with store.edge() as edge:
        assert edge.cursor("r") == 0
    let_write("off")
    with store.edge() as edge:
        edge.set_cursor("r", 2)
    store.close()
    postgres_server.drop(name)


@pytest.mark.parametrize("which", ["uploads", "published"])
def test_a_run_whose_blobs_have_no_room_goes_on_when_there_is_some(tmp_path, which):
    with disk(tmp_path / "blobs" / which) as small, running(tmp_path) as aggregator, aggregator.runs() as runs:
        run = runs.start(run_spec("north", "south", rounds=2), "once")
        small.fill()
        with working(aggregator, run):
            wait_for(lambda: aggregator.said(FULL), 30)
            with connect(aggregator.listening, role="operator") as channel:
                assert RunsClient(channel, backoff=ONCE).get(run).state == "RUNNING"
            small.clear()
            assert [event.kind for event in runs.watch(run)][-1] == "run_finished"
        assert runs.get(run).model.digest == digest_undisturbed(2)
        assert (aggregator.said(FULL), aggregator.said(ROOM)) == (1, 1)
        assert aggregator.said("No space left on device") == 1
        assert aggregator.said("Traceback") == 0
        assert not list((tmp_path / "blobs").rglob("*.part"))


def test_a_site_is_told_that_there_is_no_room(tmp_path):
    with disk(tmp_path / "blobs" / "uploads") as small, running(tmp_path) as aggregator, aggregator.runs() as runs:
        run = runs.start(run_spec("north"), "once")
        with connect(aggregator.listening, role="site", site="north") as channel:
            north = TeachingSite("north", SiteClient(channel, run=run, backoff=ONCE), adapter(0))
            assignment = north.link.next_task()
            small.fill()
            with pytest.raises(NoRoom, match="make room there"):
                north.link.send(assignment, north.update(assignment))


def test_a_run_whose_database_has_no_room_goes_on_when_there_is_some(small, tmp_path):
    database = f"sqlite:///{small.folder / 'a.db'}"
    with running(tmp_path, database=database) as aggregator, aggregator.runs() as runs:
        run = runs.start(run_spec("north", "south", rounds=2), "once")
        small.fill()
        with connect(aggregator.listening, role="operator") as channel:
            impatient = RunsClient(channel, backoff=ONCE)
            with pytest.raises(NoRoom, match="the database cannot be written"):  # noqa: PT012
                for number in range(200):  # some fit into what it has already taken
                    impatient.start(run_spec("nobody"), f"request {number}")
            assert impatient.get(run).state == "RUNNING"
        with working(aggregator, run):
            small.clear()
            assert [event.kind for event in runs.watch(run)][-1] == "run_finished"
        assert runs.get(run).model.digest == digest_undisturbed(2)
        assert aggregator.said("Traceback") == 0
        assert aggregator.said(FULL) == aggregator.said(ROOM) <= 2
        aggregator.process.terminate()
        assert aggregator.process.wait(20) == 0
    with sqlite3.connect(small.folder / "a.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_blobs_on_a_read_only_disk_are_one_sentence_at_the_start(small, tmp_path):
    small.remount("ro")
    blobs = ["--blobs", str(small.folder)]
    found = subprocess.run(command(tmp_path, *blobs), check=False, capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout) == (2, "")
    assert (
        found.stderr.strip().splitlines()[-1].startswith(f"error: blobs: {small.folder}/uploads cannot be written to (")
    )
    assert "Traceback" not in found.stderr
