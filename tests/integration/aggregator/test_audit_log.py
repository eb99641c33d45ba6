"""The audit log over real databases, real calls and processes that die."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from deerfield.attestation import public_key
from deerfield.errors import BadRequest, NotAuthenticated, NotMember, Unreachable
from deerfield.wire.client import RunsClient
from services.aggregator.auditing import audit_log
from services.aggregator.auditing.audit_chain import Draft, Walk
from services.aggregator.auditing.audit_log import reading
from services.aggregator.auditing.decisions import MOST, Decisions
from services.aggregator.auditing.trail import CALL, Call, entries
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from services.aggregator.sql.tables import audit
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import served, sqlite_in
from tests.integration.aggregator.security import METHODS, Consortium, answer, channel_of
from tests.integration.aggregator.test_rounds import sites
from tests.integration.aggregator.test_security_matrix import CELLS

NORTH = {"role": "site", "name": "north", "serial": "0a"}


def logged(store, kind=None):
    with store.edge() as edge:
        found = list(entries(edge._connection))
    return [entry for entry in found if kind in (None, entry.kind)]


def whats(store, kind="edge"):
    return [entry.what for entry in logged(store, kind)]


def findings(store, **options):
    return list(Walk(**options).findings(logged(store)))


@pytest.fixture
def store(database, tmp_path):
    found = Store(open_database(database(tmp_path), takeover_s=1))
    yield found
    found.close()


# --- edges ---


def test_a_runs_edges_are_all_in_the_log_and_each_published_phase_signs_it(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", rounds=1), "once")
    both = sites(aggregator, run, "north", "south")
    for _ in "BA":
        for site in both:
            site.step()
        aggregator.coordinator.close_due()
    store, key = aggregator.desk.store, public_key(aggregator.desk.key)
    told = whats(store)
    assert told[:2] == ["run_started", "phase_open"]
    assert [told.count(kind) for kind in ("task_taken", "upload_sealed", "phase_published", "run_finished")] == [
        4, 4, 2, 1
    ]  # fmt: skip
    assert findings(store, key=key) == []
    heads = logged(store, "head")
    assert [json.loads(head.detail)["sequence"] for head in heads] == [head.sequence - 1 for head in heads]
    assert len(heads) == 2
    sealed = next(entry for entry in logged(store) if entry.what == "upload_sealed")
    assert (sealed.run, json.loads(sealed.detail)) == (
        run, {"incarnation": 1, "round": 0, "phase": 0, "site": "north"}
    )  # fmt: skip


def test_a_rolled_back_edge_is_not_in_the_log(store):
    def fails() -> None:
        with store.edge() as edge:
            edge.end_run("r", "ABORTED", "test")
            raise BadRequest("no")

    with pytest.raises(BadRequest):
        fails()
    assert logged(store) == []
    with store.edge() as edge:
        edge.end_run("r", "ABORTED", "test")
    assert whats(store) == ["run_aborted"]


def test_no_entry_can_be_changed_or_deleted_and_none_follows_another_ones_place(store):
    with store.edge() as edge:
        edge.trail.append([Draft(kind="edge", what=word, actor={}, detail={}) for word in ("one", "two")])
    before = logged(store)
    row = {name: getattr(before[0], name) for name in before[0].__dataclass_fields__}
    columns, values = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
    tries = [
        (update(audit).values(what="x"), {}),
        (delete(audit).where(audit.c.sequence == 2), {}),
        (text(f"INSERT INTO audit ({columns}) VALUES ({values})"), {**row, "sequence": 3}),
        (text(f"INSERT INTO audit ({columns}) VALUES ({values})"), {**row, "previous": "f" * 64}),
    ]
    if store._engine.dialect.name == "sqlite":
        tries.append((text(f"INSERT OR REPLACE INTO audit ({columns}) VALUES ({values})"), {**row, "what": "x"}))
    else:
        tries.append((text("TRUNCATE audit"), {}))
    for statement, parameters in tries:
        with pytest.raises(DBAPIError, match=r"append-only|unique|UNIQUE"), store._engine.begin() as connection:
            connection.execute(statement, parameters)
    assert logged(store) == before


def test_calls_beside_each_other_make_one_chain_and_each_names_its_own_caller(store):
    def work(name: str) -> None:
        CALL.set(Call("Abort", {"role": "operator", "name": name}))
        for _ in range(20):
            with store.edge() as edge:
                edge.end_run(name, "ABORTED", "test")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert findings(store) == []
    told = logged(store, "edge")
    assert len(told) == 80
    assert all(json.loads(entry.actor)["name"] == entry.run for entry in told)
    assert {json.loads(entry.detail)["call"] for entry in told} == {"Abort"}


# --- decisions ---


def test_every_call_by_every_role_leaves_the_decision_that_was_taken(aggregator, tmp_path):
    consortium = Consortium.found(tmp_path / "consortium")
    with served(aggregator, gate=consortium.gate()) as server:
        for role in ("site", "operator", "observer"):
            with channel_of(server.ports.listening, consortium.files(role, "north")) as channel:
                for method in METHODS:
                    answer(channel, method)
        revoked = consortium.files("site", "gone")
        consortium.revoke(revoked)
        with channel_of(server.ports.listening, revoked) as channel:
            for method in METHODS:
                answer(channel, method)
    found = {}
    for entry in logged(aggregator.desk.store, "decision"):
        actor, detail = json.loads(entry.actor), json.loads(entry.detail)
        assert actor["serial"]
        assert detail["count"] == 1
        found[actor["role"], actor["name"], entry.what] = detail
    for method in METHODS:
        for role in ("site", "operator", "observer"):
            told = found[role, "north", method.name]
            allowed = (method.name, role, "no") not in CELLS
            assert told["answer"] == ("allowed" if allowed else "denied"), (role, method.name)
            assert allowed or told["reason"] == "NOT_MEMBER"
        told = found["site", "gone", method.name]
        assert (told["answer"], told["reason"]) == ("denied", "NOT_AUTHENTICATED")
        assert "is revoked" in told["sentence"]
    assert len(found) == 4 * len(METHODS)
    assert whats(aggregator.desk.store, "process") == ["started", "ended"]


def test_what_an_operator_does_is_in_the_log_with_who_did_it_also_where_it_changes_nothing(aggregator):
    with served(aggregator) as server:
        runs = server.runs
        run = runs.start(run_spec("north", rounds=1), "once")
        site = sites(aggregator, run, "north")[0]
        site.step()
        aggregator.coordinator.close_due()
        runs.evaluated(run, 0, 0, {"accuracy": 0.5})
        runs.abort(run, "enough")
        runs.abort(run, "again")
        at_once = logged(aggregator.desk.store)
    by = [entry for entry in at_once if json.loads(entry.actor)["role"] == "operator"]
    assert [(entry.kind, entry.what, json.loads(entry.detail).get("call")) for entry in by] == [
        ("edge", "run_started", "Start"),
        ("edge", "phase_open", "Start"),
        ("edge", "evaluated", "Evaluated"),
        ("edge", "run_aborted", "Abort"),
        ("decision", "Abort", None),
    ]
    assert findings(aggregator.desk.store) == []


def test_a_flood_of_denials_is_one_entry_at_once_and_one_count_a_minute(store):
    decisions = Decisions(store, lambda: 5.0)
    for number in range(1000):
        call = Call("Start", NORTH)
        call.refused = NotMember(f"attempt {number}")
        decisions.made(call)
    assert [json.loads(entry.detail)["count"] for entry in logged(store)] == [1]
    decisions.flush()
    told = [json.loads(entry.detail) for entry in logged(store)]
    assert [detail["count"] for detail in told] == [1, 999]
    assert {(detail["answer"], detail["reason"], detail["sentence"]) for detail in told} == {
        ("denied", "NOT_MEMBER", "attempt 0")
    }
    decisions.flush()
    assert len(logged(store)) == 2


def test_polls_of_many_callers_are_counted_in_bounded_memory_and_none_is_lost(tmp_path):
    store = Store(open_database(sqlite_in(tmp_path)))
    decisions = Decisions(store, lambda: 5.0)
    for number in range(MOST + 500):
        for _ in range(2):
            decisions.made(Call("NextTask", {"role": "site", "name": str(number)}))
    assert logged(store) == []
    assert len(decisions._counts) == MOST + 1
    decisions.flush()
    told = logged(store)
    assert sum(json.loads(entry.detail)["count"] for entry in told) == 2 * (MOST + 500)
    assert json.loads(told[-1].actor) == {"role": "others"}
    store.close()


def test_however_many_poll_denials_and_operators_actions_are_named(tmp_path):
    store = Store(open_database(sqlite_in(tmp_path)))
    decisions = Decisions(store, lambda: 5.0)
    for number in range(MOST + 1):
        decisions.made(Call("NextTask", {"role": "site", "name": str(number)}))
    denied = Call("Start", NORTH)
    denied.refused = NotMember("no operator")
    decisions.made(denied)
    for _ in range(2):  # of a run that is over: nothing changes
        decisions.made(Call("Abort", {"role": "operator", "name": "ada"}))
    told = [(entry.what, json.loads(entry.actor)["name"], json.loads(entry.detail)["count"]) for entry in logged(store)]
    assert told == [("Start", NORTH["name"], 1), ("Abort", "ada", 1), ("Abort", "ada", 1)]
    store.close()


def test_a_call_that_changed_something_is_named_by_its_edge_alone(store):
    decisions, call = Decisions(store, lambda: 5.0), Call("Decline", NORTH)
    CALL.set(call)
    with store.edge() as edge:
        edge.set_away(key_of_nothing(), "north", "LEFT")
    CALL.set(None)
    decisions.made(call)
    decisions.flush()
    assert [(entry.what, json.loads(entry.actor)) for entry in logged(store)] == [("site_left", NORTH)]


def key_of_nothing():
    from deerfield.exchange import Key

    return Key(run="r", incarnation=1, round=0, phase=0)


def test_decisions_wait_for_a_database_that_is_away(tmp_path):
    class Away(Store):
        gone = True

        def edge(self):
            if self.gone:
                raise Unreachable("the database failed: gone")
            return super().edge()

    store = Away(open_database(sqlite_in(tmp_path)))
    decisions, call = Decisions(store, lambda: 5.0), Call("Start", NORTH)
    call.refused = NotAuthenticated("revoked")
    decisions.made(call)
    decisions.flush()
    store.gone = False
    decisions.flush()
    assert [json.loads(entry.detail)["count"] for entry in logged(store)] == [1]
    store.close()


# --- crashes ---


CRASH = """
import sys
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.integration.mortal import killing
store = Store(open_database(sys.argv[1]), on_edge=killing(sys.argv[2]))
for number in range(5):
    with store.edge() as edge:
        edge.end_run(f"run {number}", "ABORTED", "test")
