"""Which database this is: blobs say to which one they belong."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the table with its one row."""
    table = op.create_table("identity", sa.Column("identity", sa.String(32), primary_key=True))
    op.bulk_insert(table, [{"identity": uuid4().hex}])
