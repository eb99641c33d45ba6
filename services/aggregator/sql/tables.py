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
    text,
    true,
)

from deerfield.exchange import Key

metadata = MetaData()

# the same on every database: 64 bits (32 in PostgreSQL's INTEGER; only SQLite's INTEGER counts up by itself),
# and names in the order of their bytes, whatever the server's locale is
Whole = BigInteger().with_variant(Integer, "sqlite")


def _name(size: int) -> String:
    return String(size).with_variant(String(size, collation="C"), "postgresql")


runs = Table(
    "runs",
    metadata,
    Column("run", _name(128), primary_key=True),
    Column("request_id", _name(256), nullable=False, unique=True),
    Column("incarnation", Whole, nullable=False),  # raised by a restore
    Column("spec", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("started_at", Float, nullable=False),
    Column("paused_at", Float),  # of a paused run: since when its clock stands still
)

PHASE = ("run", "incarnation", "round", "phase")


def _phase_columns() -> tuple[Column[str], Column[int], Column[int], Column[int]]:
    return (
        Column("run", _name(128), primary_key=True),
        Column("incarnation", Whole, primary_key=True),
        Column("round", Whole, primary_key=True),
        Column("phase", Whole, primary_key=True),
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
    Column("held", Boolean, nullable=False, server_default=true()),  # whether its states and starts are kept
    ForeignKeyConstraint(["run"], ["runs.run"]),
)

tasks = Table(
    "tasks",
    metadata,
    *_phase_columns(),
    Column("site", _name(64), primary_key=True),
    Column("factors", String(2), nullable=False),
    Column("epochs", Whole, nullable=False),
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
    Column("site", _name(64), primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("base", String(64), nullable=False),
    Column("attestation", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("sealed", Boolean, nullable=False),
    Column("held", Boolean, nullable=False, server_default=true()),  # whether its chunks are kept
    ForeignKeyConstraint(PHASE, [f"phases.{name}" for name in PHASE]),
)

restorations = Table(
    "restorations",
    metadata,
    Column("run", _name(128), primary_key=True),
    Column("incarnation", Whole, primary_key=True),
    Column("statement", Text, nullable=False),  # with the next two: a `deerfield.restoration.Restoration`
    Column("certificates", Text, nullable=False),
    Column("signature", Text, nullable=False),
    ForeignKeyConstraint(["run"], ["runs.run"]),
)

heads = Table(
    "heads",
    metadata,
    Column("site", _name(256), primary_key=True),
    Column("population", _name(256), primary_key=True),
    Column("sequence", Whole, nullable=False),
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
    Column("site", _name(256), primary_key=True),
    Column("public_key", String(64), nullable=False),  # of the site's first attestation
    Column("pinned_at", Float, nullable=False),
)

sites = Table(
    "sites",
    metadata,
    Column("site", _name(256), primary_key=True),
    Column("protocol", Whole, nullable=False),
    Column("build", String(256), nullable=False),
    Column("report", Text, nullable=False),  # JSON of a `deerfield.roster.SiteReport`
    Column("said_at", Float, nullable=False),  # the newest Hello
)

events = Table(
    "events",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=True),
    Column("run", _name(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("time", Float, nullable=False),
    Index("events_of_a_run", "run", "number"),
    sqlite_autoincrement=True,
)

fence = Table(  # one row: who has the database, and how many have had it
    "fence",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=False),
    Column("host", String(256), nullable=False),
    Column("pid", Whole, nullable=False),
    Column("since", Float, nullable=False),
)

identity = Table(  # one row, never restored: a mark beside the blobs says the same (blobstore/ownership.py)
    "identity",
    metadata,
    Column("identity", String(32), primary_key=True),
)

audit = Table(  # triggers refuse to change or delete a row: sql/migrations/versions/r0004_audit.py
    "audit",
    metadata,
    Column("sequence", Whole, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("what", String(64), nullable=False),
    Column("actor", Text, nullable=False),
    Column("run", _name(128), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False, unique=True),  # two that follow one entry would be a fork
    Column("hash", String(64), nullable=False),
)

champions = Table(  # a model's row: who holds it promotes
    "champions",
    metadata,
    Column("model", _name(256), primary_key=True),
    Column("champion", String(32)),  # the version that we have made it, empty: none; null: we have not touched it yet
)

promotions = Table(
    "promotions",
    metadata,
    Column("number", Whole, primary_key=True, autoincrement=True),
    Column("model", _name(256), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", String(32), nullable=False),
    Column("expected_champion", String(32), nullable=False),
    Column("previous", String(32), nullable=False),
    Column("champion", String(32), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("verdict", Text, nullable=False),  # JSON, as it came
    Column("verdict_sha256", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    ForeignKeyConstraint(["model"], ["champions.model"]),
    Index("promotions_of_a_model", "model", "number"),
    Index(
        "one_promotion_at_a_time",
        "model",
        unique=True,
        sqlite_where=text("state IN ('OPEN', 'MOVING')"),
        postgresql_where=text("state IN ('OPEN', 'MOVING')"),
    ),
    sqlite_autoincrement=True,
)

attachments = Table(
    "attachments",
    metadata,
    Column("run", _name(128), primary_key=True),
    Column("name", _name(256), primary_key=True),
    Column("sha256", String(64), nullable=False),  # of a published blob, which is kept until it is logged
    Column("logged", Boolean, nullable=False),
    ForeignKeyConstraint(["run"], ["runs.run"]),
)

cursors = Table(
    "cursors",
    metadata,
    Column("reader", _name(32), primary_key=True),
    Column("number", Whole, nullable=False),  # the last event that this reader has dealt with
)


def of_phase(table: Table, key: Key) -> tuple[ColumnElement[bool], ...]:
    """The condition for the rows of one phase."""
    return tuple(table.c[name] == value for name, value in asdict(key).items())
