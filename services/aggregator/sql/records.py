"""The aggregator's rows as values, and the texts that a database keeps of ours."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from deerfield.exchange import Announcement, Key, RunState
from deerfield.manifest import Manifest, TensorInfo
from deerfield.runspec import RunSpec
from deerfield.tensors import Factors, Shapes
from deerfield.types import Attestation, Spend

PhaseState: TypeAlias = Literal["OPEN", "COLLECTING", "AGGREGATING", "PUBLISHED"]
TaskState: TypeAlias = Literal["WAITING", "TAKEN", "SEALED", "DECLINED"]
Away: TypeAlias = Literal["", "LEFT", "LOST"]  # nobody waits for the site, until it asks for a task again
MANIFESTS = 16  # to remember: those of the updates pass through once


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """A `types.State` with its tensors by manifest."""

    round: int
    phase: int
    shared: Manifest
    personal: Mapping[str, Manifest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run."""

    run: str
    request_id: str
    incarnation: int
    spec: RunSpec
    state: RunState
    reason: str
    started_at: float
    paused_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """One phase of a run."""

    key: Key
    state: PhaseState
    opened_at: float
    before: StateRecord
    noise_key: bytes | None = field(default=None, repr=False)  # secret; under unit site, until it is published


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """What one site is to do in one phase, and how far it is."""

    site: str
    factors: Factors
    epochs: int
    start: Manifest
    schema: Shapes
    state: TaskState = "WAITING"
    away: Away = ""
    detail: str = ""  # why it is away, or declined
    joined: bool = False  # whether the site has ever taken a task of this run


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRow:
    """What one site has announced for one phase."""

    site: str
    announcement: Announcement
    sealed: bool


@lru_cache(maxsize=64)
def spec_of(text: str) -> RunSpec:
    """A stored run; one and the same value for the same text."""
    return RunSpec.model_validate_json(text)


def to_text(value: Manifest | StateRecord | Attestation) -> str:
    """A value as JSON."""
    return json.dumps(asdict(value))


@lru_cache(MANIFESTS)
def manifest_of(text: str) -> Manifest:
    """A stored manifest; one and the same value for the same text, such as the start of all sites' tasks."""
    return _manifest(json.loads(text))


def state_of(text: str) -> StateRecord:
    """A stored state."""
    raw = json.loads(text)
    return StateRecord(
        round=raw["round"],
        phase=raw["phase"],
        shared=_manifest(raw["shared"]),
        personal={site: _manifest(manifest) for site, manifest in raw["personal"].items()},
    )


def schema_of(text: str) -> Shapes:
    """A stored schema."""
    return {name: tuple(shape) for name, shape in json.loads(text).items()}


def attestation_of(text: str) -> Attestation:
    """A stored attestation."""
    raw = json.loads(text)
    beside = tuple(Spend(**each) for each in raw["beside"])
    return Attestation(**{**raw, "spend": Spend(**raw["spend"]), "beside": beside})


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    infos = (
        TensorInfo(name=info["name"], dtype=info["dtype"], shape=tuple(info["shape"]), chunks=tuple(info["chunks"]))
        for info in raw["tensors"]
    )
    return Manifest(tensors=tuple(infos), digest=raw["digest"], chunk_bytes=raw["chunk_bytes"])
