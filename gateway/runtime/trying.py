"""A draft rule on a recorded day: the community's journal is fed again, by the engine that judged it then, with the
draft among its rules. Nothing is written anywhere.

People's acts of that day are fed again, too, but nobody has acted on what the draft opens: a case of its own stays
open, and what it finds there later joins it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog, with_rule
from gateway.core.engine import Engine
from gateway.core.model import Blind, Community, Incident, Level, Override, Phase, Sort, Step, Text, Tick, Transition
from gateway.core.rule import Rule
from gateway.core.state import CommunityState
from gateway.core.worktime import DAY_MS, day_start, local_day
from gateway.errors import GatewayError
from gateway.runtime.appraising import read_opened
from gateway.runtime.explaining import format_time, localise
from gateway.runtime.journal import SWAP, JournalFault, decode_row
from gateway.runtime.ports import JournalRow, Ledger
from gateway.runtime.writer import Catalogs, load_engine

DRAFT: Final = "draft.yaml"
"""What a draft is called that comes without a name."""

SHOWN: Final = 500
"""So many findings are kept in full; all are counted."""

STEP_ROWS: Final = 64
"""After so many rows it is told how far the reading is."""

OPENED, JOINED = "opened", "joined"


class Found(Struct, frozen=True):
    """One finding of the draft. ``note`` says what would have come of it, as in `Transition`; ``why`` is what the
    condition saw. ``incident`` is the case that it would have opened or joined, and ``is_real`` whether that case
    really exists. ``was_standing``: the condition held already when the day began."""

    at: int
    key: str
    note: str
    why: str
    place_name: str
    incident: str | None = None
    is_real: bool = False
    was_standing: bool = False


class WouldOpen(Struct, frozen=True):
    """A case that the draft would have opened, with what joined it (``signals``, the first one counted). ``twin`` is
    the id of a real case of the same cause at the same place on that day, None where there was none."""

    at: int
    key: str
    title: Text
    level: Level
    category: str
    cause: str
    place: str
    place_name: str
    why: str
    sort: Sort
    signals: int = 1
    twin: str | None = None
    was_standing: bool = False


class Opened(Struct, frozen=True):
    """A case that was really opened on that day, as it stands now. ``is_found``: the draft found something there."""

    id: str
    number: str
    at: int
    title: Text
    level: Level
    cause: str
    place_name: str
    rule: str
    state: str
    is_found: bool = False


class Tried(Struct, frozen=True):
    """What a draft would have done from ``since`` to ``until`` (ms UTC). ``findings`` is how often it was found to hold
    (all that a rule in shadow records), ``notes`` how many of these came to what; ``found`` are the first of them.
    ``opened`` are the cases of its own, ``real`` those that were really opened then, by time. ``rows`` of the journal
    were fed, and ``keys`` is how many devices or places the draft looked at when the day ended."""

    rule: str
    title: Text
    community: str
    since: int
    until: int
    rows: int
    keys: int
    findings: int
    notes: dict[str, int]
    opened: list[WouldOpen]
    found: list[Found]
    real: list[Opened]
    replaces: bool


OnPart = Callable[[float], None]
"""Told how far the reading is, 0 to 1; what it raises ends the reading."""


def recorded_days(ledger: Ledger, community: str, now: int) -> tuple[date, date] | None:
    """The first and the last local day of which the ledger has the community's journal; None without any."""
    first = next(iter(ledger.read_journal(community, 0)), None)
    return None if first is None else (local_day(first.at), local_day(max(now, first.at)))


def check_draft(catalog: Catalog, text: str, file: str = DRAFT) -> Rule:
    """The rule of a draft's text. Raises CatalogError with every problem, each with its line."""
    return with_rule(catalog, file, text)[1]


def try_rule(
    ledger: Ledger,
    community: Community,
    catalogs: Catalogs,
    catalog: Catalog,
    text: str,
    day: date,
    now: int,
    on_part: OnPart = lambda part: None,
    file: str = DRAFT,
) -> Tried:
    """What the draft would have found in a community on a local day, up to ``now``. Raises CatalogError for a draft
    that is at fault, GatewayError for a day that the journal does not have or cannot be read on, and whatever
    ``on_part`` raises."""
    rule = check_draft(catalog, text, file)
    since = day_start(day)
    until = min(since + DAY_MS, now + 1)
    days = recorded_days(ledger, community.id, now)
    if days is None or not days[0] <= day <= days[1] or until <= since:
        have = "nothing" if days is None else f"{days[0]} to {days[1]}"
        raise GatewayError("no-journal", f"there is no journal of {day}", community.id, f"recorded is: {have}")
    trial = _Trial(ledger, community, catalogs, catalog, text, file, rule)
    try:
        trial.run(since, until, on_part)
    except (LookupError, JournalFault) as error:
        raise GatewayError(
            "journal", f"the journal cannot be read: {error}", community.id, "try another day"
        ) from error
    return trial.tell(since, until)


