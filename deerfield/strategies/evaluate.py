"""Federated evaluation: models that are there already are scored at the sites, and nothing is trained.

Each round hands one of them out. A site answers with what its policy lets it report on a task's start tensors, and with
no tensor of its own; its noised counts are all that the run costs.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration, Strategy, Trainer
from deerfield.tensors import Shapes, Tensors, member
from deerfield.types import State, Task, Update

DIGEST = re.compile("[0-9a-f]{64}")
BASE = "base"  # the name of the drawn adapter, whose B is zero: the base model


def evaluate(spec: RunSpec, *, candidate: str = "", champion: str = "", base: bool = True) -> Strategy:
    """Trains nothing: scores the models of finished runs, by digest, at each site that may report on them."""
    named = {"candidate": candidate, "champion": champion}
    for name, digest in named.items():
        if digest and DIGEST.fullmatch(digest) is None:
            raise InvalidInput(
                f"strategy: evaluate: {name} is {digest[:80]!r}, and a model is named by the 64 hexadecimal digits of "
                "its digest; `deerfield runs show` has them"
            )
    models = {name: digest for name, digest in named.items() if digest} | ({BASE: ""} if base else {})
    if not models:
        raise InvalidInput("strategy: evaluate has nothing to score; name candidate or champion, or write base: true")
    order = tuple(models)

    def plan(state: State, site: str) -> Task:
        start = member(state.shared, order[state.round])
        return Task(round=state.round, phase=state.phase, factors="", epochs=0, start=start)

    declares = Declaration(
        sends="no tensor; what the site's policy lets it report on each model",
        rounds=len(models),
        epochs=0,
        phases=("",),
        units=frozenset({"record", "patient", "none"}),
        lr_adapter=0.05,  # of no step
        upload=upload,
        streams=True,
        site_state=False,
        models=models,
    )
    return Strategy(declares=declares, init=init, plan=plan, train=train, release=release, aggregate=aggregate)


def init(models: Tensors) -> State:
    """All models together: each round's start is one of them, and none changes."""
    return State(round=0, phase=0, shared=models)


def train(trainer: Trainer, task: Task) -> Tensors:
    """Nothing: the site has scored the task's start by its policy, as it does in every run."""
    return {}


def release(change: Tensors, task: Task) -> Tensors:
    """Nothing, as it is."""
    return change


def aggregate(state: State, updates: Sequence[Update]) -> State:
    """Goes on to the next model."""
    return replace(state, round=state.round + 1)


def upload(task: Task) -> Shapes:
    """No entry."""
    return {}
