"""Whether the chunks that a row names are still kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds it to phases and uploads; all that an older version has kept is kept."""
    for table in ("phases", "uploads"):
        op.add_column(table, sa.Column("held", sa.Boolean, nullable=False, server_default=sa.true()))
