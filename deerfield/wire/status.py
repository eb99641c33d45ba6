"""The one table from errors to gRPC status and `google.rpc.ErrorInfo`, and back."""

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from deerfield import errors
from deerfield.wire import limits

DOMAIN = "deerfield"
Code = grpc.StatusCode

TABLE: Mapping[type[errors.DeerfieldError], tuple[grpc.StatusCode, str]] = {  # error: status, hint for a person
    errors.NotAuthenticated: (Code.UNAUTHENTICATED, "look at the certificate: deerfield pki show; request another"),
    errors.NotMember: (Code.PERMISSION_DENIED, "check which site this certificate or address names"),
    errors.UnknownRun: (Code.NOT_FOUND, "list the runs"),
    errors.RunEnded: (Code.FAILED_PRECONDITION, "there is nothing left to do for this run"),
    errors.VersionMismatch: (Code.FAILED_PRECONDITION, "bring the older side up to date"),
    errors.BadRequest: (Code.INVALID_ARGUMENT, "the two sides disagree on the protocol; compare their versions"),
    errors.RoundClosed: (Code.FAILED_PRECONDITION, "ask NextTask for the open phase"),
    errors.StaleBase: (Code.FAILED_PRECONDITION, "fetch the start tensors of the task again"),
    errors.AlreadySealed: (Code.ALREADY_EXISTS, "an update is sent once; resend the stored one"),
    errors.ChunksMissing: (Code.FAILED_PRECONDITION, "send what BeginUpload says is missing"),
    errors.UnknownTensor: (Code.INVALID_ARGUMENT, "send exactly the tensors of the task"),
    errors.WrongShape: (Code.INVALID_ARGUMENT, "send the shapes of the task, never padded"),
    errors.WrongDtype: (Code.INVALID_ARGUMENT, "send float32"),
    errors.NotFinite: (Code.INVALID_ARGUMENT, "training diverged; lower the learning rate"),
    errors.NormTooLarge: (Code.INVALID_ARGUMENT, "clip the update as the run says; look for a site that does not"),
    errors.TooLarge: (Code.RESOURCE_EXHAUSTED, "stay within the limits of docs/protocol.md"),
    errors.TooBusy: (Code.RESOURCE_EXHAUSTED, "wait; the next try may find room"),
    errors.DigestMismatch: (Code.INVALID_ARGUMENT, "send the bytes again; they were damaged or mixed up"),
    errors.BudgetExhausted: (Code.FAILED_PRECONDITION, "calibrate the noise to the epsilon of the run"),
    errors.NotMapped: (Code.FAILED_PRECONDITION, "name the population and base model in the site's policy"),
    errors.EngineFault: (Code.FAILED_PRECONDITION, "see the site's log: nothing was trained"),
    errors.LedgerUnusable: (Code.FAILED_PRECONDITION, "the hospital looks at the site's log, and mends its ledger"),
    errors.LedgerBehind: (Code.FAILED_PRECONDITION, "the hospital reconciles its ledger: deerfield ledger reconcile"),
    errors.NoMachine: (Code.FAILED_PRECONDITION, "the hospital looks at its cluster: quota, nodes, the Job's log"),
    errors.PolicyRefused: (Code.FAILED_PRECONDITION, "the hospital's policy decides; ask for what it allows"),
    errors.BadAttestation: (Code.FAILED_PRECONDITION, "compare the site's ledger and key with the aggregator's record"),
    errors.ChampionMoved: (Code.ABORTED, "compare with the champion that there is now, and ask again"),
    errors.InvalidInput: (Code.INVALID_ARGUMENT, "mend the run file"),
    errors.NoRoom: (Code.UNAVAILABLE, "make room at the aggregator; until then the call is tried again"),
}
REASONS: Mapping[str, type[errors.DeerfieldError]] = {
    **errors.REFUSALS,
    "INVALID_INPUT": errors.InvalidInput,
    "NO_ROOM": errors.NoRoom,
}
_NAMES = {error: reason for reason, error in REASONS.items()}
_AWAY: Mapping[type[errors.DeerfieldError], tuple[grpc.StatusCode, str]] = {  # no refusal: the caller asks again
    errors.Superseded: (Code.UNAVAILABLE, "another aggregator answers from here on"),
    errors.Unreachable: (
        Code.UNAVAILABLE,
        "the aggregator cannot reach its database, tensors or MLflow; ask again",
    ),
}
_CROWDED = "Concurrent RPC limit exceeded"  # gRPC's own words, without an ErrorInfo
_AGAIN = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED}


def to_status(error: errors.DeerfieldError) -> grpc.Status:
    """The status that carries `error`, with its reason and a hint a person can act on."""
    code, hint = {**TABLE, **_AWAY}.get(type(error), (Code.UNKNOWN, "see the log of the other side"))
    info = ErrorInfo(reason=_NAMES.get(type(error), "REASON_UNSPECIFIED"), domain=DOMAIN, metadata={"hint": hint})
    details = [_packed(info)]
    if isinstance(error, errors.TooBusy):
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_s * 1e9))
        details.append(_packed(retry))
    number: int = code.value[0]
    status: grpc.Status = rpc_status.to_status(Status(code=number, message=_fitting(str(error)), details=details))
    return status


def reason_of(trailers: Iterable[tuple[str, str | bytes]]) -> str:
    """The reason that a call was refused with, by its trailing metadata; empty for none of ours."""
    for key, value in trailers:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _reason(Status.FromString(value))
    return ""


def _fitting(message: str) -> str:
    """The message, cut to what a caller's limit on metadata lets through: it travels twice, the first time escaped."""
    most = limits.DETAIL_CHARS if message.isascii() else limits.DETAIL_CHARS // 8
    return message if len(message) <= most else message[: most - 3] + "..."


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def from_rpc(error: grpc.RpcError) -> errors.DeerfieldError:
    """The error that a failed call stands for: the very class that the other side raised, where it was one of ours."""
    code, details = error.code(), error.details() or ""
    status = rpc_status.from_call(error)
    if kind := REASONS.get(_reason(status)):
        return errors.TooBusy(details, _retry_s(status)) if kind is errors.TooBusy else kind(details)
    if code in _AGAIN:
        return errors.Unreachable(f"no answer ({code.name}): {details}")
    if code is Code.RESOURCE_EXHAUSTED and details.startswith(_CROWDED):
        return errors.TooBusy(details)
    if code is Code.RESOURCE_EXHAUSTED:  # gRPC itself refuses a message over the limit, without an ErrorInfo
        return errors.TooLarge(details)
    if code is Code.UNIMPLEMENTED:
        return errors.VersionMismatch(f"the other side does not know this call ({details}); bring it up to date")
    return errors.Malfunction(f"the other side failed ({code.name}: {details}); its log says more")


def _reason(status: Status | None) -> str:
    info = ErrorInfo()
    for packed in status.details if status else ():
        if packed.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return ""


def _retry_s(status: Status | None) -> float:
    retry = RetryInfo()
    for packed in status.details if status else ():
        if packed.Unpack(retry):
            return float(retry.retry_delay.ToNanoseconds()) / 1e9
    return 1.0
