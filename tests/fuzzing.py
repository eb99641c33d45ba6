"""Sequences of calls that no site or operator would make, against an aggregator that is a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from deerfield.exchange import LIVE
from deerfield.link import Assignment
from deerfield.types import Update
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.status import DOMAIN, REASONS
from tests.fakes import TeachingSite, adapter, run_spec
from tests.fuzz_messages import FAULTS, Fault, good_messages, limited, wrong

METHODS = {m.name: m for service in pb.DESCRIPTOR.services_by_name.values() for m in service.methods}
PLAYED = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a server remembers: a smaller sequence would meet another one
    suppress_health_check=list(HealthCheck),
)
CALL_S = 20.0  # of a call that is to be answered at once: it must never be reached
WATCH_S = 0.1  # of a watch: one that has been told everything waits for the next event, until its caller leaves
PEOPLE = (
    (("deerfield-role", "site"), ("deerfield-site", "north")),
    (("deerfield-role", "site"), ("deerfield-site", "south")),
    (("deerfield-role", "operator"),),
    (("deerfield-role", "operator"), ("deerfield-site", "north")),
    (("deerfield-role", "observer"),),
    (("deerfield-role", "site"), ("deerfield-site", "stranger")),
    (("deerfield-role", "site"), ("deerfield-site", "x" * 2000)),
    (("deerfield-role", "site"),),
    (("deerfield-role", "king"),),
    (),
)
RENEWED = 20  # sequences that are about one run: by then it has mostly been left or aborted


@dataclass(frozen=True, slots=True)
class Step:
    """One call: who makes it, and what is wrong with it."""

    method: str
    person: int
    fault: Fault
    seed: int
    hangs_up: bool  # in the middle, without waiting for the answer


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One call, mostly by somebody who may make it."""
    method = draw(st.sampled_from(sorted(METHODS)))
    rightful = [2] if METHODS[method].containing_service.name == "Runs" else [0, 1]
    return Step(
        method,
        draw(st.sampled_from(rightful * 8 + list(range(len(PEOPLE))))),
        draw(st.sampled_from(FAULTS)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([False] * 9 + [True])),
    )


SEQUENCES = st.lists(st.lists(steps(), min_size=1, max_size=3), min_size=1, max_size=6)  # each group at once


