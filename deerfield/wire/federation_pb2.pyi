from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    NOT_MEMBER: _ClassVar[Reason]
    UNKNOWN_RUN: _ClassVar[Reason]
    RUN_ENDED: _ClassVar[Reason]
    VERSION_MISMATCH: _ClassVar[Reason]
    BAD_REQUEST: _ClassVar[Reason]
    ROUND_CLOSED: _ClassVar[Reason]
    STALE_BASE: _ClassVar[Reason]
    ALREADY_SEALED: _ClassVar[Reason]
    CHUNKS_MISSING: _ClassVar[Reason]
    UNKNOWN_TENSOR: _ClassVar[Reason]
    WRONG_SHAPE: _ClassVar[Reason]
    WRONG_DTYPE: _ClassVar[Reason]
    NOT_FINITE: _ClassVar[Reason]
    TOO_LARGE: _ClassVar[Reason]
    DIGEST_MISMATCH: _ClassVar[Reason]
    BUDGET_EXHAUSTED: _ClassVar[Reason]
    NOT_MAPPED: _ClassVar[Reason]
    ENGINE_FAULT: _ClassVar[Reason]
    INVALID_INPUT: _ClassVar[Reason]
    LEDGER_BEHIND: _ClassVar[Reason]
    POLICY_REFUSED: _ClassVar[Reason]
    BAD_ATTESTATION: _ClassVar[Reason]
    LEDGER_UNUSABLE: _ClassVar[Reason]
    NORM_TOO_LARGE: _ClassVar[Reason]
    NOT_AUTHENTICATED: _ClassVar[Reason]
    NO_ROOM: _ClassVar[Reason]
    TOO_BUSY: _ClassVar[Reason]
    NO_MACHINE: _ClassVar[Reason]
    CHAMPION_MOVED: _ClassVar[Reason]

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[Dtype]
    FLOAT32: _ClassVar[Dtype]
REASON_UNSPECIFIED: Reason
NOT_MEMBER: Reason
UNKNOWN_RUN: Reason
RUN_ENDED: Reason
VERSION_MISMATCH: Reason
BAD_REQUEST: Reason
ROUND_CLOSED: Reason
STALE_BASE: Reason
ALREADY_SEALED: Reason
CHUNKS_MISSING: Reason
UNKNOWN_TENSOR: Reason
WRONG_SHAPE: Reason
WRONG_DTYPE: Reason
NOT_FINITE: Reason
TOO_LARGE: Reason
DIGEST_MISMATCH: Reason
BUDGET_EXHAUSTED: Reason
NOT_MAPPED: Reason
ENGINE_FAULT: Reason
INVALID_INPUT: Reason
LEDGER_BEHIND: Reason
POLICY_REFUSED: Reason
BAD_ATTESTATION: Reason
LEDGER_UNUSABLE: Reason
NORM_TOO_LARGE: Reason
NOT_AUTHENTICATED: Reason
NO_ROOM: Reason
TOO_BUSY: Reason
NO_MACHINE: Reason
CHAMPION_MOVED: Reason
DTYPE_UNSPECIFIED: Dtype
FLOAT32: Dtype

