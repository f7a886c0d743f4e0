"""The closed loop as one table of moves: who may do what to an incident, when, and what it takes.

What is not in the table is refused. `refuse` says in words why; nothing else decides whether a move is allowed.
docs/governance.md draws the table (`python -m gateway moves`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.core.model import Incident, Line, OperatorAction, Role, Sort
from gateway.core.worktime import FARTHEST_MS


class State(StrEnum):
    """Where an incident stands: 上报, 立案, 派遣, 处置, 反馈, 核查, 结案, 评价; 挂账, 合并, 误报."""

    REPORTED = "reported"
    FILED = "filed"
    DISPATCHED = "dispatched"
    HANDLING = "handling"
    FED_BACK = "fed_back"
    VERIFIED = "verified"
    CLOSED = "closed"
    RATED = "rated"
    PARKED = "parked"
    MERGED = "merged"
    FALSE_ALARM = "false_alarm"


STATE_TITLES: Final = {
    State.REPORTED: {"zh": "上报", "en": "reported"},
    State.FILED: {"zh": "立案", "en": "filed"},
    State.DISPATCHED: {"zh": "派遣", "en": "dispatched"},
    State.HANDLING: {"zh": "处置", "en": "handling"},
    State.FED_BACK: {"zh": "反馈", "en": "fed back"},
    State.VERIFIED: {"zh": "核查", "en": "verified"},
    State.CLOSED: {"zh": "结案", "en": "closed"},
    State.RATED: {"zh": "评价", "en": "rated"},
    State.PARKED: {"zh": "挂账", "en": "parked"},
    State.MERGED: {"zh": "合并", "en": "merged"},
    State.FALSE_ALARM: {"zh": "误报", "en": "false alarm"},
}

FINAL: Final = frozenset({State.CLOSED, State.RATED, State.MERGED, State.FALSE_ALARM})
"""The case is over: no signal joins it, and nobody is awaited but whoever rates it."""

STEP_OF: Final = {
    State.REPORTED: "accept",
    State.FILED: "dispatch",
    State.DISPATCHED: "arrive",
    State.HANDLING: "resolve",
    State.FED_BACK: "verify",
    State.VERIFIED: "close",
    State.CLOSED: "rate",
    State.PARKED: "resume",
}
"""What is awaited of an incident in each state. (A press is called back before it is accepted: see `casebook`.)"""


class Move(Struct, frozen=True):
    """One row: ``verb`` from any of ``sources`` to ``target`` (none: the state stays), by any of ``roles``, with what
    it ``needs`` (fields of the action that must be filled). ``note`` is its footnote in the docs."""

    verb: str
    title: dict[str, str]
    sources: tuple[State, ...]
    target: State | None
    roles: tuple[Role, ...]
    needs: tuple[str, ...] = ()
    note: str = ""


_DESK: Final = (Role.DISPATCHER, Role.PLATFORM)
_FIELD: Final = (Role.DISPATCHER, Role.GRID_WORKER, Role.PROPERTY_MANAGER, Role.PLATFORM)
_PEOPLE: Final = (Role.DISPATCHER, Role.GRID_WORKER, Role.PROPERTY_MANAGER)
_WATCHERS: Final = (Role.DISPATCHER, Role.GRID_WORKER, Role.PLATFORM)
_AT_WORK: Final = (State.FILED, State.DISPATCHED, State.HANDLING)
_BEGUN: Final = (State.REPORTED, *_AT_WORK)

MOVES: Final = (
    Move(
        "accept",
        {"zh": "立案", "en": "accept"},
        (State.REPORTED, State.DISPATCHED),
        State.FILED,
        _FIELD,
        (),
        "in dispatched only where the gateway has dispatched by itself: it stays so, and now a person knows of it",
    ),
    Move(
        "call_back",
        {"zh": "回拨核实", "en": "call back"},
        _BEGUN,
        None,
        _PEOPLE,
        ("reason",),
        "from reported it goes on to filed: somebody has spoken to the caller and help is wanted",
    ),
    Move(
        "dispatch",
        {"zh": "派遣", "en": "dispatch"},
        (State.REPORTED, State.FILED, State.DISPATCHED),
        State.DISPATCHED,
        _DESK,
        (),
        "from reported it accepts, too; from dispatched it goes to another body; the gateway dispatches by itself when "
        "nobody has answered the call back in time",
    ),
    Move("arrive", {"zh": "到场", "en": "arrive"}, (State.FILED, State.DISPATCHED), State.HANDLING, _FIELD),
    Move("resolve", {"zh": "反馈", "en": "resolve"}, _AT_WORK, State.FED_BACK, _FIELD, ("reason",)),
    Move("verify", {"zh": "核查", "en": "verify"}, (State.FED_BACK,), State.VERIFIED, _WATCHERS),
    Move("close", {"zh": "结案", "en": "close"}, (State.VERIFIED,), State.CLOSED, _DESK, ("reason",)),
    Move(
        "rate",
        {"zh": "评价", "en": "rate"},
        (State.CLOSED,),
        State.RATED,
        (Role.RESIDENT, Role.DISPATCHER, Role.PLATFORM),
        ("score",),
    ),
    Move(
        "false_alarm",
        {"zh": "误报", "en": "false alarm"},
        (*_BEGUN, State.FED_BACK, State.PARKED),
        State.FALSE_ALARM,
        _WATCHERS,
        ("reason",),
    ),
    Move(
        "cancel",
        {"zh": "撤警", "en": "cancel"},
        _BEGUN,
        State.FALSE_ALARM,
        _PEOPLE,
        ("reason",),
        "by the person who used the reset key or spoke to the caller; a second press never cancels",
    ),
    Move(
        "return",
        {"zh": "退回", "en": "return"},
        (State.DISPATCHED, State.HANDLING),
        State.DISPATCHED,
        _FIELD,
        ("reason",),
        "to the next responsible body; when nobody is left, or it was returned too often, to filed one level up",
    ),
    Move("park", {"zh": "挂账", "en": "park"}, _AT_WORK, State.PARKED, _DESK, ("reason", "until")),
    Move(
        "resume",
        {"zh": "恢复", "en": "resume"},
        (State.PARKED,),
        None,
        _WATCHERS,
        (),
        "to the state that it was parked in; the gateway does it when the date has come",
    ),
    Move(
        "ask_extension",
        {"zh": "申请延期", "en": "ask for an extension"},
        _AT_WORK,
        None,
        _FIELD,
        ("reason", "until"),
    ),
    Move(
        "grant_extension",
        {"zh": "批准延期", "en": "grant the extension"},
        _AT_WORK,
        None,
        _DESK,
        (),
        "by another person than asked",
    ),
    Move("refuse_extension", {"zh": "驳回延期", "en": "refuse the extension"}, _AT_WORK, None, _DESK, ("reason",)),
    Move(
        "merge",
        {"zh": "合并", "en": "merge"},
        (*_BEGUN, State.PARKED),
        State.MERGED,
        _DESK,
        ("into", "reason"),
    ),
    Move(
        "whistle",
        {"zh": "吹哨", "en": "whistle"},
        _BEGUN,
        None,
        _WATCHERS,
        ("reason",),
        "calls the next level of the grid, which must report in",
    ),
    Move(
        "report_in",
        {"zh": "报到", "en": "report in"},
        _BEGUN,
        None,
        _WATCHERS,
        (),
        "by the grid that was called, or one above it",
    ),
    Move(
        "reopen",
        {"zh": "重开", "en": "reopen"},
        (State.FED_BACK, State.VERIFIED, State.CLOSED, State.RATED, State.MERGED, State.FALSE_ALARM),
        State.FILED,
        _DESK,
        ("reason",),
    ),
)

_KEEPERS: Final = (Role.PROPERTY_MANAGER, Role.DISPATCHER)
NOTICE_MOVES: Final = (
    Move("accept", {"zh": "受理", "en": "accept"}, (State.REPORTED,), State.FILED, _KEEPERS),
    Move("close", {"zh": "关闭", "en": "close"}, (State.REPORTED, State.FILED), State.CLOSED, _KEEPERS, ("reason",)),
    Move(
        "false_alarm",
        {"zh": "误报", "en": "false alarm"},
        (State.REPORTED, State.FILED),
        State.FALSE_ALARM,
        _KEEPERS,
        ("reason",),
    ),
)
"""Maintenance notices are the property manager's; they close by themselves when what they tell of is over."""

