"""A small real desk for the tests of drivers: it keeps what is handed in, and can be told that its disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.ports import Carried, NotTaken, Report
from gateway.core.catalog import Catalog, build_catalog
from gateway.runtime.catalog_files import read_catalog
from gateway.wire import Signal
from tests.core.files import SOUND

ROOT: Final = Path(__file__).parents[2]


def shipped() -> Catalog:
    """The profiles that the product ships."""
    return read_catalog(ROOT / "device_profiles", ROOT / "rules")


def sound_with(name: str, text: str) -> Catalog:
    """The small sound catalog of the core's tests with one profile more (or another text of one of them)."""
    return build_catalog({**SOUND, name: text})


class ListDesk:
    """Keeps reports in a list. ``full``: refuses them, as a spool without room does."""

    def __init__(self, bus: str, *devices: Carried) -> None:
        self.bus = bus
        self.devices = list(devices)
        self.reports: list[Report] = []
        self.refused: list[Report] = []
        self.troubles: dict[str, str] = {}
        self.told: list[tuple[str, str]] = []
        self.full = False
        self.disk = asyncio.Event()
        """While it is cleared, whatever is handed in waits for the disk."""
        self.disk.set()
        self.waiting = 0
        """How many calls wait for the disk."""
        self._changed = asyncio.Event()

    def now(self) -> int:
        return int(time.time() * 1000)

    def find(self, address: str) -> Carried | None:
        return next((device for device in self.devices if device.address == address), None)

    def carried(self) -> Sequence[Carried]:
        return tuple(self.devices)

    async def take(self, *reports: Report) -> tuple[str, ...]:
        self.waiting += 1
        try:
            await self.disk.wait()
        finally:
            self.waiting -= 1
        if self.full:
            self.refused += reports
            self._changed.set()
            raise NotTaken("the disk is full")
        await asyncio.sleep(0)  # A disk takes a while, and others go on meanwhile.
        before = sum(len(report.signals) for report in self.reports)
        self.reports += reports
        self._changed.set()
        return tuple(f"event-{before + index}" for index in range(sum(len(report.signals) for report in reports)))

    def tell(self, address: str, trouble: str) -> None:
        """Keeps what is wrong now, and each change of it."""
        if self.troubles.get(address, "") != trouble:
            self.told.append((address, trouble))
        self.troubles[address] = trouble
        if not trouble:
            del self.troubles[address]
        self._changed.set()

    async def wait_until(self, is_so: Callable[[], object], what: str = "", timeout_s: float = 10.0) -> None:
        """Waits until it is so; looked at whenever something is handed in or told, and now and then."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):  # what it waits for may not be the desk's
                        await asyncio.wait_for(self._changed.wait(), 0.05)
        except TimeoutError:
            raise AssertionError(
                f"{what or 'it'} did not come in {timeout_s:g} s; taken: {self.reports[-5:]}; told: {self.told[-5:]}"
            ) from None

    def values(self, device: str) -> dict[str, float | bool | str]:
        """The last value of each reading of a device, as it was handed in."""
        return {
            one.name.rpartition(":")[2]: one.value
            for report in self.reports
            for one in report.measurements
            if report.device == device
        }

    def signals(self, device: str) -> list[Signal]:
        return [signal for report in self.reports if report.device == device for signal in report.signals]
