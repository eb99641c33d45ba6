"""The tables of the database, of either kind, and how an older or newer one is met."""

import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, insert, inspect, select
from structlog.testing import capture_logs

from deerfield.errors import InvalidInput
from services.aggregator.sql import schema
from services.aggregator.sql.address import read_address
from services.aggregator.sql.database import _begin_sqlite, _prepare_sqlite, open_database
from services.aggregator.sql.tables import metadata, runs

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
        schema.upgrade(connection, folder)
    engine.dispose()


def columns(engine) -> list[str]:
    return [column["name"] for column in inspect(engine).get_columns("runs")]


def test_the_migrations_make_exactly_the_tables_of_the_code(opened):
    with opened.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_an_older_database_is_upgraded_and_keeps_its_rows(url, tmp_path):
    first = open_database(url)
    row = {"run": "r", "request_id": "q", "incarnation": 1, "spec": "{}", "state": "RUNNING", "started_at": 1.0}
    with first.engine.begin() as connection:
        connection.execute(insert(runs).values(row))
    assert "colour" not in columns(first.engine)
    first.close()
    upgraded(url, migrations(tmp_path))
    engine = create_engine(url)
    assert "colour" in columns(engine)
    with engine.begin() as connection:
        assert connection.execute(select(runs.c.run)).scalar_one() == "r"
    engine.dispose()


def older(url: str, *statements: str) -> None:
    """Makes a database of revision 0004, as an earlier version of deerfield left it, and does something to it."""
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "applied": []})
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        command.upgrade(config, "0004")
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def revision(url: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return found


def test_an_upgrade_is_one_line_of_the_log_with_both_revisions_and_a_start_without_one_is_none(url):
    older(url)
    with capture_logs() as lines:
        for _ in range(2):
            open_database(url).close()
    [line] = [line for line in lines if line["event"] == "upgraded the database"]
    assert (line["log_level"], line["from_revision"], line["to_revision"]) == ("info", "0004", newest())
    assert line["where"] == read_address(url).where
    assert revision(url) == newest()


def test_a_migration_that_something_is_in_the_way_of_is_named_and_nothing_was_changed(url):
    older(url, "CREATE TABLE promotions (id INTEGER)")
    said = r"migration 0005 failed \(.*promotions.* already exists.*\), and nothing was changed.* 0004.*restore the"
    with pytest.raises(InvalidInput, match=said) as caught:
        open_database(url)
    assert read_address(url).where in str(caught.value)
    assert "check the address" not in str(caught.value)
    engine = create_engine(url)
    assert "champions" not in inspect(engine).get_table_names()  # which the migration makes first
    engine.dispose()
    assert revision(url) == "0004"


def test_of_several_migrations_the_one_that_failed_is_named_and_those_before_it_are_undone(url, tmp_path):
    older(url, "ALTER TABLE runs ADD COLUMN colour INTEGER")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)  # our way to begin a transaction
        event.listen(engine, "begin", _begin_sqlite)
    with pytest.raises(InvalidInput, match=r"over there: migration 9999 failed .*colour"), engine.begin() as connection:
        schema.upgrade(connection, migrations(tmp_path), "over there")
    assert "champions" not in inspect(engine).get_table_names()
    engine.dispose()
    assert revision(url) == "0004"


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(url, tmp_path):
    open_database(url).close()
    later = migrations(tmp_path, "raise RuntimeError('in the middle')")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        engine.dispose()
        engine = open_database(url).engine  # with our way to begin a transaction
    with pytest.raises(RuntimeError, match="in the middle"), engine.begin() as connection:
        schema.upgrade(connection, later)
    assert "colour" not in columns(engine)
    engine.dispose()


def test_a_newer_database_is_refused_by_naming_both_revisions(url, tmp_path):
    open_database(url).close()
    upgraded(url, migrations(tmp_path))
    with pytest.raises(InvalidInput, match=rf"revision 9999, .* up to {newest()}; install the newer version"):
        open_database(url)


def test_another_programs_database_is_refused_and_left_alone(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE patients (id INTEGER)")
    with pytest.raises(InvalidInput, match="it holds a table patients and no revision"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["patients"]
    engine.dispose()