VERBS: Final = tuple(dict.fromkeys(move.verb for move in (*MOVES, *NOTICE_MOVES)))


def table_of(sort: Sort) -> tuple[Move, ...]:
    """The table that governs this sort of case."""
    return MOVES if sort is Sort.INCIDENT else NOTICE_MOVES


def find_move(sort: Sort, verb: str) -> Move | None:
    """The row of a verb."""
    return next((move for move in table_of(sort) if move.verb == verb), None)


def allowed(incident: Incident, role: Role) -> list[str]:
    """The verbs that this role may try now, in the table's order."""
    state = State(incident.state)
    verbs = [move.verb for move in table_of(incident.sort) if state in move.sources and role in move.roles]
    return [verb for verb in verbs if verb != "accept" or incident.accepted_at is None or state is State.REPORTED]


def refuse(incident: Incident, action: OperatorAction, now: int) -> str | None:
    """Why this act is refused, in words; None when it is allowed."""
    move = find_move(incident.sort, action.verb)
    if move is None:
        what = "an incident" if incident.sort is Sort.INCIDENT else "a maintenance notice"
        return f"{action.verb[:48]} is no move of {what}; there are {_listed(m.verb for m in table_of(incident.sort))}"
    if not action.actor.strip():
        return "nobody is named as the one who acts"
    if action.revision is not None and action.revision < incident.acted:
        last = last_act(incident)
        who, did = (last.who, last.what) if last is not None else ("somebody", "act")
        return f"{who} was faster ({did}): look at revision {incident.revision} and decide again"
    state = State(incident.state)
    if state not in move.sources:
        verbs = allowed(incident, action.role)
        who = _with_article(action.role)
        may = f"allowed to {who} now: {', '.join(verbs)}" if verbs else f"{who} can do nothing now"
        return f"{action.verb} is not allowed while the incident is {state}; {may}"
    if action.role not in move.roles:
        return f"{action.verb} is not for {_with_article(action.role)}, but for {_listed(move.roles)}"
    if action.grid and action.grid not in incident.chain:
        return f"it lies in grid {incident.grid or 'unknown'}, which is not below yours ({action.grid})"
    for need in move.needs:
        problem = _refuse_need(need, action, now)
        if problem is not None:
            return f"{action.verb} {problem}"
    special = _SPECIAL.get(action.verb)
    return special(incident, action) if special is not None else None


