"""Runs whose blobs are collected, and the law: every manifest that a row holds is complete after any pass."""

import time
from contextlib import suppress
from hashlib import sha256
from itertools import chain

import pytest
from sqlalchemy import and_, select

from deerfield.errors import RunEnded
from deerfield.manifest import assemble, describe
from services.aggregator.sql.records import manifest_of, state_of
from services.aggregator.sql.tables import PHASE, phases, tasks, uploads
from tests.fakes import run_spec
from tests.integration.aggregator.teaching import site

HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.fixture
def clock(clock):
    """Blobs have the times of their server: the tests' clock starts there too."""
    clock.now = time.time()
    return clock


def finished(aggregator, *names, name="teaching run", rounds=1):
    """A run to its end; answers its name."""
    run = aggregator.runs.start(run_spec(*names, rounds=rounds, name=name), name)
    every = [site(aggregator, run, each, seed) for seed, each in enumerate(names)]
    with suppress(RunEnded):
        while True:
            for each in every:
                each.step()
            aggregator.coordinator.close_due()
    return run


def orphan(blobs, data=b"of an upload that was given up"):
    blobs.put(sha := sha256(data).hexdigest(), data)
    return sha


def held(aggregator):
    """The chunks that rows hold, in updates and in states: read from the tables, apart from what the collector does."""
    same = and_(*(tasks.c[name] == phases.c[name] for name in PHASE))
    with aggregator.desk.store._engine.begin() as connection:
        updates = connection.execute(select(uploads.c.manifest).where(uploads.c.held)).scalars().all()
        starts = connection.execute(select(tasks.c.start).join(phases, same).where(phases.c.held)).scalars().all()
        both = connection.execute(select(phases.c.before, phases.c.after).where(phases.c.held)).all()
    states = [state_of(text) for text in chain(*both) if text]
    named = [manifest_of(text) for text in starts]
    named += [manifest for state in states for manifest in (state.shared, *state.personal.values())]
    return (
        frozenset(chain.from_iterable(manifest_of(text).chunks for text in updates)),
        frozenset(chain.from_iterable(manifest.chunks for manifest in named)),
    )


def check_law(aggregator, unsent=frozenset()):
    """Every manifest that a row holds is complete, but for what was not yet sent; so is the last model of every run."""
    desk, (updates, states) = aggregator.desk, held(aggregator)
    assert {sha for sha in updates - unsent if not desk.uploads.has(sha)} == set()
    assert {sha for sha in states if not desk.published.has(sha)} == set()
    for view in aggregator.runs.list():
        for manifest in (view.model, *view.personal.values()):
            assert describe(assemble(manifest, desk.published.get)) == manifest


def shas(blobs):
    return {blob.sha for blob in blobs.kept()}
