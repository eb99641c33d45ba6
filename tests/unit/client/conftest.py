from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.unit.client import tiny


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a family, written once."""
    return cache(lambda family: tiny.save(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
