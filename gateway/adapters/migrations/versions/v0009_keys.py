"""The key of the act that made a model's secret, and of the one that sent a delivery again: neither happens twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("product", sa.Column("renewal", sa.Text(), nullable=False, server_default=""))
    op.add_column("webhook_delivery", sa.Column("again", sa.Text(), nullable=False, server_default=""))
