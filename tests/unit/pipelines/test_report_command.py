"""`deerfield report` on the folder that a run has left."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from deerfield.errors import InvalidInput
from pipelines import cli
from pipelines.runs.result import Result
from tests import run_story


@pytest.fixture
def folder(tmp_path):
    """As deerfield run leaves it."""
    made = tmp_path / "lung-notes-20261121"
    made.mkdir()
    result = Result(run_story.spec(*run_story.SITES), run_story.RUN)
    for each in run_story.story():
        result.seen(each)
    result.write(made)
    (made / "run.json").write_text("{}")
    return made


def report(*arguments):
    done = CliRunner().invoke(cli.app, ["report", *map(str, arguments)], env={"DEERFIELD_AGGREGATOR": ""})
    if isinstance(done.exception, InvalidInput):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


def test_a_folder_becomes_a_page_with_the_documents_that_lie_there(folder, tmp_path):
    (folder / "verdict.json").write_text(json.dumps(run_story.verdict(passed=True)))
    named = tmp_path / "scores.json"
    named.write_text(json.dumps(run_story.evaluation()))
    code, said = report(folder, "--out", tmp_path / "report.html", "--evaluation", named)
    page = (tmp_path / "report.html").read_text()
    assert (code, said) == (0, f"wrote {tmp_path / 'report.html'}\n")
    assert "Finished." in page
    assert "passed all 5 rules" in page
    assert "0.840 (0.790 to 0.890)" in page
    assert "not complete" not in page


def test_a_folder_without_its_figures_has_a_page_that_says_so(folder, tmp_path):
    (folder / "result.json").unlink()
    assert report(folder, "--out", tmp_path / "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "result.json cannot be read: No such file or directory" in page
    assert "lung notes" in page  # of spec.json


def test_what_cannot_be_used_is_one_sentence_and_leaves_no_page(folder, tmp_path):
    out = tmp_path / "report.html"
    (tmp_path / "bad.json").write_text("[]")
    for arguments, said in (
        ((tmp_path, "--out", out), "holds no run"),
        (("lung-notes-0123456789", "--out", out), "is no folder here; give --aggregator"),
        ((folder, "--out", out, "--verdict", tmp_path / "bad.json"), "bad.json is no JSON object but list"),
        ((folder, "--out", out, "--verdict", tmp_path / "none.json"), "none.json cannot be read"),
        ((folder, "--out", tmp_path / "nowhere/report.html"), "is no folder; make it first"),
    ):
        code, sentence = report(*arguments)
        assert code == 2
        assert said in sentence
    assert not out.exists()
    out.write_text("mine")
    assert report(folder, "--out", out)[0] == 2
    assert out.read_text() == "mine"


def test_help_does_not_wait_for_a_plotting_library():
    code = "import sys; from pipelines import cli; assert not {'matplotlib', 'grpc'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
