"""Promotions and files as an operator asks for them: over gRPC, many at once, beside an MLflow that comes and goes."""

import http.server
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from deerfield.errors import BadRequest, ChampionMoved, InvalidInput, TooLarge, UnknownRun, Unreachable
from deerfield.promotion import Promotion
from deerfield.wire import limits
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.retention import Retention
from tests.chaos.consortium import Aggregator, free_port
from tests.fakes import run_spec
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.conftest import folder_in, served, sqlite_in
from tests.integration.aggregator.promoting import MODEL, Shop, course
from tests.integration.federation import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
GATES = 3
ONCE = Backoff(patience_s=0)


@pytest.fixture
def server(shop):
    with served(shop.aggregator, shop.tracking) as found:
        yield found


@contextmanager
def impatient(server):
    with connect(server.ports.listening, role="operator") as channel:
        yield RunsClient(channel, backoff=ONCE)


def gate(shop, server, together, version, champion):
    """What a gate gets that has judged a version against a champion, at the same moment as the others."""
    with RunsClient.connect(server.ports.listening) as runs:
        together.wait(10)
        try:
            return runs.promote(MODEL, version, champion, shop.judged(version, champion).text)
        except ChampionMoved as error:
            return str(error)


@pytest.mark.e2e
def test_gates_that_come_at_once_leave_one_champion_and_one_history(shop, server):
    champion, number = "", 0
    for _ in range(3):
        versions = [shop.version(number := number + 1) for _ in range(GATES)]
        together = threading.Barrier(GATES)
        with ThreadPoolExecutor(GATES) as pool:
            calls = [pool.submit(gate, shop, server, together, version, champion) for version in versions]
            answers = [call.result(60) for call in calls]
        (won,) = [answer for answer in answers if isinstance(answer, Promotion)]
        lost = [answer for answer in answers if isinstance(answer, str)]
        assert won.previous == champion
        assert len(lost) == GATES - 1
        assert all(f"is version {won.champion}, and the call expects" in said for said in lost)
        champion = won.champion
        assert shop.alias() == champion
    moved = [record for record in course(shop) if record[1] == "DONE"]
    assert (len(moved), moved[-1][3]) == (3, champion)
    with RunsClient.connect(server.ports.listening) as runs:
        listed = runs.promotions(MODEL)
    assert list(listed) == list(shop.promotions.history(MODEL))
    assert {record.operator for record in listed} == {"operator"}
    assert len(listed) == 3 * GATES
    assert {record.state for record in listed} == {"DONE", "REFUSED"}


def test_a_gate_and_a_rollback_that_come_at_once_leave_one_history(shop, server):
    first, second, third = (shop.version(number) for number in (1, 2, 3))
    shop.promote(first, "")
    shop.promote(second, first)
    together = threading.Barrier(2)

    def attempt(call):
        with RunsClient.connect(server.ports.listening) as runs:
            together.wait(10)
            try:
                return call(runs)
            except ChampionMoved as error:
                return error

    calls = [
        lambda runs: runs.promote(MODEL, third, second, shop.judged(third, second).text),
        lambda runs: runs.rollback(MODEL, second, "it is worse"),
    ]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(attempt, calls))
    (won,) = [answer for answer in answers if isinstance(answer, Promotion)]
    assert won.champion == shop.alias()
    assert course(shop)[2][2:] in ((second, third), (second, first), ("", ""))


def test_names_versions_and_sizes_that_cannot_be_are_refused(server):
    run = server.runs.start(run_spec("north"), "once")
    with impatient(server) as runs:
        with pytest.raises(BadRequest, match="a model's name has 1 to 256 characters"):
            runs.rollback("", "1", "why")
        with pytest.raises(TooLarge, match="bytes in a file; the limit is 4194304"):
            runs.attach(run, "report.html", bytes(limits.ATTACHMENT_BYTES + 1))
        with pytest.raises(InvalidInput, match="is no path"):
            runs.attach(run, "../up", b"x")
        with pytest.raises(UnknownRun):
            runs.attach("nobody", "report.html", b"x")


def test_a_run_has_so_many_files_and_no_more(server):
    run = server.runs.start(run_spec("north"), "once")
    for number in range(limits.ATTACHMENTS):
        server.runs.attach(run, f"{number}.txt", b"the same")
    with pytest.raises(TooLarge, match="the limit is 64"):
        server.runs.attach(run, "one.more", b"the same")
    server.runs.attach(run, "3.txt", b"another")


def test_a_file_becomes_an_artifact_also_after_the_end_and_its_bytes_are_kept_until_then(shop, clock):
    with served(shop.aggregator) as found, pytest.raises(InvalidInput, match="has no MLflow to log a file in"):
        found.runs.attach(found.runs.start(run_spec("north"), "once"), "report.html", b"x")
    version = shop.version(1)
    run = shop.tags(version)["deerfield.run"]
    with served(shop.aggregator, shop.tracking) as found:
        assert found.runs.get(run).state == "FINISHED"
        page = bytes(limits.ATTACHMENT_BYTES)
        assert (
            found.runs.attach(run, "evaluation/report.html", b"an earlier one") == sha256(b"an earlier one").hexdigest()
        )
        assert found.runs.attach(run, "evaluation/report.html", page) == sha256(page).hexdigest()
        tracked = shop.mlflow.get_model_version(MODEL, version).run_id
        wait_for(lambda: not waiting(shop.aggregator))
        assert Path(shop.mlflow.download_artifacts(tracked, "evaluation/report.html")).read_bytes() == page
        assert found.runs.attach(run, "evaluation/report.html", page) == sha256(page).hexdigest()  # nothing to do
        events = [event for event in found.runs.watch(run) if event.kind == "attached"]
        sizes = [event.detail["bytes"] for event in events if event.detail["name"] == "evaluation/report.html"]
        assert sizes == [14, len(page)]
        assert not waiting(shop.aggregator)


