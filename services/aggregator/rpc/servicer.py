"""What a site may say, over gRPC: each method decodes, calls and encodes. No decision is taken here."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import deerfield
from deerfield.errors import NotMember, VersionMismatch
from deerfield.wire import checks, codec, limits, signed
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import federation_pb2_grpc as rpc
from deerfield.wire.channel import TURN_KEY
from deerfield.wire.roster import build_name, decode_report
from services.aggregator.assembly import Aggregator
from services.aggregator.rounds.membership import check_readable
from services.aggregator.rpc.identity import Context, Identify, caller
from services.aggregator.rpc.pace import paced
from services.aggregator.rpc.polls import Polls
from services.aggregator.rpc.pulse import Pulse
from services.aggregator.rpc.receiving import store
from services.aggregator.rpc.traffic import Traffic
from services.aggregator.rpc.translation import refuses, refuses_stream


class FederationServicer(rpc.FederationServicer):
    """What a site may say."""

    def __init__(self, aggregator: Aggregator, pulse: Pulse, identify: Identify, traffic: Traffic) -> None:
        self._coordinator = aggregator.coordinator
        self._intake = aggregator.intake
        self._desk = aggregator.desk
        self._roster = aggregator.roster
        self._pulse = pulse
        self._identify = identify
        self._traffic = traffic
        self._polls = Polls()

    @refuses
    async def Hello(self, request: pb.HelloRequest, context: Context) -> pb.HelloReply:
        """Agrees on a protocol version, and notes what a site says of itself."""
        protocol = _common_protocol(request.protocol_min, request.protocol_max)
        if site := self._guest(context):
            self._roster.greeted(site, protocol, build_name(request.build), decode_report(request.report))
        return pb.HelloReply(protocol=protocol, build=deerfield.__version__)

    @refuses
    async def NextTask(self, request: pb.NextTaskRequest, context: Context) -> pb.NextTaskReply:
        """Long-polls for a task."""
        site, wait_s = self._site(context), min(request.wait_ms / 1000, limits.POLL_S)
        poll = self._pulse.first(lambda: self._coordinator.next_task(site, request.run), wait_s)
        offer = await self._polls.newest(site, request.run, poll)
        if offer is not None:  # a poll that ran out has changed nothing
            self._pulse.beat()
        return codec.encode_offer(offer)

    @refuses
    async def BeginUpload(self, request: pb.BeginUploadRequest, context: Context) -> pb.BeginUploadReply:
        """Announces an update."""
        site, key, announcement = self._site(context), codec.decode_key(request.key), codec.decode_announcement(request)
        await asyncio.to_thread(self._intake.audit, site, key, announcement)
        before = self._intake.announced(site, key)
        manifest = self._intake.announce(site, key, announcement)
        missing = await asyncio.to_thread(self._intake.missing, manifest) if manifest else frozenset[str]()
        if before == announcement.manifest.digest:
            self._traffic.resumed(announcement.manifest.bytes_beyond(missing))
        return pb.BeginUploadReply(missing=codec.encode_shas(missing))

    @refuses
    async def PutChunks(self, request: AsyncIterator[pb.Chunk], context: Context) -> pb.PutChunksReply:
        """Takes chunks of what the site has announced."""
        site = self._site(context)
        keep = partial(self._intake.put_all, self._intake.expected(site))
        async with self._traffic.upload(site):
            await context.send_initial_metadata(((TURN_KEY, "now"),))  # what came before, gRPC would have to hold
            stored = await store(paced(self._taken(site, request), self._traffic.idle_s), keep)
        return pb.PutChunksReply(stored=stored)

    @refuses
    async def Commit(self, request: pb.CommitRequest, context: Context) -> pb.CommitReply:
        """Verifies and seals an update."""
        site, key = self._site(context), codec.decode_key(request.key)
        sealing = self._intake.sealing(site, key, checks.sha256_hex(request.digest))
        await asyncio.to_thread(self._intake.verify, sealing)
        receipt = self._intake.seal(sealing)
        self._pulse.beat()
        return pb.CommitReply(digest=sealing.manifest.digest, head=signed.encode_head(receipt))

    @refuses
    async def UploadStatus(self, request: pb.UploadStatusRequest, context: Context) -> pb.UploadStatusReply:
        """Says what there is of an upload."""
        site, key = self._site(context), codec.decode_key(request.key)
        return codec.encode_status(await asyncio.to_thread(self._intake.status, site, key))

    @refuses
    async def LedgerHead(self, request: pb.LedgerHeadRequest, context: Context) -> pb.LedgerHeadReply:
        """Answers the newest head of the caller's own ledger."""
        record = self._intake.head(self._site(context), checks.population_name(request.population))
        return pb.LedgerHeadReply(head=signed.encode_head(record))

    @refuses_stream
    async def GetChunks(self, request: pb.GetChunksRequest, context: Context) -> AsyncIterator[pb.Chunk]:
        """Streams published chunks: any to an operator, those of its own tasks to a site."""
        identity, wanted = self._identify(context), codec.decode_wanted(request)
        await asyncio.to_thread(check_readable, self._desk.store, identity.role, identity.site, wanted)
        for sha in wanted:
            data = await asyncio.to_thread(self._desk.published.get, sha)
            self._traffic.served(len(data))
            yield codec.encode_chunk(sha, data)

    @refuses
    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatReply:
        """Notes progress."""
        site, key = self._site(context), codec.decode_key(request.key)
        is_open = self._coordinator.heartbeat(site, key, request.steps_done, request.steps)
        self._pulse.beat()
        return pb.HeartbeatReply(open=is_open)

    @refuses
    async def Decline(self, request: pb.DeclineRequest, context: Context) -> pb.DeclineReply:
        """Notes that a site will not do its task."""
        site, key, reason = self._site(context), codec.decode_key(request.key), codec.decode_reason(request.reason)
        self._coordinator.decline(site, key, reason, checks.detail(request.detail))
        self._pulse.beat()
        return pb.DeclineReply()

    @refuses
    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveReply:
        """Notes that a site withdraws."""
        self._coordinator.leave(self._site(context), checks.run_id(request.run), checks.detail(request.detail))
        self._pulse.beat()
        return pb.LeaveReply()

    async def _taken(self, site: str, messages: AsyncIterator[pb.Chunk]) -> AsyncIterator[tuple[str, bytes]]:
        async for message in messages:
            sha, data = codec.decode_chunk(message)
            self._intake.received(site)
            self._traffic.received(len(data))
            yield sha, data

    def _guest(self, context: Context) -> str:
        """The site that says Hello; empty for people, and for whoever says it in plaintext without a name."""
        try:
            site = self._identify(context).site
        except NotMember:
            return ""
        return checks.named(site, "a site's name") if site else ""

    def _site(self, context: Context) -> str:
        return caller(self._identify, context, "site")


def _common_protocol(lowest: int, highest: int) -> int:
    if not lowest <= limits.PROTOCOL <= highest:
        raise VersionMismatch(
            f"you speak protocol {lowest} to {highest}, this aggregator (deerfield {deerfield.__version__}) "
            f"speaks {limits.PROTOCOL}"
        )
    return limits.PROTOCOL
