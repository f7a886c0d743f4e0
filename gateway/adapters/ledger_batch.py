"""How a batch is written: fences first, then one pass over the entries, then one statement for each table.

Nearly every entry is a small telemetry message that moves its cursor and changes nothing else; whatever costs is paid
only for entries that have it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from gateway.adapters.sql_session import Row, Session
from gateway.core.model import (
    Answer,
    CursorMove,
    Deliver,
    Device,
    Effect,
    Incident,
    Notify,
    Presence,
    Rejected,
    Transition,
)
from gateway.core.model import Command as CommandEffect
from gateway.core.moves import FINAL
from gateway.runtime.ports import Batch, Checkpoint, CommitRefused, Entry, Fence, FenceLost, Quarantined

KEPT_CHECKPOINTS: Final = 3
"""The newest ones of each community that are kept; besides these, the last of each day (UTC)."""

QUARANTINE_ROWS: Final = 1_000
"""Different payloads that are kept of one source; what comes beyond is only counted, by reason."""

REJECTED_ROWS: Final = 1_000
"""Different (device, reading, reason) that are counted apart for one source; what comes beyond is counted by reason."""

DAY_MS: Final = 86_400_000
SELECTED_AT_ONCE: Final = 500
ID_LENGTH: Final = 64
"""Characters kept of what should be an id; the wire's are 48 long, and an index holds no novel."""

TEXT_LENGTH: Final = 300
UNKEPT: Final = "more different payloads than are kept of one source"

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_encode: Final = msgspec.json.encode
_answers: Final = msgspec.json.Decoder(Answer)
_presences: Final = msgspec.json.Decoder(Presence)


def write_batch(session: Session, batch: Batch) -> None:
    """Writes all of the batch into the transaction. Raises CommitRefused, or FenceLost naming all its communities."""
    _move_heads(session, batch.fences)
    if batch.entries:
        gathered = _Gathered()
        gathered.take(batch.entries, {fence.community for fence in batch.fences})
        gathered.write(session)
    if batch.quarantined:
        _write_quarantined(session, batch.quarantined)
    _write_checkpoints(session, batch.checkpoints)
    if batch.alive_at:
        session.run(_PUT_META, "alive_at", batch.alive_at)
    if batch.tallies:
        session.run_many(_RAISE_META, sorted(batch.tallies.items()))


def _move_heads(session: Session, fences: Iterable[Fence]) -> None:
    """In the order of ids, so that two writers that want the same communities never wait for each other in a ring."""
    rows = [(f.new, f.community, f.epoch, f.old) for f in sorted(fences, key=lambda fence: fence.community)]
    if session.run_many("UPDATE community SET head = ? WHERE id = ? AND epoch = ? AND head = ?", rows) != len(rows):
        # Those that were not lost have moved by now; after the rollback they stand apart (see `find_lost`).
        raise FenceLost([row[1] for row in rows])


def find_lost(fences: Iterable[Fence], standing: Mapping[str, tuple[int, int]]) -> list[str]:
    """The communities whose fence does not hold where they stand. Epochs and heads only rise: what is lost stays so."""
    return sorted(f.community for f in fences if standing.get(f.community) != (f.epoch, f.old))


