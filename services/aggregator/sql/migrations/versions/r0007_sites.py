"""The sites that have said Hello, and what they said of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "sites",
        sa.Column("site", sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql"), primary_key=True),
        sa.Column("protocol", WHOLE, nullable=False),
        sa.Column("build", sa.String(256), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("said_at", sa.Float, nullable=False),
    )
