"""An incident's life: its timeline, joining, clearing, swallowing, and the moves of people. Everything returns a new
revision; whether a move is allowed is `moves`' affair, and by when the next one must come is `duty`'s.
"""

from __future__ import annotations

from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Incident, Level, Line, Member, OperatorAction, Order, Sort, Whistle
from gateway.core.moves import FINAL, GATEWAY, Move, State, next_whistled
from gateway.core.worktime import format_time

NAMESPACE: Final = uuid5(NAMESPACE_URL, "https://github.com/smart-community-gateway/incident")

PRESS_JOIN_MS: Final = 10 * 60_000
"""A press joins its button's open incident for ten minutes (design 4.7); after that it opens a new, linked one."""

PRESS_SIGNALS: Final = 200
"""An incident of so many presses takes no more in: the next one opens a new, linked one. Every press keeps a
line of its own, and no incident grows without end under a button that is stuck, or a hand that does not stop."""

SIGNAL_LINES: Final = 50
"""Signals beyond so many are counted and no longer written line by line, except presses, which always are."""

MEMBERS: Final = 1000
"""What an incident swallowed is listed one by one up to here; what comes after is counted by its rule."""

REST: Final = "*"
"""The key of what was swallowed beyond `MEMBERS`, one for each rule."""

ORDER_NAMED: Final = 8
"""Devices that the line of an order names; its commands name all."""

_UNATTENDED: Final = frozenset({State.REPORTED, State.FILED, State.DISPATCHED})
"""Nobody is there yet: what happens now is the same case. From then on it is another."""

_AT_WORK: Final = _UNATTENDED | {State.HANDLING}


class Signal(Struct, frozen=True):
    """What joins or opens an incident: which event, when, of which devices, found by which rule, in which words."""

    event: str
    at: int
    rule: str
    devices: tuple[str, ...]
    why: str
    is_press: bool = False
    is_late: bool = False
    joins_open: bool = False
    """A press that opens no case while one of its cause and key is at work (`model.Press.joins_open`)."""


def derive_id(community: str, cause: str, key: str, event: str) -> str:
    """The incident's id: the same for the same cause, key and opening event, wherever it is computed."""
    return str(uuid5(NAMESPACE, f"{community}\n{cause}\n{key}\n{event}"))


def derive_command_id(incident: str, rule: str, event: str, device: str, command: str) -> str:
    """The command's id, derived from the incident's: an agent that has acted on it already ignores it."""
    return str(uuid5(UUID(incident), f"{rule}\n{event}\n{device}\n{command}"))


def is_over(incident: Incident) -> bool:
    """Whether it has come to an end (it may still be rated or opened again)."""
    return incident.state in FINAL


# --- signals ------------------------------------------------------------------------------------------------


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
    return incident.joinable and now <= incident.joinable_until and incident.signals < PRESS_SIGNALS


def takes(incident: Incident, signal: Signal, now: int) -> bool:
    """Whether this signal, of the same cause and key, belongs to this open incident at ``now``."""
    if is_joinable(incident, now):
        return True
    return signal.joins_open and is_attended(incident) and incident.signals < PRESS_SIGNALS


def is_attended(incident: Incident) -> bool:
    """Whether somebody is on it, or called to it: not yet done, and not put off."""
    return incident.state in _AT_WORK


def join(incident: Incident, signal: Signal, level: Level, now: int) -> Incident:
    """One more signal of the same cause. The level may rise; a cleared incident is no longer cleared."""
    joined = take_signal(incident, signal)
    if signal.is_press or incident.signals < SIGNAL_LINES:
        joined = _write(joined, now, _signal_line(len(incident.timeline) + 1, "joined", signal, now))
    else:
        joined = replace(joined, revision=incident.revision + 1, updated_at=now)
    if level.rank > incident.level.rank:
        line = Line(len(joined.timeline) + 1, now, GATEWAY, "raised", f"{incident.level} → {level}", rule=signal.rule)
        joined = _write(replace(joined, level=level), now, line)
    return joined


def take_signal(incident: Incident, signal: Signal) -> Incident:
    """Counts a signal, without a line or a revision of its own. What had cleared has come back."""
    return replace(
        incident,
        signals=incident.signals + 1,
        devices=tuple(dict.fromkeys((*incident.devices, *signal.devices))),
        cleared_at=None,
        flaps=incident.flaps + (incident.cleared_at is not None),
    )


def swallow(incident: Incident, member: Member) -> Incident:
    """Takes in what this incident explains, without a line or a revision of its own: what was swallowed already is
    counted, and so is what is too much to list."""
    members = list(incident.members)
    for index, known in enumerate(members):
        if (known.key, known.rule) == (member.key, member.rule):
            members[index] = replace(known, count=known.count + 1)
            return replace(incident, members=tuple(members))
    if len(members) >= MEMBERS and member.key != REST:
        return swallow(incident, replace(member, key=REST))
    return replace(incident, members=(*members, member))


def come_back(incident: Incident, now: int) -> Incident:
    """A notice that was over by itself, and whose condition holds again: it is open as before."""
    line = Line(len(incident.timeline) + 1, now, GATEWAY, "reopen", "the condition is back")
    return _write(replace(incident, state=State.REPORTED, joinable=True, closed_at=None), now, line)


