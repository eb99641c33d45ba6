"""What alembic runs: the changes that a database lacks, over the connection and in the transaction handed to it."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from services.aggregator.sql.tables import metadata

attributes = context.config.attributes


def _done(ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    attributes["applied"].append(step.up_revision_id)


context.configure(connection=attributes["connection"], target_metadata=metadata, on_version_apply=_done)
context.run_migrations()
