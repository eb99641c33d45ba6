"""What alembic runs: the changes that a database lacks, over the connection and in the transaction handed to it."""

from alembic import context

from services.aggregator.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