GATEWAY: Final = str(Role.GATEWAY)


def last_act(incident: Incident) -> Line | None:
    """The line of the last move that a person made. Who commands a device moves nothing."""
    return next((line for line in reversed(incident.timeline) if line.who != GATEWAY and line.what in VERBS), None)


def _refuse_need(need: str, action: OperatorAction, now: int) -> str | None:
    match need:
        case "reason":
            return None if action.reason.strip() else "needs a reason"
        case "into":
            return None if action.into else "needs the incident that takes this one in"
        case "until":
            if action.until is None or action.until <= now:
                return "needs a date in the future"
            return None if action.until <= now + FARTHEST_MS else "needs a date within ten years"
        case _:
            return None if action.score is not None and 1 <= action.score <= 5 else "needs a score from 1 to 5"


def open_whistle(incident: Incident) -> int | None:
    """The place in ``whistles`` of the one that nobody has answered yet."""
    is_awaited = incident.due is not None and incident.due.step == "report_in"
    return len(incident.whistles) - 1 if is_awaited else None


def next_whistled(incident: Incident) -> str | None:
    """The grid that the next whistle calls: one above the one called last, or above the incident's own."""
    below = incident.whistles[-1].grid if incident.whistles else incident.grid
    index = incident.chain.index(below) if below in incident.chain else len(incident.chain)
    return incident.chain[index - 1] if index > 0 else None


def _refuse_whistle(incident: Incident, action: OperatorAction) -> str | None:
    waiting = open_whistle(incident)
    if waiting is not None:
        return f"grid {incident.whistles[waiting].grid} was whistled for already and has not reported in yet"
    return None if next_whistled(incident) is not None else "there is no level above to whistle for"


def _refuse_report_in(incident: Incident, action: OperatorAction) -> str | None:
    waiting = open_whistle(incident)
    if waiting is None:
        return "nobody was whistled for"
    called, chain = incident.whistles[waiting].grid, incident.chain
    if action.grid and called in chain and chain.index(action.grid) > chain.index(called):
        return f"grid {called} was whistled for, and {action.grid} lies below it"
    return None


def _asker(incident: Incident) -> str:
    return next((line.who for line in reversed(incident.timeline) if line.what == "ask_extension"), "")


def _refuse_extension(incident: Incident, action: OperatorAction) -> str | None:
    if incident.due is None or open_whistle(incident) is not None:
        return "the whistle must be answered first"
    if action.until is not None and action.until <= incident.due.due_at:
        return "ask_extension needs a date after the one that holds now"
    return None


def _refuse_decision(incident: Incident, action: OperatorAction) -> str | None:
    if incident.asked_until is None:
        return "nobody has asked for an extension"
    if open_whistle(incident) is not None:
        return "the whistle must be answered first"
    if action.verb == "grant_extension" and _asker(incident) == action.actor:
        return "whoever asks for an extension cannot grant it"
    return None


def _refuse_accept(incident: Incident, action: OperatorAction) -> str | None:
    if incident.sort is Sort.INCIDENT and incident.accepted_at is not None:
        return f"somebody has accepted it already, and it is {incident.state}"
    return None


def _refuse_merge(incident: Incident, action: OperatorAction) -> str | None:
    return "an incident cannot be merged into itself" if action.into == incident.id else None


_SPECIAL: Final = {
    "accept": _refuse_accept,
    "whistle": _refuse_whistle,
    "report_in": _refuse_report_in,
    "ask_extension": _refuse_extension,
    "grant_extension": _refuse_decision,
    "refuse_extension": _refuse_decision,
    "merge": _refuse_merge,
}


def _with_article(role: Role) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"


def _listed(words: Iterable[object]) -> str:
    return ", ".join(str(word) for word in words)
