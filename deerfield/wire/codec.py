"""Between protobuf messages and deerfield's own values, as `signed` is for attestations; checks before it allocates."""

import json
from collections.abc import Iterable, Mapping
from math import prod
from typing import get_args

from pydantic import ValidationError

from deerfield.errors import REFUSALS, BadAttestation, BadRequest, DigestMismatch, InvalidInput
from deerfield.exchange import Announcement, Event, Key, Offer, RunState, RunView, UploadStatus
from deerfield.manifest import CHUNK_BYTES, FLOAT32_BYTES, Manifest, TensorInfo
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.checks import (
    at_most,
    finite_metrics,
    one_of,
    run_id,
    sha256_hex,
    sha256_name,
    sha256_names,
    tensor_name,
)
from deerfield.wire.signed import (
    decode_attestation,
    decode_head,
    decode_restoration,
    encode_attestation,
    encode_head,
    encode_restoration,
)

FACTORS: Mapping[str, Factors] = {word: word for word in get_args(Factors)}
STATES: Mapping[str, RunState] = {word: word for word in get_args(RunState)}


def encode_manifest(manifest: Manifest) -> pb.Manifest:
    """A manifest as a message."""
    return pb.Manifest(
        tensors=[
            pb.TensorInfo(
                name=info.name,
                dtype=pb.FLOAT32,
                shape=info.shape,
                chunks=[bytes.fromhex(chunk) for chunk in info.chunks],
            )
            for info in manifest.tensors
        ],
        digest=manifest.digest,
        chunk_bytes=manifest.chunk_bytes,
    )


def decode_manifest(message: pb.Manifest) -> Manifest:
    """A manifest, checked for form; `manifest.check` holds it against a schema.

    Raises:
        BadRequest, TooLarge: it has no digest, a name, count or hash that cannot be.
    """
    at_most(len(message.tensors), limits.TENSORS, "tensors in a manifest")
    at_most(sum(len(info.chunks) for info in message.tensors), limits.CHUNKS, "chunks in a manifest")
    at_most(sum(map(_bytes_of, message.tensors)), limits.MANIFEST_BYTES, "bytes in a manifest")
    return Manifest(
        tensors=tuple(_info(info) for info in message.tensors),
        digest=sha256_hex(message.digest),
        chunk_bytes=message.chunk_bytes,
    )


def encode_shas(shas: Iterable[str]) -> list[bytes]:
    """Chunk names as they travel, sorted."""
    return [bytes.fromhex(sha) for sha in sorted(shas)]


def decode_wanted(message: pb.GetChunksRequest) -> tuple[str, ...]:
    """The chunks that are asked for, at most `limits.CHUNKS_PER_CALL`."""
    at_most(len(message.sha256), limits.CHUNKS_PER_CALL, "chunks in one call")
    return sha256_names(message.sha256)


def encode_chunk(sha: str, data: bytes) -> pb.Chunk:
    """One chunk with its name."""
    return pb.Chunk(sha256=bytes.fromhex(sha), data=data)


def decode_chunk(message: pb.Chunk) -> tuple[str, bytes]:
    """A chunk's name and bytes; whether they belong together is for the store to check."""
    data = message.data  # once: each access copies
    at_most(len(data), CHUNK_BYTES, "bytes in a chunk")
    return sha256_name(message.sha256), data


def encode_key(key: Key) -> pb.TaskKey:
    """The name of an exchange."""
    return pb.TaskKey(run=key.run, incarnation=key.incarnation, round=key.round, phase=key.phase)


def decode_key(message: pb.TaskKey) -> Key:
    """The name of an exchange; raises BadRequest without a run."""
    return Key(run=run_id(message.run), incarnation=message.incarnation, round=message.round, phase=message.phase)


def encode_offer(offer: Offer | None) -> pb.NextTaskReply:
    """A task with its run, or the empty answer of a poll that ran out."""
    if offer is None:
        return pb.NextTaskReply()
    task = pb.Task(
        key=encode_key(offer.key), factors=offer.factors, epochs=offer.epochs, start=encode_manifest(offer.start)
    )
    return pb.NextTaskReply(
        task=task,
        spec=offer.spec.canonical(),
        spec_sha256=offer.spec.sha256,
        restoration=encode_restoration(offer.restoration),
    )


def decode_offer(message: pb.NextTaskReply) -> Offer | None:
    """A task with its run, or None.

    Raises:
        DigestMismatch: the run does not have the hash that it came with.
        BadRequest: a task that cannot be.
    """
    if not message.HasField("task"):
        return None
    spec, task = decode_spec(message.spec), message.task
    if spec.sha256 != message.spec_sha256:
        raise DigestMismatch(f"the run has hash {spec.sha256}, not {message.spec_sha256}; compare the versions")
    return Offer(
        key=decode_key(task.key),
        spec=spec,
        factors=one_of(task.factors, FACTORS, "factors"),
        epochs=task.epochs,
        start=decode_manifest(task.start),
        restoration=decode_restoration(message),
    )


def decode_spec(text: str) -> RunSpec:
    """A run; raises InvalidInput where it cannot be one, naming the key, and TooLarge for too long a text."""
    at_most(len(text), limits.SPEC_BYTES, "characters in a run")
    try:
        return RunSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{where or 'run'}: {first['msg']}") from None


