"""The log as it reaches a file, of a process of its own: there it is configured once, as in a service."""

import json
import subprocess
import sys

import pytest

from deerfield.errors import InvalidInput
from services.telemetry.logs import configure

PROGRAM = """
import logging, sys, structlog
from structlog.contextvars import bound_contextvars
from services.telemetry.logs import configure
configure(sys.argv[1], "teacher", sys.stderr)
log = structlog.get_logger()
with bound_contextvars(run="r", round=2):
    log.info("phase published", updates=3)
    logging.getLogger("library").warning("it rains in %s", "Lyon")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("no good")
print("error: this is the last sentence", file=sys.stderr)
"""


def said(form):
    command = [sys.executable, "-c", PROGRAM, form]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr.splitlines()


@pytest.mark.parametrize("form", ["json", ""])  # a pipe is no terminal
def test_json_is_one_object_for_each_line_with_what_is_bound_and_the_sentence_stays_plain(form):
    *lines, last = said(form)
    ours, theirs, broken = map(json.loads, lines)
    assert last == "error: this is the last sentence"
    assert {**ours, "timestamp": ""} == {
        "event": "phase published",
        "updates": 3,
        "run": "r",
        "round": 2,
        "level": "info",
        "service": "teacher",
        "timestamp": "",
    }
    assert (theirs["event"], theirs["logger"], theirs["round"]) == ("it rains in Lyon", "library", 2)
    assert "ZeroDivisionError" in broken["exception"]
    assert "round" not in broken


def test_console_is_for_people_and_has_no_colours_in_a_file():
    lines = said("console")
    assert "phase published" in lines[0]
    assert "updates=3" in lines[0]
    assert "\x1b" not in "".join(lines)


def test_another_form_is_one_sentence():
    with pytest.raises(InvalidInput, match="log: 'xml' is no form of a log; choose one of json, console"):
        configure("xml", "teacher", sys.stderr)