class _Gathered:
    """What the entries of a batch write, by table. Of what is written again and again, the last state is kept."""

    def __init__(self) -> None:
        self._journal: list[Row] = []
        self._cursors: dict[tuple[str, str, str, str], CursorMove] = {}
        self._states: dict[tuple[str, str, str], Transition] = {}
        self._incidents: dict[str, Incident] = {}
        self._devices: dict[tuple[str, str], Device] = {}
        self._rejected: dict[tuple[str, str], dict[tuple[str, str, str], _Count[str]]] = {}
        self._effects: list[tuple[int, str, Effect]] = []
        self._answers: list[tuple[int, str, Answer]] = []
        self._presences: dict[tuple[str, str], tuple[int, Presence]] = {}

    def take(self, entries: Iterable[Entry], fenced: set[str]) -> None:
        journal, cursors = self._journal, self._cursors
        for e in entries:
            community = e.community
            if community not in fenced:
                raise CommitRefused(f"row {e.seq} of {community} stands under no fence")
            # A lane is an enumeration's member; sqlite3 takes long to see the text in one.
            lane = str(e.lane)
            journal.append((community, e.seq, e.at, e.kind, e.source, lane, e.event_id, e.digest, e.catalog, e.body))
            step = e.step
            move = step.cursor
            if move is not None:
                cursors[community, move.source, move.spool, move.lane] = move
            if step.transitions or step.incidents or step.effects or step.rejected or step.devices:
                self._take_step(e)
            if e.kind == "answer":
                self._answers.append((e.at, community, _answers.decode(e.body)))
            elif e.kind == "presence" and not step.answer:
                presence = _presences.decode(e.body)
                self._presences[community, presence.source] = e.at, presence

    def _take_step(self, e: Entry) -> None:
        step, community = e.step, e.community
        for transition in step.transitions:
            self._states[community, transition.rule, _clean(transition.key)] = transition
        for incident in step.incidents:
            self._incidents[incident.id] = incident
        for device in step.devices:
            self._devices[community, device.id] = device
        for effect in step.effects:
            self._effects.append((e.at, community, effect))
        for rejected in step.rejected:
            self._count(e, rejected)

    def _count(self, e: Entry, r: Rejected) -> None:
        counts = self._rejected.setdefault((e.community, clip(r.source, ID_LENGTH)), {})
        key = (clip(r.device, ID_LENGTH), clip(r.reading, ID_LENGTH), clip(r.reason, ID_LENGTH))
        _add(counts, key, _Count(1, e.at, e.at, clip(r.value, ID_LENGTH)))

    def write(self, session: Session) -> None:
        session.append("journal", _JOURNAL_COLUMNS, _JOURNAL_TYPES, self._journal)
        session.run_many(
            _PUT_CURSOR,
            [(*key, m.contiguous, ",".join(map(str, m.above)), m.lost) for key, m in self._cursors.items()],
        )
        if self._states:
            self._write_states(session)
        if self._incidents:
            self._write_incidents(session)
        session.run_many(
            _PUT_DEVICE,
            [(c, id, d.source, d.profile, d.place, d.state, _encode(d)) for (c, id), d in self._devices.items()],
        )
        if self._rejected:
            self._write_rejected(session)
        if self._effects:
            self._write_effects(session)
        session.run_many(
            _PUT_SOURCE,
            [(*key, p.status.online, at, _encode(p.status)) for key, (at, p) in self._presences.items()],
        )
        session.run_many(
            "UPDATE command SET state = ?, detail = ?, updated_at = ? WHERE id = ? AND community = ? AND source = ?",
            [
                (clip(a.reply.outcome, ID_LENGTH), clip(a.reply.detail), at, a.reply.command, community, a.source)
                for at, community, a in self._answers
            ],
        )

    def _write_states(self, session: Session) -> None:
        """Quiet is the absence of state, unless a note tells why."""
        gone = [key for key, t in self._states.items() if t.phase == "quiet" and not t.note]
        kept = [
            (*key, t.phase, t.at, t.since, t.event, t.note, t.incident)
            for key, t in self._states.items()
            if t.phase != "quiet" or t.note
        ]
        session.run_many("DELETE FROM rule_state WHERE community = ? AND rule = ? AND key = ?", gone)
        session.run_many(_PUT_STATE, kept)

    def _write_incidents(self, session: Session) -> None:
        # The row of this number stays locked until the commit, so that positions become visible in their order, also
        # where several gateways write: whoever has read up to one has missed none below it.
        session.run(_RAISE_META, "position", len(self._incidents))
        [(last,)] = session.select("SELECT value FROM meta WHERE name = 'position'")
        first = last - len(self._incidents) + 1
        # In the order in which they first came: one that ends its joining stands before its successor.
        session.run_many(
            _PUT_INCIDENT,
            [
                (
                    i.id,
                    i.number,
                    i.community,
                    i.sort,
                    i.cause,
                    _clean(i.key),
                    i.category,
                    i.level,
                    i.place,
                    i.grid,
                    i.state,
                    i.state not in FINAL,
                    i.joinable and i.state not in FINAL,
                    i.opened_at,
                    i.updated_at,
                    i.revision,
                    _encode(i),
                    position,
                )
                for position, i in enumerate(self._incidents.values(), first)
            ],
        )
        written = _count_lines(session, list(self._incidents))
        session.run_many(
            _INSERT_LINE,
            [
                (i.id, n.seq, n.at, n.who, n.what, _clean(n.why), n.event, n.device, n.rule, n.late)
                for i in self._incidents.values()
                for n in i.timeline
                if n.seq > written.get(i.id, 0)
            ],
        )

    def _write_effects(self, session: Session) -> None:
        newest: dict[str, int] = {}
        for _, _, effect in self._effects:
            if isinstance(effect, Deliver):
                i = effect.incident
                newest[i.id] = max(newest.get(i.id, 0), i.revision)
        rows: list[Row] = []
        commands: list[Row] = []
        for at, community, effect in self._effects:
            if isinstance(effect, Deliver):
                i = effect.incident
                # Each revision is the whole incident, so one that a newer one follows need not be sent any more.
                state = "waiting" if newest[i.id] == i.revision else "superseded"
                rows.append((effect.id, community, "deliver", i.id, i.revision, state, at, at, _encode(effect)))
            elif isinstance(effect, Notify):
                rows.append((effect.id, community, "notify", effect.incident, 0, "waiting", at, at, _encode(effect)))
            else:
                c: CommandEffect = effect
                rows.append((c.id, community, "command", c.incident, 0, "waiting", at, at, _encode(effect)))
                commands.append((c.id, community, c.source, c.device, c.name, c.incident, at, at, c.expires_at))
        session.run_many(
            "UPDATE outbox SET state = 'superseded' "
            "WHERE incident = ? AND revision < ? AND state = 'waiting' AND kind = 'deliver'",
            list(newest.items()),
        )
        session.run_many(_INSERT_EFFECT, rows)
        session.run_many(_INSERT_COMMAND, commands)

    def _write_rejected(self, session: Session) -> None:
        rows: list[Row] = []
        for (community, source), counts in self._rejected.items():
            known = session.select(
                "SELECT device, reading, reason FROM rejected WHERE community = ? AND source = ? AND device <> ''",
                community,
                source,
            )
            bounded = _bound(counts, set(known), REJECTED_ROWS, lambda key: ("", "", key[2]))
            rows += [(community, source, *key, c.sample, c.count, c.first, c.last) for key, c in bounded.items()]
        session.run_many(_COUNT_REJECTED, rows)