def waiting(aggregator):
    with aggregator.desk.store.edge() as edge:
        return [file.sha256 for file in edge.attachments.waiting()]


def test_collection_keeps_a_file_until_it_is_logged(aggregator, shop, clock):
    from services.aggregator.attaching import Attaching

    run = aggregator.runs.start(run_spec("north"), "once")
    sha = Attaching(aggregator.desk, tracked=True).attach(run, "report.html", b"a report")
    collector = Collector(aggregator.desk, Retention(gc_grace_s=600))
    clock.now = 4e9  # later than any file's time
    collector.collect()
    assert aggregator.desk.published.get(sha) == b"a report"
    with aggregator.desk.store.edge() as edge:
        (file,) = edge.attachments.waiting()
        edge.attachments.logged(file)
    collector.collect()
    assert not aggregator.desk.published.has(sha)


def test_a_killed_aggregator_logs_its_files_and_ends_its_promotions(shop):
    first, second = shop.version(1), shop.version(2)
    shop.promote(first, "")
    run = shop.tags(second)["deerfield.run"]
    shop.aggregator.desk.store.close()
    flags = ["--tracking", f"sqlite:///{shop.folder / 'mlflow.db'}", "--artifacts", str(shop.folder / "artifacts")]
    mortal = Aggregator(shop.folder, sqlite_in(shop.folder), flags, blobs=folder_in(shop.folder))
    patient = Backoff(first_s=0.1, last_s=0.5, patience_s=120)
    with connect(mortal.address, role="operator") as channel, ThreadPoolExecutor(1) as pool:
        runs = RunsClient(channel, backoff=patient)
        try:
            mortal.start("attached:after_commit")
            attached = pool.submit(runs.attach, run, "report.html", b"a report")
            wait_for(lambda: mortal.died() is not None)
            mortal.kill()  # closes what it left open
            mortal.start("champion:moved")
            assert attached.result(60) == sha256(b"a report").hexdigest()
            promoted = pool.submit(runs.promote, MODEL, second, first, shop.judged(second, first).text)
            wait_for(lambda: mortal.died() is not None)
            mortal.kill()  # closes what it left open
            assert shop.alias() == second
            mortal.start()
            assert promoted.result(90) == Promotion(model=MODEL, champion=second, previous=first)
            history = runs.promotions(MODEL)
            tracked = shop.mlflow.get_model_version(MODEL, second).run_id
            wait_for(lambda: "report.html" in [each.path for each in shop.mlflow.list_artifacts(tracked)])
        finally:
            mortal.kill()
    assert [(each.state, each.previous, each.champion) for each in history] == [
        ("DONE", "", first),
        ("DONE", first, second),
    ]
    assert shop.alias("candidate") == ""
    assert Path(shop.mlflow.download_artifacts(tracked, "report.html")).read_bytes() == b"a report"


@pytest.mark.e2e
def test_a_promotion_without_mlflow_is_written_down_and_done_when_it_is_there(aggregator, shop):
    first = shop.version(1)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    away = Shop.opened(aggregator, shop.folder, uri)
    with served(aggregator, away.tracking) as found:
        with impatient(found) as runs:
            words = (
                rf"MLflow at {uri} did not answer as it should, for \d+\.\d s: .*; promotion 1 of .* is written down"
            )
            with pytest.raises(Unreachable, match=words):
                runs.promote(MODEL, first, "", shop.judged(first, "").text)
            assert [record.state for record in runs.promotions(MODEL)] == ["OPEN"]
        backend = ["--backend-store-uri", f"sqlite:///{shop.folder / 'mlflow.db'}", "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *backend, "--port", str(port)]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes less
        with open(shop.folder / "mlflow.log", "wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=shop.folder, env=environment, start_new_session=True
            )
        try:
            wait_for(lambda: shop.alias() == first, 120)
            wait_for(lambda: [record.state for record in found.runs.promotions(MODEL)] == ["DONE"])
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.wait(20)


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (401, b'{"error_code": "UNAUTHENTICATED", "message": "who are you"}', "MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_an_mlflow_that_lets_nobody_in_is_told_with_the_setting(aggregator, tmp_path, code, body, words):
    class Shut(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shut) as shut:
        threading.Thread(target=shut.serve_forever, daemon=True).start()
        there = Shop.opened(aggregator, tmp_path, f"http://127.0.0.1:{shut.server_port}")
        with pytest.raises(InvalidInput, match=words):
            there.promote("1", "")
        shut.shutdown()


def test_an_operators_refusal_is_one_entry_in_the_audit_log(shop, server):
    with impatient(server) as runs, pytest.raises(InvalidInput, match="verdict is no JSON"):
        runs.promote(MODEL, "7", "", "{")

    def refused():
        return [entry for entry in logged(shop.aggregator.desk.store, "decision") if entry.what == "Promote"]

    wait_for(refused)
    (entry,) = refused()
    assert ('"answer":"allowed"' in entry.detail, '"reason":"InvalidInput"' in entry.detail) == (True, True)
