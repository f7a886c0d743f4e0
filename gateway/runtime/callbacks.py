"""What the central platform's people did over there, as a signed callback or a list tells it (docs/platform.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from gateway.core.model import Incident, OperatorAction, Role

TYPE: Final = "cn.jimo.platform.action.v1"

MOST_BEHIND_MS: Final = 7 * 86_400_000
"""An act older than this is no news but a fault or a fraud; `reconcile` still brings it in."""

MOST_AHEAD_MS: Final = 600_000
"""Two clocks may differ by so much."""

ACTOR: Final = "platform:"
"""What the name of whoever acts over there begins with here."""

ShortText = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Act(BaseModel):
    """``data`` of the event: who did what to which incident. ``action`` is the platform's word; times are RFC 3339."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    incident: ShortText
    action: ShortText
    user: ShortText
    reason: Annotated[str, Field(max_length=1000)] = ""
    grid: Annotated[str, Field(pattern=r"^[0-9]{0,20}$")] = ""
    body: Annotated[str, Field(max_length=48)] = ""
    into: Annotated[str, Field(max_length=64)] = ""
    until: AwareDatetime | None = None
    score: Annotated[int, Field(ge=1, le=5)] | None = None
    revision: Annotated[int, Field(ge=1)] | None = None


class Callback(BaseModel):
    """A CloudEvent 1.0 in structured mode; extension attributes are allowed, as the standard wants it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    specversion: Literal["1.0"]
    id: ShortText
    source: ShortText
    type: Literal["cn.jimo.platform.action.v1"]
    subject: ShortText
    time: AwareDatetime
    data: Act

    @property
    def at(self) -> int:
        """When it was done, in ms UTC on the platform's clock."""
        return _to_ms(self.time)


class BadCallback(Exception):
    """A callback that will never be right; ``code`` is stable, ``str()`` is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def read_callback(body: bytes) -> Callback:
    """The callback in this body. Raises BadCallback with the field that is wrong."""
    try:
        callback = Callback.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadCallback("not-a-callback", f"{where}: {first['msg']}") from None
    if callback.subject != callback.data.incident:
        raise BadCallback("wrong-subject", "subject must be data.incident")
    return callback


def check_time(callback: Callback, now: int) -> None:
    """Raises BadCallback for an act that lies too far from ``now`` (real time, ms)."""
    if not now - MOST_BEHIND_MS <= callback.at <= now + MOST_AHEAD_MS:
        raise BadCallback("wrong-time", "time must lie in the last 7 days, and not ahead by more than 10 minutes")


def make_action(callback: Callback, verbs: Mapping[str, str]) -> OperatorAction:
    """The move that the platform's word stands for. Raises BadCallback for a word that rules/platform.yaml lacks."""
    act = callback.data
    verb = verbs.get(act.action)
    if verb is None:
        words = ", ".join(sorted(verbs))
        raise BadCallback("unknown-action", f"{act.action} is none of {words} (rules/platform.yaml)")
    return OperatorAction(
        name_action(callback.id),
        ACTOR + act.user,
        act.incident,
        verb,
        act.reason,
        Role.PLATFORM,
        act.grid,
        None if act.until is None else _to_ms(act.until),
        act.body,
        act.into,
        act.score,
        act.revision,
    )


def name_action(id: str) -> str:
    """The journal's event id of the callback with this id."""
    return f"platform/{id}"


def find_overtaking(incident: Incident, callback: Callback) -> str | None:
    """Why the act comes too late: it was decided before the case was opened again here. Otherwise None.

    What the platform's own people opened again is in their own order already."""
    again = next((line for line in reversed(incident.timeline) if line.what == "reopen"), None)
    if again is None or callback.at >= again.at or again.who.startswith(ACTOR):
        return None
    return f"{again.who} has opened it again here after that; it is {incident.state}"


def has_moved(incident: Incident, action: OperatorAction) -> bool:
    """Whether an act that is in the journal was done: one that was refused has left no line."""
    return any((line.who, line.what) == (action.actor, action.verb) for line in incident.timeline)


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
