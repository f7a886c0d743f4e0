"""Webhooks with their deliveries, and models' secrets with the devices that fetch their passwords by them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "webhook",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("since", NUMBER, nullable=False),
        sa.Column("off_at", NUMBER),
        sa.Column("off_why", sa.Text(), nullable=False),
        sa.Column("failures", NUMBER, nullable=False),
        sa.Column("failing_since", NUMBER),
        sa.Column("ok_at", NUMBER),
        sa.Column("renewal", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("earlier", sa.LargeBinary()),
        sa.Column("earlier_until", NUMBER),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
        sqlite_strict=True,
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("webhook", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", NUMBER, nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("due_at", NUMBER, nullable=False),
        sa.Column("settled_at", NUMBER),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["webhook"], ["webhook.id"], name=op.f("fk_webhook_delivery_webhook")),
        sa.PrimaryKeyConstraint("webhook", "id", name=op.f("pk_webhook_delivery")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_webhook_delivery_due",
        "webhook_delivery",
        ["webhook", "due_at", "seq"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )
    op.create_index(
        "ix_webhook_delivery_incident",
        "webhook_delivery",
        ["webhook", "incident", "seq"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )
    op.create_index("ix_webhook_delivery_created", "webhook_delivery", ["webhook", "created_at"])
    op.create_table(
        "webhook_case",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("is_open", FLAG, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("incident", name=op.f("pk_webhook_case")),
        sqlite_strict=True,
    )
    op.create_table(
        "product",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("renewed_at", NUMBER, nullable=False),
        sa.Column("earlier_until", NUMBER),
        sa.Column("off_at", NUMBER),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("earlier", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("profile", name=op.f("pk_product")),
        sqlite_strict=True,
    )
    op.create_table(
        "awaited",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("until", NUMBER, nullable=False),
        sa.Column("granted_at", NUMBER),
        sa.Column("granted_to", sa.Text(), nullable=False),
        sa.Column("refused", NUMBER, nullable=False),
        sa.Column("refused_at", NUMBER),
        sa.Column("refused_from", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_awaited_community")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_awaited")),
        sqlite_strict=True,
    )
    op.create_index("ix_awaited_refused", "awaited", ["community", "refused_at"])
