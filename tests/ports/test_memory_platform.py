from __future__ import annotations

import pytest

from gateway.adapters.memory_platform import Fault, MemoryPlatform
from gateway.core.model import Incident
from tests.ports.incidents import FIRE, make_callback
from tests.ports.platform_conformance import PlatformConformance


class _Subject:
    def __init__(self) -> None:
        self.platform = self.holdings = MemoryPlatform()
        self._acts = 0

    def act(self, incident: str, action: str, user: str) -> None:
        self._acts += 1
        callback = make_callback(f"act-{self._acts}", incident, action, user)
        state = {"accepted": "filed", "dispatched": "dispatched"}[action]
        self.platform.act(incident, callback, state, FIRE.updated_at + self._acts)

    def lose(self, incident: str) -> None:
        self.platform.lose(incident)

    def incidents(self) -> list[Incident]:
        return self.platform.incidents()

    def revisions(self, incident: str) -> tuple[int, ...]:
        return self.platform.revisions(incident)

    def fail_next(self, fault: Fault, count: int = 1) -> None:
        self.platform.fail_next(fault, count)


class TestMemoryPlatform(PlatformConformance):
    @pytest.fixture
    def subject(self) -> _Subject:
        return _Subject()