def _count_lines(session: Session, incidents: Sequence[str]) -> dict[str, int]:
    """How many lines of each incident's timeline are written already; they are numbered from 1 without a gap."""
    found: dict[str, int] = {}
    for start in range(0, len(incidents), SELECTED_AT_ONCE):
        part = incidents[start : start + SELECTED_AT_ONCE]
        marks = ", ".join("?" * len(part))
        sql = f"SELECT incident, max(seq) FROM timeline WHERE incident IN ({marks}) GROUP BY incident"  # noqa: S608
        found |= dict(session.select(sql, *part))
    return found


# --- what is only counted -----------------------------------------------------------------------------------------


class _Count(Struct, Generic[T]):
    """How often something came, when first and last, and what it looked like."""

    count: int
    first: int
    last: int
    sample: T


def _add(counts: dict[K, _Count[T]], key: K, more: _Count[T]) -> None:
    known = counts.get(key)
    if known is None:
        counts[key] = more
    else:
        counts[key] = _Count(
            known.count + more.count, min(known.first, more.first), max(known.last, more.last), more.sample
        )


def _bound(counts: Mapping[K, _Count[T]], known: set[K], limit: int, fold: Callable[[K], K]) -> Mapping[K, _Count[T]]:
    """The same counts with at most ``limit`` keys beside those ``known``; the others are folded into fewer."""
    room = limit - len(known)
    bounded: dict[K, _Count[T]] = {}
    for key, count in counts.items():
        if key in known:
            bounded[key] = count
        elif room > 0:
            room -= 1
            _add(bounded, key, count)
        else:
            _add(bounded, fold(key), count)
    return bounded


def _write_quarantined(session: Session, quarantined: Iterable[Quarantined]) -> None:
    by_source: dict[str, dict[tuple[str, str], _Count[Quarantined]]] = {}
    for item in quarantined:
        counts = by_source.setdefault(clip(item.source, ID_LENGTH), {})
        key = (clip(item.reason, ID_LENGTH), clip(item.digest, ID_LENGTH))
        _add(counts, key, _Count(1, item.at, item.at, item))
    rows: list[Row] = []
    for source, counts in by_source.items():
        known = session.select("SELECT reason, digest FROM quarantine WHERE source = ? AND digest <> ''", source)
        bounded = _bound(counts, set(known), QUARANTINE_ROWS, lambda key: (key[0], ""))
        for (reason, digest), c in bounded.items():
            q = c.sample
            shown = (clip(q.detail), q.length, clip(q.head, ID_LENGTH)) if digest else (UNKEPT, 0, "")
            rows.append(
                (source, clip(q.community, ID_LENGTH), clip(q.topic), reason, digest, *shown, c.count, c.first, c.last)
            )
    session.run_many(_PUT_QUARANTINED, rows)


