"""Why did a rule fire, or why not? Reads the journal again up to the moment asked for, and asks the engine itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from gateway.core.catalog import Catalog
from gateway.core.condition import show_duration
from gateway.core.engine import Engine, Explained
from gateway.core.model import Community, Tick, Transition
from gateway.core.worktime import SHANGHAI_MS
from gateway.errors import GatewayError
from gateway.runtime.ports import Ledger
from gateway.runtime.writer import Catalogs, feed_row, load_engine

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


def explain_incident(ledger: Ledger, catalog: Catalog, id: str) -> Iterator[str]:
    """Lines for people: an incident's signals, its rule, who did what, each deadline with its arithmetic, and what it
    swallowed. Raises GatewayError for an id that the ledger does not have."""
    incident = ledger.incident(id)
    if incident is None:
        raise GatewayError("unknown-incident", f"there is no incident {id}", "--incident", "look its id up")
    rule = catalog.rule(incident.rule)
    yield f"{incident.number} {incident.title.get('zh', '')} ({incident.level}, {incident.state})"
    where = f"in grid {incident.grid or 'unknown'}, body {incident.body or 'none'}"
    yield f"  cause {incident.cause} at {incident.key}, {where}"
    if rule is not None:
        yield f"  rule {rule.id}: {rule.title['zh']}" + (f"; {rule.legal}" if rule.legal else "")
    else:
        yield f"  rule {incident.rule or 'none: nobody has a rule for it'}"
    for line in incident.timeline:
        about = " ".join(part for part in (line.device, line.event and f"[{line.event}]") if part)
        yield f"  {format_time(line.at)} {line.who} {line.what} {about} {line.why}".replace("  ", " ").rstrip()
    if incident.due is not None:
        yield f"  now: {incident.due.step} by {format_time(incident.due.due_at)}, {incident.due.role} of "
        yield f"       grid {incident.due.grid or 'unknown'}: {incident.due.how}"
    for member in incident.members:
        yield f"  swallowed {member.count} times: {member.key} by {member.rule or 'its source'}: {member.why}"


def _follow(
    engine: Engine, ledger: Ledger, community: Community, catalogs: Catalogs, after: int, since: int, until: int
) -> list[Transition]:
    transitions = list(engine.feed(Tick(), since).transitions)
    for row in ledger.read_journal(community.id, after, until):
        transitions.extend(feed_row(engine, community.id, row, catalogs).transitions)
    return transitions


def _tell(explained: Explained) -> Iterator[str]:
    since = f" since {format_time(explained.since)}" if explained.phase != "quiet" else ""
    note = f" ({explained.note})" if explained.note else ""
    status = "" if explained.status == "active" else f" [{explained.status}]"
    key = f" for {explained.key}"
    yield f"{explained.rule}{status} {explained.title.get('zh', '')}{key}"
    yield f"    {explained.phase}{since}{note}; condition: {_TRUTH[explained.truth]}"
    for path, text, truth, look in explained.leaves:
        yield f"      {_TRUTH[truth]:>7}  {text}    saw {_localise(look)}" + (f"    [{path}]" if "." in path else "")
    if explained.incident is not None:
        yield f"    incident {explained.incident}"


def _tell_transition(transition: Transition) -> str:
    note = f" ({transition.note})" if transition.note else ""
    incident = f" incident {transition.incident}" if transition.incident else ""
    return f"{transition.phase}{note}{incident}"


def _localise(look: str) -> str:
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
