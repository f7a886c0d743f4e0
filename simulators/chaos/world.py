"""The communities of a run: buildings with buttons and a smoke detector each, and the agent that carries them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.core.model import Community, Device, Place, PlaceKind, Source

BUS: Final = "wall"
BUILDINGS: Final = 4
BUTTONS: Final = 3
"""Buttons in each building."""


class Quarter(Struct, frozen=True):
    """One community. ``buttons`` and ``detectors`` are the ids of its devices, which are their addresses too."""

    community: Community
    source: str
    places: tuple[Place, ...]
    devices: tuple[Device, ...]
    buttons: tuple[str, ...]
    detectors: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.community.id


def build_quarter(serial: int) -> Quarter:
    """The community with this number, from 1."""
    id, source = f"c{serial:03}", f"agent-{serial:03}"
    places = [
        Place(id, PlaceKind.COMMUNITY, f"示例{serial}期", None, "370215001001001"),
        Place(f"{id}-gate", PlaceKind.PUBLIC, "大门", id),
    ]
    devices = [Device(source, "edge-agent", source, f"{id}-gate")]
    buttons: list[str] = []
    detectors: list[str] = []
    for number in range(1, BUILDINGS + 1):
        building = f"{id}-b{number}"
        places.append(Place(building, PlaceKind.BUILDING, f"{number}号楼", id))
        detectors.append(f"smoke-{serial}-{number}")
        devices.append(Device(detectors[-1], "nb-smoke", source, building, "", f"{BUS}/{detectors[-1]}"))
        for button in range(1, BUTTONS + 1):
            buttons.append(f"sos-{serial}-{number}-{button}")
            devices.append(Device(buttons[-1], "fixed-sos", source, building, "", f"{BUS}/{buttons[-1]}"))
    community = Community(id, serial, f"示例{serial}期", ("370215", "370215001"))
    return Quarter(community, source, tuple(places), tuple(devices), tuple(buttons), tuple(detectors))


def write_district(quarters: list[Quarter], path: Path) -> None:
    """The file that the gateway registers them from."""
    district: dict[str, Any] = {
        "grids": [{"code": "370215", "level": "district", "name": "即墨区"}],
        "communities": [
            {
                "community": quarter.community,
                "places": quarter.places,
                "sources": [Source(quarter.source, f"{quarter.id}-gate", quarter.source)],
                "devices": quarter.devices,
            }
            for quarter in quarters
        ],
    }
    path.write_bytes(msgspec.json.encode(district))
