"""A site process without a model: real `Site`, ledger, key, vault and gRPC; training pulls towards the site's target.

Its processes are forked from one that has imported everything, as `services.client.preload` does.
"""

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deerfield.errors import RunEnded
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import FitReport, completed
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from services.client.custody.custody import Custody
from services.client.policy import Policy
from services.client.site import Site
from tests.fakes import PullTrainer
from tests.integration.mortal import Mortal, killing
from tests.unit.client.sites import SOURCE

SOON = Backoff(first_s=0.1, last_s=0.5)
SHAPES = {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2), "head.weight": (3, 4), "head.bias": (3,)}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.chaos.site"])


def spec(*sites: str, noise: bool = False, **changes: object) -> RunSpec:
    """A run on no model at all: two rounds of two phases; with `noise` each record is protected, else nobody is."""
    asked = RunSpec.model_validate(
        {
            "name": "chaos",
            "population": "p",
            "labels": ["a", "b", "c"],
            "rounds": 2,
            "adapter": SHAPES,
            "privacy": {"unit": "record", "epsilon": 2.0} if noise else {"unit": "none", "clip": None},
            "model": {"base": "none", "input": "text", "lora": {"rank": 2}},
            "federation": {"sites": sites},
            **changes,
        }
    )
    return completed(asked, make(asked).declares)


def policy(asked: RunSpec) -> Policy:
    unit = asked.privacy.unit
    low, high = (1, 1) if unit == "site" else (100, 200)
    terms = {"source": SOURCE, "unit": unit, "units_low": low, "units_high": high, "registration": "on_start"}
    budget = {} if unit == "none" else {"epsilon": 5.0}
    return Policy.model_validate({"populations": {"p": terms | budget}, "models": {}})


@dataclass
class Bench(PullTrainer):
    """A workbench and its trainer; its noise is drawn anew each time, so that no second training gives the same."""

    noise: float = 0.0
    slow_s: float = 0.0  # for each task

    def check(self, assignment, on_step):
        pass

    def release(self, assignment, reservation, on_step):
        self.on_step = on_step
        strategy = make(assignment.spec)
        return strategy.release(strategy.train(self, assignment.task), assignment.task)

    def done(self):
        pass

    def metrics(self):
        return {}

    def fit(self, *, epochs, slot="shared", factors="AB"):
        for step in range(8):
            time.sleep(self.slow_s / 8)  # the work that kills land in; no test waits by it
            self.on_step(step + 1, 8)
        super().fit(epochs=epochs, slot=slot, factors=factors)
        draws = np.random.default_rng()
        for name, value in self.slots[slot].items():
            self.slots[slot][name] = (value + self.noise * draws.normal(size=value.shape)).astype(np.float32)
        return FitReport(steps=8, loss=0.0)


@dataclass(frozen=True)
class Job:
    """What a site process is told."""

    name: str
    address: str
    run: str
    state: Path  # its folder; its log is beside it
    spec: RunSpec
    point: str = "never"  # where it kills itself: one of the ledger's or the vault's, or train, send or sent
    slow_s: float = 0.0
    beats: bool = False

    def start(self) -> "multiprocessing.context.ForkServerProcess":
        process = FORKS.Process(target=work, args=(self,), daemon=True)
        process.start()
        return process


def work(job: Job) -> None:
    """Answers tasks until the run has ended."""
    with open(f"{job.state}.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    reach = killing(job.point)
    number = job.spec.federation.sites.index(job.name)
    draws = np.random.default_rng(number)
    target = {name: draws.normal(size=shape).astype(np.float32) for name, shape in job.spec.adapter.items()}
    noise = 0.0 if job.spec.privacy.unit == "none" else 1.0

    class Dying(Bench):
        def fit(self, **asked):
            reach("train")
            return super().fit(**asked)

    with (
        Custody(job.name, policy(job.spec), job.state, on_durable=reach) as custody,
        connect(job.address, role="site", site=job.name) as channel,
    ):
        link = Mortal(channel, run=job.run, backoff=SOON)
        link.reach = reach
        link.hello()
        bench = Dying(target, noise=noise, slow_s=job.slow_s)
        site = Site(
            name=job.name, link=link, account=custody.account, build=lambda _: bench, beats=job.beats, beat_s=0.2
        )
        try:
            while True:
                site.step()
        except RunEnded:
            sys.stdout.flush()
