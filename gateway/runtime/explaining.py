"""Why did a rule fire, or why not? Reads the journal again up to the moment asked for, and asks the engine itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.condition import show_duration
from gateway.core.engine import Engine, Explained
from gateway.core.model import Community, Incident, Tick, Transition
from gateway.core.rule import Rule
from gateway.core.worktime import SHANGHAI_MS
from gateway.errors import GatewayError
from gateway.runtime.journal import JournalFault
from gateway.runtime.ports import Ledger
from gateway.runtime.writer import Catalogs, Loaded, load_engine, replay

FOLLOWED_MS: Final = 15 * 60_000
"""How far behind the moment asked for "what followed" looks."""

_TRUTH: Final = {True: "yes", False: "no", None: "unknown"}


def explain_device(
    ledger: Ledger, catalog: Catalog, catalogs: Catalogs, device: str, at: int, followed_ms: int = FOLLOWED_MS
) -> Iterator[str]:
    """Lines for people: each rule that looks at the device, what it saw at ``at`` (ms UTC), which leaf of its
    condition held or not, and what followed. Raises GatewayError for a device that was not registered then."""
    for community in ledger.communities():
        loaded = load_engine(ledger, community, catalogs, catalog, at)
        if loaded.engine.has_device(device):
            break
    else:
        raise GatewayError(
            "unknown-device", f"there was no device {device} at {format_time(at)}", "--device", "look its id up"
        )
    engine = loaded.engine
    yield f"{device} in {community.name} ({community.id}) at {format_time(at)}"
    found = engine.explain(device, at)
    if not found:
        yield "no rule looks at this device"
    followed = _follow(engine, ledger, community, catalogs, loaded.seq, at, at + followed_ms)
    for explained in found:
        yield ""
        yield from _tell(explained)
        mine = [t for t in followed if t.rule == explained.rule and t.key.split(":")[0] == explained.key]
        if mine:
            for transition in mine:
                yield f"    then {format_time(transition.at)} {_tell_transition(transition)}"
        else:
            yield f"    then nothing changed for {show_duration(followed_ms)}"


def explain_incident(ledger: Ledger, catalog: Catalog, catalogs: Catalogs, id: str) -> Iterator[str]:
    """Lines for people: an incident's rule and the catalog that it was judged by, its signals with what each leaf of
    the condition saw, who did what, each deadline with its arithmetic, and what it swallowed. Raises GatewayError for
    an id that the ledger does not have."""
    incident = ledger.incident(id)
    if incident is None:
        raise GatewayError("unknown-incident", f"there is no incident {id}", "--incident", "look its id up")
    evidence = _look_again(ledger, catalog, catalogs, incident)
    yield f"{incident.number} {incident.title.get('zh', '')} ({incident.level}, {incident.state})"
    where = f"in grid {incident.grid or 'unknown'}, body {incident.body or 'none'}"
    yield f"  cause {incident.cause} at {incident.key}, {where}"
    yield from _tell_rule(incident.rule, catalog, evidence)
    yield f"  signals: {incident.signals}, of {', '.join(incident.devices) or 'no device'}"
    for line in incident.timeline:
        seen = evidence.seen.get((line.event, line.rule), []) if line.what in ("opened", "joined") else []
        about = [line.device, line.event and f"[{line.event}]", "" if seen else localise(line.why)]
        yield "  " + " ".join(part for part in (format_time(line.at), line.who, line.what, *about) if part)
        yield from seen
    for awaited, due in (("now", incident.due), ("after that", incident.aside)):
        if due is not None:
            owner = f"{due.role} of grid {due.grid or 'unknown'}" + (f" ({due.body})" if due.body else "")
            times = f"by {format_time(due.due_at)}, yellow from {format_time(due.warn_at)}"
            yield f"  {awaited}: {due.step} {times}, {owner}: {due.how}"
    if incident.linked is not None:
        yield f"  it follows incident {incident.linked}, which took no more signals"
    if incident.merged_into is not None:
        yield f"  it was taken in by incident {incident.merged_into}"
    for member in incident.members:
        by = f"{member.key} by {member.rule or 'its source'}"
        yield f"  swallowed {member.count} times from {format_time(member.at)}: {by}: {member.why}"


class _Evidence(Struct, frozen=True):
    """What the journal says again: the ``row`` that opened the incident and the ``catalog`` in force, and by event and
    rule the lines of what the leaves saw. Where it cannot say so, ``catalog`` is None and ``why`` tells the reason."""

    row: int = 0
    catalog: Catalog | None = None
    seen: Mapping[tuple[str, str], list[str]] = {}
    why: str = "the journal does not reach back to its opening"


def _look_again(ledger: Ledger, catalog: Catalog, catalogs: Catalogs, incident: Incident) -> _Evidence:
    """Feeds the journal again from before the opening up to the last signal that has a line, but for `FOLLOWED_MS` at
    most: what came later stands in its line alone, and `explain_device` shows the rest."""
    [community] = [community for community in ledger.communities() if community.id == incident.community]
    until = max((line.at for line in incident.timeline if line.what == "joined"), default=incident.opened_at)
    row_of, judged_by = 0, None
    seen: dict[tuple[str, str], list[str]] = {}
    try:
        loaded = load_engine(ledger, community, catalogs, catalog, incident.opened_at - 1)
        until = min(until, incident.opened_at + FOLLOWED_MS)
        for row, engine, step in replay(ledger, community, catalogs, loaded, until):
            if judged_by is None and any(changed.id == incident.id for changed in step.incidents):
                row_of, judged_by = row.seq, engine.catalog
            for found in step.transitions:
                if found.incident == incident.id and found.note in ("opened", "joined"):
                    seen[found.event, found.rule] = list(_tell_finding(engine, found))
    except (LookupError, JournalFault, GatewayError) as error:
        return _Evidence(why=f"the journal cannot be read back to its opening: {error}")
    return _Evidence() if judged_by is None else _Evidence(row_of, judged_by, seen)


def _tell_finding(engine: Engine, found: Transition) -> Iterator[str]:
    """What the leaves saw when the rule found it. Nothing of what holds for a moment only, such as a press: that is
    over again, and its line says what was seen."""
    explained = engine.explain_watch(found.rule, found.key.split(":")[0], found.at)
    rule = engine.catalog.rule(found.rule)
    if explained is None or rule is None or not explained.truth:
        return
    held = f", held since {format_time(found.since)} for {show_duration(rule.hold)}" if rule.hold else ""
    yield f"      {found.rule} for {explained.key}{held}"
    yield from _tell_leaves(explained)


def _tell_rule(id: str, catalog: Catalog, evidence: _Evidence) -> Iterator[str]:
    judged_by = evidence.catalog
    rule = (catalog if judged_by is None else judged_by).rule(id)
    if rule is not None:
        yield f"  rule {rule.id}: {rule.title['zh']}" + (f"; {rule.legal}" if rule.legal else "")
    else:
        yield f"  rule {id or 'none: nobody has a rule for it'}"
    if judged_by is None:
        yield f"    {evidence.why}: by which catalog it was judged cannot be said"
        return
    yield f"    judged by catalog {judged_by.hash} (row {evidence.row} of the journal){_tell_change(rule, catalog)}"


def _tell_change(rule: Rule | None, catalog: Catalog) -> str:
    """What has become of the rule since, in words."""
    if rule is None:
        return ""
    now = catalog.rule(rule.id)
    if now is None:
        return "; the rule is gone since"
    if not rule.judges_like(now):
        return "; the rule has changed since, and judges otherwise now"
    return "; the rule is the same today" if rule == now else "; the rule has changed since, but judges the same"


def _follow(
    engine: Engine, ledger: Ledger, community: Community, catalogs: Catalogs, after: int, since: int, until: int
) -> list[Transition]:
    transitions = list(engine.feed(Tick(), since).transitions)
    for _, _, step in replay(ledger, community, catalogs, Loaded(engine, after, after), until):
        transitions.extend(step.transitions)
    return transitions


def _tell(explained: Explained) -> Iterator[str]:
    since = f" since {format_time(explained.since)}" if explained.phase != "quiet" else ""
    note = f" ({explained.note})" if explained.note else ""
    status = "" if explained.status == "active" else f" [{explained.status}]"
    key = f" for {explained.key}"
    yield f"{explained.rule}{status} {explained.title.get('zh', '')}{key}"
    yield f"    {explained.phase}{since}{note}; condition: {_TRUTH[explained.truth]}"
    yield from _tell_leaves(explained)
    if explained.incident is not None:
        yield f"    incident {explained.incident}"


def _tell_leaves(explained: Explained) -> Iterator[str]:
    for path, text, truth, look in explained.leaves:
        yield f"      {_TRUTH[truth]:>7}  {text}    saw {localise(look)}" + (f"    [{path}]" if "." in path else "")


def _tell_transition(transition: Transition) -> str:
    note = f" ({transition.note})" if transition.note else ""
    incident = f" incident {transition.incident}" if transition.incident else ""
    return f"{transition.phase}{note}{incident}"


def localise(look: str) -> str:
    """Times in what a leaf shows are ms UTC in the core; people read local time."""
    words = look.split(" ")
    shown = [
        format_time(int(word.rstrip(","))) + word[len(word.rstrip(",")) :]
        if word.rstrip(",").isdigit() and len(word.rstrip(",")) == 13
        else word
        for word in words
    ]
    return " ".join(shown)


def format_time(at: int) -> str:
    """Local time (Asia/Shanghai) with milliseconds."""
    local = datetime.fromtimestamp((at + SHANGHAI_MS) / 1000, UTC)
    return local.strftime("%Y-%m-%d %H:%M:%S.") + f"{at % 1000:03d}"
