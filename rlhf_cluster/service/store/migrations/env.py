"""Run by Alembic: the migrations within the transaction that `Database.migrate` has opened."""

from alembic import context

from rlhf_cluster.service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
)
context.run_migrations()
