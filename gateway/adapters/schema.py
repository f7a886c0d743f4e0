"""The ledger's tables, for SQLite and PostgreSQL alike. Times are milliseconds UTC; documents are JSON bytes.

SQLite's tables are STRICT: a text in a column of numbers is refused there as PostgreSQL refuses it.
"""

from __future__ import annotations

from typing import Any, Final

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

# A STRICT table knows INTEGER, TEXT and BLOB; SQLite's INTEGER holds 64 bits.
NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")
FLAG: Final = Boolean().with_variant(Integer(), "sqlite")


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


def _where(condition: str) -> dict[str, Any]:
    """A partial index's condition, in the words of both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


community = _table(
    "community",
    Column("id", Text, primary_key=True),
    Column("serial", NUMBER, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("epoch", NUMBER, nullable=False),
    Column("head", NUMBER, nullable=False),
    Column("claimed_at", NUMBER, nullable=False),
)

# The journal and the cursors take a row of every message. Their community is there without a foreign key: the fence of
# the same transaction has just moved its head.
journal = _table(
    "journal",
    Column("community", Text, nullable=False),
    Column("seq", NUMBER, nullable=False),
    Column("at", NUMBER, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("event_id", Text),
    Column("digest", NUMBER, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "seq"),
    Index("uq_journal_event_id", "event_id", unique=True, **_where("event_id IS NOT NULL")),
)

checkpoint = _table(
    "checkpoint",
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("seq", NUMBER, nullable=False),
    Column("at", NUMBER, nullable=False),
    Column("version", NUMBER, nullable=False),
    Column("catalog", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "seq"),
)

catalog = _table(
    "catalog",
    Column("hash", Text, primary_key=True),
    Column("files", LargeBinary, nullable=False),
    Column("first_at", NUMBER, nullable=False),
)

device = _table(
    "device",
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "id"),
    Index("ix_device_id", "id"),
)

grid = _table(
    "grid",
    Column("code", Text, primary_key=True),
    Column("level", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("parent", Text),
)

responsible = _table(
    "responsible",
    Column("body", Text, nullable=False),
    Column("grid", Text, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("body", "grid"),
)

contact = _table(
    "contact",
    Column("id", Text, primary_key=True),
    Column("rank", NUMBER, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

credential = _table(
    "credential",
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("issued_at", NUMBER, nullable=False),
)

cursor = _table(
    "cursor",
    Column("community", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("spool", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("contiguous", NUMBER, nullable=False),
    Column("above", Text, nullable=False),
    Column("lost", NUMBER, nullable=False),
    PrimaryKeyConstraint("community", "source", "spool", "lane"),
)

rule_state = _table(
    "rule_state",
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("rule", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("at", NUMBER, nullable=False),
    Column("since", NUMBER, nullable=False),
    Column("event", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("incident", Text),
    PrimaryKeyConstraint("community", "rule", "key"),
)

incident = _table(
    "incident",
    Column("id", Text, primary_key=True),
    Column("number", Text, nullable=False, unique=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("sort", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("grid", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("is_open", FLAG, nullable=False),
    Column("is_joinable", FLAG, nullable=False),
    Column("opened_at", NUMBER, nullable=False),
    Column("updated_at", NUMBER, nullable=False),
    Column("revision", NUMBER, nullable=False),
    Column("document", LargeBinary, nullable=False),
    # Which change of the ledger wrote this revision; see ports.Ledger.changes.
    Column("position", NUMBER, nullable=False, server_default="0"),
    # One cause, one incident: the database itself refuses a second one that could still be joined.
    Index("uq_incident_joinable", "community", "cause", "key", unique=True, **_where("is_joinable")),
    Index("ix_incident_opened_at", "opened_at"),
    Index("ix_incident_position", "position"),
    Index("ix_incident_open", "opened_at", **_where("is_open")),
    # All that a map of the last days counts: read from this alone.
    Index("ix_incident_heat", "sort", "opened_at", "community", "grid", "place", "category", "level", "number"),
)

timeline = _table(
    "timeline",
    Column("incident", Text, ForeignKey("incident.id"), nullable=False),
    Column("seq", NUMBER, nullable=False),
    Column("at", NUMBER, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("late", FLAG, nullable=False),
    PrimaryKeyConstraint("incident", "seq"),
    Index("ix_timeline_event", "event"),
)

outbox = _table(
    "outbox",
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("incident", Text),
    Column("revision", NUMBER, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", NUMBER, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("due_at", NUMBER, nullable=False),
    Column("settled_at", NUMBER),
    Column("detail", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Index("ix_outbox_waiting", "kind", "due_at", **_where("state = 'waiting'")),
    Index("ix_outbox_incident", "incident"),
)

command = _table(
    "command",
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("incident", Text),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("updated_at", NUMBER, nullable=False),
    Column("expires_at", NUMBER, nullable=False),
    Index("ix_command_sent", "expires_at", **_where("state = 'sent'")),
)

# What each source last said of itself; its cursors and devices are elsewhere.
source = _table(
    "source",
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("is_online", FLAG, nullable=False),
    Column("seen_at", NUMBER, nullable=False),
    Column("document", LargeBinary, nullable=False),
    PrimaryKeyConstraint("community", "id"),
)

quarantine = _table(
    "quarantine",
    Column("source", Text, nullable=False),
    Column("community", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("length", NUMBER, nullable=False),
    Column("head", Text, nullable=False),
    Column("count", NUMBER, nullable=False),
    Column("first_at", NUMBER, nullable=False),
    Column("last_at", NUMBER, nullable=False),
    PrimaryKeyConstraint("source", "reason", "digest"),
)

rejected = _table(
    "rejected",
    Column("community", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("reading", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("count", NUMBER, nullable=False),
    Column("first_at", NUMBER, nullable=False),
    Column("last_at", NUMBER, nullable=False),
    PrimaryKeyConstraint("community", "source", "device", "reading", "reason"),
)

account = _table(
    "account",
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("portal", Text, unique=True),
    Column("revision", NUMBER, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

session = _table(
    "session",
    Column("id", Text, primary_key=True),
    Column("account", Text, ForeignKey("account.id"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("seen_at", NUMBER, nullable=False),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("way", Text, nullable=False),
    Index("ix_session_account", "account"),
)

token = _table(
    "token",
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("account", Text, ForeignKey("account.id"), nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("used_at", NUMBER),
    Column("document", LargeBinary, nullable=False),
    Index("ix_token_account", "account"),
)

# What a resident said beside a press on a help page. ``id`` is the press's event id; ``said`` is sealed, and gone when
# nobody needs it any more; ``entered_at`` is null until the press is known to be in the journal.
call = _table(
    "call",
    Column("id", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("place", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("at", NUMBER, nullable=False),
    Column("waited", NUMBER, nullable=False),
    Column("need", Text, nullable=False),
    Column("said", LargeBinary),
    Column("entered_at", NUMBER),
    Index("ix_call_at", "at"),
)

# Who outside is told of incidents. ``secret`` and ``earlier`` are sealed; how it goes is beside the document, because a
# courier writes that and people write the other.
webhook = _table(
    "webhook",
    Column("id", Text, primary_key=True),
    Column("created_at", NUMBER, nullable=False),
    Column("since", NUMBER, nullable=False),
    Column("off_at", NUMBER),
    Column("off_why", Text, nullable=False),
    Column("failures", NUMBER, nullable=False),
    Column("failing_since", NUMBER),
    Column("ok_at", NUMBER),
    Column("renewal", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("earlier", LargeBinary),
    Column("earlier_until", NUMBER),
    Column("document", LargeBinary, nullable=False),
)

# One event for one webhook, as it is sent.
webhook_delivery = _table(
    "webhook_delivery",
    Column("webhook", Text, ForeignKey("webhook.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("incident", Text, nullable=False),
    Column("seq", NUMBER, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", NUMBER, nullable=False),
    Column("created_at", NUMBER, nullable=False),
    Column("due_at", NUMBER, nullable=False),
    Column("settled_at", NUMBER),
    Column("outcome", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("again", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("webhook", "id"),
    Index("ix_webhook_delivery_due", "webhook", "due_at", "seq", **_where("state = 'waiting'")),
    Index("ix_webhook_delivery_incident", "webhook", "incident", "seq", **_where("state = 'waiting'")),
    Index("ix_webhook_delivery_created", "webhook", "created_at"),
)

# Whether an incident was open when it was last told of: so that opening and closing are told apart from a change.
webhook_case = _table(
    "webhook_case",
    Column("incident", Text, primary_key=True),
    Column("is_open", FLAG, nullable=False),
    Column("at", NUMBER, nullable=False),
)

# A model's secret, sealed, and registered devices that fetch their own passwords with it.
product = _table(
    "product",
    Column("profile", Text, primary_key=True),
    Column("created_at", NUMBER, nullable=False),
    Column("renewed_at", NUMBER, nullable=False),
    Column("earlier_until", NUMBER),
    Column("off_at", NUMBER),
    Column("secret", LargeBinary, nullable=False),
    Column("earlier", LargeBinary),
    Column("renewal", Text, nullable=False, server_default=""),
)

awaited = _table(
    "awaited",
    Column("device", Text, primary_key=True),
    Column("community", Text, ForeignKey("community.id"), nullable=False),
    Column("profile", Text, nullable=False),
    Column("until", NUMBER, nullable=False),
    Column("granted_at", NUMBER),
    Column("granted_to", Text, nullable=False),
    Column("refused", NUMBER, nullable=False),
    Column("refused_at", NUMBER),
    Column("refused_from", Text, nullable=False),
    Column("code", Text, nullable=False, server_default=""),
    Index("ix_awaited_refused", "community", "refused_at"),
    Index("ix_awaited_code", "code", unique=True),
)

# Append-only: triggers refuse everything else (migration 0004).
audit = _table(
    "audit",
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    Column("at", NUMBER, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

# Its one row is where the log ends; whoever appends holds it.
audit_head = _table(
    "audit_head",
    Column("id", NUMBER, primary_key=True, autoincrement=False),
    Column("seq", NUMBER, nullable=False),
    Column("hash", Text, nullable=False),
)

meta = _table(
    "meta",
    Column("name", Text, primary_key=True),
    Column("value", NUMBER, nullable=False),
)
