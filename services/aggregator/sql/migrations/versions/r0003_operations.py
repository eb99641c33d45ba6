"""Runs that are paused, and what operators signed for runs that were restored from a backup."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _name(size: int) -> sa.String:
    return sa.String(size).with_variant(sa.String(size, collation="C"), "postgresql")


def upgrade() -> None:
    """Adds the column and the table."""
    op.add_column("runs", sa.Column("paused_at", sa.Float))
    op.create_table(
        "restorations",
        sa.Column("run", _name(128), primary_key=True),
        sa.Column("incarnation", WHOLE, primary_key=True),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("certificates", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.run"]),
    )
