"""What the two sides of the wire tell each other, with tensors named by manifest instead of carried."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from deerfield.errors import BadAttestation
from deerfield.manifest import Manifest, describe
from deerfield.restoration import Restoration
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors
from deerfield.types import Attestation, Countersigned, Update

Role: TypeAlias = Literal["site", "operator", "observer"]
RunState: TypeAlias = Literal["RUNNING", "PAUSED", "FINISHED", "FAILED", "ABORTED"]
LIVE: tuple[RunState, ...] = ("RUNNING", "PAUSED")  # the others are for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Names an exchange, together with the caller's identity."""

    run: str
    incarnation: int
    round: int
    phase: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A task as it is handed out: its start tensors are fetched by `start`, whose digest is the task's base."""

    key: Key
    spec: RunSpec
    factors: Factors
    epochs: int
    start: Manifest
    restoration: Restoration | None = None  # of an incarnation above 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An update before its bytes: what will come, what it was trained against, and what its site signed."""

    manifest: Manifest
    base: str
    attestation: Attestation
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStatus:
    """What the aggregator has of an upload."""

    announced: bool = False
    sealed: bool = False
    digest: str = ""  # of the announced manifest
    missing: frozenset[str] = frozenset()
    head: Countersigned | None = None  # once it is sealed: of the attestation that came with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a run; docs/protocol.md lists the kinds and the keys of `detail`."""

    number: int  # grows over all runs; 0 for progress, which is not kept
    run: str
    kind: str
    detail: Mapping[str, Any]
    time: float  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as an operator sees it; round and phase are those of `model`, the newest state."""

    run: str
    state: RunState
    reason: str
    spec: RunSpec
    round: int
    phase: int
    model: Manifest
    personal: Mapping[str, Manifest] = field(default_factory=dict)
    incarnation: int = 1
    started_at: float = 0.0  # seconds since the epoch
    phase_state: str = ""  # of the newest phase
    sites: Mapping[str, str] = field(default_factory=dict)  # what has become of each site's task in the newest phase


ENDINGS = frozenset(
    {"run_finished", "run_failed", "run_aborted"}
)  # the kinds of event that nothing but evaluated and attached follows


def run_id(name: str, request_id: str) -> str:
    """The name of the run that a request starts: whoever knows the request can look for its run."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{slug}-{sha256(request_id.encode()).hexdigest()[:10]}"


def announce(update: Update) -> Announcement:
    """What is said of an update before its bytes; raises BadAttestation for one without an attestation."""
    if update.attestation is None:
        raise BadAttestation("the update carries no attestation; a site signs one for each update")
    manifest = describe(update.delta)
    return Announcement(manifest=manifest, base=update.base, attestation=update.attestation, metrics=update.metrics)
