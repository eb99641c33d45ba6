"""Typed clients of the two services: `SiteClient` is a site's `Link` over gRPC, `RunsClient` is for an operator."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import TIMEOUT_MAX
from typing import Any

import grpc

import deerfield
from deerfield.attestation import check_receipt, verify_head
from deerfield.errors import AGAIN, DeerfieldError
from deerfield.exchange import Announcement, Event, Key, RunView, announce
from deerfield.link import Assignment
from deerfield.manifest import Manifest, pieces
from deerfield.promotion import Promotion, PromotionRecord
from deerfield.roster import NOTHING, KnownSite, SiteReport
from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors
from deerfield.types import Countersigned, Task, Update
from deerfield.wire import codec, limits, promoting, roster, signed
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import FOR_EVER, ONE_MINUTE, Backoff
from deerfield.wire.calls import downstream, unary, upstream
from deerfield.wire.channel import connect
from deerfield.wire.checks import sha256_names
from deerfield.wire.chunks import Fetcher
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What the aggregator said about itself."""

    protocol: int
    build: str


class SiteClient:
    """A `deerfield.link.Link` over a channel; by default it waits for its aggregator for ever.

    `run` names the run to work for; left empty, it is any run that the caller is a member of.
    """

    def __init__(self, channel: grpc.Channel, *, run: str = "", backoff: Backoff = FOR_EVER) -> None:
        self._stub = FederationStub(channel)
        self._run = run
        self._backoff = backoff
        self._fetcher = Fetcher(self._stub.GetChunks, backoff)

    def hello(self, report: SiteReport = NOTHING) -> Greeting:
        """Agrees on a protocol version, and hands in what the site's policy lets the hub know before a run asks.

        Raises:
            VersionMismatch: there is no common one; the message names both ranges.
        """
        request = pb.HelloRequest(
            protocol_min=limits.PROTOCOL,
            protocol_max=limits.PROTOCOL,
            build=deerfield.__version__,
            report=roster.encode_report(report),
        )
        reply = self._call(self._stub.Hello, request, limits.HELLO_S)
        return Greeting(protocol=reply.protocol, build=reply.build)

    def next_task(self) -> Assignment | None:
        """The site's next task with its start tensors, or None if none came within one long poll.

        Raises:
            RunEnded: the run is over.
        """
        request = pb.NextTaskRequest(run=self._run, wait_ms=int(limits.POLL_S * 1000))
        offer = codec.decode_offer(self._call(self._stub.NextTask, request, limits.POLL_S + limits.HELLO_S))
        if offer is None:
            return None
        task = Task(
            round=offer.key.round,
            phase=offer.key.phase,
            factors=offer.factors,
            epochs=offer.epochs,
            start=self._fetcher.fetch(offer.start),
        )
        key = offer.key
        return Assignment(
            run=key.run,
            incarnation=key.incarnation,
            spec=offer.spec,
            task=task,
            base=offer.start.digest,
            restoration=offer.restoration,
        )

    def send(self, assignment: Assignment, update: Update) -> Countersigned:
        """Delivers the update, once, however often the connection breaks; answers its head, countersigned and checked.

        Raises:
            Refusal: the aggregator will not have it, and why.
            BadAttestation: the update has none, or the aggregator's answer does not countersign it.
        """
        key, announcement = assignment.key, announce(update)
        pauses = self._backoff.pauses()
        while (receipt := self._delivered(key, announcement, update.delta, pauses)) is None:
            pass
        return receipt

    def head(self, population: str) -> Countersigned | None:
        """The newest head of this site's ledger of `population` that the aggregator has seen; None if there is none.

        Raises:
            BadAttestation: it is not signed by the key that it names, or is of another population.
        """
        request = pb.LedgerHeadRequest(population=population)
        record = signed.decode_head(self._call(self._stub.LedgerHead, request))
        if record is not None:
            verify_head(record, population)
        return record

    def decline(self, assignment: Assignment, reason: str, detail: str) -> None:
        """Refuses the task; `reason` is one of `errors.REFUSALS`."""
        key = codec.encode_key(assignment.key)
        request = pb.DeclineRequest(key=key, reason=codec.encode_reason(reason), detail=detail)
        self._call(self._stub.Decline, request)

    def heartbeat(self, assignment: Assignment, steps_done: int, steps: int) -> bool:
        """Reports progress, once; False says that the task is closed. An absent aggregator is no reason to stop."""
        request = pb.HeartbeatRequest(key=codec.encode_key(assignment.key), steps_done=steps_done, steps=steps)
        try:
            return bool(unary(self._stub.Heartbeat, request, limits.HELLO_S).open)
        except AGAIN:
            return True

    def leave(self, run: str, detail: str) -> None:
        """Withdraws from a run: nobody waits for this site any more."""
        self._call(self._stub.Leave, pb.LeaveRequest(run=run, detail=detail), limits.HELLO_S)

    def _delivered(
        self, key: Key, announcement: Announcement, delta: Tensors, pause: Callable[[DeerfieldError], None]
    ) -> Countersigned | None:
        """The countersigned head of a delivered update, or None if its answer was lost and it had not arrived."""
        try:
            return self._deliver(key, announcement, delta)
        except self._backoff.again as error:
            pause(error)
            return self._sealed(key, announcement)

    def _deliver(self, key: Key, announcement: Announcement, delta: Tensors) -> Countersigned:
        manifest = announcement.manifest
        begun = unary(self._stub.BeginUpload, codec.encode_announcement(key, announcement), limits.UNARY_S)
        missing = frozenset(sha256_names(begun.missing))
        chunks = (codec.encode_chunk(sha, data) for sha, data in pieces(delta, manifest, missing))
        upstream(self._stub.PutChunks, chunks, limits.IDLE_S)
        commit = pb.CommitRequest(key=codec.encode_key(key), digest=manifest.digest)
        reply = unary(self._stub.Commit, commit, limits.IDLE_S)
        return check_receipt(announcement.attestation, signed.decode_head(reply))

    def _sealed(self, key: Key, announcement: Announcement) -> Countersigned | None:
        """The answer of a Commit that had arrived while its answer was lost."""
        request = pb.UploadStatusRequest(key=codec.encode_key(key))
        status = codec.decode_status(self._call(self._stub.UploadStatus, request))
        if not (status.sealed and status.digest == announcement.manifest.digest):
            return None
        return check_receipt(announcement.attestation, status.head)

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float = limits.UNARY_S) -> Any:
        return self._backoff.retry(lambda: unary(method, request, timeout_s))