@dataclass
class Target:
    """A running aggregator, what can be said to it, and what it has answered."""

    process: subprocess.Popen[str]
    channel: grpc.Channel
    address: str
    anchor: TeachingSite
    sealed: tuple[Assignment, Update]
    pool: ThreadPoolExecutor
    good: dict[str, Sequence[Any]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=count)
    played: Iterator[int] = field(default_factory=count)

    def play(self, sequence: Sequence[Sequence[Step]]) -> None:
        """Makes the calls, those of a group at once; every one must get a typed answer in time."""
        if next(self.played) % RENEWED == 0:
            self.renew()
        for group in sequence:
            for step, answer in zip(group, self.pool.map(self.answer, group), strict=True):
                self.answers[answer] += 1
                assert answer.startswith(("OK", "hung up")) or answer.partition(" ")[2], f"{step} got {answer}"

    def renew(self) -> None:
        """Ends every run but the anchor's, whoever started it, and makes another one to talk about."""
        with RunsClient.connect(self.address) as runs:
            for view in runs.list():
                if view.state in LIVE and view.run != self.sealed[0].run:
                    runs.abort(view.run, "another one follows")
        self.good = good_messages(self.address, next(self.numbers))

    def answer(self, step: Step) -> str:
        """The status of a call, with its reason: `CODE REASON`; a status without one of our reasons has none."""
        method, random = METHODS[step.method], Random(step.seed)
        forms = {False: "unary", True: "stream"}
        form = f"{forms[method.client_streaming]}_{forms[method.server_streaming]}"
        call = getattr(self.channel, form)(f"/{method.containing_service.full_name}/{method.name}")
        sent = self.said(step, random)
        gone = Event()
        try:
            if method.name == "Watch":
                return _watch(call(sent[0], metadata=PEOPLE[step.person], timeout=WATCH_S))
            if step.hangs_up:
                return self._hang_up(call, method, sent, PEOPLE[step.person], gone)
            request = iter(sent) if method.client_streaming else sent[0]
            reply = call(request, metadata=PEOPLE[step.person], timeout=CALL_S)
            if method.server_streaming:
                for _ in reply:
                    pass
            return "OK"
        except grpc.RpcError as error:
            return status(error)
        finally:
            gone.set()

    def _hang_up(self, call: Any, method: Any, sent: Sequence[bytes], person: Any, gone: Event) -> str:
        def slowly() -> Iterator[bytes]:
            yield from sent
            gone.wait(CALL_S)  # half-open: the end never comes

        request = slowly() if method.client_streaming else sent[0]
        if method.server_streaming:
            reply = call(request, metadata=person, timeout=CALL_S)
            try:
                next(reply, None)
            finally:
                reply.cancel()
        else:
            future = call.future(request, metadata=person, timeout=CALL_S)
            future.cancel()
        return "hung up"

    def said(self, step: Step, random: Random) -> list[bytes]:
        """The messages of a call, as bytes."""
        method = METHODS[step.method]
        good = random.choice(self.good[step.method])
        messages = list(good) if isinstance(good, tuple) else [good]
        if method.client_streaming:
            random.shuffle(messages)
        return [limited(method, wrong(message, step.fault, random)) for message in messages] or [b""]

    def still_serves(self) -> None:
        """A valid exchange: a sealed update that is sent once more gets its receipt."""
        self.anchor.link.send(*self.sealed)

    def finishes_a_run(self) -> None:
        """A run of one site, from its start to its model."""
        with RunsClient.connect(self.address) as runs:
            number = next(self.numbers)
            run = runs.start(run_spec(f"solo-{number}", rounds=1), f"solo {number}")
            with connect(self.address, role="site", site=f"solo-{number}") as channel:
                site = TeachingSite(f"solo-{number}", SiteClient(channel, run=run), adapter(number))
                site.step()
                site.step()  # the second phase of the round of `deer`
            kinds = [event.kind for event in runs.watch(run)]
            assert kinds[-1] == "run_finished", kinds

    @property
    def resident(self) -> int:
        """Bytes of memory that the aggregator has now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def _watch(events: Any) -> str:
    """What a watcher sees who leaves soon; one who waited for the next event has left, and was not let down."""
    try:
        for _ in events:
            pass
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "hung up"
        raise
    return "OK"


def status(error: grpc.RpcError) -> str:
    """`CODE REASON`, with the reasons that gRPC itself may give for what never reached a method."""
    code, reason = error.code().name, ""
    told = rpc_status.from_call(error)
    for packed in told.details if told else ():
        info = ErrorInfo()
        if packed.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
    if not reason and code == "RESOURCE_EXHAUSTED" and "larger than max" in (error.details() or ""):
        reason = "message"  # gRPC's own limit
    return f"{code} {reason}" if reason in REASONS or reason == "message" else code


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """An aggregator with a run that two sites work on, and one with a sealed update."""
    command = [sys.executable, "-m", "services.aggregator", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    command += ["--database", f"sqlite:///{folder / 'a.db'}", "--blobs", str(folder / "blobs"), "--lost-after", "3600"]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("w"))
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
        stack.callback(process.terminate)
        address = json.loads(process.stdout.readline())["listening"]
        options = [("grpc.max_send_message_length", -1)]
        channel = stack.enter_context(grpc.insecure_channel(address, options=options))
        runs = stack.enter_context(RunsClient.connect(address))
        kept = runs.start(run_spec("anchor", "absent", rounds=1), "anchored")
        own = stack.enter_context(connect(address, role="site", site="anchor"))
        anchor = TeachingSite("anchor", SiteClient(own, run=kept), adapter(7))
        pool = stack.enter_context(ThreadPoolExecutor(3))
        assignment = anchor.link.next_task()
        sealed = assignment, anchor.update(assignment)
        anchor.link.send(*sealed)
        yield Target(process, channel, address, anchor, sealed, pool)
        assert process.poll() is None
    _, broken, after = (folder / "log").read_text().partition("Traceback")
    assert not broken, after[:4000]
