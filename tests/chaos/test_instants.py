"""`make chaos`: the aggregator killed from outside at random instants of a run of several rounds."""

import random

import pytest

from tests.chaos.consortium import killed_at
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec

SEED, INSTANTS = 2026, 50


@pytest.mark.parametrize("noise", [False, True], ids=["unit none", "unit record"])
def test_a_kill_at_any_instant_changes_no_bit(database, tmp_path, note, subtests, noise):
    calm = undisturbed(tmp_path, database, spec("east", "north", "west", rounds=3, noise=noise))
    draws, events = random.Random(SEED + noise), len(calm.left.events)
    apart_s = calm.seconds / events  # between two events, on this machine as busy as it is
    kills, instants = 0, []
    while kills < INSTANTS // 2:  # an instant may come after the run's end, and another is drawn
        assert len(instants) < INSTANTS
        instants.append((draws.randrange(events - 4), round(draws.uniform(0, apart_s), 4)))
        seen, delay_s = instants[-1]
        with subtests.test(seen=seen, delay_s=delay_s):
            course = calm.killed(str(len(instants)), meddle=killed_at(seen, delay_s))
            kills += course.kills
            note(f"random instants, unit {'record' if noise else 'none'}", course)
    note.say(f"seed {SEED + noise}, killed after (events seen, and seconds): {instants}")
