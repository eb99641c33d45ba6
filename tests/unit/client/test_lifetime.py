"""The file of a site's probe, and the end of its process."""

import signal
import subprocess
import sys

import pytest

from deerfield.errors import InvalidInput
from services.client.lifetime import lifetime

PROGRAM = """
import signal, sys
from pathlib import Path
from services.client.lifetime import lifetime
with lifetime(Path(sys.argv[1])) as ready:
    ready()
    print("ready", flush=True)
    signal.pause()
"""


def test_the_file_is_there_while_the_process_is_ready_and_not_of_one_before_it(tmp_path):
    file = tmp_path / "ready"
    file.write_text("of a process that was killed")
    before = signal.getsignal(signal.SIGTERM)
    with lifetime(file) as ready:
        assert not file.exists()
        ready()
        assert file.is_file()
    assert not file.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_file_is_gone_also_where_the_process_fails(tmp_path):
    def fail():
        with lifetime(tmp_path / "ready") as ready:
            ready()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not (tmp_path / "ready").exists()


def test_told_to_end_it_ends_at_once_without_its_file(tmp_path):
    file = tmp_path / "ready"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, file], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert file.is_file()
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert not file.exists()


def test_no_file_is_wanted(tmp_path):
    with lifetime(None) as ready:
        ready()


def test_a_file_that_cannot_be_made_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "none" / "ready"):
        with lifetime(place) as ready, pytest.raises(InvalidInput, match=f"^--ready: {place} cannot be made"):
            ready()
