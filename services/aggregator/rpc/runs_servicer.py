"""What an operator may say, over gRPC: each method decodes, calls and encodes. No decision is taken here."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial

from deerfield.exchange import Event
from deerfield.wire import checks, codec, limits, promoting, roster, signed
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import federation_pb2_grpc as rpc
from services.aggregator.assembly import Aggregator
from services.aggregator.attaching import Attaching
from services.aggregator.champions.promotions import Promotions
from services.aggregator.rounds.runs import Runs
from services.aggregator.rpc.identity import Context, Identify, caller
from services.aggregator.rpc.pulse import Pulse
from services.aggregator.rpc.translation import refuses, refuses_stream
from services.aggregator.threads import on_a_thread


class RunsServicer(rpc.RunsServicer):
    """What an operator may say."""

    def __init__(
        self, aggregator: Aggregator, pulse: Pulse, identify: Identify, promotions: Promotions, attaching: Attaching
    ) -> None:
        self._runs = aggregator.runs
        self._roster = aggregator.roster
        self._promotions = promotions
        self._attaching = attaching
        self._pulse = pulse
        self._identify = identify

    @refuses
    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartReply:
        """Creates a run."""
        self._operator(context)
        run = await asyncio.to_thread(self._runs.start, codec.decode_spec(request.spec), request.request_id)
        self._pulse.beat(tasks=True)
        return pb.StartReply(run=run)

    @refuses_stream
    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Event]:
        """Streams what happens to a run until it has ended."""
        self._onlooker(context)
        told = past if request.past else follow
        async for event in told(self._runs, self._pulse, checks.run_id(request.run), request.after):
            yield codec.encode_event(event)

    @refuses
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Run:
        """Shows a run."""
        self._onlooker(context)
        return codec.encode_view(self._runs.get(checks.run_id(request.run), codec.decode_published(request)))

    @refuses
    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListReply:
        """Shows every run, some at a time."""
        self._onlooker(context)
        return await asyncio.to_thread(self._page, checks.run_id(request.after) if request.after else "")

    @refuses
    async def Abort(self, request: pb.AbortRequest, context: Context) -> pb.Run:
        """Ends a run."""
        self._operator(context)
        view = self._runs.abort(checks.run_id(request.run), checks.detail(request.reason))
        self._pulse.beat(tasks=True)
        return codec.encode_view(view)

    @refuses
    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.Run:
        """Stops a run's clock."""
        self._operator(context)
        view = self._runs.pause(checks.run_id(request.run), checks.detail(request.reason))
        self._pulse.beat()
        return codec.encode_view(view)

    @refuses
    async def Resume(self, request: pb.ResumeRequest, context: Context) -> pb.Run:
        """Lets a paused run go on."""
        self._operator(context)
        view = self._runs.resume(checks.run_id(request.run))
        self._pulse.beat(tasks=True)
        return codec.encode_view(view)

    @refuses
    async def Repin(self, request: pb.RepinRequest, context: Context) -> pb.RepinReply:
        """Takes another signing key of a site."""
        self._operator(context)
        site, key = checks.named(request.site, "a site's name"), signed.decode_public_key(request.public_key)
        before = self._runs.repin(site, key, checks.detail(request.reason))
        self._pulse.beat()
        return pb.RepinReply(before=bytes.fromhex(before))

    @refuses
    async def Evaluated(self, request: pb.EvaluatedRequest, context: Context) -> pb.EvaluatedReply:
        """Takes metrics of a published phase."""
        self._operator(context)
        metrics = checks.finite_metrics(request.metrics)
        self._runs.evaluated(checks.run_id(request.run), request.round, request.phase, metrics)
        self._pulse.beat()
        return pb.EvaluatedReply()

    @refuses
    async def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.Promotion:
        """Writes a verdict, and makes a version champion."""
        self._operator(context)
        verdict = promoting.decode_verdict(request)
        return promoting.encode_promotion(await on_a_thread(partial(self._promotions.promote, verdict), "promotion"))

    @refuses
    async def Rollback(self, request: pb.RollbackRequest, context: Context) -> pb.Promotion:
        """Makes the champion before this one champion again."""
        self._operator(context)
        model = promoting.model_name(request.model)
        expected = promoting.version_or_none(request.expected_champion, "expected_champion")
        back = partial(self._promotions.rollback, model, expected, checks.detail(request.reason))
        return promoting.encode_promotion(await on_a_thread(back, "rollback"))

    @refuses
    async def Promotions(self, request: pb.PromotionsRequest, context: Context) -> pb.PromotionsReply:
        """Shows what has become of a model's champion."""
        self._onlooker(context)
        found = self._promotions.history(promoting.model_name(request.model))
        return pb.PromotionsReply(promotions=[promoting.encode_record(each) for each in found])

    @refuses
    async def Attach(self, request: pb.AttachRequest, context: Context) -> pb.AttachReply:
        """Takes a file about a run."""
        self._operator(context)
        checks.at_most(len(request.content), limits.ATTACHMENT_BYTES, "bytes in a file")
        run, name = checks.run_id(request.run), promoting.attachment_name(request.name)
        attached = await asyncio.to_thread(self._attaching.attach, run, name, request.content)
        self._pulse.beat()
        return pb.AttachReply(sha256=attached)

    @refuses
    async def Sites(self, request: pb.SitesRequest, context: Context) -> pb.SitesReply:
        """Shows the sites that have said Hello, some at a time."""
        self._onlooker(context)
        after = checks.named(request.after, "a site's name") if request.after else ""
        return pb.SitesReply(sites=[roster.encode_site(each) for each in self._roster.sites(after)])

    def _page(self, after: str) -> pb.ListReply:
        """The runs behind `after` that one answer has room and time for."""
        reply, size = pb.ListReply(), 0
        for view in self._runs.list(after, limits.RUNS_PER_CALL + 1):
            run = codec.encode_view(view)
            size += run.ByteSize()
            if reply.runs and (size > limits.LIST_BYTES or len(reply.runs) == limits.RUNS_PER_CALL):
                reply.more = True
                break
            reply.runs.append(run)
        return reply

    def _operator(self, context: Context) -> None:
        caller(self._identify, context, "operator")

    def _onlooker(self, context: Context) -> None:
        caller(self._identify, context, "operator", "observer")


async def past(runs: Runs, _: Pulse, run: str, after: int) -> AsyncIterator[Event]:
    """What has happened to a run since the event `after`, up to now; raises UnknownRun."""
    for event in runs.events(run, min(after, runs.newest(run))):
        yield event


async def follow(runs: Runs, pulse: Pulse, run: str, after: int) -> AsyncIterator[Event]:
    """What happens to a run since the event `after`, with its sites' progress, until it is over; raises UnknownRun."""
    told: list[Mapping[str, object]] = []
    after = min(after, runs.newest(run))  # more was told by a database that a backup has replaced since
    while True:
        for event in runs.events(run, after):
            after = event.number
            yield event
        if runs.is_over(run, after):
            return
        progress = runs.progress(run)
        for event in progress:
            if event.detail not in told:
                yield event
        told = [event.detail for event in progress]
        await pulse.wait(limits.POLL_S)