def is_settled(incident: Incident) -> bool:
    """Whether it is a notice that was over by itself, closed by nobody."""
    return incident.sort is Sort.NOTICE and incident.state == State.CLOSED and incident.timeline[-1].who == GATEWAY


def end_joining(incident: Incident, now: int) -> Incident:
    """From now on no signal joins this incident."""
    return replace(incident, joinable=False, revision=incident.revision + 1, updated_at=now)


def clear(incident: Incident, rule: str, event: str, at: int, now: int) -> Incident:
    """The condition is over since ``at``. A notice closes by itself; an incident is closed by people."""
    line = Line(len(incident.timeline) + 1, now, GATEWAY, "cleared", event=event, rule=rule)
    cleared = _write(replace(incident, cleared_at=at), now, line)
    return end_notice(cleared, "the condition is over", now) if incident.sort is Sort.NOTICE else cleared


def end_notice(incident: Incident, why: str, now: int) -> Incident:
    """A maintenance notice closes."""
    line = Line(len(incident.timeline) + 1, now, GATEWAY, "close", why)
    return _write(replace(incident, state=State.CLOSED, joinable=False, closed_at=now), now, line)


def note(incident: Incident, what: str, why: str, now: int, *, device: str = "") -> Incident:
    """A line that changes nothing else, such as a command's outcome."""
    return _write(incident, now, Line(len(incident.timeline) + 1, now, GATEWAY, what, why, device=device))


def write_order(incident: Incident, order: Order, now: int) -> Incident:
    """The line of a person's order: what was asked of which devices, and why. It moves nothing, so that nobody's
    decision on the incident is out of date by it."""
    device = order.devices[0] if len(order.devices) == 1 else ""
    named = ", ".join(order.devices[:ORDER_NAMED])
    more = f" and {len(order.devices) - ORDER_NAMED} more" if len(order.devices) > ORDER_NAMED else ""
    said = [str(value).strip() for value in order.args.values()]
    why = "; ".join((f"{order.name} → {named}{more}", *said, order.reason.strip()))
    line = Line(len(incident.timeline) + 1, now, order.actor, "commanded", why, order.id, device)
    return _write(incident, now, line)


# --- moves --------------------------------------------------------------------------------------------------


def move(incident: Incident, action: OperatorAction, row: Move, now: int) -> Incident:
    """A person's move, which `moves.refuse` has nothing against: state, and a line that says all of it."""
    target = State(incident.state) if row.target is None else row.target
    moved = replace(incident, state=target, joinable=incident.joinable and target in _UNATTENDED)
    match action.verb:
        case "accept" if incident.state == State.DISPATCHED:
            moved = replace(moved, state=State.DISPATCHED, joinable=incident.joinable)
        case "call_back" if incident.state == State.REPORTED:
            moved = replace(moved, state=State.FILED)
        case "park":
            moved = replace(moved, before=incident.state)
        case "resume":
            moved = replace(moved, state=State(incident.before), before="")
        case "ask_extension":
            moved = replace(moved, asked_until=action.until)
        case "grant_extension":
            moved = replace(moved, asked_until=None, extensions=incident.extensions + 1)
        case "refuse_extension":
            moved = replace(moved, asked_until=None)
        case "dispatch" if action.body:
            moved = replace(moved, body=action.body)
        case "rate":
            moved = replace(moved, score=action.score)
        case "merge":
            moved = replace(moved, merged_into=action.into)
        case "whistle":
            called = Whistle(next_whistled(incident) or "", now, action.actor)
            moved = replace(moved, whistles=(*incident.whistles, called))
        case "report_in":
            *earlier, last = incident.whistles
            moved = replace(moved, whistles=(*earlier, replace(last, reported_at=now)))
        case "reopen":
            moved = replace(moved, merged_into=None, score=None, closed_at=None, before="", cleared_at=None)
    if target in FINAL and incident.state not in FINAL:
        moved = replace(moved, closed_at=now, before="", asked_until=None)
    if incident.accepted_at is None:
        moved = replace(moved, accepted_at=now)
    moved = replace(moved, rung_at=None, acted=incident.revision + 1)
    line = Line(len(incident.timeline) + 1, now, action.actor, action.verb, _say(action, moved), action.id)
    return _write(moved, now, line)


def _say(action: OperatorAction, moved: Incident) -> str:
    parts = [action.reason.strip()]
    match action.verb:
        case "park" | "ask_extension" if action.until is not None:
            parts.append(f"until {format_time(action.until)}")
        case "dispatch":
            parts.append(f"to {moved.body}" if moved.body else "")
        case "merge":
            parts.append(f"into {action.into}")
        case "rate":
            parts.append(f"{action.score} of 5")
        case "whistle" | "report_in":
            parts.append(f"grid {moved.whistles[-1].grid}")
    return "; ".join(part for part in parts if part)


def _signal_line(seq: int, what: str, signal: Signal, now: int) -> Line:
    device = signal.devices[0] if signal.devices else ""
    return Line(seq, now, GATEWAY, what, signal.why, signal.event, device, signal.rule, signal.is_late)


def _write(incident: Incident, now: int, line: Line) -> Incident:
    return replace(incident, timeline=(*incident.timeline, line), revision=incident.revision + 1, updated_at=now)
