"""A central platform in memory: for tests and for a gateway that has none configured. It keeps the contract of
docs/platform.md as the real one does, and it can be told to fail."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import assert_never

from gateway.core.model import Incident
from gateway.runtime.ports import Verdict


class Fault(StrEnum):
    """A way in which a delivery fails. ``LOST_ANSWER``: the event is recorded and the answer never arrives."""

    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    GARBAGE = "garbage"
    SILENCE = "silence"
    LOST_ANSWER = "lost-answer"


class MemoryPlatform:
    """Records every revision once and ignores those below the newest."""

    def __init__(self) -> None:
        self._revisions: dict[str, dict[int, Incident]] = {}
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
