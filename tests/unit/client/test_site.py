"""What a site answers when something goes wrong: once, in a fixed sentence, and never by training twice."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import structlog

from deerfield.errors import (
    REFUSALS,
    BadRequest,
    EngineFault,
    InvalidInput,
    NotFinite,
    RoundClosed,
    RunEnded,
    Unreachable,
)
from deerfield.link import Assignment
from deerfield.strategy import FitReport
from deerfield.types import Task
from services.client import site
from services.client.site import Site
from tests.unit.client import tiny

SHAPES = {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2), "head.weight": (3, 4), "head.bias": (3,)}
SPEC = tiny.spec("bert", privacy={"unit": "none"}).model_copy(update={"adapter": SHAPES, "rounds": 2})
START = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def assigned(number: int = 0) -> Assignment:
    task = Task(round=number, phase=0, factors="B", epochs=1, start=START)
    return Assignment(run="r", incarnation=0, spec=SPEC, task=task, base="0" * 64)


@dataclass
class FakeLink:
    """Hands out `tasks`, then says that the run has ended; raises what it is told to."""

    tasks: list[Assignment]
    refuses: list[Exception | None] = field(default_factory=list)
    refuses_declines: Exception | None = None
    beats: list[Exception | bool] = field(default_factory=list)
    sent: list[object] = field(default_factory=list)
    declined: list[tuple[str, str]] = field(default_factory=list)

    def next_task(self):
        if not self.tasks:
            raise RunEnded("finished")
        return self.tasks.pop(0)

    def send(self, assignment, update):
        self.sent.append(update)
        if self.refuses and (error := self.refuses.pop(0)) is not None:
            raise error

    def decline(self, assignment, reason, detail):
        self.declined.append((reason, detail))
        if self.refuses_declines is not None:
            raise self.refuses_declines

    def heartbeat(self, assignment, steps_done, steps):
        found = self.beats.pop(0) if self.beats else True
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class Bench:
    """A workbench that notes the order in which it is asked."""

    run: "list[str]"
    fails: Exception | None = None
    check_fails: Exception | None = None

    def check(self, task):
        self.run.append("check")
        if self.check_fails is not None:
            raise self.check_fails

    def trainer(self, task, spend, on_step):
        self.run.append("trainer")
        if self.fails is not None:
            raise self.fails
        return self

    def metrics(self):
        return {}

    def load(self, tensors, *, slot="shared"):
        pass

    def read(self, *, slot="shared", factors="AB"):
        return {name: array for name, array in START.items() if f"lora_{factors}" in name or "head" in name}

    def fit(self, *, epochs, slot="shared", factors="AB"):
        return FitReport(steps=8, loss=1.0)


def served(link: FakeLink, **fails: Exception) -> list[str]:
    order: list[str] = []
    Site(name="north", link=link, build=lambda _: Bench(order, **fails), beats=False).serve()
    return order


def test_a_refused_update_is_declined_with_its_reason_and_never_trained_again():
    link = FakeLink([assigned(), assigned(), assigned()], refuses=[NotFinite("head.bias holds a NaN")])
    assert served(link) == ["check", "trainer"]
    assert link.declined == [("NOT_FINITE", site.DECLINED["NOT_FINITE"])] * 3


def test_an_update_that_came_too_late_is_not_declined_but_never_trained_again():
    link = FakeLink([assigned(), assigned(1)], refuses=[RoundClosed("late")])
    assert served(link) == ["check", "trainer"] * 2
    assert len(link.sent) == 2
    assert not link.declined


def test_a_task_that_was_answered_is_not_answered_again():
    link = FakeLink([assigned(), assigned()])
    assert served(link) == ["check", "trainer"]
    assert [reason for reason, _ in link.declined] == ["ALREADY_SEALED"]


def test_the_engine_is_checked_before_anything_is_charged():
    link = FakeLink([assigned(), assigned(1), assigned(2), assigned(3)])
    failing = served(link, check_fails=EngineFault("lora_B gets no gradient"))
    assert failing == ["check"] * 4
    assert {reason for reason, _ in link.declined} == {"ENGINE_FAULT"}  # BUDGET_EXHAUSTED, had each been charged


def test_data_are_not_read_for_a_task_beyond_the_schedule():
    link = FakeLink([assigned(number) for number in range(5)])
    order = served(link)
    assert order == ["check", "trainer"] * (len(order) // 2) + ["check"] * (order.count("check") * 2 - len(order))
    assert {reason for reason, _ in link.declined} == {"BUDGET_EXHAUSTED"}


def test_a_site_that_breaks_says_so_without_saying_how_and_stops():
    link = FakeLink([assigned()])
    with pytest.raises(MemoryError):
        served(link, fails=MemoryError("patient 17 has 4 GiB"))
    assert link.declined == [("ENGINE_FAULT", "the site failed; see its log")]


def test_data_that_cannot_be_read_stop_the_site_even_when_nobody_listens():
    link = FakeLink([assigned()], refuses_declines=RunEnded("over"))
    with pytest.raises(InvalidInput, match="no column"):
        served(link, fails=InvalidInput("no column 'x'"))
    assert link.declined == [("NOT_MAPPED", site.DECLINED["NOT_MAPPED"])]


def test_an_interrupt_is_not_an_answer():
    link = FakeLink([assigned()])
    with pytest.raises(KeyboardInterrupt):
        served(link, fails=KeyboardInterrupt())
    assert not link.declined


def test_a_decline_that_comes_too_late_is_no_reason_to_stop():
    link = FakeLink([assigned(), assigned(1)], refuses_declines=RoundClosed("closed"))
    served(link, check_fails=EngineFault("x"))
    assert len(link.declined) == 2


def test_a_lost_heartbeat_does_not_end_the_others():
    link = FakeLink([], beats=[BadRequest("odd"), Unreachable("gone"), False])
    alone = Site(name="north", link=link, build=lambda _: Bench([]), beat_s=0.001)
    with alone._progress(assigned()) as on_step, pytest.raises(RoundClosed):
        _train_on(on_step)
    assert not link.beats


def _train_on(on_step):
    for step in range(10_000_000):
        on_step(step, 1)


def test_every_reason_is_answered_by_a_sentence_without_data():
    assert set(site.DECLINED) <= set(REFUSALS)
    assert all("{" not in text for text in (*site.DECLINED.values(), site.OTHERWISE))
    link = FakeLink([assigned()], refuses=[BadRequest("metrics: loss of patient 17")])
    served(link)
    assert link.declined == [("BAD_REQUEST", site.OTHERWISE)]


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield
