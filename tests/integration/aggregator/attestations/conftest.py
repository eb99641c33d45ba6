"""A run under privacy, and sites that attest what they spend in it."""

import pytest

from deerfield.runspec import Privacy
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.teaching import site

PRIVACY = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
POPULATION = "patients"


def local(aggregator, name, run, seed=1, noise_multiplier=4.0):
    return site(aggregator, run, name, seed, noise_multiplier)


def remote(server, name, run, seed=1):
    return TeachingSite(name, server.site(name, run), adapter(seed), 4.0)


@pytest.fixture
def run(aggregator):
    return aggregator.runs.start(run_spec("north", "south", rounds=2, privacy=PRIVACY), "once")
