"""Entries of a ledger are attested in their order, over all runs of a population."""

import pytest

from deerfield.errors import BadAttestation
from deerfield.exchange import announce
from deerfield.manifest import pieces
from tests.attesting import again
from tests.fakes import run_spec
from tests.integration.aggregator.attestations.conftest import POPULATION, PRIVACY, local


def test_entries_of_a_ledger_are_attested_in_their_order(aggregator, run):
    north, south = local(aggregator, "north", run), local(aggregator, "south", run)
    first = north.link.next_task()
    north.link.send(first, again(north.update(first), ledger_sequence=10))
    south.step()
    aggregator.coordinator.close_due()
    second = north.link.next_task()
    good = north.update(second)
    for number in (0, 9, 10):
        with pytest.raises(BadAttestation, match=rf"entry {number} .* is not after entry 10"):
            north.link.send(second, again(good, ledger_sequence=number))
    assert not any(map(aggregator.desk.uploads.has, announce(good).manifest.chunks))  # refused before a byte was taken
    north.link.send(second, again(good, ledger_sequence=11))
    assert north.link.head(POPULATION).sequence == 11


def test_the_order_holds_over_all_runs_of_a_population_and_over_no_other(aggregator, run):
    north = local(aggregator, "north", run)
    first = north.link.next_task()
    north.link.send(first, again(north.update(first), ledger_sequence=10))
    same = local(
        aggregator, "north", aggregator.runs.start(run_spec("north", name="second", privacy=PRIVACY), "second")
    )
    assignment = same.link.next_task()
    with pytest.raises(BadAttestation, match="not after entry 10"):
        same.link.send(assignment, again(same.update(assignment), ledger_sequence=10))
    elsewhere = run_spec("north", name="third", privacy=PRIVACY).model_copy(update={"population": "staff"})
    other = local(aggregator, "north", aggregator.runs.start(elsewhere, "third"))
    assignment = other.link.next_task()
    other.link.send(assignment, again(other.update(assignment), ledger_sequence=1))
    assert (north.link.head(POPULATION).sequence, north.link.head("staff").sequence) == (10, 1)


def test_of_two_announced_updates_the_older_entry_cannot_be_sealed_after_the_newer(aggregator, run):
    second = aggregator.runs.start(run_spec("north", name="second", privacy=PRIVACY), "second")
    older, newer = local(aggregator, "north", run), local(aggregator, "north", second)
    tasks = older.link.next_task(), newer.link.next_task()
    first = again(older.update(tasks[0]), ledger_sequence=5)
    intake, announcement = aggregator.intake, announce(first)
    missing = intake.begin("north", tasks[0].key, announcement)
    newer.link.send(tasks[1], again(newer.update(tasks[1]), ledger_sequence=6))
    for sha, data in pieces(first.delta, announcement.manifest, missing):
        intake.put(missing, sha, data)
    with pytest.raises(BadAttestation, match=r"entry 5 .* is not after entry 6"):
        intake.commit("north", tasks[0].key, announcement.manifest.digest)
    assert not intake.status("north", tasks[0].key).sealed
    assert newer.link.head(POPULATION).sequence == 6
