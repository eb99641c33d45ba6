"""Models' champions and how they became that, and files about runs that wait for MLflow."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _name(size: int) -> sa.String:
    return sa.String(size).with_variant(sa.String(size, collation="C"), "postgresql")


def upgrade() -> None:
    """Adds the tables."""
    op.create_table(
        "champions",
        sa.Column("model", _name(256), primary_key=True),
        sa.Column("champion", sa.String(32)),
    )
    op.create_table(
        "promotions",
        sa.Column("number", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("model", _name(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("expected_champion", sa.String(32), nullable=False),
        sa.Column("previous", sa.String(32), nullable=False),
        sa.Column("champion", sa.String(32), nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("verdict_sha256", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["model"], ["champions.model"]),
        sqlite_autoincrement=True,
    )
    op.create_index("promotions_of_a_model", "promotions", ["model", "number"])
    unsettled = sa.text("state IN ('OPEN', 'MOVING')")
    op.create_index(
        "one_promotion_at_a_time",
        "promotions",
        ["model"],
        unique=True,
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
    op.create_table(
        "attachments",
        sa.Column("run", _name(128), primary_key=True),
        sa.Column("name", _name(256), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("logged", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.run"]),
    )
