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
    draws = random.Random(SEED + noise)
    instants = [round(draws.uniform(0, calm.seconds), 3) for _ in range(INSTANTS // 2)]
    note.say(f"seed {SEED + noise}, killed so many seconds after the aggregator first served: {instants}")
    kills = 0
    for number, instant_s in enumerate(instants):
        with subtests.test(instant_s=instant_s):
            course = calm.killed(str(number), meddle=killed_at(instant_s))
            kills += course.kills
            note(f"random instants, unit {'record' if noise else 'none'}", course)
    assert kills >= 0.8 * len(instants)  # a run that was faster than the first one may be over by then
