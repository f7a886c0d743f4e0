"""Bringing windows, silences and absences in through the door, for pages and programs alike."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.core.model import SilenceChange
from gateway.runtime.access import Actor
from gateway.runtime.device_desk import PATIENCE_S, Refused
from gateway.runtime.door import DoorClient
from gateway.runtime.keys import make_event_id


async def bring_silence(door: DoorClient, actor: Actor, community: str, change: SilenceChange) -> str:
    """Brings a change in and waits for the commit; its id is the request's key. ``done``, ``repeat``, or in words why
    not. Raises Refused where a silence that holds has the key, as its id; DoorClosed, DoorRefused."""
    wished = change.silence
    if wished is not None:
        present = await door.look(community)
        if any(one.id == wished.id and one != wished for one in present.silences):
            raise Refused("key-used", "another window was made with this key; make a new one", "id")
    event_id = make_event_id("silence", actor, change.id, community, change)
    return await door.submit(community, replace(change, id=event_id), event_id, PATIENCE_S)
