"""What somebody may do to an incident now, and doing it through the door: for pages and programs alike.

The table of moves decides, here only to say what can be tried, and in the engine for good: between a look and an act
somebody else may have been faster, and then the act is refused.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Incident, OperatorAction
from gateway.core.moves import STEP_OF, Move, State, allowed, find_move, last_act, refuse
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor
from gateway.runtime.door import DoorClient
from gateway.runtime.keys import make_event_id
from gateway.runtime.ports import Ledger

GRAVE: Final = frozenset({"false_alarm", "cancel", "merge"})
"""Moves that end a case otherwise than by help."""

OPTIONAL: Final = {"dispatch": ("body",), "return": ("body",)}
"""What may be said beside what a move needs."""


PATIENCE_S: Final = 5.0
"""Somebody waits at the page; then it is better to say that the gateway is silent."""


class Choice(Struct, frozen=True):
    """A move that somebody may try now. ``fields`` are those of `OperatorAction` that it takes, ``needs`` those that
    it cannot do without. ``is_next`` is what the incident waits for."""

    verb: str
    fields: tuple[str, ...]
    needs: tuple[str, ...]
    is_next: bool = False
    is_grave: bool = False


class Wish(Struct, frozen=True, omit_defaults=True):
    """What somebody wants to do. ``id`` is made by the page or the program before it sends, and makes it happen once;
    ``revision`` is the one that was looked at."""

    id: str
    verb: str
    reason: str = ""
    until: int | None = None
    body: str = ""
    into: str = ""
    score: int | None = None
    revision: int | None = None


class Outcome(Struct, frozen=True):
    """What came of it. ``refusal`` is the engine's reason, empty when it was done; ``is_late`` when somebody else was
    faster, ``by`` whom; ``incident`` is how it stands now."""

    incident: Incident
    refusal: str = ""
    is_late: bool = False
    by: str = ""
    did: str = ""

    @property
    def is_done(self) -> bool:
        return not self.refusal


def list_moves(incident: Incident, actor: Actor, now: int) -> list[Choice]:
    """What the actor may try now, in the table's order: exactly what would not be refused if it were filled in well."""
    step = incident.due.step if incident.due is not None else STEP_OF.get(State(incident.state), "")
    found: list[Choice] = []
    for verb in allowed(incident, actor.role):
        move = find_move(incident.sort, verb)
        grid = actor.acting_grid(incident.community, incident.chain)
        if move is None or grid is None:
            continue
        if refuse(incident, _fill(move, incident, actor, grid, now), now) is None:
            fields = (*move.needs, *(name for name in OPTIONAL.get(verb, ()) if name not in move.needs))
            if "reason" not in fields:
                fields = (*fields, "reason")
            found.append(Choice(verb, fields, move.needs, verb == step, verb in GRAVE))
    return found


def _fill(move: Move, incident: Incident, actor: Actor, grid: str, now: int) -> OperatorAction:
    """The act as it would be with every field filled well."""
    later = max(now, incident.due.due_at if incident.due is not None else now) + DAY_MS
    return OperatorAction(
        id="",
        actor=actor.name,
        incident=incident.id,
        verb=move.verb,
        reason="-",
        role=actor.role,
        grid=grid,
        until=later,
        into="-",
        score=5,
    )


async def act(ledger: Ledger, door: DoorClient, actor: Actor, incident: Incident, wish: Wish) -> Outcome:
    """Brings the act in and waits for the commit. The same ``id`` again changes nothing and has the same outcome.
    Raises DoorClosed, DoorRefused, LedgerDown, and LookupError for an incident outside the actor's scope."""
    grid = actor.acting_grid(incident.community, incident.chain)
    if grid is None:
        raise LookupError(incident.id)
    event_id = make_event_id("act", actor, wish.id, incident.id, wish)
    action = OperatorAction(
        id=event_id,
        actor=actor.name,
        incident=incident.id,
        verb=wish.verb,
        reason=wish.reason,
        role=actor.role,
        grid=grid,
        until=wish.until,
        body=wish.body,
        into=wish.into,
        score=wish.score,
        revision=wish.revision,
    )
    answer = await door.submit(incident.community, action, event_id, PATIENCE_S)
    after = await asyncio.to_thread(ledger.incident, incident.id) or incident
    if answer == "done" or (answer == "repeat" and _was_done(after, action)):
        return Outcome(after)
    if answer == "repeat":
        # The journal keeps the act and not the answer; what would be said now is what was said then, or why it is late.
        answer = refuse(after, replace(action, id=""), incident.updated_at) or "it was refused when it came first"
    last = last_act(after)
    is_late = wish.revision is not None and wish.revision < after.acted and last is not None
    return Outcome(after, answer, is_late, last.who if last and is_late else "", last.what if last and is_late else "")


def _was_done(incident: Incident, action: OperatorAction) -> bool:
    """Whether an act that is in the journal was done: one that was refused has left no line."""
    return any(line.event == action.id for line in incident.timeline)
