"""What sources say of themselves, and commands without an answer found without reading all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the table and the index."""
    op.create_table(
        "source",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("is_online", FLAG, nullable=False),
        sa.Column("seen_at", NUMBER, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_source_community")),
        sa.PrimaryKeyConstraint("community", "id", name=op.f("pk_source")),
        sqlite_strict=True,
    )
    is_sent = sa.text("state = 'sent'")
    op.create_index("ix_command_sent", "command", ["expires_at"], sqlite_where=is_sent, postgresql_where=is_sent)