class _Trial:
    """One reading of a day."""

    def __init__(
        self,
        ledger: Ledger,
        community: Community,
        catalogs: Catalogs,
        catalog: Catalog,
        text: str,
        file: str,
        rule: Rule,
    ) -> None:
        self._ledger = ledger
        self._community = community
        self._catalogs = catalogs
        self._current = catalog
        self._text = text
        self._file = file
        self._rule = rule
        self._grafted: dict[str, Catalog] = {}
        self._standing: set[str] = set()
        self._rows = 0
        self._keys = 0
        self._findings = 0
        self._notes: Counter[str] = Counter()
        self._found: list[Found] = []
        self._opened: dict[str, WouldOpen] = {}
        self._touched: set[tuple[str, str]] = set()
        self._touched_ids: set[str] = set()

    def run(self, since: int, until: int, on_part: OnPart) -> None:
        """Reads the engine back to the day's beginning, puts the draft in, and feeds the day."""
        loaded = load_engine(self._ledger, self._community, self._catalogs, self._current, since - 1)
        state = loaded.engine.snapshot()
        # Whatever somebody has set for the rule of this id, the draft is tried as an active one.
        state.overrides.pop(self._rule.id, None)
        engine = Engine(loaded.engine.catalog, state)
        if loaded.seq:
            begun = engine.swap(self._graft(engine.catalog), max(since, engine.now))
            keys = engine.keys(self._rule.id)
            self._standing = {key for key in keys if engine.phase(self._rule.id, key) is not Phase.QUIET}
            self._take(engine, begun)
        for row, blind_since in _look_ahead(
            self._community.id, self._ledger.read_journal(self._community.id, loaded.seq, until - 1)
        ):
            if row.seq == 1:
                engine = Engine(self._graft(self._catalogs(row.catalog)), CommunityState(self._community))
            self._pass(engine, min(row.at, blind_since) - 1)
            self._feed(engine, row)
            self._rows += 1
            if self._rows % STEP_ROWS == 0:
                on_part(min(1.0, max(0.0, (row.at - since) / (until - since))))
        # Time goes on as far as the gateway has looked.
        alive = self._ledger.alive_at()
        self._pass(engine, until - 1 if alive is None else min(until - 1, alive))
        self._keys = len(engine.keys(self._rule.id))
        on_part(1.0)

    def _graft(self, catalog: Catalog) -> Catalog:
        made = self._grafted.get(catalog.hash)
        if made is None:
            made = self._grafted[catalog.hash] = with_rule(catalog, self._file, self._text)[0]
        return made

    def _feed(self, engine: Engine, row: JournalRow) -> None:
        if row.kind == SWAP:
            self._take(engine, engine.swap(self._graft(self._catalogs(row.catalog)), row.at))
            return
        event = decode_row(self._community.id, row)
        if not (isinstance(event, Override) and event.rule == self._rule.id):
            self._take(engine, engine.feed(event, row.at))

    def _pass(self, engine: Engine, until: int) -> None:
        """Lets time pass as the gateway does: a tick at every deadline. The journal has its own rules' alone."""
        before = None
        while (deadline := engine.next_deadline()) is not None and deadline <= until:
            moment = (deadline, engine.now)
            if moment == before:
                break  # The engine has seen this deadline and keeps it: nothing more happens by waiting.
            before = moment
            self._take(engine, engine.feed(Tick(), max(deadline, engine.now)))

    def _take(self, engine: Engine, step: Step) -> None:
        incidents = {incident.id: incident for incident in step.incidents}
        for found in step.transitions:
            if found.rule != self._rule.id or found.phase is Phase.PENDING:
                continue
            if found.phase is Phase.FIRING:
                self._count(engine, found, incidents.get(found.incident or ""))
            self._standing.discard(found.key.split(":")[0])

    def _count(self, engine: Engine, found: Transition, changed: Incident | None) -> None:
        incident = changed or (engine.incident(found.incident) if found.incident is not None else None)
        key = found.key.split(":")[0]
        why = _tell_why(engine, found, key, incident)
        place_name = incident.place_name if incident is not None else engine.place_name(found.rule, key)
        self._findings += 1
        self._notes[found.note or OPENED] += 1
        if incident is not None:
            self._touched.add((incident.cause, incident.key))
            self._touched_ids.add(incident.id)
        if len(self._found) < SHOWN:
            self._found.append(
                Found(
                    found.at, found.key, found.note, why, place_name, found.incident, was_standing=key in self._standing
                )
            )
        if incident is None:
            return
        mine = self._opened.get(incident.id)
        if mine is not None:
            self._opened[incident.id] = replace(mine, signals=mine.signals + 1)
        elif found.note == OPENED:
            self._opened[incident.id] = WouldOpen(
                found.at,
                found.key,
                incident.title,
                incident.level,
                incident.category,
                incident.cause,
                incident.key,
                incident.place_name,
                why,
                incident.sort,
                was_standing=key in self._standing,
            )

    def tell(self, since: int, until: int) -> Tried:
        """What came of it, beside what was really opened."""
        real = [i for i in read_opened(self._ledger, since, until) if i.community == self._community.id]
        twins: dict[tuple[str, str], str] = {}
        for incident in real:
            twins.setdefault((incident.cause, incident.key), incident.id)
        known = {incident.id for incident in real}
        return Tried(
            self._rule.id,
            self._rule.title,
            self._community.id,
            since,
            until,
            self._rows,
            self._keys,
            self._findings,
            dict(self._notes.most_common()),
            [
                replace(one, twin=id if id in known else twins.get((one.cause, one.place)))
                for id, one in self._opened.items()
            ],
            [replace(one, is_real=one.incident in known) for one in self._found],
            [_shorten(incident, self._is_found(incident)) for incident in real],
            self._current.rule(self._rule.id) is not None,
        )

    def _is_found(self, incident: Incident) -> bool:
        return incident.id in self._touched_ids or (incident.cause, incident.key) in self._touched