def encode_announcement(key: Key, announcement: Announcement) -> pb.BeginUploadRequest:
    """An update before its bytes."""
    return pb.BeginUploadRequest(
        key=encode_key(key),
        manifest=encode_manifest(announcement.manifest),
        base=announcement.base,
        attestation=encode_attestation(announcement.attestation),
        metrics=announcement.metrics,
    )


def decode_announcement(message: pb.BeginUploadRequest) -> Announcement:
    """An update before its bytes.

    Raises:
        BadAttestation: it has no attestation.
        BadRequest, TooLarge: it cannot be.
    """
    if not message.HasField("attestation"):
        raise BadAttestation("the update carries no attestation; a site signs one for each update")
    return Announcement(
        manifest=decode_manifest(message.manifest),
        base=sha256_hex(message.base),
        attestation=decode_attestation(message.attestation),
        metrics=finite_metrics(message.metrics),
    )


def encode_status(status: UploadStatus) -> pb.UploadStatusReply:
    """What there is of an upload."""
    return pb.UploadStatusReply(
        announced=status.announced,
        sealed=status.sealed,
        digest=status.digest,
        missing=encode_shas(status.missing),
        head=encode_head(status.head),
    )


def decode_status(message: pb.UploadStatusReply) -> UploadStatus:
    """What there is of an upload."""
    return UploadStatus(
        announced=message.announced,
        sealed=message.sealed,
        digest=message.digest,
        missing=frozenset(sha256_names(message.missing)),
        head=decode_head(message),
    )


def encode_reason(reason: str) -> str:
    """A key of `errors.REFUSALS` as the wire's enum; raises BadRequest for any other word."""
    if reason not in REFUSALS:
        raise BadRequest(f"{reason!r} is no reason; choose one of {', '.join(sorted(REFUSALS))}")
    return reason


def decode_reason(number: int) -> str:
    """A key of `errors.REFUSALS`; raises BadRequest for another number."""
    name = pb.Reason.Name(number) if number in pb.Reason.values() else str(number)
    if name not in REFUSALS:
        raise BadRequest(f"{name} is no reason to decline")
    return name


def encode_event(event: Event) -> pb.Event:
    """An event; its detail travels as JSON."""
    detail = json.dumps(event.detail, sort_keys=True, allow_nan=False)
    return pb.Event(number=event.number, run=event.run, kind=event.kind, detail=detail, time=event.time)


def decode_event(message: pb.Event) -> Event:
    """An event; raises BadRequest where its detail is no JSON object."""
    try:
        detail = json.loads(message.detail)
    except (ValueError, RecursionError) as error:  # recursion: a hundred thousand brackets
        raise BadRequest(f"the detail of event {message.number} is no JSON: {error}") from None
    if not isinstance(detail, dict):
        raise BadRequest(f"the detail of event {message.number} is no JSON object but {type(detail).__name__}")
    return Event(number=message.number, run=message.run, kind=message.kind, detail=detail, time=message.time)


def decode_published(message: pb.GetRequest) -> tuple[int, int] | None:
    """The (round, phase) whose state is asked for, or None for the newest."""
    asked = message.published
    return (asked.round, asked.phase) if message.HasField("published") else None


def encode_view(view: RunView) -> pb.Run:
    """A run as an operator sees it."""
    return pb.Run(
        run=view.run,
        state=view.state,
        reason=view.reason,
        spec=view.spec.canonical(),
        round=view.round,
        phase=view.phase,
        model=encode_manifest(view.model),
        personal={site: encode_manifest(manifest) for site, manifest in view.personal.items()},
        incarnation=view.incarnation,
        started_at=view.started_at,
        phase_state=view.phase_state,
        sites=view.sites,
    )


def decode_view(message: pb.Run) -> RunView:
    """A run as an operator sees it; raises BadRequest for one that cannot be."""
    return RunView(
        run=message.run,
        state=one_of(message.state, STATES, "state"),
        reason=message.reason,
        spec=decode_spec(message.spec),
        round=message.round,
        phase=message.phase,
        model=decode_manifest(message.model),
        personal={site: decode_manifest(manifest) for site, manifest in message.personal.items()},
        incarnation=message.incarnation,
        started_at=message.started_at,
        phase_state=message.phase_state,
        sites=dict(message.sites),
    )


def _bytes_of(message: pb.TensorInfo) -> int:
    at_most(len(message.shape), limits.DIMENSIONS, f"dimensions in {message.name[: limits.NAME_CHARS]}")
    size = FLOAT32_BYTES * prod(message.shape)
    at_most(size, limits.TENSOR_BYTES, f"bytes in {message.name[: limits.NAME_CHARS]}")
    return size


def _info(message: pb.TensorInfo) -> TensorInfo:
    known = message.dtype in pb.Dtype.values()
    return TensorInfo(
        name=tensor_name(message.name),
        dtype=pb.Dtype.Name(message.dtype).lower() if known else f"dtype {message.dtype}",
        shape=tuple(message.shape),
        chunks=sha256_names(message.chunks),
    )
