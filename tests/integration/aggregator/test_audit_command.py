"""`deerfield audit-log` reads, checks and exports the log of an aggregator, also while that runs."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from deerfield.attestation import public_key
from services.aggregator.auditing import audit_log
from services.aggregator.auditing.audit_chain import Draft, Walk
from services.aggregator.auditing.audit_log import reading
from services.aggregator.auditing.trail import entries
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.fakes import run_spec
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.conftest import sqlite_in
from tests.integration.aggregator.teaching import sites


@dataclass
class Said:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capsys):
    """The aggregator's half of the command, in this process; the whole of it takes seconds to start."""

    def run(url, *arguments):
        capsys.readouterr()
        code = audit_log.main([*arguments, "--database", url] if url else arguments)
        return Said(code, *capsys.readouterr())

    return run


def whole(url, *arguments):
    line = [sys.executable, "-c", "from pipelines.cli import main; main()", "audit-log", *arguments]
    environment = os.environ | {"DEERFIELD_DATABASE": url}
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_the_command_reads_the_log_of_a_running_aggregator_and_finds_what_was_cut_off(
    aggregator, database, tmp_path, command
):
    url, key = database(tmp_path), tmp_path / "aggregator.key"
    run = aggregator.runs.start(run_spec("north", rounds=1), "once")
    kept = command(url, "head", "--signing-key", str(key))
    assert json.loads(kept.stdout)["key"] == public_key(aggregator.desk.key), kept.stderr
    (tmp_path / "head.json").write_text(kept.stdout)
    sites(aggregator, run, "north")[0].step()
    aggregator.coordinator.close_due()

    sound = command(url, "verify", "--head", str(tmp_path / "head.json"), "--key", public_key(aggregator.desk.key))
    assert (sound.returncode, sound.stderr) == (0, "")
    head = command(url, "head").stdout.strip()
    assert sound.stdout.strip().startswith("sound: ")
    assert sound.stdout.strip().endswith(f"head {head}")
    shown = command(url, "show", "--last", "2").stdout.splitlines()
    assert len(shown) == 2
    assert " head signed [aggregator] " in shown[1]
    exported = [json.loads(line) for line in command(url, "export").stdout.splitlines()]
    assert [each["sequence"] for each in exported] == list(range(1, len(exported) + 1))
    assert f"{exported[-1]['sequence']}:{exported[-1]['hash']}" == head

    auditors = tmp_path / "export.jsonl"
    auditors.write_text(command(url, "export").stdout)
    assert command("", "verify", "--export", str(auditors), "--head", head).stdout == sound.stdout
    auditors.write_text(auditors.read_text().replace('"phase_open"', '"phase_open "'))
    assert command("", "verify", "--export", str(auditors)).returncode == 1
    auditors.write_text("nonsense\n")
    assert "line 1 is no entry" in command("", "verify", "--export", str(auditors)).stderr

    drop_last(aggregator.desk.store)
    assert command(url, "verify").returncode == 0  # nothing in the log itself can tell
    cut = whole(url, "verify", "--head", head)
    assert (cut.returncode, cut.stderr) == (1, "")
    assert "entries at its end are missing" in cut.stdout
    assert "DAMAGED" in cut.stdout


def test_a_log_that_grows_while_it_is_read_is_read_as_it_was_when_that_began(database, tmp_path):
    url = database(tmp_path)
    store = Store(open_database(url, takeover_s=1))
    with store.edge() as edge:
        edge.trail.append([Draft(kind="edge", what=str(number), actor={}, detail={}) for number in range(2500)])
    walk, seen = Walk(), 0
    with reading(url) as connection:
        for seen, _ in enumerate(watched(walk, entries(connection)), 1):
            if seen in (1, 1500):
                with store.edge() as edge:
                    edge.end_run("r", "ABORTED", "test")
    assert (seen, walk.head.sequence) == (2500, 2500)
    assert len(logged(store)) == 2502
    with reading(url) as connection, pytest.raises(DBAPIError, match=r"read-?only"):
        connection.execute(text("INSERT INTO cursors VALUES ('x', 1)"))
    store.close()


def watched(walk, log):
    """The entries, each once the walk has been past it and found nothing."""
    for entry in log:
        assert list(walk.findings([entry])) == []
        yield entry


def drop_last(store):
    """As somebody would who owns the database."""
    with store._engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER audit_delete")
        else:
            connection.exec_driver_sql("ALTER TABLE audit DISABLE TRIGGER USER")
        connection.exec_driver_sql("DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)")


@pytest.mark.parametrize(
    ("url", "arguments", "said"),
    [
        ("sqlite:////nowhere/x.db", ["verify"], "/nowhere/x.db is no file"),
        ("nonsense", ["verify"], "is no database URL"),
        ("sqlite:///empty.db", ["show"], "has no audit log"),
        ("", ["verify", "--export", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        ("", ["verify", "--head", "7"], "a head is SEQUENCE:HASH"),
        ("", ["head", "--signing-key", "nowhere.key"], "nowhere.key is no file"),
    ],
)
def test_what_the_command_cannot_use_is_one_sentence(tmp_path, command, url, arguments, said):
    (tmp_path / "empty.db").touch()
    if not url:
        open_database(sqlite_in(tmp_path)).close()
    url = (url or sqlite_in(tmp_path)).replace("empty.db", str(tmp_path / "empty.db"))
    refused = command(url, *arguments)
    assert refused.returncode == 2, refused.stdout
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["show"], "nowhere/x.db is no file"), (["verify", "--key", "7"], "64 hexadecimal digits")],
)
def test_the_whole_command_passes_on_what_the_aggregators_code_says(arguments, said):
    refused = whole("sqlite:////nowhere/x.db", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
