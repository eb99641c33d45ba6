"""Every failure that deerfield can name, as one tree.

DeerfieldError                 exit code 1
├── InvalidInput               exit code 2: a person can mend what they wrote
│   ├── HandshakeFailed        the two ends of a TLS connection do not trust each other
│   └── LedgerFault            a site's ledger cannot be used, so nothing is read; a person must act
│       └── LedgerDamaged, LedgerBusy, LedgerUnwritable
├── RunFailed                  a run ended without its model: `reason` says why
│   └── RunAborted, TooFewSites, NotRegistered
├── Unreachable                the other side does not answer: worth another try
│   └── NoRoom                 its disk is full or read-only: worth another try once somebody has acted
├── Superseded                 another aggregator has the database: this one ends
├── Malfunction                the other side answered that it is broken: its log says how
└── Refusal                    a typed answer on the wire; `reason` is the enum value it travels as
    ├── NotAuthenticated, NotMember, UnknownRun, RunEnded, VersionMismatch, BadRequest
    ├── RoundClosed, StaleBase, AlreadySealed, ChunksMissing
    ├── UnknownTensor, WrongShape, WrongDtype, NotFinite, NormTooLarge, TooLarge, DigestMismatch
    ├── TooBusy                worth another try, as Unreachable is: `AGAIN`
    ├── BudgetExhausted, NotMapped, EngineFault, NoMachine
    ├── LedgerBehind, PolicyRefused (NotRestored), BadAttestation
    └── ChampionMoved          exit code 2: look at the champion that there is now
"""

from typing import ClassVar


class DeerfieldError(Exception):
    """The root; a caller that wants to survive any deerfield failure catches this."""

    exit_code: ClassVar[int] = 1


class InvalidInput(DeerfieldError):
    """A run file, data set, model or argument that cannot be used; the message says where, the limit, what to do."""

    exit_code: ClassVar[int] = 2


class HandshakeFailed(InvalidInput):
    """No TLS connection can be made with these files: waiting mends nothing, a person must."""


class LedgerFault(InvalidInput):
    """A population's ledger cannot be read or written: nothing is trained until a person has acted."""


class LedgerDamaged(LedgerFault):
    """An entry of a ledger, or a stored update, is not what was once written."""


class LedgerBusy(LedgerFault):
    """Another process has the ledger open."""


class LedgerUnwritable(LedgerFault):
    """An entry cannot be made to last: a full or read-only disk, a network file system, a clock that went back."""


class RunFailed(DeerfieldError):
    """A run ended before its last round."""


class RunAborted(RunFailed):
    """Somebody ended the run before its last round."""


class TooFewSites(RunFailed):
    """Fewer sites than a phase needs had joined the run in the time that they were given."""


class NotRegistered(RunFailed):
    """The run has its model, and the registry does not."""


class Unreachable(DeerfieldError):
    """The other side did not answer."""


class NoRoom(Unreachable):
    """The aggregator's disk is full or read-only, and what the call needed to write was not written."""


class Superseded(DeerfieldError):
    """Another aggregator has taken over the database."""


class Malfunction(DeerfieldError):
    """The other side failed in a way that it has no name for."""


class Refusal(DeerfieldError):
    """The aggregator or a site says no, in terms that the other side can act on."""

    reason: ClassVar[str] = "REASON_UNSPECIFIED"


class NotAuthenticated(Refusal):
    """The caller's certificate is revoked, has expired, or names nobody who may call."""

    reason = "NOT_AUTHENTICATED"


class NotMember(Refusal):
    """The caller is not one of the sites of this run."""

    reason = "NOT_MEMBER"


class UnknownRun(Refusal):
    """No run has this name."""

    reason = "UNKNOWN_RUN"


class RunEnded(Refusal):
    """The run is finished, failed or aborted."""

    reason = "RUN_ENDED"


class VersionMismatch(Refusal):
    """The two sides speak no common version of the protocol."""

    reason = "VERSION_MISMATCH"


class BadRequest(Refusal):
    """A message that does not have the form that the protocol asks for."""

    reason = "BAD_REQUEST"


class RoundClosed(Refusal):
    """The update belongs to a phase that is not open."""

    reason = "ROUND_CLOSED"


class StaleBase(Refusal):
    """The update was trained against other start tensors than those of its task."""

    reason = "STALE_BASE"


class AlreadySealed(Refusal):
    """This site has already sealed another update for the same task."""

    reason = "ALREADY_SEALED"


class ChunksMissing(Refusal):
    """A commit names chunks that have not arrived."""

    reason = "CHUNKS_MISSING"


class UnknownTensor(Refusal):
    """The update holds a tensor that its task does not ask for, or lacks one that it does."""

    reason = "UNKNOWN_TENSOR"


class WrongShape(Refusal):
    """A tensor has another shape than its task asks for."""

    reason = "WRONG_SHAPE"


class WrongDtype(Refusal):
    """A tensor is not float32."""

    reason = "WRONG_DTYPE"


class NotFinite(Refusal):
    """A tensor holds a NaN or an infinity."""

    reason = "NOT_FINITE"


class NormTooLarge(Refusal):
    """The joint L2 norm of an update is above what the run allows."""

    reason = "NORM_TOO_LARGE"


class TooLarge(Refusal):
    """A message, tensor or update is over its limit."""

    reason = "TOO_LARGE"


class TooBusy(Refusal):
    """There is no room for this call now; `retry_s` says after which pause it is worth another try."""

    reason = "TOO_BUSY"

    def __init__(self, message: str, retry_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class DigestMismatch(Refusal):
    """Content does not have the sha256 that it was announced with."""

    reason = "DIGEST_MISMATCH"


class BudgetExhausted(Refusal):
    """Releasing this update would spend more privacy than the site allows."""

    reason = "BUDGET_EXHAUSTED"


class NotMapped(Refusal):
    """The run names a population or base model that the site's policy does not map."""

    reason = "NOT_MAPPED"


class EngineFault(Refusal):
    """A site's clipping engine would not train what the task says, so nothing is trained."""

    reason = "ENGINE_FAULT"


class NoMachine(Refusal):
    """A site got no machine to train on, or lost it before the task was done."""

    reason = "NO_MACHINE"


class LedgerBehind(Refusal):
    """The aggregator has a later head of this population's ledger than the site has: an old copy was restored."""

    reason = "LEDGER_BEHIND"


class LedgerUnusable(Refusal):
    """The site's ledger is damaged or cannot be written: nothing is trained until its operator has acted."""

    reason = "LEDGER_UNUSABLE"


class PolicyRefused(Refusal):
    """The site's policy does not allow the run."""

    reason = "POLICY_REFUSED"


class NotRestored(PolicyRefused):
    """Nobody whom the site believes has signed for the run's going on from a backup; travels as POLICY_REFUSED."""


class BadAttestation(Refusal):
    """What was signed about an update is missing, broken, or not about this update, key or ledger."""

    reason = "BAD_ATTESTATION"


class ChampionMoved(Refusal):
    """A model's champion is not the one that was expected, or somebody has moved the alias by hand."""

    reason = "CHAMPION_MOVED"
    exit_code: ClassVar[int] = 2


AGAIN = (Unreachable, TooBusy)  # what a caller tries again
REFUSALS: dict[str, type[Refusal]] = {leaf.reason: leaf for leaf in Refusal.__subclasses__()}
