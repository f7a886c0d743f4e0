"""The ledger's tables, for SQLite and PostgreSQL alike. Times are milliseconds UTC; documents are JSON bytes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

community = Table(
    "community",
    metadata,
    Column("id", Text, primary_key=True),
    Column("serial", Integer, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("claimed_at", BigInteger, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("event_id", Text),
    Column("digest", BigInteger, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "seq"),
    Index(
        "uq_journal_event_id",
        "event_id",
        unique=True,
        sqlite_where=text("event_id IS NOT NULL"),
        postgresql_where=text("event_id IS NOT NULL"),
    ),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "seq"),
)

catalog = Table(
    "catalog",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("files", LargeBinary, nullable=False),
    Column("first_at", BigInteger, nullable=False),
)

device = Table(
    "device",
    metadata,
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Index("ix_device_community", "community"),
)

credential = Table(
    "credential",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
)

cursor = Table(
    "cursor",
    metadata,
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("spool", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("contiguous", BigInteger, nullable=False),
    Column("above", Text, nullable=False),
    Column("lost", BigInteger, nullable=False),
    PrimaryKeyConstraint("community", "source", "spool", "lane"),
)

rule_state = Table(
    "rule_state",
    metadata,
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("rule", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("incident", Text),
    PrimaryKeyConstraint("community", "rule", "key"),
)

_OPEN_AND_JOINABLE: Final = "joinable AND state NOT IN ('closed', 'false_alarm')"

incident = Table(
    "incident",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Text, nullable=False, unique=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("sort", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("joinable", Boolean, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),
    # One cause, one incident: the database itself refuses a second one that could still be joined.
    Index(
        "uq_incident_joinable",
        "community",
        "cause",
        "key",
        unique=True,
        sqlite_where=text(_OPEN_AND_JOINABLE),
        postgresql_where=text(_OPEN_AND_JOINABLE),
    ),
    Index("ix_incident_opened_at", "opened_at"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("incident", Text, ForeignKey("incident.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("late", Boolean, nullable=False),
    PrimaryKeyConstraint("incident", "seq"),
    Index("ix_timeline_event", "event"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("incident", Text),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column("detail", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Index(
        "ix_outbox_waiting",
        "kind",
        "due_at",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_outbox_incident", "incident"),
)

command = Table(
    "command",
    metadata,
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("incident", Text),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("community", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("length", Integer, nullable=False),
    Column("head", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    UniqueConstraint("source", "reason", "digest"),
)

rejected = Table(
    "rejected",
    metadata,
    Column("community", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("reading", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("community", "source", "device", "reading", "reason"),
)

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