def _write_checkpoints(session: Session, checkpoints: Iterable[Checkpoint]) -> None:
    for c in checkpoints:
        heads = session.select("SELECT head FROM community WHERE id = ?", c.community)
        if not heads or c.seq > heads[0][0]:
            # Its writer was fed more than it could commit. Read back, it would know what never happened.
            raise CommitRefused(f"a checkpoint of {c.community} stands at row {c.seq}, beyond the journal's end")
        session.run(_PUT_CHECKPOINT, c.community, c.seq, c.at, c.schema, c.catalog, zlib.compress(c.state, 1))
        rows = session.select("SELECT seq, at FROM checkpoint WHERE community = ? ORDER BY seq DESC", c.community)
        days: set[int] = set()
        for position, (seq, at) in enumerate(rows):
            if position >= KEPT_CHECKPOINTS and at // DAY_MS in days:
                session.run("DELETE FROM checkpoint WHERE community = ? AND seq = ?", c.community, seq)
            days.add(at // DAY_MS)


def clip(text: str, length: int = TEXT_LENGTH) -> str:
    """Foreign text as both databases hold it: no NUL, no half of a surrogate pair, at most ``length`` characters."""
    return _clean(text[:length]).encode("utf-8", "replace").decode()


def _clean(text: str) -> str:
    """PostgreSQL's texts hold no NUL."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


_JOURNAL_COLUMNS: Final = (
    "community",
    "seq",
    "at",
    "kind",
    "source",
    "lane",
    "event_id",
    "digest",
    "catalog",
    "body",
)
_JOURNAL_TYPES: Final = ("text", "int8", "int8", "text", "text", "text", "text", "int8", "text", "bytea")
_PUT_META: Final = (
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_RAISE_META: Final = (
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = meta.value + excluded.value"
)
_PUT_CHECKPOINT: Final = (
    "INSERT INTO checkpoint (community, seq, at, version, catalog, state) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (community, seq) DO UPDATE SET state = excluded.state, version = excluded.version, "
    "catalog = excluded.catalog, at = excluded.at"
)
_PUT_CURSOR: Final = (
    "INSERT INTO cursor (community, source, spool, lane, contiguous, above, lost) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (community, source, spool, lane) DO UPDATE SET contiguous = excluded.contiguous, "
    "above = excluded.above, lost = excluded.lost"
)
_PUT_STATE: Final = (
    "INSERT INTO rule_state (community, rule, key, phase, at, since, event, note, incident) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (community, rule, key) DO UPDATE SET phase = excluded.phase, "
    "at = excluded.at, since = excluded.since, event = excluded.event, note = excluded.note, "
    "incident = excluded.incident"
)
_PUT_INCIDENT: Final = (
    "INSERT INTO incident (id, number, community, sort, cause, key, category, level, place, grid, state, "
    "is_open, is_joinable, opened_at, updated_at, revision, document, position) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET category = excluded.category, level = excluded.level, place = excluded.place, "
    "grid = excluded.grid, state = excluded.state, is_open = excluded.is_open, is_joinable = excluded.is_joinable, "
    "updated_at = excluded.updated_at, revision = excluded.revision, document = excluded.document, "
    "position = excluded.position "
    "WHERE incident.revision < excluded.revision"
)
_INSERT_LINE: Final = (
    "INSERT INTO timeline (incident, seq, at, who, what, why, event, device, rule, late) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_DEVICE: Final = (
    "INSERT INTO device (community, id, source, profile, place, state, document) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (community, id) DO UPDATE SET source = excluded.source, profile = excluded.profile, "
    "place = excluded.place, state = excluded.state, document = excluded.document"
)
_PUT_SOURCE: Final = (
    "INSERT INTO source (community, id, is_online, seen_at, document) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (community, id) DO UPDATE SET is_online = excluded.is_online, seen_at = excluded.seen_at, "
    "document = excluded.document"
)
_COUNT_REJECTED: Final = (
    "INSERT INTO rejected (community, source, device, reading, reason, value, count, first_at, last_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (community, source, device, reading, reason) DO UPDATE SET "
    "value = excluded.value, count = rejected.count + excluded.count, last_at = excluded.last_at"
)
_PUT_QUARANTINED: Final = (
    "INSERT INTO quarantine (source, community, topic, reason, digest, detail, length, head, count, first_at, "
    "last_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, reason, digest) DO UPDATE SET "
    "count = quarantine.count + excluded.count, last_at = excluded.last_at"
)
_INSERT_EFFECT: Final = (
    "INSERT INTO outbox (id, community, kind, incident, revision, state, attempts, created_at, due_at, detail, "
    "document) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, '', ?)"
)
_INSERT_COMMAND: Final = (
    "INSERT INTO command (id, community, source, device, name, incident, state, detail, created_at, updated_at, "
    "expires_at) VALUES (?, ?, ?, ?, ?, ?, 'pending', '', ?, ?, ?)"
)