"""


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_process_that_is_killed_leaves_no_gap_and_no_fork_and_exactly_the_committed_edges(database, tmp_path, when):
    url, committed = database(tmp_path), 0
    for _ in range(3):
        died = subprocess.run([sys.executable, "-c", CRASH, url, f"run_aborted:{when}#3"], check=False, timeout=60)
        assert died.returncode == -signal.SIGKILL
        committed += 2 if when == "before_commit" else 3
    store = Store(open_database(url, takeover_s=30))
    assert whats(store) == ["run_aborted"] * committed
    assert findings(store) == []
    store.close()


# --- the command ---


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


def test_a_server_that_was_killed_leaves_a_start_without_an_end_and_a_sound_log(database, tmp_path):
    url = database(tmp_path)
    line = [sys.executable, "-m", "services.aggregator", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    line += ["--database", url, "--blobs", str(tmp_path / "blobs"), "--key", str(tmp_path / "key")]

    def serve(end):
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            address = json.loads(process.stdout.readline())["listening"]
            with RunsClient.connect(address) as runs:
                runs.start(run_spec("north"), end.name)
                runs.list()
            process.send_signal(end)
            assert process.wait(60) == (-signal.SIGKILL if end == signal.SIGKILL else 0)

    serve(signal.SIGKILL)
    serve(signal.SIGTERM)
    store = Store(open_database(url, takeover_s=60))
    assert whats(store, "process") == ["started", "started", "ended"]
    assert whats(store) == ["run_started", "phase_open"] * 2
    assert [(entry.what, json.loads(entry.detail)["count"]) for entry in logged(store, "decision")] == [("List", 1)]
    assert findings(store) == []
    store.close()
