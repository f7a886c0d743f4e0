"""What a resident is told of a press: a number, times, and how far the case is. Pure, and nothing else of the case.

``seen`` and ``coming`` mean that a person is: a case that the gateway has sent to a body by itself, because nobody took
it on in time, is not seen by anybody yet, and whoever waits for help must know that.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.core.model import Incident, Role
from gateway.core.moves import FINAL, State

_COMING: Final = frozenset({"dispatch", "arrive"})
MOST_MERGES: Final = 8


class Stage(StrEnum):
    """How far it is, as people count: 已记录, 已接单, 正在处理, 已结束."""

    RECORDED = "recorded"
    SEEN = "seen"
    COMING = "coming"
    CLOSED = "closed"


class Note(StrEnum):
    """What the stage alone does not say."""

    NONE = ""
    SENT = "sent"
    """The gateway has sent it to a body by itself, and nobody has answered yet."""
    ON_SITE = "on_site"
    DONE = "done"
    """Whoever was there says that it is done; somebody else checks that."""
    LATER = "later"
    """It was put off, until a date."""
    FALSE_ALARM = "false_alarm"
    TEST = "test"
    """The page is being tried: nobody comes."""


class Receipt(Struct, frozen=True):
    """``steps`` are the stages with the time at which each was reached, None for those that were not. ``target`` is
    where a rating goes, "" as long as there is nothing to rate."""

    number: str
    steps: tuple[tuple[Stage, int | None], ...]
    note: Note = Note.NONE
    is_over: bool = False
    target: str = ""
    score: int | None = None
    has_joined: bool = False

    @property
    def stage(self) -> Stage:
        return next(stage for stage, at in reversed(self.steps) if at is not None)


def read_receipt(incident: Incident, event: str, find: Callable[[str], Incident | None]) -> Receipt:
    """The receipt of the press ``event``, which stands in this incident; ``find`` looks up what took it in since."""
    case = _follow(incident, find)
    pressed = next((line.at for line in incident.timeline if line.event == event), incident.opened_at)
    seen, coming = case.accepted_at, _first_coming(case)
    state = State(case.state)
    steps = (
        (Stage.RECORDED, pressed),
        (Stage.SEEN, None if seen is None else max(seen, pressed)),
        (Stage.COMING, None if seen is None or coming is None else max(coming, seen, pressed)),
        (Stage.CLOSED, case.closed_at if state in FINAL else None),
    )
    return Receipt(
        incident.number,
        steps,
        _note(case, state),
        state in FINAL,
        case.id if state is State.CLOSED else "",
        case.score,
        event != incident.opened_by,
    )


def make_test_receipt(now: int) -> Receipt:
    """Of a press on a page that is being tried: it was shown to whoever tries it, and is no case."""
    steps = tuple((stage, now if stage is Stage.RECORDED else None) for stage in Stage)
    return Receipt("", steps, Note.TEST, is_over=True)


def _follow(incident: Incident, find: Callable[[str], Incident | None]) -> Incident:
    for _ in range(MOST_MERGES):
        further = find(incident.merged_into) if incident.merged_into is not None else None
        if further is None:
            return incident
        incident = further
    return incident


def _first_coming(case: Incident) -> int | None:
    """When somebody was first sent, or was there; since the case was opened again, if it was. What the gateway sent by
    itself counts only as long as nobody has found that there is nobody to be sent."""
    by_itself = case.state not in (State.FALSE_ALARM, State.MERGED)
    since = next((index for index, line in enumerate(case.timeline[::-1]) if line.what == "reopen"), len(case.timeline))
    lines = case.timeline[len(case.timeline) - since :]
    return next((line.at for line in lines if line.what in _COMING and (by_itself or line.who != Role.GATEWAY)), None)


def _note(case: Incident, state: State) -> Note:
    match state:
        case State.FALSE_ALARM:
            return Note.FALSE_ALARM
        case State.PARKED:
            return Note.LATER
        case State.FED_BACK | State.VERIFIED:
            return Note.DONE
        case State.HANDLING:
            return Note.ON_SITE
        case State.DISPATCHED if case.accepted_at is None:
            return Note.SENT
        case _:
            return Note.NONE
