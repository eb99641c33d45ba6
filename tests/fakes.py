"""Working stand-ins, small enough to be read: no mocks anywhere in this suite."""

from dataclasses import dataclass, field

import grpc
import numpy as np

from deerfield.link import Assignment, Link
from deerfield.runspec import Federation, Model, Privacy, RunSpec
from deerfield.strategies import make
from deerfield.strategy import FitReport, Scores
from deerfield.tensors import Factors, Shapes, Tensors, trained
from deerfield.types import Spend, Update
from tests.attesting import attested

RANK = 2
ADAPTER: Shapes = {
    "base_model.model.layer.0.lora_A.weight": (RANK, 6),
    "base_model.model.layer.0.lora_B.weight": (5, RANK),
    "base_model.model.layer.1.lora_A.weight": (RANK, 5),
    "base_model.model.layer.1.lora_B.weight": (4, RANK),
    "head.weight": (2, 4),
    "head.bias": (2,),
}


def adapter(seed: int) -> Tensors:
    """A random adapter of the shapes `ADAPTER`."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in ADAPTER.items()}


def run_spec(
    *sites: str,
    strategy: str = "deer",
    rounds: int = 2,
    quorum: int | None = None,
    deadline_s: float = 3600.0,
    privacy: Privacy | None = None,
    name: str = "teaching run",
) -> RunSpec:
    """A run over `sites` with the shapes `ADAPTER`, without privacy unless one is given."""
    return RunSpec(
        name=name,
        strategy=strategy,
        rounds=rounds,
        population="patients",
        labels=("no", "yes"),
        model=Model.model_validate({"base": "tiny", "input": "text", "lora": {"rank": RANK}}),
        privacy=privacy or Privacy(unit="none", clip=None),
        federation=Federation(sites=sites, quorum=quorum, deadline_s=deadline_s),
        adapter=dict(ADAPTER),
    )


@dataclass
class PullTrainer:
    """'Training' moves every trained entry halfway to this site's target, once for each epoch."""

    target: Tensors
    slots: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def load(self, tensors: Tensors, *, slot: str = "shared") -> None:
        self.slots.setdefault(slot, {}).update(tensors)

    def read(self, *, slot: str = "shared", factors: Factors = "AB") -> Tensors:
        return dict(trained(self.slots[slot], factors))

    def fit(self, *, epochs: int, slot: str = "shared", factors: Factors = "AB") -> FitReport:
        for _ in range(epochs):
            for name, value in trained(self.slots[slot], factors).items():
                self.slots[slot][name] = ((value + self.target[name]) / 2).astype(np.float32)
        return FitReport(steps=epochs, loss=0.0)

    def score(self, *, slot: str = "shared", split: str = "validation") -> Scores:
        return Scores(probabilities=np.full((1, 2), 0.5), labels=np.zeros(1, np.int64))


@dataclass
class TeachingSite:
    """A site that answers tasks with a `PullTrainer`, over any link."""

    name: str
    link: Link
    target: Tensors
    noise_multiplier: float = 0.0

    def update(self, assignment: Assignment) -> Update:
        """What this site answers to a task."""
        strategy, task = make(assignment.spec), assignment.task
        delta = strategy.release(strategy.train(PullTrainer(self.target), task), task)
        plain = Update(site=self.name, round=task.round, phase=task.phase, base=assignment.base, delta=delta)
        return attested(assignment, plain, spend(assignment, self.noise_multiplier))

    def step(self) -> bool:
        """Answers one task; False if there is none. Raises RunEnded."""
        assignment = self.link.next_task()
        if assignment is not None:
            self.link.send(assignment, self.update(assignment))
        return assignment is not None


def spend(assignment: Assignment, noise_multiplier: float) -> Spend:
    """The spend that the run asks of a task."""
    spec, task = assignment.spec, assignment.task
    privacy = spec.privacy
    return Spend(
        unit=privacy.unit,
        noise_multiplier=noise_multiplier,
        sample_rate=spec.release_rate,
        steps=spec.releases(task.epochs),
        clip=privacy.clip or float("inf"),
    )


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class LosesAnswers(grpc.UnaryUnaryClientInterceptor):
    """A connection that carries the calls named `method` there, and loses the first `losses` of their answers."""

    def __init__(self, method: str, losses: int) -> None:
        self.method, self.losses, self.calls = method, losses, []

    def intercept_unary_unary(self, continuation, client_call_details, request):
        self.calls.append(client_call_details.method.rpartition("/")[2])
        answer = continuation(client_call_details, request)
        if not client_call_details.method.endswith(f"/{self.method}") or self.losses == 0:
            return answer
        self.losses -= 1
        answer.result()
        raise Broken


class Broken(grpc.RpcError):
    """What gRPC raises when the connection is gone."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "connection reset"

    def trailing_metadata(self):
        return ()
