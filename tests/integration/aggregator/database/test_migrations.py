"""The tables of the database, of either kind, and how an older or newer one is met."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, insert, inspect, select

from deerfield.errors import InvalidInput
from services.aggregator.sql import schema
from services.aggregator.sql.database import open_database
from services.aggregator.sql.tables import metadata, runs
from tests.integration.aggregator.database.migrating import migrations, newest, upgraded


def columns(engine) -> list[str]:
    return [column["name"] for column in inspect(engine).get_columns("runs")]


def test_the_migrations_make_exactly_the_tables_of_the_code(opened):
    with opened.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_an_older_database_is_migrated_and_keeps_its_rows(url, tmp_path):
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


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(url, tmp_path):
    open_database(url).close()
    later = migrations(tmp_path, "raise RuntimeError('in the middle')")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        engine.dispose()
        engine = open_database(url).engine  # with our way to begin a transaction
    with pytest.raises(RuntimeError, match="in the middle"), engine.begin() as connection:
        schema.upgrade(connection, "here", later)
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
    with pytest.raises(InvalidInput, match="holds a table patients and no revision"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["patients"]
    engine.dispose()
