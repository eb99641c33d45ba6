"""An aggregator with the wrong database over blobs of another one: refused at the start, and nothing is deleted."""

import os
import subprocess
import threading
import time
from hashlib import sha256

import pytest
from sqlalchemy import insert

from deerfield.certificates import load
from deerfield.errors import InvalidInput, Superseded
from deerfield.identity import Peer
from deerfield.strategies import make
from services.aggregator.backups.backup import backup
from services.aggregator.backups.restore import restore
from services.aggregator.blobstore.bucket import open_blobs, open_marks, read_place
from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.ownership import check_owned, take_over
from services.aggregator.blobstore.retention import KEEP
from services.aggregator.desk import Desk
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from services.aggregator.sql.tables import runs
from tests import pki, s3
from tests.attesting import key_of
from tests.fakes import run_spec
from tests.integration.aggregator.processes import SITES, command, running

ENVIRONMENT = {**os.environ, **s3.ENVIRONMENT}
SAYS = "holds published states, and the database has no run, so they belong to another database"
ANOTHERS = "belongs to another database, whose tensors this one would delete in time"


def flags(folder, place, name):
    blobs = place(folder / "blobs")
    return ["--blobs", blobs, "--database", f"sqlite:///{folder / name}", "--key", str(folder / "key")]


def refused(folder, *given):
    """What an aggregator says that must not start."""
    ended = subprocess.run(
        command(folder, *given), check=False, capture_output=True, text=True, timeout=60, env=ENVIRONMENT
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def published(folder, place):
    return open_blobs(read_place(place(folder / "blobs")), environment=s3.ENVIRONMENT)[1]


def test_a_mistyped_database_is_refused_at_every_start_and_the_right_one_is_not(tmp_path, place):
    right, wrong = flags(tmp_path, place, "right.db"), flags(tmp_path, place, "wrong.db")
    with running(tmp_path, *right, env=ENVIRONMENT) as aggregator, aggregator.runs() as runs:
        run = runs.start(run_spec(*SITES), "once")
    before = {blob.sha for blob in published(tmp_path, place).kept()}
    assert before
    for _ in range(2):  # as a machine that restarts what has ended
        said = refused(tmp_path, *wrong)
        assert ANOTHERS in said
        assert said.startswith("error: blobs: ")
        assert "--database" in said
        assert "--blobs" in said
    assert {blob.sha for blob in published(tmp_path, place).kept()} == before
    with running(tmp_path, *right, env=ENVIRONMENT) as aggregator, aggregator.runs() as runs:
        assert runs.get(run).state == "RUNNING"


def test_what_an_aggregator_left_that_was_killed_before_its_first_run_was_written_does_not_lock_it_out(tmp_path, place):
    given = flags(tmp_path, place, "a.db")
    for attempt in range(2):  # the last one over what the one before has left, and with a run
        with running(tmp_path, *given, env=ENVIRONMENT) as aggregator, aggregator.runs() as runs:
            if attempt == 1:
                assert runs.start(run_spec(*SITES), "once")
        data = f"left {attempt}".encode()
        published(tmp_path, place).put(sha256(data).hexdigest(), data)


class Owning:
    """A place for blobs, and databases that are opened over it."""

    def __init__(self, folder, place):
        self.folder, self.place, self.blobs = folder, read_place(place(folder / "blobs")), published(folder, place)
        self.marks = open_marks(self.place, s3.ENVIRONMENT)
        self.stores = []

    def store(self, name, *, used=False):
        store = Store(open_database(f"sqlite:///{self.folder / name}"))
        self.stores.append(store)
        if used:
            row = {"run": "r", "request_id": "q", "incarnation": 1, "spec": "{}", "state": "FINISHED"}
            with store.edge() as edge:
                edge._connection.execute(insert(runs).values(row | {"started_at": 1.0}))
        return store

    def own(self, store):
        return check_owned(store, self.blobs, self.marks, self.place)

    def put(self, data=b"state"):
        self.blobs.put(sha256(data).hexdigest(), data)

    def marked(self):
        return len(list(self.marks.kept()))

    def take_over(self, *given):
        take_over(self.marks, self.place, *given)


@pytest.fixture
def owning(tmp_path, place):
    found = Owning(tmp_path, place)
    yield found
    for store in found.stores:
        store.close()


def test_a_database_that_was_there_before_is_refused_over_anothers_blobs_however_young_with_and_without_a_run(owning):
    first = owning.store("first.db")
    owning.own(first)
    owning.put()
    for used in (False, True):
        with pytest.raises(InvalidInput, match=r"belongs to another database.*remove owner/[0-9a-f]{2}/[0-9a-f]{64}"):
            owning.own(owning.store(f"{used}.db", used=used))
    owning.own(first)()  # also before its first run is written


def test_blobs_from_before_there_were_marks_go_to_a_database_with_a_run_and_to_no_other(owning):
    owning.put()
    with pytest.raises(InvalidInput, match=SAYS):
        owning.own(owning.store("without.db"))
    assert owning.marked() == 0
    owning.own(owning.store("with.db", used=True))()
    assert owning.marked() == 1


def test_of_two_databases_that_start_at_once_none_goes_on_beside_the_other(owning):
    done, refused, at_once = [], [], threading.Barrier(2)
    stores = [owning.store(name) for name in ("a.db", "b.db")]

    def start(store):
        at_once.wait(30)
        try:
            done.append(owning.own(store))
        except InvalidInput as error:
            refused.append(str(error))

    both = [threading.Thread(target=start, args=(store,)) for store in stores]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert len(done) == owning.marked() == 2 - len(refused) <= 1
    assert all("belongs to another database" in said for said in refused)
    for check in done:
        check()


def test_nothing_is_deleted_once_the_blobs_are_anothers(owning):
    store = owning.store("old.db")
    check = owning.own(store)
    owning.put()
    with store.edge() as edge:
        before = edge.kept.identity()
    uploads, _ = open_blobs(owning.place, environment=s3.ENVIRONMENT)
    desk = Desk(
        store=store,
        uploads=uploads,
        published=owning.blobs,
        make=make,
        clock=lambda: time.time() + 1000 * 3600,
        key=key_of("a"),
        check_blobs=check,
    )
    owning.take_over("of a restore", before)
    with pytest.raises(Superseded, match="belongs to another database by now"):
        Collector(desk, KEEP).collect()
    assert len(list(owning.blobs.kept())) == 1
    with pytest.raises(InvalidInput, match="belongs to another database"):
        owning.own(store)
    with pytest.raises(InvalidInput, match="belongs to another database"):
        owning.take_over("of a third", before)
    owning.take_over("of a restore", before)  # as after one that was broken off


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_a_restore_takes_the_blobs_over_and_the_old_database_is_shut_out(tmp_path, owning):
    old, archive = owning.store("old.db"), tmp_path / "backup.zip"
    owning.own(old)
    ca = pki.authority(tmp_path / "ca")
    files = pki.files(ca, tmp_path / "ada", Peer(federation=pki.FEDERATION, role="operator", name="ada"))
    backup(archive, f"sqlite:///{tmp_path / 'old.db'}", owning.blobs)
    restore(archive, f"sqlite:///{tmp_path / 'new.db'}", owning.place, load(files, pki.NOW), pki.NOW)
    with pytest.raises(InvalidInput, match="belongs to another database"):
        owning.own(old)
    owning.own(owning.store("new.db"))()


def test_what_else_lies_among_the_published_is_named(tmp_path):
    (tmp_path / "blobs" / "published").mkdir(parents=True)
    (tmp_path / "blobs" / "published" / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(tmp_path)
