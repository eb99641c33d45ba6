"""A database of an earlier version is refused until somebody migrates it: by a command, or at a start that may."""

import json
import os
import re
import subprocess
import threading

import pytest
from sqlalchemy import create_engine, event, inspect
from structlog.testing import capture_logs

from deerfield.errors import InvalidInput
from pipelines.processes.maintenance import told_migrate
from services.aggregator.backups.migration import migrate
from services.aggregator.settings import read_settings
from services.aggregator.sql import schema
from services.aggregator.sql.database import _begin_sqlite, _prepare_sqlite, open_database
from services.aggregator.sql.store import Store
from services.databases import read_address
from tests.command import deerfield
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.database.migrating import EARLIER, LACKING, migrations, newest, older, revision
from tests.integration.aggregator.processes import command, running


def test_an_older_database_is_refused_naming_what_it_lacks_and_what_to_do_and_stays_as_it_is(url):
    older(url)
    said = (
        rf"^database: .* is of revision {EARLIER}, made by an earlier version of deerfield, and lacks the migrations "
        rf"{LACKING}.*; make a backup with that version, then run deerfield aggregator migrate, or start with "
        "--migrate$"
    )
    for _ in range(2):
        with pytest.raises(InvalidInput, match=said) as caught:
            open_database(url)
        assert read_address(url).where in str(caught.value)
        assert revision(url) == EARLIER
    engine = create_engine(url)
    assert "champions" not in inspect(engine).get_table_names()
    engine.dispose()


def test_a_migration_is_one_line_of_the_log_and_an_answer_and_then_there_is_nothing_to_do(url):
    older(url)
    with capture_logs() as lines:
        first, second = migrate(url), migrate(url)
    [line] = [line for line in lines if line["event"] == "migrated the database"]
    assert (line["log_level"], line["from_revision"], line["to_revision"]) == ("info", EARLIER, newest())
    assert line["where"] == read_address(url).where == first["where"]
    assert first["migrations"] == line["migrations"]
    assert first["migrations"][0] == LACKING
    assert (second["migrations"], second["revision"], revision(url)) == ([], newest(), newest())
    store = Store(open_database(url))
    [entry] = logged(store, "process")
    said = json.loads(entry.detail)
    assert (entry.what, said["from_revision"], said["to_revision"]) == ("migrated", EARLIER, newest())
    assert (said["migrations"], said["pid"]) == (first["migrations"], os.getpid())
    store.close()


def test_of_two_migrations_at_once_one_waits_and_finds_nothing_to_do(url):
    older(url)
    done = []
    both = [threading.Thread(target=lambda: done.append(migrate(url)["migrations"])) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert sorted(map(bool, done)) == [False, True]
    assert revision(url) == newest()


def test_a_database_that_an_aggregator_has_is_not_migrated(url):
    holder = open_database(url)
    try:
        with pytest.raises(InvalidInput, match="is in use by the aggregator on"):
            open_database(url, 0.3, prepare=schema.upgrade)
    finally:
        holder.close()


def test_what_is_not_there_or_empty_is_not_migrated_but_named(url, tmp_path):
    with pytest.raises(InvalidInput, match=r"does not exist; name the one|is empty; an aggregator makes its tables"):
        migrate(url)
    assert not (tmp_path / "a.db").exists()
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_migration_that_something_is_in_the_way_of_is_named_and_nothing_was_changed(url):
    older(url, "CREATE TABLE promotions (id INTEGER)")
    said = (
        rf"migration {LACKING} failed \(.*promotions.* already exists.*\), and nothing was changed.* 0004.*restore the"
    )
    with pytest.raises(InvalidInput, match=said) as caught:
        migrate(url)
    assert read_address(url).where in str(caught.value)
    assert "check the address" not in str(caught.value)
    engine = create_engine(url)
    assert "champions" not in inspect(engine).get_table_names()  # which the migration makes first
    engine.dispose()
    assert revision(url) == EARLIER


def test_of_several_migrations_the_one_that_failed_is_named_and_those_before_it_are_undone(url, tmp_path):
    older(url, "ALTER TABLE runs ADD COLUMN colour INTEGER")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)  # our way to begin a transaction
        event.listen(engine, "begin", _begin_sqlite)
    said = r"over there: migration r9999_colour failed .*colour"
    with pytest.raises(InvalidInput, match=said), engine.begin() as connection:
        schema.upgrade(connection, "over there", migrations(tmp_path))
    assert "champions" not in inspect(engine).get_table_names()
    engine.dispose()
    assert revision(url) == EARLIER


# --- by the command, and at a start ---


def test_an_aggregator_refuses_an_older_database_unless_it_may_migrate_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    older(url)
    ended = subprocess.run(command(tmp_path), check=False, capture_output=True, text=True, timeout=60)
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert (ended.returncode, ended.stdout, revision(url)) == (2, "", EARLIER)
    assert re.search(rf"a\.db is of revision {EARLIER}.* {LACKING}.*deerfield aggregator migrate", line)
    with running(tmp_path, env={**os.environ, "DEERFIELD_MIGRATE": "1"}) as aggregator:
        assert aggregator.said("migrated the database") == 1
        assert revision(url) == newest()


@pytest.mark.parametrize(
    ("flags", "value", "migrates"),
    [([], "1", True), ([], "0", False), ([], "", False), (["--migrate"], "0", True), ([], None, False)],
)
def test_the_flag_and_its_variable(flags, value, migrates):
    environment = {} if value is None else {"DEERFIELD_MIGRATE": value}
    assert read_settings(flags, environment).migrate is migrates


def test_a_variable_that_is_neither_on_nor_off_is_refused():
    with pytest.raises(InvalidInput, match="DEERFIELD_MIGRATE is 'yes'; set it to 1 or 0"):
        read_settings([], {"DEERFIELD_MIGRATE": "yes"})


def test_the_command_asks_whether_there_is_a_backup_and_says_what_it_has_done(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    older(url)
    code, said = deerfield("aggregator", "migrate", "--database", url, answer="n\n")
    assert code == 1
    assert "only a backup that it has made leads back" in said
    assert revision(url) == EARLIER
    code, said = deerfield("aggregator", "migrate", "--database", url, answer="y\n")
    assert (code, revision(url)) == (0, newest())
    assert f"migrated {tmp_path / 'a.db'} to revision {newest()}: {LACKING}" in said
    assert list(told_migrate(migrate(url))) == [
        f"{tmp_path / 'a.db'} is of revision {newest()} already; nothing was changed"
    ]
