"""What goes on from a backup, and what is as it was."""

import json
import shutil
from datetime import timedelta

import pytest

from deerfield import mirror
from deerfield.errors import RoundClosed
from deerfield.privacy import epsilon
from deerfield.proof import prove
from deerfield.restoration import Trust, check
from deerfield.runspec import Privacy
from services.aggregator.auditing.audit_chain import Walk
from services.aggregator.auditing.trail import entries
from services.aggregator.ledger_mirror import phase_mirror
from tests import pki
from tests.fakes import run_spec
from tests.integration.aggregator.backups.conftest import step
from tests.integration.aggregator.teaching import kinds, last, sites
from tests.pki import NOW

NAMES = ("north", "south")
RECORD = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)


def test_a_run_goes_on_from_a_backup_under_a_new_incarnation(pair, ca):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec(*NAMES, rounds=2, privacy=RECORD), "once")
    both = sites(first, run, *NAMES, noise_multiplier=4.0)
    step(first, both)
    both[0].step()
    done = pair.backup()
    assert (done["rows"]["runs"], done["rows"]["heads"]) == (1, 2)
    late = both[1].link.next_task()
    both[1].step()
    first.coordinator.close_due()  # what is lost: phase 1 was published, and told to everybody
    lost_events = first.runs.events(run, 0)

    number = pair.restore()["incarnations"][run]
    second = pair.open(pair.folder / "b")
    view = second.runs.get(run)
    assert (view.state, view.incarnation, view.round, view.phase) == ("RUNNING", number, 0, 1)
    assert view.sites == {"north": "WAITING", "south": "WAITING"}
    assert view.model == first.runs.get(run, (0, 0)).model
    again = sites(second, run, *NAMES, noise_multiplier=4.0)
    with pytest.raises(RoundClosed, match="incarnation 1"):
        again[1].link.send(late, both[1].update(late))
    offered = again[0].link.aggregator.coordinator.next_task("north", run)
    trust = Trust(federation=pki.FEDERATION, authority=(ca.folder / "ca.crt").read_bytes())
    assert check(offered.restoration, run, number, trust, NOW) == "ada"
    for _ in range(3):
        step(second, again)
    assert second.runs.get(run).state == "FINISHED"
    assert second.runs.get(run, (0, 0)).model == first.runs.get(run, (0, 0)).model  # of the incarnation before
    events = second.runs.events(run, 0)
    restored = next(event for event in events if event.kind == "run_restored")
    assert restored.number > max(event.number for event in lost_events)
    assert [event.number for event in events] == sorted({event.number for event in events})
    assert restored.detail["operator"] == "ada"
    # all of the first incarnation counts, whatever of it was lost, and three phases of the second
    spend = both[0].update(late).attestation.spend
    told = last(second, run, "phase_published")["epsilon"]["north"]
    assert told == pytest.approx(epsilon([spend] * (4 + 3), RECORD.delta))


def test_the_mirror_of_a_restored_run_proves_what_both_incarnations_cost(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec(*NAMES, rounds=1, privacy=RECORD), "once")
    both = sites(first, run, *NAMES, noise_multiplier=4.0)
    step(first, both)
    pair.backup()
    step(first, both)  # what is lost
    known = [(0, 0), (0, 1)]
    with first.desk.store.edge() as edge:
        row = edge.run(run)
    old = [phase_mirror(first.desk, row, place) for place in known]
    pair.restore()
    shutil.copy(pair.folder / "a" / "aggregator.key", pair.folder / "b")
    second = pair.open(pair.folder / "b")
    step(second, sites(second, run, *NAMES, noise_multiplier=4.0))
    with second.desk.store.edge() as edge:
        row = edge.run(run)
    new = [phase_mirror(second.desk, row, place) for place in known]
    assert new[0] == old[0]  # told again after the restore, it is the same object
    assert new[1].key.incarnation == row.incarnation
    proof = prove([json.loads(mirror.encode(each)) for each in (*old, new[1])], row.spec)
    assert proof.findings == ()
    assert proof.epsilon == pytest.approx(last(second, run, "phase_published")["epsilon"])


def test_heads_keys_events_and_ended_runs_stay_as_they_were(pair):
    first = pair.open(pair.folder / "a")
    over = first.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    step(first, sites(first, over, "north"))
    aborted = first.runs.start(run_spec("north", rounds=1), "twice")
    first.runs.abort(aborted, "enough")
    pair.backup()
    assert pair.restore()["incarnations"] == {}
    second = pair.open(pair.folder / "b")
    assert list(second.runs.list()) == list(first.runs.list())
    for run in (over, aborted):
        assert second.runs.events(run, 0) == first.runs.events(run, 0)
    assert second.intake.head("north", "patients") == first.intake.head("north", "patients") is not None
    with first.desk.store.edge() as one, second.desk.store.edge() as two:
        assert one.heads.pinned("north") == two.heads.pinned("north") is not None
    later = second.runs.start(run_spec("north", rounds=1), "thrice")
    numbers = [event.number for run in (over, aborted, later) for event in second.runs.events(run, 0)]
    assert len(numbers) == len(set(numbers))


def test_a_paused_run_stays_paused_and_its_deadline_does_not_count_the_pause(pair, clock):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    first.runs.pause(run, "night")
    pair.backup()
    clock.now = NOW.timestamp() + 5000
    pair.restore()
    second = pair.open(pair.folder / "b")
    assert second.runs.get(run).state == "PAUSED"
    clock.advance(5000)
    second.runs.resume(run)
    assert last(second, run, "run_resumed") == {"paused_s": 10000}
    clock.advance(3599)
    second.coordinator.due()
    assert second.runs.get(run).state == "RUNNING"


def test_a_backup_restored_twice_gives_no_task_the_same_name_twice(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    one = pair.restore("b")["incarnations"][run]
    two = pair.restore("c", NOW + timedelta(hours=1))["incarnations"][run]
    assert 1 < one < two


def test_a_restore_is_an_event(pair):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    pair.restore()
    restored = pair.open(pair.folder / "b")
    assert kinds(restored, run) == ["run_started", "run_restored"]
    with restored.desk.store.edge() as edge:
        log = list(entries(edge._connection))
    assert list(Walk().findings(log)) == []
    told = {entry.what: json.loads(entry.actor) for entry in log if '"call":"restore"' in entry.detail.replace(" ", "")}
    assert {"run_restored", "phase_open"} <= set(told)
    assert {(actor["role"], actor["name"]) for actor in told.values()} == {("operator", "ada")}
