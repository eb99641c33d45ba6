"""An aggregator with the wrong database over blobs of another one: refused at the start, and nothing is deleted."""

import os
import subprocess
import time
from hashlib import sha256

import pytest

from deerfield.errors import InvalidInput
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.blobstore.ownership import check_owned
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests import s3
from tests.fakes import run_spec
from tests.integration.aggregator.processes import SITES, command, running

ENVIRONMENT = {**os.environ, **s3.ENVIRONMENT}
SAYS = "holds published states, and the database has no run, so they belong to another database"


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
        assert SAYS in said
        assert said.startswith("error: blobs: ")
        assert "--database" in said
        assert "--blobs" in said
    assert {blob.sha for blob in published(tmp_path, place).kept()} == before
    with running(tmp_path, *right, env=ENVIRONMENT) as aggregator, aggregator.runs() as runs:
        assert runs.get(run).state == "RUNNING"


def test_what_an_aggregator_left_that_was_killed_before_its_first_run_was_written_does_not_lock_it_out(tmp_path, place):
    given = flags(tmp_path, place, "a.db")
    for attempt in range(3):  # the last one over what the one before has left, and with a run
        with running(tmp_path, *given, env=ENVIRONMENT) as aggregator, aggregator.runs() as runs:
            if attempt == 2:
                assert runs.start(run_spec(*SITES), "once")
        data = f"left {attempt}".encode()
        published(tmp_path, place).put(sha256(data).hexdigest(), data)


def test_a_database_without_a_run_is_refused_over_blobs_that_would_be_collected(tmp_path, place):
    store, blobs, data = Store(open_database(f"sqlite:///{tmp_path / 'a.db'}")), published(tmp_path, place), b"state"
    where = read_place(place(tmp_path / "blobs"))
    check_owned(store, blobs, where, time.time() + 60)  # nothing is there
    blobs.put(sha256(data).hexdigest(), data)
    check_owned(store, blobs, where, time.time() - 60)
    with pytest.raises(InvalidInput, match=SAYS):
        check_owned(store, blobs, where, time.time() + 60)
    store.close()


def test_what_else_lies_among_the_published_is_named(tmp_path):
    (tmp_path / "blobs" / "published").mkdir(parents=True)
    (tmp_path / "blobs" / "published" / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(tmp_path)
