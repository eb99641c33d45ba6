"""Processes that are killed leave a sound audit log."""

import json
import signal
import subprocess
import sys

import pytest

from deerfield.wire.client import RunsClient
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.fakes import run_spec
from tests.integration.aggregator.audited import findings, logged, whats

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
