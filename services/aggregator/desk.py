"""What the aggregator's parts share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deerfield.durable import OnDurable, ignore
from deerfield.gate import Rules
from deerfield.runspec import RunSpec
from deerfield.strategy import Strategy
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.rounds.presence import Presence
from services.aggregator.sql.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Its stores, its clock, and how a run becomes a strategy."""

    store: Store
    uploads: Blobs  # what sites sent; never served again
    published: Blobs  # states and start tensors; `membership.check_readable` says who may read them
    make: Callable[[RunSpec], Strategy]
    clock: Callable[[], float]  # seconds since the epoch; nobody sets it while the aggregator runs
    key: Ed25519PrivateKey  # countersigns ledgers' heads
    presence: Presence = field(default_factory=Presence)
    check_blobs: Callable[[], object] = lambda: None  # raises Superseded once they belong to another database
    rules: Rules | None = None  # of the gate, by which alone a verdict counts; None: any
    reached: OnDurable = ignore  # told each point at which a crash would be told apart, beside those of the stores
