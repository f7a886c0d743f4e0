"""Which devices the agent carries: what the gateway's registry said last, kept on the disk for a start without link."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from edge.ports import Carried
from gateway.core.profile import Profile
from gateway.wire import Lane, Quarantine, SourceConfig, decode_config

log = logging.getLogger(__name__)


class Directory:
    """Devices by id, and by bus and address. A device of an unknown profile, or without ``bus/address``, is left out
    and named: `problems`."""

    def __init__(self, path: Path, profiles: Mapping[str, Profile]) -> None:
        self._path = path
        self._profiles = profiles
        self.config = SourceConfig(0, ())
        self.problems: dict[str, str] = {}
        self._by_id: dict[str, Carried] = {}
        self._by_address: dict[tuple[str, str], Carried] = {}

    def load(self) -> None:
        """Takes up what was kept."""
        try:
            kept = self._path.read_bytes()
        except FileNotFoundError:
            return
        found = decode_config(kept)
        if isinstance(found, Quarantine):
            log.error("%s is not legible, the gateway will send it again: %s", self._path, found.detail)
            return
        self._take(found)

    def renew(self, payload: bytes) -> bool:
        """Takes a config message, and keeps it. Whether anything is new."""
        found = decode_config(payload)
        if isinstance(found, Quarantine):
            log.error("a config message is not legible: %s", found.detail)
            return False
        if found == self.config:
            return False
        self._take(found)
        part = self._path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            log.error("the device list cannot be kept on the disk: %s", error)
        return True

    def _take(self, config: SourceConfig) -> None:
        self.config = config
        self.problems, self._by_id, self._by_address = {}, {}, {}
        for device in config.devices:
            profile = self._profiles.get(device.profile)
            if profile is None:
                self.problems[device.id] = f"this agent has no profile {device.profile}; renew its device_profiles"
                continue
            bus, _, address = device.address.partition("/")
            carried = Carried(device.id, profile, bus, address, device.place)
            self._by_id[device.id] = carried
            if address:
                self._by_address[bus, address] = carried
        log.info("%d devices", len(self._by_id))

    def get(self, device: str) -> Carried | None:
        """The device of this id."""
        return self._by_id.get(device)

    def find(self, bus: str, address: str) -> Carried | None:
        """The device at an address."""
        return self._by_address.get((bus, address))

    def on(self, bus: str) -> list[Carried]:
        """The devices on a bus."""
        return [carried for (name, _), carried in self._by_address.items() if name == bus]

    def own(self) -> Carried | None:
        """The device under which the agent itself is watched."""
        return next((one for one in self._by_id.values() if one.profile.kind == "edge-agent"), None)

    def lane_of(self, device: str, name: str, *, is_event: bool, value: object = None) -> Lane:
        """The lane of a reading or an event. What nobody registered goes as an alarm where it could be one."""
        carried = self._by_id.get(device)
        if carried is not None:
            specs = carried.profile.events if is_event else carried.profile.readings
            if name in specs:
                return Lane(specs[name].lane)
        return Lane.ALARM if is_event or value is True else Lane.TELEMETRY
