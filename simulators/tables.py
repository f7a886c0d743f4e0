"""A district as the tables that `python -m gateway district import` takes (docs/district.md)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.core.model import Device, DeviceState, GridLevel, Place, Scalar
from simulators.district import District

MARK = "\ufeff"
LOCAL = timedelta(hours=8)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_tables(district: District, folder: Path, *, has_desks: bool = False) -> None:
    """Writes the tables of everything that a district has, in the order of their ids; with ``has_desks``, whom to call,
    too."""
    folder.mkdir(parents=True, exist_ok=True)
    settlements = district.communities
    _write(
        folder / "grids.csv",
        ("code", "level", "name", "parent"),
        ((grid.code, grid.level, grid.name, grid.parent or "") for grid in district.grids),
    )
    _write(
        folder / "communities.csv",
        ("id", "serial", "name", "grid", "zone"),
        (
            (c.id, str(c.serial), c.name, c.grids[-1] if c.grids else "", c.zone)
            for c in (s.community for s in settlements)
        ),
    )
    _write(
        folder / "places.csv",
        ("community", "id", "kind", "name", "parent", "grid", "lon", "lat", "crs", "attributes"),
        (_place(s.community.id, place) for s in settlements for place in s.places),
    )
    _write(
        folder / "sources.csv",
        ("community", "id", "place", "device"),
        ((s.community.id, one.id, one.place, one.device or "") for s in settlements for one in s.sources),
    )
    _write(
        folder / "devices.csv",
        ("community", "id", "profile", "source", "place", "name", "address", "state", "state_until", "attributes"),
        (_device(s.community.id, device) for s in settlements for device in s.devices),
    )
    _write(folder / "responsible.csv", ("body", "grid", "name"), ())
    contacts = "id,name,role,community,place,grid,body,rank,phone,email,webhook,duty"
    _write(folder / "contacts.csv", tuple(contacts.split(",")), _desks(district) if has_desks else ())
    _write(
        folder / "lists.csv",
        ("list", "entry", "community"),
        ((name, entry, "") for name, entries in district.lists.items() for entry in entries),
    )


def _desks(district: District) -> list[tuple[str, ...]]:
    """Desks and no persons: that of each community's property manager, and that of each grid centre. No telephone in
    Qingdao (0532) begins with a zero: nobody is ever rung."""
    desks = [("property", s.community.id, "", f"{s.community.name}物业值班室") for s in district.communities]
    homes = {grid for s in district.communities for grid in s.community.grids}
    centres = [grid for grid in district.grids if grid.level is GridLevel.CENTRE and grid.code in homes]
    desks += [("duty", "", grid.code, f"{grid.name}值班室") for grid in centres]
    rows = []
    for number, (role, community, grid, name) in enumerate(desks, 1):
        phone = f"0532-0000-{number:04d}"
        rows.append((f"desk-{community or grid}", name, role, community, "", grid, "", "0", phone, "", "", ""))
    return sorted(rows)


def _place(community: str, place: Place) -> tuple[str, ...]:
    position = ("", "", "") if place.lon is None else (repr(place.lon), repr(place.lat), "cgcs2000")
    own = (place.id, place.kind, place.name, place.parent or "", place.grid or "")
    return community, *own, *position, _attributes(place.attributes)


def _device(community: str, device: Device) -> tuple[str, ...]:
    state, until = "", ""
    if device.state is not DeviceState.ACTIVE:
        state = device.state
        if device.state_until is not None:
            moment = EPOCH + timedelta(milliseconds=device.state_until) + LOCAL
            until = moment.replace(tzinfo=None).isoformat(timespec="minutes")
    own = (device.id, device.profile, device.source, device.place, device.name, device.address)
    return community, *own, state, until, _attributes(device.attributes)


LARGEST: Final = 2**53 - 1
"""Beyond it a number is none that every reader of JSON holds: such a text, as a camera's id, needs no quotes."""

_ADDRESS: Final = re.compile(r"[a-z]+://[a-z0-9./:-]+")


def _attributes(attributes: Mapping[str, Scalar]) -> str:
    return ";".join(f"{name}={_scalar(value)}" for name, value in sorted(attributes.items()))


def _scalar(value: Scalar) -> str:
    """Texts in quotes where they could be taken for a number or a truth, or break the row."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    is_long_number = value.isdecimal() and int(value) > LARGEST
    is_bare = value.isalpha() or _ADDRESS.fullmatch(value) is not None or is_long_number
    return value if is_bare and value not in ("true", "false") else "'" + value.replace("'", "''") + "'"


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(MARK)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(sorted(rows))