class TensorInfo(_message.Message):
    __slots__ = ("name", "dtype", "shape", "chunks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: Dtype
    shape: _containers.RepeatedScalarFieldContainer[int]
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[Dtype, str]] = ..., shape: _Optional[_Iterable[int]] = ..., chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("tensors", "digest", "chunk_bytes")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    digest: str
    chunk_bytes: int
    def __init__(self, tensors: _Optional[_Iterable[_Union[TensorInfo, _Mapping]]] = ..., digest: _Optional[str] = ..., chunk_bytes: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("sha256", "data")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    data: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class TaskKey(_message.Message):
    __slots__ = ("run", "incarnation", "round", "phase")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    run: str
    incarnation: int
    round: int
    phase: int
    def __init__(self, run: _Optional[str] = ..., incarnation: _Optional[int] = ..., round: _Optional[int] = ..., phase: _Optional[int] = ...) -> None: ...

class Spend(_message.Message):
    __slots__ = ("unit", "noise_multiplier", "sample_rate", "steps", "clip")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    unit: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    clip: float
    def __init__(self, unit: _Optional[str] = ..., noise_multiplier: _Optional[float] = ..., sample_rate: _Optional[float] = ..., steps: _Optional[int] = ..., clip: _Optional[float] = ...) -> None: ...

class Attestation(_message.Message):
    __slots__ = ("site", "population", "key", "update", "spend", "beside", "accountant", "epsilon_before", "epsilon_after", "delta_after", "ledger_sequence", "ledger_head", "public_key", "signature", "data_commitment")
    SITE_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    SPEND_FIELD_NUMBER: _ClassVar[int]
    BESIDE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTANT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_BEFORE_FIELD_NUMBER: _ClassVar[int]
    EPSILON_AFTER_FIELD_NUMBER: _ClassVar[int]
    DELTA_AFTER_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    DATA_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    site: str
    population: str
    key: TaskKey
    update: str
    spend: Spend
    beside: _containers.RepeatedCompositeFieldContainer[Spend]
    accountant: str
    epsilon_before: float
    epsilon_after: float
    delta_after: float
    ledger_sequence: int
    ledger_head: bytes
    public_key: bytes
    signature: bytes
    data_commitment: bytes
    def __init__(self, site: _Optional[str] = ..., population: _Optional[str] = ..., key: _Optional[_Union[TaskKey, _Mapping]] = ..., update: _Optional[str] = ..., spend: _Optional[_Union[Spend, _Mapping]] = ..., beside: _Optional[_Iterable[_Union[Spend, _Mapping]]] = ..., accountant: _Optional[str] = ..., epsilon_before: _Optional[float] = ..., epsilon_after: _Optional[float] = ..., delta_after: _Optional[float] = ..., ledger_sequence: _Optional[int] = ..., ledger_head: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., data_commitment: _Optional[bytes] = ...) -> None: ...

class CountersignedHead(_message.Message):
    __slots__ = ("site", "population", "sequence", "head", "epsilon_after", "delta_after", "aggregator_key", "signature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    EPSILON_AFTER_FIELD_NUMBER: _ClassVar[int]
    DELTA_AFTER_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    population: str
    sequence: int
    head: bytes
    epsilon_after: float
    delta_after: float
    aggregator_key: bytes
    signature: bytes
    def __init__(self, site: _Optional[str] = ..., population: _Optional[str] = ..., sequence: _Optional[int] = ..., head: _Optional[bytes] = ..., epsilon_after: _Optional[float] = ..., delta_after: _Optional[float] = ..., aggregator_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("key", "factors", "epochs", "start")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    factors: str
    epochs: int
    start: Manifest
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., factors: _Optional[str] = ..., epochs: _Optional[int] = ..., start: _Optional[_Union[Manifest, _Mapping]] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocol_min", "protocol_max", "build", "report")
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    protocol_min: int
    protocol_max: int
    build: str
    report: SiteReport
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., build: _Optional[str] = ..., report: _Optional[_Union[SiteReport, _Mapping]] = ...) -> None: ...

class SiteReport(_message.Message):
    __slots__ = ("populations", "complete")
    POPULATIONS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    populations: _containers.RepeatedCompositeFieldContainer[PopulationReport]
    complete: bool
    def __init__(self, populations: _Optional[_Iterable[_Union[PopulationReport, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class PopulationReport(_message.Message):
    __slots__ = ("name", "data_commitment", "on_start", "unit", "units_low", "units_high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    ON_START_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    UNITS_LOW_FIELD_NUMBER: _ClassVar[int]
    UNITS_HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_commitment: bytes
    on_start: bool
    unit: str
    units_low: int
    units_high: int
    def __init__(self, name: _Optional[str] = ..., data_commitment: _Optional[bytes] = ..., on_start: _Optional[bool] = ..., unit: _Optional[str] = ..., units_low: _Optional[int] = ..., units_high: _Optional[int] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "build")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    build: str
    def __init__(self, protocol: _Optional[int] = ..., build: _Optional[str] = ...) -> None: ...

class NextTaskRequest(_message.Message):
    __slots__ = ("run", "wait_ms")
    RUN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    run: str
    wait_ms: int
    def __init__(self, run: _Optional[str] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class NextTaskReply(_message.Message):
    __slots__ = ("task", "spec", "spec_sha256", "restoration")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_SHA256_FIELD_NUMBER: _ClassVar[int]
    RESTORATION_FIELD_NUMBER: _ClassVar[int]
    task: Task
    spec: str
    spec_sha256: str
    restoration: Restoration
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., spec: _Optional[str] = ..., spec_sha256: _Optional[str] = ..., restoration: _Optional[_Union[Restoration, _Mapping]] = ...) -> None: ...

class Restoration(_message.Message):
    __slots__ = ("statement", "certificates", "signature")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    statement: str
    certificates: str
    signature: bytes
    def __init__(self, statement: _Optional[str] = ..., certificates: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BeginUploadRequest(_message.Message):
    __slots__ = ("key", "manifest", "base", "metrics", "attestation")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    manifest: Manifest
    base: str
    metrics: _containers.ScalarMap[str, float]
    attestation: Attestation
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ..., base: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., attestation: _Optional[_Union[Attestation, _Mapping]] = ...) -> None: ...

class BeginUploadReply(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, missing: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PutChunksReply(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: int
    def __init__(self, stored: _Optional[int] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("key", "digest")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    digest: str
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., digest: _Optional[str] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("digest", "head")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    digest: str
    head: CountersignedHead
    def __init__(self, digest: _Optional[str] = ..., head: _Optional[_Union[CountersignedHead, _Mapping]] = ...) -> None: ...

class UploadStatusRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ...) -> None: ...

class UploadStatusReply(_message.Message):
    __slots__ = ("announced", "sealed", "digest", "missing", "head")
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    announced: bool
    sealed: bool
    digest: str
    missing: _containers.RepeatedScalarFieldContainer[bytes]
    head: CountersignedHead
    def __init__(self, announced: _Optional[bool] = ..., sealed: _Optional[bool] = ..., digest: _Optional[str] = ..., missing: _Optional[_Iterable[bytes]] = ..., head: _Optional[_Union[CountersignedHead, _Mapping]] = ...) -> None: ...

class LedgerHeadRequest(_message.Message):
    __slots__ = ("population",)
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    population: str
    def __init__(self, population: _Optional[str] = ...) -> None: ...

class LedgerHeadReply(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: CountersignedHead
    def __init__(self, head: _Optional[_Union[CountersignedHead, _Mapping]] = ...) -> None: ...

class GetChunksRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, sha256: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("key", "steps_done", "steps")
    KEY_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    steps_done: int
    steps: int
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., steps_done: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("open",)
    OPEN_FIELD_NUMBER: _ClassVar[int]
    open: bool
    def __init__(self, open: _Optional[bool] = ...) -> None: ...

class DeclineRequest(_message.Message):
    __slots__ = ("key", "reason", "detail")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    reason: Reason
    detail: str
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class DeclineReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("run", "detail")
    RUN_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    run: str
    detail: str
    def __init__(self, run: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: str
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[str] = ...) -> None: ...

class StartReply(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("run", "after", "past")
    RUN_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    run: str
    after: int
    past: bool
    def __init__(self, run: _Optional[str] = ..., after: _Optional[int] = ..., past: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "run", "kind", "detail", "time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    run: str
    kind: str
    detail: str
    time: float
    def __init__(self, number: _Optional[int] = ..., run: _Optional[str] = ..., kind: _Optional[str] = ..., detail: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("run", "published")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    run: str
    published: PhaseNumber
    def __init__(self, run: _Optional[str] = ..., published: _Optional[_Union[PhaseNumber, _Mapping]] = ...) -> None: ...

class PhaseNumber(_message.Message):
    __slots__ = ("round", "phase")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: int
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run", "state", "reason", "spec", "round", "phase", "model", "personal", "incarnation", "started_at", "phase_state", "sites")
    class PersonalEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Manifest
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Manifest, _Mapping]] = ...) -> None: ...
    class SitesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    PHASE_STATE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    run: str
    state: str
    reason: str
    spec: str
    round: int
    phase: int
    model: Manifest
    personal: _containers.MessageMap[str, Manifest]
    incarnation: int
    started_at: float
    phase_state: str
    sites: _containers.ScalarMap[str, str]
    def __init__(self, run: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., spec: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[int] = ..., model: _Optional[_Union[Manifest, _Mapping]] = ..., personal: _Optional[_Mapping[str, Manifest]] = ..., incarnation: _Optional[int] = ..., started_at: _Optional[float] = ..., phase_state: _Optional[str] = ..., sites: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: str
    def __init__(self, after: _Optional[str] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("runs", "more")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    more: bool
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("run", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("run", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class RepinRequest(_message.Message):
    __slots__ = ("site", "public_key", "reason")
    SITE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    site: str
    public_key: bytes
    reason: str
    def __init__(self, site: _Optional[str] = ..., public_key: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class RepinReply(_message.Message):
    __slots__ = ("before",)
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    before: bytes
    def __init__(self, before: _Optional[bytes] = ...) -> None: ...

class EvaluatedRequest(_message.Message):
    __slots__ = ("run", "round", "phase", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    phase: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class EvaluatedReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("model", "version", "expected_champion", "verdict")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    expected_champion: str
    verdict: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., expected_champion: _Optional[str] = ..., verdict: _Optional[str] = ...) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("model", "champion", "previous")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    model: str
    champion: str
    previous: str
    def __init__(self, model: _Optional[str] = ..., champion: _Optional[str] = ..., previous: _Optional[str] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("model", "expected_champion", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_champion: str
    reason: str
    def __init__(self, model: _Optional[str] = ..., expected_champion: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PromotionsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class PromotionsReply(_message.Message):
    __slots__ = ("promotions",)
    PROMOTIONS_FIELD_NUMBER: _ClassVar[int]
    promotions: _containers.RepeatedCompositeFieldContainer[PromotionRecord]
    def __init__(self, promotions: _Optional[_Iterable[_Union[PromotionRecord, _Mapping]]] = ...) -> None: ...

class PromotionRecord(_message.Message):
    __slots__ = ("number", "model", "kind", "state", "version", "expected_champion", "previous", "champion", "passed", "verdict_sha256", "reason", "detail", "operator", "began_at", "ended_at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_SHA256_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    model: str
    kind: str
    state: str
    version: str
    expected_champion: str
    previous: str
    champion: str
    passed: bool
    verdict_sha256: str
    reason: str
    detail: str
    operator: str
    began_at: float
    ended_at: float
    def __init__(self, number: _Optional[int] = ..., model: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., version: _Optional[str] = ..., expected_champion: _Optional[str] = ..., previous: _Optional[str] = ..., champion: _Optional[str] = ..., passed: _Optional[bool] = ..., verdict_sha256: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., operator: _Optional[str] = ..., began_at: _Optional[float] = ..., ended_at: _Optional[float] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("run", "name", "content")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    run: str
    name: str
    content: bytes
    def __init__(self, run: _Optional[str] = ..., name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class SitesRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: str
    def __init__(self, after: _Optional[str] = ...) -> None: ...

class SitesReply(_message.Message):
    __slots__ = ("sites",)
    SITES_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[KnownSite]
    def __init__(self, sites: _Optional[_Iterable[_Union[KnownSite, _Mapping]]] = ...) -> None: ...

class KnownSite(_message.Message):
    __slots__ = ("site", "protocol", "build", "report", "said_at", "heard_at")
    SITE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    SAID_AT_FIELD_NUMBER: _ClassVar[int]
    HEARD_AT_FIELD_NUMBER: _ClassVar[int]
    site: str
    protocol: int
    build: str
    report: SiteReport
    said_at: float
    heard_at: float
    def __init__(self, site: _Optional[str] = ..., protocol: _Optional[int] = ..., build: _Optional[str] = ..., report: _Optional[_Union[SiteReport, _Mapping]] = ..., said_at: _Optional[float] = ..., heard_at: _Optional[float] = ...) -> None: ...
