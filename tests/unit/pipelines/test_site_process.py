"""What a command's process leaves behind."""

from contextlib import chdir
from pathlib import Path
from shutil import rmtree

import pytest

from deerfield.errors import InvalidInput, RunFailed
from pipelines.processes.children import sentence, worker
from pipelines.processes.site_process import answer, ended, scratch


def left_by(error, say):
    """Whether a scratch folder is there after a block that raised `error`, which says `say(folder)`."""
    with pytest.raises(error), scratch("plan") as folder:
        raise error(say(folder))
    left = folder.exists()
    rmtree(folder, ignore_errors=True)
    return left


def test_a_scratch_folder_goes_away_unless_it_is_needed_to_tell_what_went_wrong():
    with scratch("plan") as folder:
        assert folder.name.startswith("deerfield-plan-")
    assert not folder.exists()
    assert not left_by(InvalidInput, lambda folder: "--site x: there is no such site")
    assert not left_by(KeyboardInterrupt, str)
    assert left_by(RunFailed, lambda folder: "it ended")
    assert left_by(InvalidInput, lambda folder: f"usage (whole log: {folder / 'plan.log'})")


def test_a_process_ends_with_its_own_sentence_and_says_nothing(tmp_path):
    missing = tmp_path / "policy.yaml"
    arguments = ["--site", "north", "--policy", str(missing), "--state", str(tmp_path)]
    said, error = ended("register", arguments, tmp_path)
    assert said == b""
    assert isinstance(error, InvalidInput)
    assert str(missing) in str(error)


def test_a_sentence_is_found_in_either_form_of_a_log(tmp_path):
    log = tmp_path / "site.log"
    news, last = (
        '{"event": "site starts"}',
        '{"exit_code": 2, "event": "error: policy.yaml: unknown key", "level": "error"}',
    )
    for lines in ([news, last], [news, "error: policy.yaml: unknown key"], [last, news, "{torn"]):
        log.write_text("\n".join(lines))
        assert sentence(log) == "policy.yaml: unknown key"
    log.write_text(news)
    assert sentence(log) == f"{news} (whole log: {log})"


def test_a_log_that_an_error_names_is_there():
    with (
        pytest.raises(InvalidInput, match=r"required: --request \(whole log: .*plan\.log\)") as caught,
        scratch("plan") as folder,
    ):
        answer("plan", [], folder)
    log = Path(str(caught.value).split("whole log: ")[1].rstrip(")"))
    assert log.is_file()
    rmtree(log.parent)


def test_no_process_takes_a_module_from_the_folder_that_somebody_stands_in(tmp_path):
    (tmp_path / "json.py").write_text("print('error: of the current folder')\nraise SystemExit(2)\n")
    log = tmp_path / "pipeline.log"
    with chdir(tmp_path):
        with worker(tmp_path / "none.json", log, {}) as child, child.answers as said:
            assert said.read() == b""
        _, error = ended("register", ["--site", "north", "--policy", "none.yaml", "--state", "."], tmp_path)
    assert "none.json" in log.read_text()
    assert "none.yaml" in str(error)
