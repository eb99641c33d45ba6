"""`deerfield cluster trial`: a small run over a real installation, from its start to a version in the registry."""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from deerfield.errors import DeerfieldError, NotRegistered, RunFailed
from deerfield.exchange import Event
from deerfield.runfile import load_spec, parse
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import RunsClient
from deerfield.wire.handshake import Way
from pipelines.cluster import own_sites
from pipelines.processes.site_process import scratch
from pipelines.registry.reader import RegistryReader, Version, open_registry
from pipelines.runs import runs_report
from pipelines.runs.operator_link import runs_of, say
from pipelines.runs.result import Result
from pipelines.steps.rounds import SAID

MLFLOW_S = 60.0  # how long MLflow is asked that does not answer
TICK_S = 0.5  # how late a dead process or the end of patience may be noticed
ENDING_S = 5.0  # from a site's decline to the end of its process, which says here what it keeps from the aggregator
ABORT_S = 10.0  # an aggregator that is gone must not hold up the answer
FATES = {"WAITING": "has not taken its task", "TAKEN": "has taken its task and not answered", "LOST": "is silent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is tried, and by whom."""

    way: Way
    tracking: str  # MLflow URI
    share: Path  # folder of the trial's run, policy, notes and model
    sites: tuple[str, ...] = ()  # that are connected, or will be
    own: Path | None = None  # folder of the certificates of sites to bring along
    timeout_s: float


def conduct(request: Request, tell: Callable[[str], object]) -> None:
    """Starts the run, follows it to its end and looks at what came of it; `tell` gets a line for what happens.

    Raises:
        InvalidInput: something that was asked for cannot be used.
        RunFailed: the run did not finish in time, or something about it is not as it should be.
        Unreachable: the aggregator or MLflow did not answer.
    """
    until = time.monotonic() + request.timeout_s
    registry = open_registry(request.tracking)
    # refuses an address or a password before anything is started; after an install, some networks refuse a new pod
    Backoff(patience_s=min(MLFLOW_S, request.timeout_s)).retry(registry.models)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch("trial") if request.own else _passing())
        own = own_sites.certified(request.own, folder) if request.own else ()
        population = f"{own_sites.POPULATION}-{uuid.uuid4().hex[:12]}" if own else own_sites.POPULATION
        spec = planned(request.share, tuple(site.name for site in own) or request.sites, population)
        processes = stack.enter_context(own_sites.running(folder)) if own else None
        runs = stack.enter_context(runs_of(request.way))
        own_sites.prepare(own, request.share, population, runs)
        run = runs.start(spec, uuid.uuid4().hex)
        tell(
            f"run {run}: {spec.rounds} rounds over {', '.join(spec.federation.sites)}, {request.timeout_s:g} s at most"
        )
        trial = Trial(request=request, run=run, runs=runs, processes=processes, until=until, tell=tell)
        with trial.going():
            if processes is not None:
                processes.start(own, run, request.way.address)
            result = trial.follow(spec)
        for line in judged(result, registry, folder):
            tell(line)


@contextmanager
def _passing() -> Iterator[Path]:
    """A folder that goes away in any case."""
    with TemporaryDirectory(prefix="deerfield-trial-") as folder:
        yield Path(folder)


