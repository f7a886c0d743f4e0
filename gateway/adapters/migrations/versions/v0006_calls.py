"""What residents say beside their press on a help page; the press itself is in the journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "call",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("waited", NUMBER, nullable=False),
        sa.Column("need", sa.Text(), nullable=False),
        sa.Column("said", sa.LargeBinary()),
        sa.Column("entered_at", NUMBER),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_call_community")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call")),
        sqlite_strict=True,
    )
    op.create_index("ix_call_at", "call", ["at"])
