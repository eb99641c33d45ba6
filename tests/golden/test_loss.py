"""One loss curve without noise: a change that should not alter results must show the same numbers."""

import pytest
import torch

from benchmarks.real_data import in_process
from deerfield.runfile import load
from tests.integration.federation import write

RATES = {"lr_adapter": 0.2, "lr_head": 0.1}  # small: a curve that jumps would magnify rounding

# Mean training loss of the sites after each phase. Another order of float32 sums moves the fifth digit.
LOSSES = (1.120843, 1.337673, 1.233969, 1.22951, 1.335109, 1.119167, 1.24509, 1.075085)


def test_the_loss_of_a_small_run_is_what_it_was(tmp_path):
    torch.set_num_threads(1)
    embedded = {
        "base": "model",
        "source": {"path": "notes.csv", "patient": "patient", "site": "hospital"},
        "partition": {"kind": "column"},
        "metrics": "clear",
    }
    found = in_process(load(write(tmp_path, rounds=4, embedded=embedded, training=RATES)), tmp_path / "prepared")
    assert [phase["metrics"]["loss"] for phase in found.phases] == pytest.approx(LOSSES, rel=1e-4)
