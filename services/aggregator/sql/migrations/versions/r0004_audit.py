"""The audit log: a table that only grows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SAYS = "the audit log is append-only"
SQLITE = [
    f"CREATE TRIGGER audit_{verb.lower()} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, '{SAYS}'); END"
    for verb in ("UPDATE", "DELETE")
] + [  # INSERT OR REPLACE deletes without asking a trigger
    "CREATE TRIGGER audit_insert BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE "
    f"sequence = NEW.sequence OR previous = NEW.previous) BEGIN SELECT RAISE(ABORT, '{SAYS}'); END"
]
POSTGRESQL = [
    "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{SAYS}' USING ERRCODE = 'restrict_violation'; END $$",
    "CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_only_grows()",
    "CREATE TRIGGER audit_table BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()",
]


def upgrade() -> None:
    """Makes it, with the triggers that refuse to change or delete an entry."""
    name = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "audit",
        sa.Column("sequence", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("run", name, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    for statement in POSTGRESQL if op.get_bind().dialect.name == "postgresql" else SQLITE:
        op.execute(statement)
