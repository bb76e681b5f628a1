"""Alembic's entry: runs the migrations on the connection that `store.migrate` passes."""

from alembic import context

from portcullis.store.schema import metadata

connection = context.config.attributes["connection"]
progress = context.config.attributes.get("progress", lambda _: None)
context.configure(
    connection=connection,
    target_metadata=metadata,
    transaction_per_migration=True,
    on_version_apply=lambda **_: progress(1),
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