def _look_ahead(community: str, rows: Iterable[JournalRow]) -> Iterator[tuple[JournalRow, int]]:
    """Each row with the time up to which the gateway could see before it: a `Blind` says afterwards from when on it
    could not, and stands behind the change of the catalog that a start makes."""
    waiting: list[JournalRow] = []
    for row in rows:
        if row.kind == SWAP:
            waiting.append(row)
            continue
        seen = row.at
        if row.kind == "blind":
            event = decode_row(community, row)
            if isinstance(event, Blind):
                seen = event.since
        for one in waiting:
            yield one, min(one.at, seen)
        waiting.clear()
        yield row, seen
    for one in waiting:
        yield one, one.at


def _tell_why(engine: Engine, found: Transition, key: str, incident: Incident | None) -> str:
    """What the condition saw, as a line of the timeline tells it."""
    if incident is not None:
        for line in reversed(incident.timeline):
            if line.event == found.event and line.rule == found.rule and line.why:
                return line.why
    explained = engine.explain_watch(found.rule, key, found.at)
    if explained is None:
        return ""
    return "; ".join(f"{text}: {look}" for _, text, truth, look in explained.leaves if truth)


def _shorten(incident: Incident, is_found: bool) -> Opened:
    return Opened(
        incident.id,
        incident.number,
        incident.opened_at,
        incident.title,
        incident.level,
        incident.cause,
        incident.place_name,
        incident.rule,
        incident.state,
        is_found,
    )


def list_days(days: tuple[date, date], most: int = 31) -> list[date]:
    """The newest recorded days, the newest first."""
    first, last = days
    return [last - timedelta(days=back) for back in range(min(most, (last - first).days + 1))]


def tell_tried(tried: Tried) -> Iterator[str]:
    """Lines for people."""
    span = f"{format_time(tried.since)} to {format_time(tried.until)}"
    yield f"{tried.rule} {tried.title.get('zh', '')} in {tried.community}, {span}, {tried.rows} rows of the journal"
    yield f"it looked at {tried.keys} devices or places, and was found to hold {tried.findings} times: " + (
        ", ".join(f"{note} {count}" for note, count in tried.notes.items()) or "never"
    )
    yield f"it would have opened {len(tried.opened)}:"
    for one in tried.opened:
        twin = "" if one.twin is None else f"; really opened there: {one.twin}"
        began = ", held already at the beginning" if one.was_standing else ""
        yield f"  {format_time(one.at)} {one.level} {one.place_name} ({one.key}), {one.signals} signals{began}{twin}"
        yield f"      {localise(one.why)}"
    yield f"really opened were {len(tried.real)}:"
    for case in tried.real:
        mark = "+" if case.is_found else " "
        yield f"  {mark} {format_time(case.at)} {case.level} {case.number} {case.place_name}, {case.rule}, {case.state}"
