"""After any pass of any history, every manifest that a row holds is complete."""

import os
import time
from contextlib import suppress
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deerfield.errors import DeerfieldError
from deerfield.exchange import Key, announce
from deerfield.manifest import pieces
from services.aggregator.blobstore.collector import Collector
from services.aggregator.blobstore.retention import Retention
from tests.fakes import run_spec
from tests.integration.aggregator.collector.conftest import DAY, HOUR, check_law, orphan
from tests.integration.aggregator.teaching import site

STEPS = st.sampled_from(
    ["north", "south", "half", "close", "collect", "orphan", "start", "abort", "hour", "day", "week"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=4, max_size=25), keep=st.sampled_from([None, 0.0, 3 * DAY]))
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_after_any_pass_every_manifest_that_a_row_holds_is_complete(open_in, tmp_path, clock, steps, keep):
    tmp_path = tmp_path / os.urandom(4).hex()
    aggregator, numbers, unsent = open_in(tmp_path), count(), set()
    collector = Collector(aggregator.desk, Retention(keep_updates_s=3 * DAY, keep_states_s=keep))
    clock.now = time.time()

    def start() -> str:
        spec = run_spec("north", "south", rounds=2, quorum=1, name=f"r{next(numbers)}")
        return aggregator.runs.start(spec, spec.name)

    def half(run: str) -> None:
        """An upload whose connection broke after its first chunk."""
        north = site(aggregator, run, "north", next(numbers))
        if assignment := north.link.next_task():
            update = north.update(assignment)
            announcement = announce(update)
            key = Key(run=run, incarnation=1, round=assignment.task.round, phase=assignment.task.phase)
            aggregator.intake.begin("north", key, announcement)
            chunks = list(pieces(update.delta, announcement.manifest, announcement.manifest.chunks))
            aggregator.desk.uploads.put(*chunks[0])
            unsent.update(sha for sha, _ in chunks[1:])

    acts = {
        "north": lambda run: site(aggregator, run, "north", next(numbers)).step(),
        "south": lambda run: site(aggregator, run, "south", next(numbers)).step(),
        "half": half,
        "close": lambda _: aggregator.coordinator.close_due(),
        "collect": lambda _: collector.collect(),
        "orphan": lambda _: orphan(aggregator.desk.uploads, b"%d" % next(numbers)),
        "abort": lambda run: aggregator.runs.abort(run, "enough"),
        "hour": lambda _: clock.advance(HOUR),
        "day": lambda _: clock.advance(1.1 * DAY),
        "week": lambda _: clock.advance(7 * DAY),
    }
    run = start()
    for step in steps:
        with suppress(DeerfieldError):  # the run has ended, the phase is closed: a refusal is no failure here
            if step == "start":
                run = start()
            else:
                acts[step](run)
        if step == "collect":
            check_law(aggregator, {sha for sha in unsent if not aggregator.desk.uploads.has(sha)})
    collector.collect()
    check_law(aggregator, {sha for sha in unsent if not aggregator.desk.uploads.has(sha)})
