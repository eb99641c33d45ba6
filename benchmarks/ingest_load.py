"""Sites as a load for `benchmarks.ingest`: many channels in one process, random updates, honest attestations.

Reads a job from the first line of stdin, says `ready` once everything up to BeginUpload is done, waits for one more
line, sends, and says `done`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield.attestation import sign
from deerfield.certificates import Files, load, utc_now
from deerfield.errors import AGAIN, TooBusy, Unreachable
from deerfield.exchange import Offer, announce
from deerfield.manifest import pieces
from deerfield.tensors import Shapes, Tensors, digest
from deerfield.types import Attestation, Spend, Update
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import ROLE_KEY, SITE_KEY, TURN_KEY
from deerfield.wire.checks import sha256_names
from deerfield.wire.federation_pb2_grpc import FederationServicer, FederationStub, add_FederationServicer_to_server
from deerfield.wire.limits import CHANNEL_OPTIONS
from deerfield.wire.status import from_rpc
from services.aggregator.bounds import Bounds

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)  # channels to one address would share one, and its calls
CALL_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process of sites does; `kind` is upload or wait."""

    kind: str
    address: str
    run: str
    sites: Sequence[str]
    seed: int
    wait_ms: int = 0
    certificates: str = ""  # folder of the certificates; empty: plaintext


def files(folder: Path, owner: str) -> Files:
    """Where the certificate of a site, the operator or the aggregator lies."""
    return Files(
        certificate=folder / owner / "tls.crt", key=folder / owner / "tls.key", authority=folder / "ca" / "ca.crt"
    )


class Site:
    """One site with a connection of its own."""

    def __init__(self, job: Job, name: str) -> None:
        self.name, self._job = name, job
        self._missing: Sequence[str] | None = None  # chunks, once announced
        options = (*CHANNEL_OPTIONS, OWN_CONNECTION)
        if job.certificates:
            own = load(files(Path(job.certificates), name), utc_now())
            secret = grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)
            self.channel = grpc.aio.secure_channel(job.address, secret, options=options)
        else:
            self.channel = grpc.aio.insecure_channel(job.address, options=options)
        self._stub: Any = FederationStub(self.channel)  # typed for the channels of threads
        self._who = ((ROLE_KEY, "site"), (SITE_KEY, name))

    async def poll(self) -> Offer | None:
        """One NextTask."""
        request = pb.NextTaskRequest(run=self._job.run, wait_ms=self._job.wait_ms)
        return codec.decode_offer(await self._stub.NextTask(request, metadata=self._who, timeout=CALL_S))

    async def prepare(self) -> None:
        """Draws an update to its task and announces it; its chunks lie ready in memory."""
        offer = await self.poll()
        if offer is None:
            raise SystemExit(f"no task for {self.name}")
        number = int(self.name.rpartition("-")[2])
        update = _update(self.name, offer, _draw(offer.spec.adapter, self._job.seed + number))
        announcement = announce(update)
        self._begin = codec.encode_announcement(offer.key, announcement)
        self._commit = pb.CommitRequest(key=codec.encode_key(offer.key), digest=announcement.manifest.digest)
        shas = frozenset(announcement.manifest.chunks)
        self._chunks = {
            sha: codec.encode_chunk(sha, data) for sha, data in pieces(update.delta, announcement.manifest, shas)
        }
        await self._announce()

    async def send(self) -> None:
        """Sends the chunks and seals them; where the aggregator is busy, begins again later as `SiteClient` does."""
        slept: list[float] = []
        pause = Backoff(sleep=slept.append).pauses()
        while not await self._sent(pause):
            await asyncio.sleep(slept.pop())
            status = await self._stub.UploadStatus(
                pb.UploadStatusRequest(key=self._commit.key), metadata=self._who, timeout=CALL_S
            )
            if status.sealed:
                break
        self._chunks = {}

    async def _sent(self, pause: Callable[[Unreachable | TooBusy], None]) -> bool:
        try:
            if self._missing is None:
                await self._announce()
            made = asyncio.get_running_loop().create_future()
            call = self._stub.PutChunks(self._stream(made), metadata=self._who)
            made.set_result(call)
            await call
            await self._stub.Commit(self._commit, metadata=self._who, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            told = from_rpc(error)
            if not isinstance(told, AGAIN):
                raise
            pause(told)
            self._missing = None  # as far as it knows
            return False
        return True

    async def _announce(self) -> None:
        begun = await self._stub.BeginUpload(self._begin, metadata=self._who, timeout=CALL_S)
        self._missing = sha256_names(begun.missing)

    async def _stream(self, made: asyncio.Future[Any]) -> AsyncIterator[pb.Chunk]:
        call = await made
        if TURN_KEY not in await call.initial_metadata():  # as `upstream`: nothing before its turn
            await call.code()
            return
        for sha in self._missing or ():
            yield self._chunks[sha]


def _draw(shapes: Shapes, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _update(site: str, offer: Offer, delta: Tensors) -> Update:
    key, spec = offer.key, offer.spec
    plain = Update(site=site, round=key.round, phase=key.phase, base=offer.start.digest, delta=delta)
    steps = spec.releases(offer.epochs)
    attestation = Attestation(
        site=site,
        population=spec.population,
        run=key.run,
        incarnation=key.incarnation,
        round=key.round,
        phase=key.phase,
        update=digest(delta),
        spend=Spend(unit="none", noise_multiplier=0.0, sample_rate=spec.release_rate, steps=steps, clip=inf),
        accountant="dp-accounting PLD",
        epsilon_before=0.0,
        epsilon_after=inf,
        delta_after=spec.privacy.delta,
        ledger_sequence=1 + key.round,
        ledger_head=sha256(f"{key} {site}".encode()).hexdigest(),
    )
    own = Ed25519PrivateKey.from_private_bytes(sha256(f"a benchmark's key of {site}".encode()).digest())
    return replace(plain, attestation=sign(own, attestation))


async def _work(job: Job) -> None:
    sites = [Site(job, name) for name in job.sites]
    try:
        if job.kind == "wait":
            _say("ready")
            await asyncio.gather(*(site.poll() for site in sites))
        else:
            for site in sites:
                await site.prepare()
            _say("ready")
            await asyncio.to_thread(sys.stdin.readline)
            await asyncio.gather(*(site.send() for site in sites))
    finally:
        await asyncio.gather(*(site.channel.close() for site in sites))


def _say(word: str) -> None:
    print(word, flush=True)


class Bare(FederationServicer):
    """Waits, and does nothing else."""

    async def NextTask(self, request: pb.NextTaskRequest, context: Any) -> pb.NextTaskReply:
        """Waits as long as it is asked to."""
        await asyncio.sleep(request.wait_ms / 1000)
        return pb.NextTaskReply()


async def _serve() -> None:
    server = grpc.aio.server(options=Bounds().options())
    add_FederationServicer_to_server(Bare(), server)
    _say(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Does the job that stands in the first line of stdin; `bare` serves instead."""
    if sys.argv[1:] == ["bare"]:
        asyncio.run(_serve())
        return
    job = Job(**json.loads(sys.stdin.readline()))
    asyncio.run(_work(job))
    _say("done")


if __name__ == "__main__":
    main()
