"""Unit "site" over the real aggregator: noise once, from a key that is sealed with the phase."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import select

from deerfield.central import Mechanism, noise_of, privatised
from deerfield.errors import BadRequest, InvalidInput, NormTooLarge
from deerfield.manifest import assemble
from deerfield.plan import schedule
from deerfield.privacy import epsilon
from deerfield.runspec import Privacy, RunSpec
from deerfield.strategies import make
from deerfield.tensors import digest, norm, subtract
from pipelines.embedded.simulation import LocalLink
from services.aggregator.sql.tables import phases
from tests.attesting import again
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.teaching import last

PRIVACY = Privacy(unit="site", epsilon=3.0, clip=0.5, sample_rate=0.5)


def spec(*sites, rounds=2, **changes):
    return run_spec(*(sites or ("north", "south")), rounds=rounds, privacy=PRIVACY, strategy="ffa", **changes)


def noise_multiplier(run_):
    return schedule(run_, make(run_).declares).noise_multiplier


def started(aggregator, run_):
    run = aggregator.runs.start(run_, "once")
    z = noise_multiplier(run_)
    names = run_.federation.sites
    return run, [TeachingSite(name, LocalLink(aggregator, name, run), adapter(i), z) for i, name in enumerate(names)]


def keys(aggregator):
    with aggregator.desk.store._engine.begin() as connection:
        rows = connection.execute(select(phases.c.noise_key).order_by(phases.c.round, phases.c.phase))
        return [row.noise_key for row in rows]


def model(aggregator, run, *published):
    view = aggregator.runs.get(run, *published)
    return assemble(view.model, aggregator.desk.published.get)


def test_a_run_is_noised_once_at_the_aggregator_and_says_what_it_spent(aggregator):
    run_ = spec(rounds=3)
    run, both = started(aggregator, run_)
    z, spent = noise_multiplier(run_), []
    for _ in range(3):
        assert all(site.step() for site in both)
        assert aggregator.coordinator.close_due() == 1
        told = last(aggregator, run, "phase_published")
        assert told["deviation"] is None
        assert told["spends"]["north"] == {
            "unit": "site", "noise_multiplier": z, "sample_rate": 1.0, "steps": 1, "clip": 0.5
        }  # fmt: skip
        spent.append(told["epsilon"])
    assert spent[0]["north"] < spent[1]["north"] < spent[2]["north"] == spent[2]["south"]
    assert 0.99 * 3 <= spent[2]["north"] <= 3
    one = replace(schedule(run_, make(run_).declares), steps=1)
    assert spent[2]["north"] == epsilon([one] * 3, PRIVACY.delta)
    assert aggregator.runs.get(run).state == "FINISHED"


def test_a_redo_after_a_crash_publishes_the_same_bits(tmp_path, open_in):
    first = open_in(tmp_path)
    run, both = started(first, spec(rounds=1))
    for site in both:
        site.step()
    closing = first.coordinator.due()
    once = closing.compute()  # and then it dies before it publishes
    assert closing.noise_key in keys(first)
    assert repr(closing.noise_key) not in repr(closing)
    first.desk.store.close()

    second = open_in(tmp_path)
    again_ = second.coordinator.due()
    assert again_.noise_key == closing.noise_key
    assert again_.compute() == once
    assert replace(again_, noise_key=bytes(32)).compute() != once
    second.coordinator.publish(again_, again_.compute())
    assert second.runs.get(run).model.digest == once.next.state.shared.digest
    second.desk.store.close()


def test_other_updates_under_the_same_key_get_other_noise(aggregator):
    """As when a database comes back from a backup of the open phase, and another set of sites answers."""
    _, both = started(aggregator, spec(rounds=1))
    for site in both:
        site.step()
    closing = aggregator.coordinator.due()
    fewer = replace(closing, sealed=closing.sealed[:1])
    states = [assemble(each.compute().next.state.shared, aggregator.desk.published.get) for each in (closing, fewer)]
    gap = norm(subtract(*states))
    assert gap > 2 * PRIVACY.clip / 2  # with one noise for both it could be no more than C / N


def test_every_phase_has_a_key_of_its_own_that_is_gone_with_the_phase(aggregator):
    _, both = started(aggregator, spec(rounds=3))
    seen = set()
    for _ in range(3):
        held = [key for key in keys(aggregator) if key is not None]
        assert len(held) == 1
        assert len(held[0]) == 32
        seen |= set(held)
        for site in both:
            site.step()
        aggregator.coordinator.close_due()
    assert len(seen) == 3
    assert keys(aggregator) == [None] * 3


def test_other_units_have_no_key(aggregator):
    aggregator.runs.start(run_spec("north"), "once")
    assert keys(aggregator) == [None]


def test_two_runs_of_the_same_updates_publish_different_noise(tmp_path, open_in):
    found = set()
    for name in "ab":
        aggregator = open_in(tmp_path / name)
        run, both = started(aggregator, spec(rounds=1))
        for site in both:
            site.step()
        aggregator.coordinator.close_due()
        found.add(aggregator.runs.get(run).model.digest)
        aggregator.desk.store.close()
    assert len(found) == 2


def mean_of(aggregator, closing):
    """What a closing publishes, less the noise that its key gives."""
    contents = (f"{row.site} {row.announcement.manifest.digest}" for row in closing.sealed)
    noise = noise_of(closing.noise_key, *map(str, astuple(closing.key)), *contents)
    spend, sites = schedule(closing.spec, closing.strategy.declares), closing.spec.federation.sites
    task = closing.strategy.plan(closing._state(), sites[0])
    mechanism = Mechanism(spend=spend, sites=len(sites), noise=noise)
    nothing = privatised(task, closing.strategy.declares.upload(task), [], mechanism).delta
    after = assemble(closing.compute().next.state.shared, aggregator.desk.published.get)
    return {name: after[name] - task.start[name] - drawn for name, drawn in nothing.items()}


def test_an_update_that_its_site_did_not_clip_is_refused_and_the_mean_is_of_the_others(aggregator):
    _, (north, south) = started(aggregator, spec(rounds=1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    assert norm(update.delta) == pytest.approx(0.5, rel=1e-5)
    giant = replace(update, delta={name: 1e6 * v for name, v in update.delta.items()})
    with pytest.raises(NormTooLarge):
        north.link.send(assignment, again(giant))
    south.step()
    closing = aggregator.coordinator.due()
    assert [row.site for row in closing.sealed] == ["south"]
    assert norm(mean_of(aggregator, closing)) == pytest.approx(0.5 / 2, rel=1e-3)


def test_fewer_answers_at_the_deadline_are_published_over_all_sites_whatever_the_quorum(aggregator, clock):
    run_ = spec("east", "north", "south", "west", rounds=1, quorum=3, deadline_s=50)
    _, (east, *_) = started(aggregator, run_)
    east.step()
    assert aggregator.coordinator.due() is None
    clock.advance(51)
    closing = aggregator.coordinator.due()
    assert [row.site for row in closing.sealed] == ["east"]
    assert norm(mean_of(aggregator, closing)) == pytest.approx(0.5 / 4, rel=1e-3)


def test_no_answer_at_all_is_published_as_noise(aggregator, clock):
    run_ = spec(rounds=2, deadline_s=50)
    run, _ = started(aggregator, run_)
    start = model(aggregator, run)
    assert aggregator.coordinator.close_due() == 0
    clock.advance(51)
    assert aggregator.coordinator.close_due() == 1
    told = last(aggregator, run, "phase_published")
    assert (told["sites"], told["epsilon"]) == ([], {})
    change = subtract(model(aggregator, run), start)
    trained = np.concatenate([v.ravel() for name, v in change.items() if "lora_A" not in name])
    expected = noise_multiplier(run_) * 0.5 / 2
    assert np.all(trained != 0)
    assert expected / 2 < trained.std() < 2 * expected
    clock.advance(51)
    aggregator.coordinator.close_due()
    assert aggregator.runs.get(run).state == "FINISHED"


def test_a_site_that_is_lost_is_waited_for_until_the_deadline(aggregator, clock):
    run, (north, south) = started(aggregator, spec(rounds=1, deadline_s=5000))
    south.link.next_task()
    north.step()
    clock.advance(1000)
    north.link.next_task()
    assert aggregator.coordinator.close_due() == 0
    assert last(aggregator, run, "lost")["site"] == "south"
    clock.advance(4001)
    assert aggregator.coordinator.close_due() == 1


def test_a_site_that_was_charged_for_other_noise_than_it_gets_is_refused(aggregator):
    _, (north, _) = started(aggregator, spec(rounds=1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    for changes, says in (
        ({"noise_multiplier": 2 * north.noise_multiplier}, "the aggregator adds"),
        ({"noise_multiplier": north.noise_multiplier * 0.99}, "the aggregator adds"),
        ({"steps": 2}, "the run says"),
        ({"sample_rate": 0.5}, "the run says"),
    ):
        with pytest.raises(BadRequest, match=says):
            north.link.send(assignment, again(update, spend=replace(update.attestation.spend, **changes)))
    north.link.send(assignment, update)


def test_weights_that_differ_are_refused_at_load_and_at_the_start(aggregator):
    document = spec().model_dump()
    document["federation"]["weights"] = {"north": 2.0}
    with pytest.raises(ValidationError, match="every site counts alike"):
        RunSpec.model_validate(document)
    document["federation"]["weights"] = {"north": 2.0, "south": 2.0}
    equal = RunSpec.model_validate(document)
    assert aggregator.runs.start(equal, "equal")
    unchecked = equal.federation.model_copy(update={"weights": {"north": 2.0}})
    with pytest.raises(InvalidInput, match="counts alike"):
        aggregator.runs.start(equal.model_copy(update={"federation": unchecked}), "other")


def test_what_a_phase_publishes_without_noise_is_impossible(aggregator):
    _, both = started(aggregator, spec(rounds=1))
    for site in both:
        site.step()
    closing = aggregator.coordinator.due()
    with pytest.raises(ValueError, match="no noise key"):
        replace(closing, noise_key=None).compute()
    assert digest(closing._state().shared) == closing.before.shared.digest
