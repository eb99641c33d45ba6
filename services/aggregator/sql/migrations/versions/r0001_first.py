"""The tables of runs, of what sites sent, of ledgers' heads, of events, and the fence."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PHASE = ("run", "incarnation", "round", "phase")


def _name(size: int) -> sa.String:
    return sa.String(size).with_variant(sa.String(size, collation="C"), "postgresql")


def _phase_columns() -> tuple[sa.Column[str], sa.Column[int], sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("run", _name(128), primary_key=True),
        sa.Column("incarnation", WHOLE, primary_key=True),
        sa.Column("round", WHOLE, primary_key=True),
        sa.Column("phase", WHOLE, primary_key=True),
    )


def upgrade() -> None:
    """Makes them."""
    _make_runs()
    _make_uploads()
    _make_ledgers()
    _make_events()


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run", _name(128), primary_key=True),
        sa.Column("request_id", _name(256), nullable=False, unique=True),
        sa.Column("incarnation", WHOLE, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
    )
    op.create_table(
        "phases",
        *_phase_columns(),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text),
        sa.Column("noise_key", sa.LargeBinary(32)),
        sa.ForeignKeyConstraint(["run"], ["runs.run"]),
    )
    op.create_table(
        "tasks",
        *_phase_columns(),
        sa.Column("site", _name(64), primary_key=True),
        sa.Column("factors", sa.String(2), nullable=False),
        sa.Column("epochs", WHOLE, nullable=False),
        sa.Column("start", sa.Text, nullable=False),
        sa.Column("schema", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("away", sa.String(8), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("joined", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(PHASE, [f"phases.{name}" for name in PHASE]),
    )


def _make_uploads() -> None:
    op.create_table(
        "uploads",
        *_phase_columns(),
        sa.Column("site", _name(64), primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("attestation", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("sealed", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(PHASE, [f"phases.{name}" for name in PHASE]),
    )


def _make_ledgers() -> None:
    op.create_table(
        "heads",
        sa.Column("site", _name(256), primary_key=True),
        sa.Column("population", _name(256), primary_key=True),
        sa.Column("sequence", WHOLE, nullable=False),
        sa.Column("head", sa.String(64), nullable=False),
        sa.Column("epsilon_after", sa.Float, nullable=False),
        sa.Column("delta_after", sa.Float, nullable=False),
        sa.Column("aggregator_key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.Float, nullable=False),
    )
    op.create_table(
        "site_keys",
        sa.Column("site", _name(256), primary_key=True),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("pinned_at", sa.Float, nullable=False),
    )


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("number", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("run", _name(128), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of_a_run", "events", ["run", "number"])
    op.create_table(
        "cursors",
        sa.Column("reader", _name(32), primary_key=True),
        sa.Column("number", WHOLE, nullable=False),
    )
    op.create_table(
        "fence",
        sa.Column("number", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("host", sa.String(256), nullable=False),
        sa.Column("pid", WHOLE, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
    )
