"""Alembic's entry: runs the migrations on the connection that the ledger hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from gateway.adapters.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
