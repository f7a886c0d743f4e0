"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# As they stood then: a migration does not follow the tables' later ways.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "catalog",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("files", sa.LargeBinary(), nullable=False),
        sa.Column("first_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_catalog")),
        sqlite_strict=True,
    )
    op.create_table(
        "community",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("serial", NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", NUMBER, nullable=False),
        sa.Column("head", NUMBER, nullable=False),
        sa.Column("claimed_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_community")),
        sa.UniqueConstraint("serial", name=op.f("uq_community_serial")),
        sqlite_strict=True,
    )
    op.create_table(
        "credential",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("issued_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_credential")),
        sqlite_strict=True,
    )
    op.create_table(
        "cursor",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("spool", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("contiguous", NUMBER, nullable=False),
        sa.Column("above", sa.Text(), nullable=False),
        sa.Column("lost", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("community", "source", "spool", "lane", name=op.f("pk_cursor")),
        sqlite_strict=True,
    )
    op.create_table(
        "journal",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("digest", NUMBER, nullable=False),
        sa.Column("catalog", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("community", "seq", name=op.f("pk_journal")),
        sqlite_strict=True,
    )
    op.create_index(
        "uq_journal_event_id",
        "journal",
        ["event_id"],
        unique=True,
        sqlite_where=sa.text("event_id IS NOT NULL"),
        postgresql_where=sa.text("event_id IS NOT NULL"),
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
        sqlite_strict=True,
    )
    op.create_table(
        "quarantine",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("length", NUMBER, nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("count", NUMBER, nullable=False),
        sa.Column("first_at", NUMBER, nullable=False),
        sa.Column("last_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("source", "reason", "digest", name=op.f("pk_quarantine")),
        sqlite_strict=True,
    )
    op.create_table(
        "rejected",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("reading", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("count", NUMBER, nullable=False),
        sa.Column("first_at", NUMBER, nullable=False),
        sa.Column("last_at", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("community", "source", "device", "reading", "reason", name=op.f("pk_rejected")),
        sqlite_strict=True,
    )
    op.create_table(
        "checkpoint",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("version", NUMBER, nullable=False),
        sa.Column("catalog", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_checkpoint_community")),
        sa.PrimaryKeyConstraint("community", "seq", name=op.f("pk_checkpoint")),
        sqlite_strict=True,
    )
    op.create_table(
        "command",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("updated_at", NUMBER, nullable=False),
        sa.Column("expires_at", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_command_community")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_command")),
        sqlite_strict=True,
    )
    op.create_table(
        "device",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_device_community")),
        sa.PrimaryKeyConstraint("community", "id", name=op.f("pk_device")),
        sqlite_strict=True,
    )
    op.create_index("ix_device_id", "device", ["id"], unique=False)
    op.create_table(
        "incident",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("sort", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("grid", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("is_open", FLAG, nullable=False),
        sa.Column("is_joinable", FLAG, nullable=False),
        sa.Column("opened_at", NUMBER, nullable=False),
        sa.Column("updated_at", NUMBER, nullable=False),
        sa.Column("revision", NUMBER, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_incident_community")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
        sa.UniqueConstraint("number", name=op.f("uq_incident_number")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_incident_open",
        "incident",
        ["opened_at"],
        unique=False,
        sqlite_where=sa.text("is_open"),
        postgresql_where=sa.text("is_open"),
    )
    op.create_index("ix_incident_opened_at", "incident", ["opened_at"], unique=False)
    op.create_index(
        "uq_incident_joinable",
        "incident",
        ["community", "cause", "key"],
        unique=True,
        sqlite_where=sa.text("is_joinable"),
        postgresql_where=sa.text("is_joinable"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=True),
        sa.Column("revision", NUMBER, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", NUMBER, nullable=False),
        sa.Column("created_at", NUMBER, nullable=False),
        sa.Column("due_at", NUMBER, nullable=False),
        sa.Column("settled_at", NUMBER, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_outbox_community")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_strict=True,
    )
    op.create_index("ix_outbox_incident", "outbox", ["incident"], unique=False)
    op.create_index(
        "ix_outbox_waiting",
        "outbox",
        ["kind", "due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "rule_state",
        sa.Column("community", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("since", NUMBER, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["community"], ["community.id"], name=op.f("fk_rule_state_community")),
        sa.PrimaryKeyConstraint("community", "rule", "key", name=op.f("pk_rule_state")),
        sqlite_strict=True,
    )
    op.create_table(
        "timeline",
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("late", FLAG, nullable=False),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_timeline_incident")),
        sa.PrimaryKeyConstraint("incident", "seq", name=op.f("pk_timeline")),
        sqlite_strict=True,
    )
    op.create_index("ix_timeline_event", "timeline", ["event"], unique=False)
