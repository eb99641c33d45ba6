"""A site without a model: real policy, ledger, key and vault, and a link that hands out what a test gives it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deerfield.attestation import countersign
from deerfield.errors import RunEnded
from deerfield.link import Assignment
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import FitReport, completed
from deerfield.types import Countersigned, Task
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Site
from tests.attesting import key_of

AGGREGATOR = key_of("the aggregator")
SHAPES = {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2), "head.weight": (3, 4), "head.bias": (3,)}
START = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
# 150 notes of 50 patients, by np.savez_compressed(NOTES, text=..., label=..., patient=...): read without `datasets`
NOTES = Path(__file__).with_name("notes.npz")
SOURCE = {"path": str(NOTES), "patient": "patient"}


def spec(**changes):
    """A run on no model at all: two rounds of deer over `SHAPES`."""
    privacy = {"unit": "record", "epsilon": 2.0, **changes.pop("privacy", {})}
    run = {
        "name": "r",
        "population": "p",
        "labels": ["a", "b", "c"],
        "rounds": 2,
        "adapter": SHAPES,
        "privacy": privacy,
    }
    model = {"base": "none", "input": "text", "lora": {"rank": 2}}
    asked = RunSpec.model_validate({**run, "model": model, **changes})
    return completed(asked, make(asked).declares)


def policy(*, population=None, **changes) -> Policy:
    terms = {"source": SOURCE, "unit": "record", "epsilon": 5.0, "units_low": 100, "units_high": 200}
    terms["registration"] = "on_start"
    return Policy.model_validate({"populations": {"p": terms | (population or {})}, "models": {}, **changes})


def assigned(number: int = 0, run: str = "r", **changes) -> Assignment:
    task = Task(round=number // 2, phase=number % 2, factors="BA"[number % 2], epochs=1, start=START)
    return Assignment(run=run, incarnation=0, spec=spec(**changes), task=task, base="0" * 64)


@dataclass
class FakeLink:
    """Hands out `tasks`, then says that the run has ended; raises what it is told to."""

    tasks: list[Assignment]
    refuses: list[Exception | None] = field(default_factory=list)
    refuses_declines: Exception | None = None
    beats: list[Exception | bool] = field(default_factory=list)
    record: Countersigned | None = None
    sent: list = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def next_task(self):
        if not self.tasks:
            raise RunEnded("finished")
        return self.tasks.pop(0)

    def send(self, assignment, update):
        self.sent.append(update)
        if self.refuses and (error := self.refuses.pop(0)) is not None:
            raise error
        return countersign(AGGREGATOR, update.attestation)

    def head(self, population):
        return self.record

    def decline(self, assignment, reason, detail):
        self.declined.append((reason, detail))
        if self.refuses_declines is not None:
            raise self.refuses_declines

    def leave(self, run, detail):
        self.left.append(run)

    def heartbeat(self, assignment, steps_done, steps):
        found = self.beats.pop(0) if self.beats else True
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class Bench:
    """A workbench that notes the order in which it is asked, and trains by adding random numbers."""

    run: "list[str]"
    fails: Exception | None = None
    check_fails: Exception | None = None
    reads: int = 0

    def check(self, assignment, on_step):
        self.run.append("check")
        if self.check_fails is not None:
            raise self.check_fails

    def release(self, assignment, reservation, on_step):
        self.run.append("trainer")
        if self.fails is not None:
            raise self.fails
        strategy = make(assignment.spec)
        return strategy.release(strategy.train(self, assignment.task), assignment.task)

    def done(self):
        pass

    def metrics(self):
        return {}

    def load(self, tensors, *, slot="shared"):
        pass

    def read(self, *, slot="shared", factors="AB"):
        shapes = {name: shape for name, shape in SHAPES.items() if f"lora_{factors}" in name or "head" in name}
        return {name: np.random.default_rng().normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def fit(self, *, epochs, slot="shared", factors="AB"):
        return FitReport(steps=8, loss=1.0)


def serve(link: FakeLink, state, *, rules=None, clock=None, **fails: Exception) -> list[str]:
    """Serves `link` to its end from the state folder, as a site process does; the order in which it did things."""
    order: list[str] = []
    rules = rules or policy()
    with Custody("north", rules, state, **({"clock": clock} if clock else {})) as custody:
        Site(
            name="north",
            link=link,
            account=custody.account,
            build=lambda _: Bench(order, **fails),
            leaves=rules.on_exhaustion == "leave",
            beats=False,
        ).serve()
    return order
