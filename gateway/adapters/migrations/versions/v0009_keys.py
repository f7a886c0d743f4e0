"""The key of the act that made a model's secret, and of the one that sent a delivery again: neither happens twice. And
what an awaited device asks with: the code of the apparatus that is there now, which a replacement changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the columns. Who was awaited before asks with the code that made its id."""
    op.add_column("product", sa.Column("renewal", sa.Text(), nullable=False, server_default=""))
    op.add_column("webhook_delivery", sa.Column("again", sa.Text(), nullable=False, server_default=""))
    op.add_column("awaited", sa.Column("code", sa.Text(), nullable=False, server_default=""))
    op.execute("UPDATE awaited SET code = device")
    op.create_index("ix_awaited_code", "awaited", ["code"], unique=True)
