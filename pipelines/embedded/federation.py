"""The processes of an embedded run at work: follows the aggregator's events, and looks after who is still alive."""

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deerfield.errors import DeerfieldError, InvalidInput
from deerfield.exchange import Event
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient, SiteClient
from pipelines.embedded.run_pki import RunPki, channel
from pipelines.embedded.run_pki import flags as tls_flags
from pipelines.processes.children import Aggregator, Preloader, failure
from pipelines.runs.report import Live
from pipelines.runs.result import Result

TICK_S = 0.5  # how late a dead process may be noticed
ABORT_S = 3.0  # an aggregator that is gone must not hold up an interrupt
LEAVE_S = 5.0  # a site that cannot be signed off is lost by its silence, later


@dataclass
class Federation:
    """The sites and the evaluator of a run, and what they tell."""

    result: Result
    folder: Path
    aggregator: Aggregator
    processes: Preloader
    runs: RunsClient
    screen: Live
    prepared: dict[str, Any]
    states: Mapping[str, Path]  # by site: the folder of its ledgers, key and stored updates
    pki: RunPki
    _names: dict[int, str] = field(default_factory=dict)  # by pid, of the processes that are still running

    def follow(self) -> None:
        """Starts everybody, then follows the run's events to its end and its last evaluation.

        Raises:
            InvalidInput: a site could not use the run, its model or its data.
            RunFailed: the aggregator died.
        """
        try:
            for site in self.prepared["sites"]:
                self._start(site, self._site(site))
            evaluator = self._start("evaluator", self._evaluator())
            self.screen.note("sites load the model")
            self._watch()
            while self.result.state == "finished" and evaluator in self._names:
                self.screen.note("scoring the last phases")
                self._check_processes(wait_s=TICK_S)
            self._watch()
        except (KeyboardInterrupt, DeerfieldError) as error:
            self._abort("interrupted by the user" if isinstance(error, KeyboardInterrupt) else str(error))
            raise

    def _watch(self) -> None:
        """Takes in every event since the last one, until the run has ended."""
        events: queue.Queue[Event | Exception | None] = queue.Queue()

        def listen() -> None:
            try:
                for event in self.runs.watch(self.result.run, after=self.result.events):
                    events.put(event)
                events.put(None)
            except Exception as error:  # carried over to the thread that asked
                events.put(error)

        threading.Thread(target=listen, name="watch", daemon=True).start()
        while (event := self._next(events)) is not None:
            if isinstance(event, Exception):
                raise event
            self.result.seen(event)
            self.screen.seen(event)

    def _next(self, events: "queue.Queue[Event | Exception | None]") -> Event | Exception | None:
        """The next event; looks after the processes while it waits."""
        while True:
            self._check_processes(wait_s=0)
            with suppress(queue.Empty):
                return events.get(timeout=TICK_S)

    def _check_processes(self, wait_s: float) -> None:
        """Reports a process that ended with an error, and lets the aggregator know: nobody waits for the dead."""
        self.aggregator.check()
        for pid, code in self.processes.ended(wait_s).items():
            name = self._names.pop(pid, "a process")
            log = self.folder / "logs" / f"{name}.log"
            if code == InvalidInput.exit_code:
                raise failure(code, log)
            if code:
                self.screen.warn(f"{name} ended with code {code}: {failure(code, log)}")
                self._leave(name, f"its process ended with code {code}")

    def _leave(self, name: str, detail: str) -> None:
        if name in self.prepared["sites"]:
            with channel(self.aggregator.address, self.pki.site(name)) as line, suppress(DeerfieldError):
                SiteClient(line, backoff=Backoff(patience_s=LEAVE_S)).leave(self.result.run, detail)

    def _abort(self, reason: str) -> None:
        """Ends the run at the aggregator, if it is still there, and takes in what it had to say."""
        with (
            channel(self.aggregator.address, self.pki.operator("launcher")) as line,
            suppress(DeerfieldError),
        ):
            runs = RunsClient(line, backoff=Backoff(patience_s=ABORT_S))
            runs.abort(self.result.run, reason)
            for event in runs.watch(self.result.run, after=self.result.events):
                self.result.seen(event)

    def _site(self, site: str) -> list[str]:
        policy = self.folder / "sites" / site / "policy.yaml"
        where = ["--aggregator", self.aggregator.address, "--run", self.result.run, *tls_flags(self.pki.site(site))]
        return ["site", "--site", site, "--policy", str(policy), "--state", str(self.states[site]), *where]

    def _evaluator(self) -> list[str]:
        data = ["--file", str(self.folder / "run.json"), "--rows", self.prepared["validation"]]
        where = ["--aggregator", self.aggregator.address, "--run", self.result.run]
        return ["follow", *where, *data, *tls_flags(self.pki.operator("evaluator"))]

    def _start(self, name: str, argv: list[str]) -> int:
        pid = self.processes.start(argv, self.folder / "logs" / f"{name}.log")
        self._names[pid] = name
        return pid