class RunsClient:
    """Starts, follows and ends runs; gives up with Unreachable after `backoff.patience_s`."""

    @classmethod
    @contextmanager
    def connect(cls, address: str) -> Iterator["RunsClient"]:
        """An operator's client of the aggregator at `address`, for as long as the block runs."""
        with connect(address, role="operator") as channel:
            yield cls(channel)

    def __init__(self, channel: grpc.Channel, *, backoff: Backoff = ONE_MINUTE) -> None:
        self._stub = RunsStub(channel)
        self._backoff = backoff
        self._fetcher = Fetcher(FederationStub(channel).GetChunks, backoff)

    def start(self, spec: RunSpec, request_id: str) -> str:
        """Creates a run and names it; the same `request_id` again is the same run.

        Raises:
            InvalidInput: the run cannot be run, and why.
        """
        request = pb.StartRequest(request_id=request_id, spec=spec.canonical())
        return str(self._call(self._stub.Start, request, limits.IDLE_S).run)

    def watch(self, run: str, after: int = 0) -> Iterator[Event]:
        """What happens to a run, from event `after` on, until it has ended; survives a broken connection."""
        pause = self._backoff.pauses()
        while True:
            try:
                request = pb.WatchRequest(run=run, after=after)
                for message in downstream(self._stub.Watch, request, TIMEOUT_MAX):
                    event = codec.decode_event(message)
                    after, pause = event.number or after, self._backoff.pauses()
                    yield event
                return
            except AGAIN as error:
                pause(error)

    def past(self, run: str) -> tuple[Event, ...]:
        """What has happened to a run so far, also while it goes on."""
        request = pb.WatchRequest(run=run, past=True)

        def told() -> tuple[Event, ...]:
            return tuple(codec.decode_event(each) for each in downstream(self._stub.Watch, request, limits.IDLE_S))

        return self._backoff.retry(told)

    def get(self, run: str) -> RunView:
        """One run with its newest state; raises UnknownRun."""
        return codec.decode_view(self._call(self._stub.Get, pb.GetRequest(run=run)))

    def model(self, run: str) -> Tensors:
        """The newest shared adapter of a run; raises UnknownRun."""
        return self.fetch(self.get(run).model)

    def published(self, run: str, event: Event) -> tuple[Tensors, ...]:
        """What a phase_published event published: each site's own adapter where there are such, else the shared one."""
        number = pb.PhaseNumber(round=int(str(event.detail["round"])), phase=int(str(event.detail["phase"])))
        view = codec.decode_view(self._call(self._stub.Get, pb.GetRequest(run=run, published=number)))
        manifests = [view.personal[site] for site in sorted(view.personal)] or [view.model]
        return tuple(self.fetch(manifest) for manifest in manifests)

    def list(self) -> tuple[RunView, ...]:
        """Every run, oldest first; asks for some at a time."""
        views: list[RunView] = []
        more = True
        while more:
            after = views[-1].run if views else ""
            reply = self._call(self._stub.List, pb.ListRequest(after=after))
            views += map(codec.decode_view, reply.runs)
            more = reply.more
        return tuple(views)

    def abort(self, run: str, reason: str) -> RunView:
        """Ends a run in whatever state it is; one that has ended stays as it is."""
        return codec.decode_view(self._call(self._stub.Abort, pb.AbortRequest(run=run, reason=reason)))

    def pause(self, run: str, reason: str) -> RunView:
        """Stops a run's clock until it is resumed; raises RunEnded."""
        return codec.decode_view(self._call(self._stub.Pause, pb.PauseRequest(run=run, reason=reason)))

    def resume(self, run: str) -> RunView:
        """Lets a paused run go on; raises RunEnded."""
        return codec.decode_view(self._call(self._stub.Resume, pb.ResumeRequest(run=run)))

    def repin(self, site: str, public_key: str, reason: str) -> str:
        """Takes another signing key of a site, in hex; answers the one before, empty where there was none."""
        request = pb.RepinRequest(site=site, public_key=bytes.fromhex(public_key), reason=reason)
        return bytes(self._call(self._stub.Repin, request).before).hex()

    def evaluated(self, run: str, round: int, phase: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a published phase, computed on data that is public or belongs to the consortium."""
        request = pb.EvaluatedRequest(run=run, round=round, phase=phase, metrics=metrics)
        self._call(self._stub.Evaluated, request)

    def promote(self, model: str, version: str, expected_champion: str, verdict: str) -> Promotion:
        """Hands a gate's verdict (JSON) in; one that passed makes the version the model's champion.

        Raises:
            ChampionMoved: the champion is another one than the verdict compares with.
            InvalidInput: there is no such version of a run that finished there, or the verdict is about another one.
        """
        request = pb.PromoteRequest(model=model, version=version, expected_champion=expected_champion, verdict=verdict)
        return promoting.decode_promotion(self._call(self._stub.Promote, request, limits.IDLE_S))

    def rollback(self, model: str, expected_champion: str, reason: str) -> Promotion:
        """Gives a model the champion back that it had before.

        Raises:
            ChampionMoved: the champion is another one than expected.
            InvalidInput: there was none before, or it was deleted.
        """
        request = pb.RollbackRequest(model=model, expected_champion=expected_champion, reason=reason)
        return promoting.decode_promotion(self._call(self._stub.Rollback, request, limits.IDLE_S))

    def promotions(self, model: str) -> tuple[PromotionRecord, ...]:
        """What has become of a model's champion so far: the newest `limits.PROMOTIONS`, oldest first."""
        reply = self._call(self._stub.Promotions, pb.PromotionsRequest(model=model))
        return tuple(promoting.decode_record(each) for each in reply.promotions)

    def attach(self, run: str, name: str, content: bytes) -> str:
        """Hands a file of at most 4 MiB in, which becomes the artifact `name` of the run's; answers its sha256.

        Raises:
            UnknownRun, TooLarge: the run or the file.
            InvalidInput: the name, or the aggregator tracks nothing.
        """
        request = pb.AttachRequest(run=run, name=name, content=content)
        return str(self._call(self._stub.Attach, request, limits.IDLE_S).sha256)

    def sites(self) -> Iterator[KnownSite]:
        """Every site that has ever said Hello, by name; asks for some at a time."""
        after = ""
        while found := self._call(self._stub.Sites, pb.SitesRequest(after=after)).sites:
            yield from (roster.decode_site(each) for each in found)
            after = found[-1].site

    def fetch(self, manifest: Manifest) -> Tensors:
        """The tensors of a `RunView` or of a published phase."""
        return self._fetcher.fetch(manifest)

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float = limits.UNARY_S) -> Any:
        return self._backoff.retry(lambda: unary(method, request, timeout_s))
