"""Brings a database to the tables that this code knows, or says why it is not for this code."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from deerfield.errors import InvalidInput
from services.databases import first_line, known

MIGRATIONS = Path(__file__).with_name("migrations")
MIGRATE = "deerfield aggregator migrate"


def create(connection: Connection, where: str, migrations: Path = MIGRATIONS) -> str | None:
    """Makes every table of an empty database, in the transaction of `connection`, and changes no other.

    Answers and raises as `upgrade`, and raises InvalidInput, naming what is missing, for an older database.
    """
    scripts = _scripts(migrations)
    found = _check(connection, where, scripts)
    if found is not None and (missing := _missing(scripts, found)):
        raise InvalidInput(
            f"database: {where} is of revision {found}, made by an earlier version of deerfield, and lacks the "
            f"migrations {', '.join(missing)}; make a backup with that version, then run {MIGRATE}, or start with "
            "--migrate"
        )
    return upgrade(connection, where, migrations)


def upgrade(connection: Connection, where: str, migrations: Path = MIGRATIONS) -> str | None:
    """Makes every table of an empty database, or what an older one lacks, in the transaction of `connection`.

    Answers the revision that it was of, None if it was empty; `where` it is stands in what is said.

    Raises:
        InvalidInput: the database is newer than this code, or another program's, or a migration cannot be done.
    """
    applied: list[str] = []
    config = _config(migrations, connection=connection, applied=applied)
    scripts = ScriptDirectory.from_config(config)
    found = _check(connection, where, scripts)
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if error.connection_invalidated or known(error):  # a trouble of the server or its disk, whatever was asked
            raise
        wanted = _missing(scripts, found)
        raise InvalidInput(_failed(where, wanted[len(applied)], found, first_line(error))) from error
    return found


def _failed(where: str, revision: str, found: str | None, reason: str) -> str:
    said = f"database: {where}: migration {revision} failed ({reason}), and nothing was changed"
    if found is None:
        return f"{said}; name an empty database"
    return (
        f"{said}: its tables are still of revision {found}, which the earlier version of deerfield can use; remove "
        "what is in the way, or restore the backup from before the upgrade into an empty database"
    )


def _check(connection: Connection, where: str, scripts: ScriptDirectory) -> str | None:
    """The revision that the tables are of."""
    found, known = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    if found is None and (tables := sorted(set(inspect(connection).get_table_names()) - {"alembic_version"})):
        raise InvalidInput(
            f"database: {where} holds a table {tables[0]} and no revision of deerfield's, so another program made it, "
            "or a version of deerfield from before its migrations; name an empty database"
        )
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise InvalidInput(
            f"database: {where} is of revision {found}, and this version of deerfield knows them up to {known}; "
            "install the newer version that made it, or name another database"
        )
    return found


def newest(migrations: Path = MIGRATIONS) -> str | None:
    """The newest revision that this code knows."""
    return _scripts(migrations).get_current_head()


def missing(found: str) -> list[str]:
    """The names of the migrations that a database of revision `found` lacks, in their order."""
    return _missing(_scripts(MIGRATIONS), found)


def _missing(scripts: ScriptDirectory, found: str | None) -> list[str]:
    lacking = scripts.iterate_revisions("head", found or "base")
    return [Path(str(script.path)).stem for script in lacking][::-1]


def _scripts(migrations: Path) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(migrations))


def _config(migrations: Path, **attributes: object) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config
