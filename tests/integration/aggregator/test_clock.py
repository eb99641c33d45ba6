"""A clock that is wrong when the aggregator starts."""

import subprocess
import time

import pytest

from deerfield.errors import InvalidInput
from services.aggregator.clock import check_clock, steady_clock
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.integration.aggregator.processes import command, running

NOW = 1_800_000_000.0


def happened(store: Store, at: float) -> None:
    with store.edge() as edge:
        edge.add_event("r", "kind", {}, at)


def test_a_clock_behind_the_newest_event_is_refused_naming_both_times_and_what_to_do(store):
    check_clock(store, NOW, 300)  # nothing has happened yet
    happened(store, NOW + 3600)
    said = (
        r"^clock: the database's newest event is of 2027-01-15 09:00:00 UTC, and this machine's clock says "
        r"2027-01-15 08:00:00 UTC; set this clock, or, .* set clock-skew to 3601 s or more$"
    )
    with pytest.raises(InvalidInput, match=said):
        check_clock(store, NOW, 300)
    check_clock(store, NOW, 3601)
    check_clock(store, NOW + 3301, 300)
    happened(store, NOW + 10)  # the one after it is what counts: that clock was set right
    check_clock(store, NOW, 300)


def test_the_steady_clock_is_the_machines_at_its_start_and_goes_on():
    clock = steady_clock()
    first = clock()
    assert abs(first - time.time()) < 5
    assert clock() >= first


def test_a_clock_that_is_behind_is_exit_code_2_and_a_larger_limit_lets_it_start(tmp_path):
    database = f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(open_database(database))
    happened(store, time.time() + 3600)
    store.close()
    found = subprocess.run(command(tmp_path), check=False, capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.strip().splitlines()[-1].startswith("error: clock: the database's newest event is of ")
    assert "Traceback" not in found.stderr
    with running(tmp_path, "--clock-skew", "7200") as aggregator:
        assert aggregator.process.poll() is None


def test_a_folder_for_blobs_that_is_none_is_one_sentence(tmp_path):
    (tmp_path / "blobs").write_text("a file")
    found = subprocess.run(command(tmp_path), check=False, capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.strip().splitlines()[-1].startswith(f"error: blobs: {tmp_path}/blobs/uploads cannot be written")
    assert "Traceback" not in found.stderr
