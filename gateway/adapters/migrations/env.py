"""Alembic's entry: runs the migrations on the connection that the ledger hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from gateway.adapters.schema import metadata

# SQLite alters hardly anything in place: render_as_batch makes a later migration copy the table there.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    render_as_batch=True,
)
context.run_migrations()
