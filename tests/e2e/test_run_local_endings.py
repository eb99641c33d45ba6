"""How `deerfield pipelines run-local` ends where it does not finish: nothing is left running, and it says why."""

import signal
import subprocess

from tests.integration.federation import assert_none_left, command, environment
from tests.integration.local_pipeline import run_file, run_local
from tests.unit.client import tiny


def test_a_command_that_is_killed_leaves_nothing_behind(tmp_path):
    """Its tasks, the sites and the aggregator end with it, as nobody is told to end them."""
    here = environment()
    argv = command("pipelines", "run-local", run_file(tmp_path), "--out", tmp_path / "out")
    with subprocess.Popen(argv, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = iter(process.stdout)
        assert any("phase published" in line for line in said)  # every process is at work
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert_none_left(here)


def test_an_interrupt_ends_everything_and_says_so(tmp_path):
    here = environment()
    argv = command("pipelines", "run-local", run_file(tmp_path), "--out", tmp_path / "out")
    with subprocess.Popen(argv, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(line == "partition\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert_none_left(here)
    assert process.returncode == 130
    assert errors == "interrupted: everything that was started has been stopped\n"


def test_what_a_task_refuses_is_one_sentence_and_exit_code_2(tmp_path):
    path = run_file(tmp_path, labels=[*tiny.LABELS, "gout"])
    done = run_local(path, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: partition: labels: 'gout' occurs in none of the 180 rows")
    assert (tmp_path / "out/report.html").exists()  # whatever has become of the pipeline


def test_what_a_site_cannot_use_ends_the_run_and_is_what_the_command_says(tmp_path):
    path = run_file(tmp_path, embedded={"budget": {"ledgers": "ledgers", "epsilon": 800.0}})
    (tmp_path / "ledgers").mkdir()
    (tmp_path / "ledgers/east").write_text("")
    done = run_local(path, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert "ledgers/east cannot be used (Not a directory)" in done.stderr
    assert "run aborted" in done.stdout


def test_an_mlflow_that_does_not_answer_is_said_before_anything_is_trained(tmp_path):
    done = run_local(run_file(tmp_path), "--out", tmp_path / "out", "--tracking", "http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "http://127.0.0.1:9" in done.stderr
    assert not (tmp_path / "out").exists()
