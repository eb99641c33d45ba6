"""The sites of a pipeline that runs on this machine: started once their parts are written, looked after, ended.

Beside them an evaluator scores each phase of the run on the partition's test set, as in `deerfield run`.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import read
from deerfield.errors import DeerfieldError, InvalidInput, Unreachable
from deerfield.exchange import LIVE
from deerfield.runfile import RunFile
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient, SiteClient
from pipelines.embedded.federation import ABORT_S, LEAVE_S, TICK_S
from pipelines.embedded.run_pki import RunPki, channel
from pipelines.embedded.run_pki import flags as tls_flags
from pipelines.embedded.running import site_state
from pipelines.processes.children import Aggregator, Preloader, failure
from pipelines.steps.sites import policy

EVALUATOR = "evaluator"  # no site is called so


@dataclass
class LocalSites:
    """Serves any run of the aggregator, from the moment when `manifest` finds that of the partition."""

    file: RunFile
    folder: Path
    aggregator: Aggregator
    processes: Preloader
    pki: RunPki
    manifest: Callable[[], Path | None]
    say: Callable[[str], object]
    error: DeerfieldError | None = None  # what a site could not use: nothing was trained
    _names: dict[int, str] = field(default_factory=dict)  # by pid, of the sites that are still running
    _started: bool = False
    _test: str = ""  # where the partition's test set is, until somebody scores on it

    def follow(self, lines: IO[bytes], heard: Callable[[str], object]) -> None:
        """Hands each line of the pipeline to `heard` until it ends, and looks after the sites meanwhile.

        Raises:
            RunFailed: the aggregator died.
        """
        said: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_read, args=(lines, said), name="pipeline", daemon=True).start()
        try:
            while (line := self._next(said)) is not None:
                heard(line.decode("utf-8", errors="replace"))
        except (KeyboardInterrupt, DeerfieldError) as error:
            self._abort("interrupted by the user" if isinstance(error, KeyboardInterrupt) else str(error))
            raise

    def _next(self, said: "queue.Queue[bytes | None]") -> bytes | None:
        """The next line; looks after the processes while it waits."""
        while True:
            self.aggregator.check()
            if not self._started and (found := self.manifest()) is not None:
                self._start(found)
            if self._test:
                self._score()
            self._check()
            with suppress(queue.Empty):
                return said.get(timeout=TICK_S)

    def _start(self, manifest: Path) -> None:
        self._started = True
        found = read(Manifest, manifest)
        self._test, parts = found.test.part if found.test is not None else "", found.sites
        for site in parts:
            place = self.folder / "sites" / site
            place.mkdir(parents=True, exist_ok=True)
            models = {str(self.file.model.digest): self.file.embedded.base or self.file.model.base}
            written: dict[str, Any] = {"models": models, **policy(self.file, site, parts)}
            (place / "policy.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
            pid = self.processes.start(self._argv(site, place / "policy.yaml"), self._log(site))
            self._names[pid] = site

    def _score(self) -> None:
        """Starts the evaluator, once there is a run."""
        with suppress(Unreachable):  # asked again at the next look
            for run in self._live()[:1]:
                source = self.file.embedded.source.model_copy(update={"path": self._test, "rows": None})
                embedded = self.file.embedded.model_copy(update={"source": source})
                request = self.folder / "evaluator.json"
                request.write_text(self.file.model_copy(update={"embedded": embedded}).model_dump_json(indent=2))
                where = ["--aggregator", self.aggregator.address, "--run", run, "--file", str(request)]
                argv = ["follow", *where, *tls_flags(self.pki.operator(EVALUATOR))]
                self._names[self.processes.start(argv, self._log(EVALUATOR))] = EVALUATOR
                self._test = ""

    def _argv(self, site: str, rules: Path) -> list[str]:
        state = site_state(self.file, self.folder, site)
        where = ["--aggregator", self.aggregator.address, *tls_flags(self.pki.site(site))]
        return ["site", "--site", site, "--policy", str(rules), "--state", str(state), *where]

    def _log(self, site: str) -> Path:
        return self.folder / "logs" / f"{site}.log"

    def _check(self) -> None:
        """Ends the run where a site cannot use it; nobody waits for a site that has died otherwise."""
        for pid, code in self.processes.ended(0).items():
            site = self._names.pop(pid, "a site")
            if code == InvalidInput.exit_code and self.error is None:
                self.error = failure(code, self._log(site))
                self.say(f"{site} cannot take part: {self.error}")
            elif code:
                self.say(f"{site} ended with code {code}: {failure(code, self._log(site))}")
                if site != EVALUATOR:
                    self._leave(site, f"its process ended with code {code}")
        if self.error is not None:
            self._abort(str(self.error))

    def _leave(self, site: str, detail: str) -> None:
        with channel(self.aggregator.address, self.pki.site(site)) as line, suppress(DeerfieldError):
            client = SiteClient(line, backoff=Backoff(patience_s=LEAVE_S))
            for run in self._live():
                client.leave(run, detail)

    def _abort(self, reason: str) -> None:
        """Ends what runs at the aggregator, so that it tells MLflow, and the pipeline's task sees it."""
        with channel(self.aggregator.address, self.pki.operator("launcher")) as line, suppress(DeerfieldError):
            for run in self._live():
                RunsClient(line, backoff=Backoff(patience_s=ABORT_S)).abort(run, reason)

    def _live(self) -> list[str]:
        with channel(self.aggregator.address, self.pki.operator("launcher")) as line:
            runs = RunsClient(line, backoff=Backoff(patience_s=ABORT_S)).list()
        return [view.run for view in runs if view.state in LIVE]


def _read(lines: IO[bytes], said: "queue.Queue[bytes | None]") -> None:
    with lines:
        for line in lines:
            said.put(line)
    said.put(None)
