"""The report step at a real aggregator: of a run that ended, of one that goes on, and where nobody answers."""

import json
import socket

import pytest
from typer.testing import CliRunner

from deerfield.wire.backoff import Backoff
from pipelines import cli
from pipelines.steps.report import report
from services.aggregator.sql.attachments import Attachment
from tests import run_story
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.federation import wait_for
from tests.registry import Tracked

SHORT = Backoff(patience_s=0.1, first_s=0.05)


@pytest.fixture
def tracking():
    return Tracked()


@pytest.fixture
def run(server):
    return server.runs.start(run_spec("north", "south", rounds=1), "once")


def work(server, run, phases):
    sites = [TeachingSite(name, server.site(name, run), adapter(seed)) for seed, name in enumerate(("north", "south"))]
    for _ in range(phases):
        for site in sites:
            wait_for(site.step)


def is_over(server, run):
    return [event.kind for event in server.runs.past(run)][-1] == "run_finished"


def test_the_page_of_a_finished_run_is_kept_with_it(server, run, tracking, tmp_path):
    work(server, run, phases=2)
    wait_for(lambda: is_over(server, run))
    verdict, out = tmp_path / "verdict.json", tmp_path / "report.html"
    verdict.write_text(json.dumps(run_story.verdict(passed=True)))
    report(run, server.ports.listening, None, verdict, None, out)
    page = out.read_bytes()
    for words in ("Finished.", run, "2 of 2 phases", "evaluation.json: none was written", "passed all 5 rules"):
        assert words.encode() in page
    wait_for(lambda: tracking.files)
    [kept] = tracking.files
    assert isinstance(kept, Attachment)
    assert (kept.run, kept.name) == (run, "report.html")
    assert server.aggregator.desk.published.get(kept.sha256) == page
    report(run, server.ports.listening, None, verdict, None, out)  # a retry of the task
    assert out.read_bytes() == page


def test_a_run_that_goes_on_is_not_waited_for(server, run, tmp_path):
    work(server, run, phases=1)
    wait_for(lambda: "phase_published" in [event.kind for event in server.runs.past(run)])
    report(run, server.ports.listening, None, None, None, tmp_path / "report.html", "FAILED rounds: exit code 1")
    page = (tmp_path / "report.html").read_text()
    assert "Still running." in page
    assert "1 of 2 phases" in page
    assert "FAILED rounds: exit code 1" in page


def test_an_aggregator_that_is_away_and_broken_documents_are_said_on_the_page(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "evaluation.json").write_text("{")
    out = tmp_path / "report.html"
    report("lung-1", nobody, tmp_path / "evaluation.json", None, tmp_path / "manifest.json", out, "FAILED", SHORT)
    page, said = out.read_text(), capsys.readouterr().out
    for words in (
        "the aggregator told nothing of lung-1",
        "evaluation.json is no JSON",
        "verdict.json: none was written",
    ):
        assert words in page
        assert words in said
    assert "manifest.json cannot be read: No such file or directory" in page


def test_a_pipeline_that_failed_before_its_rounds_has_a_page(tmp_path):
    report("", "127.0.0.1:1", None, None, None, tmp_path / "report.html", "FAILED partition")
    page = (tmp_path / "report.html").read_text()
    assert "no run was started" in page
    assert "FAILED partition" in page


def test_where_nothing_is_tracked_the_page_is_written_all_the_same(tmp_path, capsys):
    aggregator = open_aggregator(tmp_path / "untracked", Clock())
    with served(aggregator) as server:
        run = server.runs.start(run_spec("north", rounds=1), "once")
        report(run, server.ports.listening, None, None, None, tmp_path / "report.html")
    aggregator.desk.store.close()
    assert run in (tmp_path / "report.html").read_text()
    assert "report.html could not be kept with the run: this aggregator has no MLflow" in capsys.readouterr().out


def test_the_command_asks_a_running_aggregator(server, run, tmp_path):
    out = tmp_path / "report.html"
    asked = ["report", run, "--out", str(out), "--aggregator", server.ports.listening]
    done = CliRunner().invoke(cli.app, asked)
    assert done.exit_code == 0, done.output
    assert "No site has taken a task" in out.read_text()
    missing = CliRunner().invoke(cli.app, ["report", "no-such-run", *asked[2:3], str(tmp_path / "b.html"), *asked[4:]])
    assert "no-such-run" in str(missing.exception)
    assert not (tmp_path / "b.html").exists()
