"""Brings a database to the tables that this code knows, or says why it is not for this code."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from deerfield.errors import InvalidInput

MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade(connection: Connection, migrations: Path = MIGRATIONS) -> None:
    """Makes every table of an empty database, or what an older one lacks, in the transaction of `connection`.

    Raises:
        InvalidInput: the database is newer than this code, or another program's.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    _check(connection, scripts)
    command.upgrade(config, "head")


def _check(connection: Connection, scripts: ScriptDirectory) -> None:
    found, known = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    if found is None and (tables := sorted(set(inspect(connection).get_table_names()) - {"alembic_version"})):
        raise InvalidInput(
            f"database: it holds a table {tables[0]} and no revision of deerfield's, so another program made it, or a "
            "version of deerfield from before its migrations; name an empty database"
        )
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise InvalidInput(
            f"database: its tables are of revision {found}, and this version of deerfield knows them up to {known}; "
            "install the newer version that made them, or name another database"
        )


def newest(migrations: Path = MIGRATIONS) -> str | None:
    """The newest revision that this code knows."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return ScriptDirectory.from_config(config).get_current_head()