def planned(share: Path, sites: tuple[str, ...], population: str) -> RunSpec:
    """The run of a trial over `sites`; raises InvalidInput where `share` has none, or the sites cannot be."""
    file = share / "run.yaml"
    found = load_spec(file).model_dump()
    return parse(
        RunSpec, {**found, "population": population, "federation": {**found["federation"], "sites": sites}}, str(file)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A run that was started."""

    request: Request
    run: str
    runs: RunsClient
    processes: own_sites.Running | None
    until: float  # time.monotonic() at which patience ends
    tell: Callable[[str], object]

    @contextmanager
    def going(self) -> Iterator[None]:
        """Aborts the run if the block is left by an error or a person: nobody would end it otherwise."""
        try:
            yield
        except (DeerfieldError, KeyboardInterrupt) as error:
            with suppress(DeerfieldError), runs_of(self.request.way, Backoff(patience_s=ABORT_S)) as runs:
                runs.abort(self.run, str(error) or "interrupted by its operator")
            raise

    def follow(self, spec: RunSpec) -> Result:
        """What its events tell, once it has finished.

        Raises:
            RunFailed: it ended otherwise or not in time, or a site declined or left it.
        """
        result = Result(spec, self.run)
        for event in self._events():
            result.seen(event)
            if event.kind in SAID:
                self.tell(runs_report.line(event))
            if event.kind in ("declined", "left"):
                self._gone(event)
        if result.state != "finished":
            raise RunFailed(f"run {self.run} {result.state}: {result.reason}")
        return result

    def _gone(self, event: Event) -> None:
        """Raises RunFailed for a site that declined or left: as the site itself says it, where that is known here."""
        if self.processes is not None:
            self.processes.check(ENDING_S)
        why = ": ".join(str(event.detail[key]) for key in ("reason", "detail") if event.detail.get(key))
        raise RunFailed(f"site {event.detail['site']} {event.kind} run {self.run}: {why}")

    def _events(self) -> Iterator[Event]:
        """Everything that happens, until the run has ended; looks after the processes and the time meanwhile."""
        events: queue.Queue[Event | DeerfieldError | None] = queue.Queue()
        threading.Thread(target=self._watch, args=(events,), name="watch", daemon=True).start()
        while True:
            if self.processes is not None:
                self.processes.check()
            with suppress(queue.Empty):
                event = events.get(timeout=TICK_S)
                if event is None:
                    return
                if isinstance(event, DeerfieldError):
                    raise event
                yield event
                continue
            if time.monotonic() > self.until:
                raise RunFailed(f"run {self.run} did not finish within {self.request.timeout_s:g} s: {self._waits()}")

    def _watch(self, events: "queue.Queue[Event | DeerfieldError | None]") -> None:
        try:
            with runs_of(self.request.way, Backoff(last_s=10.0, patience_s=self.request.timeout_s, tell=say)) as runs:
                for event in runs.watch(self.run):
                    events.put(event)
            events.put(None)
        except DeerfieldError as error:  # carried over to the thread that follows
            events.put(error)

    def _waits(self) -> str:
        """Whom the run waits for."""
        view, known = self.runs.get(self.run), {each.site for each in self.runs.sites()}
        fates = {site: FATES[state] for site, state in sorted(view.sites.items()) if state in FATES}
        found = [f"{site} {fate if site in known else 'has never called'}" for site, fate in fates.items()]
        return "; ".join(found) or "its sites have answered, and nothing came of it: see the aggregator's log"


def judged(result: Result, registry: RegistryReader, folder: Path) -> Iterator[str]:
    """A line for each thing that is as it should be after a trial that finished.

    Raises:
        RunFailed: another thing is not.
        InvalidInput, Unreachable: the registry does not give the version, or gives another one than was published.
    """
    spec = result.spec
    sites, phases = spec.federation.sites, spec.rounds * len(make(spec).declares.phases)
    whole = [phase for phase in result.phases if set(phase["sites"]) == set(sites)]
    if not len(result.phases) == len(whole) == phases:
        raise RunFailed(f"run {result.run} published {len(whole)} exchanges with all of its sites, not {phases}")
    yield f"ok: {spec.rounds} rounds, {phases} exchanges, each with {', '.join(sites)}"
    spent, limit = {site: result.sites[site]["epsilon"] for site in sites}, spec.privacy.epsilon
    if limit is None or not all(0 < epsilon <= limit for epsilon in spent.values()):
        raise RunFailed(f"run {result.run} has spent {_figures(spent)} of epsilon {limit}")
    yield f"ok: epsilon {_figures(spent)}, of {limit:g}"
    version = _registered(result, registry)
    registry.adapter(version, folder)  # whose tensors have the digest of its tag
    yield f"ok: {version}, digest {version.digest}, is what the aggregator published"
    yield (
        f"{result.run} stays in the list of runs, and {version} in the registry: nothing but trials is called "
        f"{version.model}, so it is no candidate for another model"
    )


def _registered(result: Result, registry: RegistryReader) -> Version:
    """The version that the run has become; raises NotRegistered, with why it became none."""
    if not result.registered:
        lost = [each["reason"] for each in result.incidents if each["kind"] == "tracking_failed"]
        why = f"MLflow did not take it ({lost[0]})" if lost else "its aggregator was started without --tracking"
        raise NotRegistered(f"run {result.run} has no version in the registry: {why}")
    version = registry.version(str(result.registered["name"]), str(result.registered["version"]))
    if (version.run, version.digest) != (result.run, result.digest):
        raise NotRegistered(
            f"{version} is of run {version.run or 'unknown'} with digest {version.digest[:12]}, and run {result.run} "
            f"published {result.digest[:12]}: does --tracking name the aggregator's MLflow?"
        )
    return version


def _figures(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{site} {epsilon:.3g}" for site, epsilon in spent.items())
