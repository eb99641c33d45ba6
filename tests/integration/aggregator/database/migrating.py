"""Databases of an earlier version of deerfield, and a later version of its migrations."""

import shutil
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from services.aggregator.sql import schema

EARLIER = "0004"
LACKING = "r0005_promotions"  # the first of the migrations that an earlier one lacks
NEXT = '''"""One column more."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9999", "{newest}"
def upgrade():
    op.add_column("runs", sa.Column("colour", sa.Text))
    {then}
'''


def newest() -> str:
    """The revision of this code."""
    return ScriptDirectory(str(schema.MIGRATIONS)).get_current_head()


def migrations(folder: Path, then: str = "") -> Path:
    """A later version of deerfield: one migration more."""
    later = folder / "50% later"
    shutil.copytree(schema.MIGRATIONS, later)
    (later / "versions" / "r9999_colour.py").write_text(NEXT.format(then=then, newest=newest()))
    return later


def upgraded(url: str, folder: Path) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        schema.upgrade(connection, "here", folder)
    engine.dispose()


def older(url: str, *statements: str) -> None:
    """Makes a database as an earlier version of deerfield left it, and does something to it."""
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "applied": []})
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        command.upgrade(config, EARLIER)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def revision(url: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return found
