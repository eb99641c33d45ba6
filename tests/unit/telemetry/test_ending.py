"""What a service leaves behind that ends of a fault: a line, a termination message, an exit code."""

import json
import subprocess
import sys

import pytest

from deerfield.errors import InvalidInput, Unreachable
from services.telemetry.ending import MESSAGE_BYTES, VARIABLE, ended

PROGRAM = """
import sys
from deerfield.errors import InvalidInput
from services.telemetry import logs
from services.telemetry.ending import ended
logs.configure(sys.argv[1], "teacher", sys.stderr)
sys.exit(ended(InvalidInput("chalk: there is none; buy some"), sys.argv[1]))
"""


def said(form, place=""):
    command = [sys.executable, "-c", PROGRAM, form]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={VARIABLE: str(place)} if place else None
    )
    assert found.returncode == 2
    return found.stderr.splitlines()


def test_the_sentence_is_a_line_of_the_log_where_json_was_asked_for_and_plain_text_elsewhere(tmp_path):
    (line,) = said("json")
    told = json.loads(line)
    assert (told["event"], told["level"]) == ("error: chalk: there is none; buy some", "error")
    assert (told["exit_code"], told["service"]) == (2, "teacher")
    for form in ("", "console"):  # without a word, a pipe has a log of JSON, but somebody who has started the process
        assert said(form) == ["error: chalk: there is none; buy some"]


def test_a_termination_message_that_cannot_be_written_is_a_line_more_and_changes_nothing_else(tmp_path):
    warned, last = map(json.loads, said("json", tmp_path / "none" / "message"))
    assert (warned["event"], warned["error"]) == ("no termination message", "No such file or directory")
    assert last["event"] == "error: chalk: there is none; buy some"


@pytest.mark.parametrize("error", [InvalidInput("policy.yaml: unknown key"), Unreachable("nobody answers")])
def test_the_termination_message_is_the_sentence(tmp_path, error, capsys):
    place = tmp_path / "message"
    place.write_text("of the process before this one, and longer than what comes")
    assert ended(error, "", {VARIABLE: str(place)}) == error.exit_code
    assert place.read_text() == f"error: {error}"
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_long_one_is_cut_between_two_characters(tmp_path):
    place = tmp_path / "message"
    ended(InvalidInput("€" * MESSAGE_BYTES), "", {VARIABLE: str(place)})
    assert len(place.read_bytes()) in range(MESSAGE_BYTES - 2, MESSAGE_BYTES + 1)
    assert place.read_text() == "error: " + "€" * ((MESSAGE_BYTES - 7) // 3)
