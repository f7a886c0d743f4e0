"""An incident's life: the table of moves, the timeline, joining and clearing. Everything returns a new revision.

The stages here are those of the spine (reported, accepted, dispatched, on site, resolved, closed, false alarm).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Incident, Level, Line, Sort

NAMESPACE: Final = uuid5(NAMESPACE_URL, "https://github.com/smart-community-gateway/incident")

PRESS_JOIN_MS: Final = 10 * 60_000
"""A press joins its button's open incident for ten minutes (design 4.7); after that it opens a new, linked one."""

PRESS_LINES: Final = 200
"""An incident with so many lines takes no more presses in: the next one opens a new, linked one. Every press keeps a
line of its own, and no incident grows without end under a button that is stuck, or a hand that does not stop."""

SIGNAL_LINES: Final = 50
"""Signals beyond so many are counted and no longer written line by line, except presses, which always are."""


class State(StrEnum):
    """Where an incident stands: 上报, 受理, 派遣, 到场, 处置反馈, 结案, 误报."""

    REPORTED = "reported"
    ACCEPTED = "accepted"
    DISPATCHED = "dispatched"
    ON_SITE = "on_site"
    RESOLVED = "resolved"
    CLOSED = "closed"
    FALSE_ALARM = "false_alarm"


MOVES: Final[dict[tuple[State, str], State]] = {
    (State.REPORTED, "accept"): State.ACCEPTED,
    (State.REPORTED, "false_alarm"): State.FALSE_ALARM,
    (State.ACCEPTED, "dispatch"): State.DISPATCHED,
    (State.ACCEPTED, "resolve"): State.RESOLVED,
    (State.ACCEPTED, "false_alarm"): State.FALSE_ALARM,
    (State.DISPATCHED, "arrive"): State.ON_SITE,
    (State.DISPATCHED, "resolve"): State.RESOLVED,
    (State.DISPATCHED, "false_alarm"): State.FALSE_ALARM,
    (State.ON_SITE, "resolve"): State.RESOLVED,
    (State.ON_SITE, "false_alarm"): State.FALSE_ALARM,
    (State.RESOLVED, "close"): State.CLOSED,
}
"""(state, verb) → state. What is not in the table is refused."""

VERBS: Final = tuple(dict.fromkeys(verb for _, verb in MOVES))
NEEDS_REASON: Final = frozenset({"false_alarm"})
FINAL: Final = frozenset({State.CLOSED, State.FALSE_ALARM})
_ATTENDED: Final = frozenset({State.ON_SITE, State.RESOLVED, State.CLOSED, State.FALSE_ALARM})
"""From here on somebody is or was there: what happens now is another case."""


class Signal(Struct, frozen=True):
    """What joins or opens an incident: which event, when, of which devices, found by which rule, in which words."""

    event: str
    at: int
    rule: str
    devices: tuple[str, ...]
    why: str
    is_press: bool = False
    is_late: bool = False


def derive_id(community: str, cause: str, key: str, event: str) -> str:
    """The incident's id: the same for the same cause, key and opening event, wherever it is computed."""
    return str(uuid5(NAMESPACE, f"{community}\n{cause}\n{key}\n{event}"))


def derive_command_id(incident: str, rule: str, event: str, device: str, command: str) -> str:
    """The command's id, derived from the incident's: an agent that has acted on it already ignores it."""
    return str(uuid5(UUID(incident), f"{rule}\n{event}\n{device}\n{command}"))


def start(draft: Incident, signal: Signal, now: int) -> Incident:
    """The first revision: ``draft`` with its opening signal."""
    limit = now + PRESS_JOIN_MS if signal.is_press else None
    line = _signal_line(1, "opened", signal, now)
    return replace(
        draft,
        opened_at=now,
        updated_at=now,
        revision=1,
        state=State.REPORTED,
        joinable=True,
        joinable_until=limit,
        late=signal.is_late,
        signals=1,
        devices=signal.devices,
        timeline=(line,),
    )


def is_joinable(incident: Incident, now: int) -> bool:
    """Whether a signal of the same cause and key still belongs to this incident at ``now``."""
    if incident.joinable_until is None:
        return incident.joinable
    return incident.joinable and now <= incident.joinable_until and len(incident.timeline) < PRESS_LINES


def join(incident: Incident, signal: Signal, level: Level, now: int) -> Incident:
    """One more signal of the same cause. The level may rise; a cleared incident is no longer cleared."""
    joined = replace(
        incident,
        signals=incident.signals + 1,
        devices=tuple(dict.fromkeys((*incident.devices, *signal.devices))),
        cleared_at=None,
    )
    if signal.is_press or incident.signals < SIGNAL_LINES:
        joined = _write(joined, now, _signal_line(len(incident.timeline) + 1, "joined", signal, now))
    else:
        joined = replace(joined, revision=incident.revision + 1, updated_at=now)
    if level.rank > incident.level.rank:
        line = Line(len(joined.timeline) + 1, now, "gateway", "raised", f"{incident.level} → {level}", rule=signal.rule)
        joined = _write(replace(joined, level=level), now, line)
    return joined


def swallow(incident: Incident, key: str, why: str, now: int) -> Incident:
    """Takes in what this incident explains: a device that is silent because its source is."""
    if key in incident.swallowed:
        return incident
    line = Line(len(incident.timeline) + 1, now, "gateway", "swallowed", why, device=key)
    return _write(replace(incident, swallowed=(*incident.swallowed, key)), now, line)


def end_joining(incident: Incident, now: int) -> Incident:
    """From now on no signal joins this incident."""
    return replace(incident, joinable=False, revision=incident.revision + 1, updated_at=now)


def clear(incident: Incident, rule: str, event: str, now: int) -> Incident:
    """The condition is over. A notice closes by itself; an incident is closed by people."""
    line = Line(len(incident.timeline) + 1, now, "gateway", "cleared", event=event, rule=rule)
    cleared = _write(replace(incident, cleared_at=now), now, line)
    if incident.sort is Sort.NOTICE:
        closing = Line(len(cleared.timeline) + 1, now, "gateway", "close", "the condition is over")
        cleared = _write(replace(cleared, state=State.CLOSED, joinable=False), now, closing)
    return cleared


def note(incident: Incident, what: str, why: str, now: int, *, device: str = "") -> Incident:
    """A line that changes nothing else, such as a command's outcome."""
    return _write(incident, now, Line(len(incident.timeline) + 1, now, "gateway", what, why, device=device))


def act(incident: Incident, actor: str, verb: str, reason: str, now: int) -> Incident | str:
    """A person's move. Returns the new revision, or in words why it is refused."""
    target = MOVES.get((State(incident.state), verb))
    if target is None:
        allowed = [v for (state, v) in MOVES if state == incident.state]
        may = f"allowed now: {', '.join(allowed)}" if allowed else "nothing is allowed any more"
        return f"{verb} is not allowed while the incident is {incident.state}; {may}"
    if verb in NEEDS_REASON and not reason.strip():
        return f"{verb} needs a reason"
    moved = replace(incident, state=target, joinable=incident.joinable and target not in _ATTENDED)
    return _write(moved, now, Line(len(incident.timeline) + 1, now, actor, verb, reason))


def _signal_line(seq: int, what: str, signal: Signal, now: int) -> Line:
    device = signal.devices[0] if signal.devices else ""
    return Line(seq, now, "gateway", what, signal.why, signal.event, device, signal.rule, signal.is_late)


def _write(incident: Incident, now: int, line: Line) -> Incident:
    return replace(incident, timeline=(*incident.timeline, line), revision=incident.revision + 1, updated_at=now)
