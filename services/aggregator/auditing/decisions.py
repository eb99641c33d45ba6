"""Who was let in to which call, and who was not, in the audit log: at once where it matters, else by the minute.

A call that changed something needs no line of its own: its edges name the caller, in the transaction that made them.
At once: what an operator asked for, also where it changed nothing, and the first denial of a caller and call in each
minute. Everything else, a thousand sites that poll and floods of denied calls, is counted by caller, call and answer,
and written once a minute and at the end. A crash loses the counts of the last minute and nothing else.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

import deerfield
from deerfield.errors import DeerfieldError, NotAuthenticated, NotMember
from deerfield.ledger.entry import canonical
from services.aggregator.auditing.audit_chain import Draft
from services.aggregator.auditing.trail import AGGREGATOR, Call
from services.aggregator.sql.store import Store

PERIOD_S = 60.0
MOST = 4096  # callers x calls that are told apart in a minute, allowed and denied; further ones are counted together
REST = {"role": "others"}
SENTENCE_CHARS = 500
DENIALS = (NotAuthenticated, NotMember)
READS = frozenset(  # of an operator
    {"Hello", "List", "Get", "Watch", "Promotions", "Sites", "GetChunks", "Check", "ServerReflectionInfo"}
)

log = structlog.get_logger()


class _Key(NamedTuple):
    actor: bytes  # canonical JSON
    call: str
    denied: bool
    reason: str


@dataclass(slots=True)
class _Count:
    actor: Mapping[str, str]
    since: float
    sentence: str = ""  # of the first one
    pending: int = 0  # not yet in the log
    told: bool = False  # the first one went in at once


class Decisions:
    """Lives on one event loop; holds at most `MOST` counts of allowed calls, and as many of denied ones."""

    def __init__(self, store: Store, clock: Callable[[], float], period_s: float = PERIOD_S) -> None:
        self._store, self._clock, self._period_s = store, clock, period_s
        self._counts: dict[_Key, _Count] = {}
        self._told_apart = {False: 0, True: 0}  # how many of the counts are of calls allowed, and denied

    def made(self, call: Call, *, broken_off: bool = False) -> None:
        """Takes note of a call that was answered or broken off."""
        error = call.refused
        if call.wrote and error is None:
            return  # its edges say who and what
        denied = isinstance(error, DENIALS)
        reason = "BROKEN_OFF" if broken_off and error is None else _reason(error)
        key = _Key(canonical(call.actor), call.name, denied, reason)
        sentence = str(error or "")[:SENTENCE_CHARS]
        if call.actor["role"] == "operator" and call.name not in READS and not denied:
            if self._write({key: _Count(call.actor, self._clock(), sentence, pending=1)}):
                return  # each of them by itself; without a database it is counted like the others
        elif key not in self._counts and self._told_apart[denied] >= MOST:  # polls take no denial's place
            key, call, sentence = _Key(canonical(REST), "", denied, ""), Call("", REST), ""
        if key not in self._counts:
            self._told_apart[denied] += 1
            self._counts[key] = _Count(call.actor, self._clock(), sentence)
        count = self._counts[key]
        count.pending += 1
        if denied and not count.told and count.actor is not REST:
            count.told = True
            self._write({key: count})

    def process(self, what: str) -> None:
        """Notes that an aggregator has started or ended: a start without an end before it was a crash."""
        detail = {"host": socket.gethostname(), "pid": os.getpid(), "version": deerfield.__version__}
        self._append([Draft(kind="process", what=what, actor=AGGREGATOR, detail=detail)])

    def flush(self) -> None:
        """Writes every count, and begins a new period."""
        counts, self._counts = self._counts, {}
        if self._write(counts):
            self._told_apart = {False: 0, True: 0}
        else:
            self._counts = counts  # nobody calls in between: this is the event loop

    async def follow(self) -> None:
        """Flushes once a period, until it is cancelled."""
        while True:
            await asyncio.sleep(self._period_s)
            self.flush()

    def _write(self, counts: Mapping[_Key, _Count]) -> bool:
        pending = {key: count for key, count in counts.items() if count.pending}
        if written := self._append([_draft(key, count) for key, count in pending.items()]):
            for count in pending.values():
                count.pending = 0
        return written

    def _append(self, drafts: Sequence[Draft]) -> bool:
        """Whether they are in the log: without a database nothing is changed either, and they wait for it."""
        if not drafts:
            return True
        try:
            with self._store.edge() as edge:
                edge.trail.append(drafts)
        except DeerfieldError as error:
            log.error("audit log not written", entries=len(drafts), sentence=str(error))
            return False
        return True


def _draft(key: _Key, count: _Count) -> Draft:
    said = {"reason": key.reason, "sentence": count.sentence}
    detail = {
        "answer": "denied" if key.denied else "allowed",
        "count": count.pending,
        "since": count.since,
        **{name: text for name, text in said.items() if text},
    }
    return Draft(kind="decision", what=key.call, actor=count.actor, detail=detail)


def _reason(error: DeerfieldError | None) -> str:
    return "" if error is None else str(getattr(error, "reason", type(error).__name__))
