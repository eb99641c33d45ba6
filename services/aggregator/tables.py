"""The tables of runs and of ledgers' heads. Bulk lies in the blob store; a row here is what publishes it."""

from dataclasses import asdict

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from deerfield.exchange import Key

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("run", String(128), primary_key=True),
    Column("request_id", String(256), nullable=False, unique=True),
    Column("incarnation", Integer, nullable=False),  # raised by a restore
    Column("spec", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("started_at", Float, nullable=False),
)

PHASE = ("run", "incarnation", "round", "phase")


def _phase_columns() -> tuple[Column[str], Column[int], Column[int], Column[int]]:
    return (
        Column("run", String(128), primary_key=True),
        Column("incarnation", Integer, primary_key=True),
        Column("round", Integer, primary_key=True),
        Column("phase", Integer, primary_key=True),
    )


phases = Table(
    "phases",
    metadata,
    *_phase_columns(),
    Column("state", String(16), nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("before", Text, nullable=False),  # the state it starts from, by manifest
    Column("after", Text),  # the state it published
    Column("noise_key", LargeBinary(32)),  # secret; of a phase under unit site, until it is published
    ForeignKeyConstraint(["run"], ["runs.run"]),
)

tasks = Table(
    "tasks",
    metadata,
    *_phase_columns(),
    Column("site", String(64), primary_key=True),
    Column("factors", String(2), nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("start", Text, nullable=False),  # a manifest
    Column("schema", Text, nullable=False),  # of the update
    Column("state", String(16), nullable=False),
    Column("away", String(8), nullable=False),
    Column("detail", Text, nullable=False),  # why it was declined, or is away
    Column("joined", Boolean, nullable=False),  # whether the site has ever taken a task of this run
    ForeignKeyConstraint(PHASE, [f"phases.{name}" for name in PHASE]),
)

uploads = Table(
    "uploads",
    metadata,
    *_phase_columns(),
    Column("site", String(64), primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("base", String(64), nullable=False),
    Column("attestation", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("sealed", Boolean, nullable=False),
    ForeignKeyConstraint(PHASE, [f"phases.{name}" for name in PHASE]),
)

heads = Table(
    "heads",
    metadata,
    Column("site", String(256), primary_key=True),
    Column("population", String(256), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("head", String(64), nullable=False),
    Column("epsilon_after", Float, nullable=False),  # may be infinite
    Column("delta_after", Float, nullable=False),
    Column("aggregator_key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),  # of the aggregator
    Column("public_key", String(64), nullable=False),  # of the site, under which it was attested
    Column("recorded_at", Float, nullable=False),
)

site_keys = Table(
    "site_keys",
    metadata,
    Column("site", String(256), primary_key=True),
    Column("public_key", String(64), nullable=False),  # of the site's first attestation
    Column("pinned_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("time", Float, nullable=False),
    Index("events_of_a_run", "run", "number"),
    sqlite_autoincrement=True,
)

cursors = Table(
    "cursors",
    metadata,
    Column("reader", String(32), primary_key=True),
    Column("number", Integer, nullable=False),  # the last event that this reader has dealt with
)


def of_phase(table: Table, key: Key) -> tuple[ColumnElement[bool], ...]:
    """The condition for the rows of one phase."""
    return tuple(table.c[name] == value for name, value in asdict(key).items())
