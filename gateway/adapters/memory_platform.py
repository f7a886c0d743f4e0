"""A central platform in memory: for tests and for a gateway that has none configured. It keeps the contract of
docs/platform.md as the real one does, and it can be told to fail."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import assert_never

from gateway.core.model import Incident
from gateway.runtime.ports import Held, Verdict


class Fault(StrEnum):
    """A way in which a delivery fails. ``LOST_ANSWER``: the event is recorded and the answer never arrives."""

    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    GARBAGE = "garbage"
    SILENCE = "silence"
    LOST_ANSWER = "lost-answer"


class MemoryPlatform:
    """Records every revision once and ignores those below the newest. Its codes are ours; it changed when the incident
    did, or when somebody acted on it."""

    def __init__(self) -> None:
        self._revisions: dict[str, dict[int, Incident]] = {}
        self._acts: dict[str, list[bytes]] = {}
        self._standing: dict[str, tuple[str, int]] = {}
        self._faults: deque[Fault] = deque()

    async def deliver(self, effect_id: str, incident: Incident) -> Verdict:
        fault = self._faults.popleft() if self._faults else None
        match fault:
            case None:
                self._record(incident)
                return Verdict(accepted=True, refused=False, detail="recorded")
            case Fault.LOST_ANSWER:
                self._record(incident)
                return Verdict(accepted=False, refused=False, detail="recorded, and the answer was lost")
            case Fault.REFUSED:
                return Verdict(accepted=False, refused=True, detail="refused on request")
            case Fault.UNAVAILABLE | Fault.GARBAGE | Fault.SILENCE:
                return Verdict(accepted=False, refused=False, detail=f"{fault} on request")
            case _:
                assert_never(fault)

    async def list_held(self, since: int) -> AsyncIterator[Held]:
        """See `gateway.runtime.ports.PlatformList`."""
        for id in sorted(self._revisions):
            held = await self.find_held(id)
            if held is not None and held.updated_at >= since:
                yield held

    async def find_held(self, incident: str) -> Held | None:
        """See `gateway.runtime.ports.PlatformList`."""
        revisions = self._revisions.get(incident)
        if revisions is None:
            return None
        newest = revisions[max(revisions)]
        state, at = self._standing[incident]
        return Held(incident, newest.revision, state, at, newest, tuple(self._acts.get(incident, ())))

    def act(self, incident: str, callback: bytes, state: str, at: int) -> None:
        """Somebody acts here, as the callback would tell; nobody tells it."""
        self._acts.setdefault(incident, []).append(callback)
        self._standing[incident] = state, at

    def lose(self, incident: str) -> None:
        """Forgets an incident that it has answered for."""
        del self._revisions[incident], self._standing[incident]
        self._acts.pop(incident, None)

    def fail_next(self, fault: Fault, count: int = 1) -> None:
        """The next ``count`` deliveries fail in this way."""
        self._faults.extend([fault] * count)

    def incidents(self) -> list[Incident]:
        """The newest revision of each incident, in the order in which they first arrived."""
        return [held[max(held)] for held in self._revisions.values()]

    def revisions(self, incident: str) -> tuple[int, ...]:
        """The recorded revisions of an incident, in order; empty when there is none."""
        return tuple(sorted(self._revisions.get(incident, {})))

    def _record(self, incident: Incident) -> None:
        held = self._revisions.setdefault(incident.id, {})
        if not held or incident.revision > max(held):
            held[incident.revision] = incident
            self._standing[incident.id] = incident.state, incident.updated_at
