"""What the central platform's people do over there comes in here, signed, and enters by the door (docs/platform.md)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import APIRouter, Depends, Request

from gateway.core.model import Incident, OperatorAction
from gateway.runtime.callbacks import (
    BadCallback,
    Callback,
    check_time,
    find_overtaking,
    has_moved,
    make_action,
    read_callback,
)
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.ports import Clock, Ledger, LedgerDown
from gateway.web.access import public
from gateway.web.problems import RETRY, Problem

SIGNATURE_HEADER: Final = "Gateway-Signature"


def route_callbacks(
    ledger: Ledger, door: DoorClient, verbs: Mapping[str, str], keys: Sequence[bytes], clock: Clock
) -> APIRouter:
    """The way in for the platform. ``verbs``: its word → our move; each of ``keys`` is good; ``clock`` is real time."""
    router = APIRouter()

    @router.post("/platform/callbacks", dependencies=[Depends(public("each call is signed with the platform's key"))])
    async def take_callback(request: Request) -> dict[str, str]:
        """An act of the platform's people on an incident: done, or in words why not."""
        body = await request.body()
        if not is_signed(request.headers.get(SIGNATURE_HEADER, ""), body, keys):
            raise Problem(401, "wrong-signature", f"{SIGNATURE_HEADER} must be v1= and the HMAC-SHA256 of the body")
        try:
            callback = read_callback(body)
            check_time(callback, clock())
            action = make_action(callback, verbs)
        except BadCallback as error:
            raise Problem(422, error.code, str(error)) from error
        try:
            answer, incident = await _enter(callback, action)
        except (DoorClosed, LedgerDown) as error:
            raise Problem(503, "gateway-away", "the gateway cannot be reached; send it again", headers=RETRY) from error
        except DoorRefused as error:
            if str(error) != "unknown-community":
                raise Problem(422, str(error), "the gateway cannot take it in; its log says why") from error
            raise Problem(503, str(error), "the gateway does not hold this community now", headers=RETRY) from error
        if answer not in ("done", "repeat"):
            raise Problem(409, "conflict", answer, id=callback.id, state=incident.state, revision=incident.revision)
        return {"id": callback.id, "answer": answer}

    async def _enter(callback: Callback, action: OperatorAction) -> tuple[str, Incident]:
        """The answer, and for a refusal the incident as it stands."""
        incident = await asyncio.to_thread(ledger.incident, action.incident)
        if incident is None:
            raise Problem(404, "unknown-incident", "no incident of this id was ever opened here")
        overtaken = find_overtaking(incident, callback)
        if overtaken is not None and await asyncio.to_thread(ledger.find_event, action.id) is None:
            return overtaken, incident
        answer = await door.submit(incident.community, action, action.id)
        incident = await asyncio.to_thread(ledger.incident, action.incident) or incident
        if answer == "repeat" and not has_moved(incident, action):
            return "it was refused when it came first", incident
        return answer, incident

    return router


def is_signed(header: str, body: bytes, keys: Sequence[bytes]) -> bool:
    """Whether one of the header's signatures was made with one of the keys: keys change with an overlap."""
    given = [part.strip().removeprefix("v1=").encode() for part in header.split(",") if part.strip().startswith("v1=")]
    made = [hmac.new(key, body, hashlib.sha256).hexdigest().encode() for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in made)
