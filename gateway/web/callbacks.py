"""What the central platform's people do over there comes in here, signed, and enters by the door (docs/platform.md)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.core.model import OperatorAction, Role
from gateway.web.problems import Problem

TYPE: Final = "cn.jimo.platform.action.v1"
SIGNATURE_HEADER: Final = "Gateway-Signature"
BODY_LIMIT: Final = 256 * 1024

ShortText = Annotated[str, Field(min_length=1, max_length=200)]


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
    until: datetime | None = None
    score: Annotated[int, Field(ge=1, le=5)] | None = None
    revision: Annotated[int, Field(ge=1)] | None = None


class Callback(BaseModel):
    """A CloudEvent 1.0 in structured mode; extension attributes are allowed, as the standard wants it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: ShortText
    type: Literal["cn.jimo.platform.action.v1"]
    subject: ShortText
    time: datetime
    data: Act


def is_signed(header: str, body: bytes, keys: Sequence[bytes]) -> bool:
    """Whether one of the header's signatures was made with one of the keys: keys change with an overlap."""
    given = [part.strip().removeprefix("v1=").encode() for part in header.split(",") if part.strip().startswith("v1=")]
    made = [hmac.new(key, body, hashlib.sha256).hexdigest().encode() for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in made)


def read_callback(body: bytes) -> Callback:
    """The callback in this body. Raises Problem 422 with the field that is wrong."""
    try:
        callback = Callback.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Problem(422, "not-a-callback", f"{where}: {first['msg']}") from None
    if callback.subject != callback.data.incident:
        raise Problem(422, "wrong-subject", "subject must be data.incident")
    return callback


def make_action(callback: Callback, verbs: Mapping[str, str]) -> OperatorAction:
    """The move that the platform's word stands for. Raises Problem 422 for a word that rules/platform.yaml lacks."""
    act = callback.data
    verb = verbs.get(act.action)
    if verb is None:
        raise Problem(
            422, "unknown-action", f"{act.action} is none of {', '.join(sorted(verbs))} (rules/platform.yaml)"
        )
    return OperatorAction(
        f"platform/{callback.id}",
        f"platform:{act.user}",
        act.incident,
        verb,
        act.reason,
        Role.PLATFORM,
        act.grid,
        None if act.until is None else round(act.until.timestamp() * 1000),
        act.body,
        act.into,
        act.score,
        act.revision,
    )
