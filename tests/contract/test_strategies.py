"""What every strategy must do, whichever it is; name one in the registry and it is tested."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
import pytest

from deerfield.deviation import deviation
from deerfield.errors import RoundClosed, StaleBase
from deerfield.runspec import Privacy, RunSpec
from deerfield.strategies import STRATEGIES, make
from deerfield.strategy import FitReport
from deerfield.tensors import digest, factor, norm, shapes, trained
from deerfield.types import State, Update
from tests.adapters import adapter, products

SITES = ("north", "south", "west")


@dataclass
class Pull:
    """'Training' solves each layer for the product of `target`, and goes half of the way; the head likewise."""

    target: Mapping[str, np.ndarray]
    slots: dict = field(default_factory=dict)

    def load(self, tensors, *, slot="shared"):
        self.slots[slot] = self.slots.get(slot, {}) | dict(tensors)

    def read(self, *, slot="shared", factors="AB"):
        return dict(trained(self.slots[slot], factors))

    def fit(self, *, epochs, slot="shared", factors="AB"):
        mine = self.slots[slot]
        for _ in range(epochs):
            for name in sorted(trained(mine, factors), reverse=True):  # B before A: it starts at zero
                mine[name] = ((mine[name] + self._solution(name, mine)) / 2).astype(np.float32)
        return FitReport(steps=epochs, loss=0.0)

    def _solution(self, name, mine):
        if factor(name) == "head":
            return self.target[name]
        path, which = name.rsplit(".lora_", 1)
        wanted = products(self.target)[path]
        if which == "B.weight":
            return wanted @ np.linalg.pinv(mine[f"{path}.lora_A.weight"])
        return np.linalg.pinv(mine[f"{path}.lora_B.weight"]) @ wanted

    def score(self, *, slot="shared", split="validation"):
        raise NotImplementedError


def spec(name, rounds=3, **federation):
    return RunSpec.model_validate(
        {
            "name": "trial",
            "population": "notes",
            "labels": ["a", "b", "c"],
            "rounds": rounds,
            "strategy": name,
            "model": {"base": "m", "input": "text"},
            "privacy": {"unit": "none"},
            "federation": {"sites": list(SITES)} | federation,
        }
    )


def drawn(seed=0):
    """As the aggregator draws it: A at random, B zero."""
    return {name: np.zeros_like(v) if factor(name) == "B" else v for name, v in adapter(seed).items()}


def update(task, site, delta):
    return Update(site=site, round=task.round, phase=task.phase, base=digest(task.start), delta=delta)


def random_updates(strategy, state, seed=9):
    found = []
    for i, site in enumerate(SITES):
        task = strategy.plan(state, site)
        found.append(update(task, site, trained(adapter(seed + i), task.factors)))
    return found


def exchange(strategy, state, trainers):
    updates = []
    for site, trainer in trainers.items():
        task = strategy.plan(state, site)
        updates.append(update(task, site, strategy.release(strategy.train(trainer, task), task)))
    return strategy.aggregate(state, updates)


def run(strategy, state, trainers):
    for _ in range(strategy.declares.rounds * len(strategy.declares.phases)):
        state = exchange(strategy, state, trainers)
    return state


@pytest.fixture(params=[*STRATEGIES, {"name": "deer", "regulator": "off"}], ids=str)
def name(request):
    return request.param


@pytest.fixture
def strategy(name):
    return make(spec(name))


def middle(strategy):
    """The states of a round that is neither the first nor trivial, one for each phase."""
    state, states = strategy.init(drawn()), []
    for _ in range(2 * len(strategy.declares.phases)):
        states.append(state)
        state = strategy.aggregate(state, random_updates(strategy, state))
    return states[len(strategy.declares.phases) :]


def test_identical_sites_reach_what_all_of_them_want(name):
    strategy, start, target = make(spec(name, rounds=40)), drawn(), adapter(1)
    state = run(strategy, strategy.init(start), {site: Pull(target) for site in SITES})
    for site in SITES:
        model = state.personal.get(site, state.shared)
        np.testing.assert_allclose(model["head.weight"], target["head.weight"], atol=1e-4)
        for path, product in products(model).items():
            A = start[f"{path}.lora_A.weight"]
            wanted = {
                "head": np.zeros_like(product),  # no adapter
                "ffa": products(target)[path] @ np.linalg.pinv(A) @ A,  # what the fixed row space can hold
            }.get(str(name), products(target)[path])
            np.testing.assert_allclose(product, wanted, atol=1e-4)


def test_rounds_and_phases_follow_the_declaration(strategy):
    declared, state, seen = strategy.declares, strategy.init(drawn()), []
    for _ in range(2 * len(declared.phases)):
        task = strategy.plan(state, "north")
        assert (task.round, task.phase) == (state.round, state.phase)
        assert task.factors == declared.phases[task.phase]
        assert task.epochs == declared.epochs
        seen.append((task.round, task.phase))
        state = strategy.aggregate(state, random_updates(strategy, state))
    assert seen == [(r, p) for r in (0, 1) for p in range(len(declared.phases))]


def test_every_site_gets_the_same_public_task_and_starts_from_what_was_published(strategy):
    for state in middle(strategy):
        tasks = [strategy.plan(state, site) for site in SITES]
        assert {digest(task.start) for task in tasks} == {digest(state.shared)}
        assert len({(task.factors, task.epochs) for task in tasks}) == 1


def test_a_phase_moves_only_what_is_planned_and_leaves_the_frozen_bits_alone(strategy):
    for state in middle(strategy):
        trainer, task = Pull(adapter(4)), strategy.plan(state, "north")
        strategy.train(trainer, task)
        moved = {n for n, v in task.start.items() if not np.array_equal(trainer.slots["shared"][n], v)}
        assert moved == set(trained(task.start, task.factors))


def test_published_entries_that_nobody_trained_keep_their_bits(name, strategy):
    for state in middle(strategy):
        task = strategy.plan(state, "north")
        after = strategy.aggregate(state, random_updates(strategy, state)).shared
        if name != "deer":  # whose gauge moves both factors; its products are tested below
            still = set(task.start) - set(trained(task.start, task.factors))
            assert all(after[entry] is state.shared[entry] for entry in still)


def test_upload_has_the_declared_schema_and_no_frozen_factor(strategy):
    for state in middle(strategy):
        task = strategy.plan(state, "north")
        released = strategy.release(strategy.train(Pull(adapter(4)), task), task)
        assert shapes(released) == strategy.declares.upload(task)
        assert {factor(entry) for entry in released} == {"head", *task.factors}
        assert all(v.dtype == np.float32 for v in released.values())


def test_aggregate_does_not_depend_on_who_came_first(strategy):
    for state in middle(strategy):
        results = [strategy.aggregate(state, order) for order in permutations(random_updates(strategy, state))]
        assert len({digest(result.shared) for result in results}) == 1
        assert len({tuple(digest(result.personal[s]) for s in sorted(result.personal)) for result in results}) == 1


def test_aggregate_leaves_its_arguments_alone(strategy):
    for state in middle(strategy):
        updates = random_updates(strategy, state)
        before = [digest(state.shared), *(digest(u.delta) for u in updates)]
        strategy.aggregate(state, updates)
        assert [digest(state.shared), *(digest(u.delta) for u in updates)] == before


def test_weights_of_the_run_file_are_respected_whatever_the_gauge(name):
    weights = dict(zip(SITES, (2, 1, 1), strict=True))
    strategy = make(spec(name, weights=weights))
    for state in middle(strategy):
        updates = random_updates(strategy, state)
        after = strategy.aggregate(state, updates)
        expected = {
            entry: v + sum(weights[u.site] / 4 * u.delta.get(entry, np.float64(0)) for u in updates)
            for entry, v in state.shared.items()
        }
        if name == "local":
            expected = state.shared
        np.testing.assert_allclose(after.shared["head.bias"], expected["head.bias"], atol=1e-6)
        for path, product in products(after.shared).items():
            np.testing.assert_allclose(product, products(expected)[path], atol=1e-5)


@pytest.mark.parametrize("linear", [name for name in STRATEGIES if make(spec(name)).declares.streams])
def test_a_site_that_missed_a_phase_leaves_the_mean_to_the_others(linear):
    strategy = make(spec(linear))
    state = middle(strategy)[0]
    north, south, _ = random_updates(strategy, state)
    after = strategy.aggregate(state, [south, north])
    mean = state.shared["head.bias"] + (north.delta["head.bias"] + south.delta["head.bias"]) / 2
    np.testing.assert_allclose(after.shared["head.bias"], mean, atol=1e-6)


def site_level(name, clip):
    privacy = Privacy(unit="site", epsilon=3.0, clip=clip)
    return make(spec(name).model_copy(update={"privacy": privacy}))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if "site" in make(spec(name)).declares.units])
def test_under_unit_site_a_site_releases_no_more_than_the_clip_and_the_mean_stands_for_all(name):
    strategy, loose = site_level(name, 0.1), site_level(name, 1e6)
    assert strategy.declares.streams
    for state in middle(loose):
        task = strategy.plan(state, "north")
        raw = strategy.train(Pull(adapter(4)), task)
        assert norm(strategy.release(raw, task)) == pytest.approx(0.1, rel=1e-5)
        assert digest(loose.release(raw, task)) == digest(raw)
        updates = random_updates(strategy, state)
        mean = {
            entry: np.mean([each.delta[entry] for each in updates], axis=0, dtype=np.float64).astype(np.float32)
            for entry in updates[0].delta
        }
        one = strategy.aggregate(state, [update(task, "federation", mean)]).shared
        for entry, value in strategy.aggregate(state, updates).shared.items():
            np.testing.assert_allclose(one[entry], value, atol=1e-5)


class Lazy(Mapping):
    """Hands out a fresh copy of each tensor, and counts."""

    def __init__(self, tensors):
        self.tensors, self.reads = tensors, []

    def __getitem__(self, entry):
        self.reads.append(entry)
        return self.tensors[entry].copy()

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


def test_updates_may_be_lazy_and_each_tensor_is_read_once(strategy):
    state = strategy.init(drawn())
    updates = random_updates(strategy, state)
    lazy = [replace(u, delta=Lazy(u.delta)) for u in updates]
    assert digest(strategy.aggregate(state, lazy).shared) == digest(strategy.aggregate(state, updates).shared)
    assert all(sorted(u.delta.reads[: len(u.delta)]) == sorted(u.delta) for u in lazy)


@pytest.mark.parametrize("late", [{"round": 7}, {"phase": 5}])
def test_an_update_of_another_phase_is_refused(strategy, late):
    state = strategy.init(drawn())
    first, *others = random_updates(strategy, state)
    with pytest.raises(RoundClosed, match="ask NextTask"):
        strategy.aggregate(state, [replace(first, **late), *others])


def test_an_update_trained_against_another_frozen_factor_is_refused(strategy):
    state, other = (strategy.init(drawn(seed)) for seed in (0, 1))
    _, *others = random_updates(strategy, state)
    with pytest.raises(StaleBase, match="north"):
        strategy.aggregate(state, [random_updates(strategy, other)[0], *others])


@pytest.mark.parametrize("exact", ["deer", "ffa", {"name": "deer", "regulator": "off"}], ids=str)
def test_one_factor_at_a_time_publishes_the_mean_of_the_products(exact):
    assert max(deviations(exact)) < 1e-6


def test_fedavg_does_not_publish_the_mean_of_the_products():
    assert min(deviations("fedavg")) > 0.1


def deviations(name):
    run_ = spec(name, weights={"north": 3})
    strategy = make(run_)
    for state in middle(strategy):
        updates = random_updates(strategy, state)
        published = strategy.aggregate(state, updates).shared
        yield deviation(state.shared, [u.delta for u in updates], run_.shares(SITES), published)


def test_deer_freezes_an_orthonormal_factor():
    strategy = make(spec("deer"))
    for state in [strategy.init(drawn()), *middle(strategy)]:
        for entry, value in strategy.plan(state, "north").start.items():
            if factor(entry) == "A" and state.phase == 0:
                np.testing.assert_allclose(value @ value.T, np.eye(len(value)), atol=1e-6)
            if factor(entry) == "B" and state.phase == 1:
                np.testing.assert_allclose(value.T @ value, np.eye(value.shape[1]), atol=1e-6)


def test_local_keeps_each_sites_own_model_and_spends_all_epochs_at_once():
    run_ = spec("local", rounds=5)
    strategy = make(run_)
    state = strategy.init(drawn())
    targets = {site: adapter(20 + i) for i, site in enumerate(SITES)}
    after = run(strategy, state, {site: Pull(target) for site, target in targets.items()})
    assert strategy.declares.epochs == run_.rounds * run_.epochs
    assert isinstance(after, State)
    for site, target in targets.items():
        gap = np.abs(after.personal[site]["head.bias"] - target["head.bias"])
        np.testing.assert_allclose(gap, np.abs(state.shared["head.bias"] - target["head.bias"]) / 2**5, atol=1e-5)


def test_head_keeps_the_adapter_inert_even_if_it_was_not_drawn_so():
    strategy = make(spec("head"))
    assert all(not product.any() for product in products(strategy.init(adapter(0)).shared).values())


def test_central_is_for_pooled_data():
    assert make(spec("central")).declares.topology == "pooled"
