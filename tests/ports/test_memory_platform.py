from __future__ import annotations

import pytest

from gateway.adapters.memory_platform import Fault, MemoryPlatform
from gateway.core.model import Incident
from tests.ports.platform_conformance import PlatformConformance


class _Subject:
    def __init__(self) -> None:
        self.platform = MemoryPlatform()

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
