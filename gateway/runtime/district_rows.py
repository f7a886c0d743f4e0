"""The tables of a district: which columns they have, and what a row of each says.

A column that is not there says nothing: what is known stays. An empty cell says that there is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from msgspec import Struct

from gateway.core.model import (
    Community,
    Device,
    DeviceState,
    Grid,
    GridLevel,
    Place,
    PlaceKind,
    Responsible,
    Source,
)
from gateway.core.registry import INACTIVE
from gateway.runtime.coordinates import Box, Crs, Position, convert, find_crs, is_in_box
from gateway.runtime.district_tables import Row, write_attributes
from gateway.runtime.ports import Contact, Duty
from gateway.runtime.rosters import read_duty, read_time, write_duty, write_time

T = TypeVar("T")

LAST_SERIAL: Final = 999
RANKS: Final = 999
_PHONE: Final = re.compile(r"\+?[0-9][0-9 -]{3,24}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_WEBHOOK: Final = re.compile(r"https?://[^\s/]+(/\S*)?")


class Form(Struct, frozen=True):
    """A table: its file, what a row is, the columns that it must have, and those that it may have. ``key`` is the
    column by which a row is known, where it is one."""

    file: str
    noun: str
    key: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.required, *self.optional)


GRIDS: Final = Form("grids.csv", "grid", "code", ("code", "level", "name", "parent"))
COMMUNITIES: Final = Form("communities.csv", "community", "id", ("id", "serial", "name", "grid"), ("zone",))
PLACES: Final = Form(
    "places.csv",
    "place",
    "id",
    ("community", "id", "kind", "name", "parent"),
    ("grid", "lon", "lat", "crs", "attributes"),
)
SOURCES: Final = Form("sources.csv", "source", "id", ("community", "id", "place"), ("device",))
DEVICES: Final = Form(
    "devices.csv",
    "device",
    "id",
    ("community", "id", "profile", "source", "place"),
    ("name", "address", "state", "state_until", "attributes"),
)
RESPONSIBLE: Final = Form("responsible.csv", "responsible body", "", ("body", "grid", "name"))
CONTACTS: Final = Form(
    "contacts.csv",
    "contact",
    "id",
    ("id", "name", "role"),
    ("community", "place", "grid", "body", "rank", "phone", "email", "webhook", "duty"),
)
LISTS: Final = Form("lists.csv", "entry", "", ("list", "entry"), ("community",))
FORMS: Final = (GRIDS, COMMUNITIES, PLACES, SOURCES, DEVICES, RESPONSIBLE, CONTACTS, LISTS)
POINTS: Final = "places.geojson"
"""Places as points on a map: instead of places.csv, or beside it."""

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "family": ("place",),
    "property": ("community",),
    "duty": ("grid",),
    "body": ("grid", "body"),
}
"""Roles of contacts, and what each must name to be found."""


# --- reading ------------------------------------------------------------------------------------------------------


def read_grid(row: Row) -> Grid:
    """A grid; its code and parent are checked as a tree, see `gateway.core.district.check_grids`."""
    if not row.text("level"):
        row.fault("level", "empty", "level is empty", "write the level")
    return Grid(
        row.code("code", required=True),
        row.choice("level", GridLevel, GridLevel, GridLevel.BASE),
        row.text("name", required=True),
        row.code("parent") or None,
    )


def read_community(row: Row, known: Community | None) -> Community:
    """A community; ``grids`` holds the one code that the row names, whose chain somebody else knows."""
    grid = row.code("grid", required=True)
    zone = row.text("zone") if row.has("zone") or known is None else known.zone
    return Community(
        row.id("id"),
        row.whole("serial", 1, LAST_SERIAL),
        row.text("name", required=True),
        (grid,) if grid else (),
        zone,
    )


def read_place(row: Row, known: Place | None, box: Box) -> Place:
    """A place, its position converted to CGCS2000."""
    if not row.text("kind"):
        row.fault("kind", "empty", "kind is empty", "write the kind")
    known_position = (known.lon, known.lat) if known is not None else (None, None)
    position = _read_position(row, box) if row.has("lon") or row.has("lat") else known_position
    return Place(
        row.id("id"),
        row.choice("kind", PlaceKind, PlaceKind, PlaceKind.PUBLIC),
        row.text("name", required=True),
        row.id("parent", required=False) or None,
        (row.code("grid") or None) if row.has("grid") or known is None else known.grid,
        *position,
        row.attributes() if row.has("attributes") or known is None else known.attributes,
    )


def _read_position(row: Row, box: Box) -> Position | tuple[None, None]:
    lon, lat = row.number("lon"), row.number("lat")
    if lon is None or lat is None:
        if (lon is None) != (lat is None) and not row.is_bad:
            row.fault("lon", "half-position", "one of lon and lat is missing", "give both or neither")
        return None, None
    name = row.text("crs")
    crs = find_crs(name)
    if crs is None:
        what = f"nobody knows the crs {name[:60]!r}" if name else "a position needs its crs"
        row.fault("crs", "unknown-crs", what, f"write one of {', '.join(Crs)}: that of the map which it was taken from")
        return None, None
    if not is_in_box((lon, lat), box):
        west, south, east, north = box
        if is_in_box((lat, lon), box):
            row.fault("lon", "swapped-position", "lon and lat are the wrong way round", "exchange them")
        else:
            what = f"{lon:g}, {lat:g} lies outside the district"
            row.fault("lon", "outside-district", what, f"lon is {west:g} to {east:g}, lat {south:g} to {north:g}")
        return None, None
    return convert((lon, lat), crs)


def read_source(row: Row, known: Source | None) -> Source:
    """A source; the device is the one under which it is watched itself."""
    device = row.id("device", required=False) or None
    if not row.has("device") and known is not None:
        device = known.device
    return Source(row.id("id"), row.id("place"), device)


def read_device(row: Row, known: Device | None, now: int) -> Device:
    """A device. An empty state leaves it as it is; one that is over (``now``, ms) has ended."""
    state, until = _read_state(row, known, now)

    def keep(column: str, cell: str, before: str) -> str:
        return cell if row.has(column) else before

    return Device(
        row.id("id"),
        row.id("profile"),
        row.id("source"),
        row.id("place"),
        keep("name", row.text("name"), known.name if known is not None else ""),
        keep("address", row.text("address"), known.address if known is not None else ""),
        state,
        until,
        row.attributes() if row.has("attributes") or known is None else known.attributes,
    )


def _read_state(row: Row, known: Device | None, now: int) -> tuple[DeviceState, int | None]:
    if not row.text("state"):
        return (known.state, known.state_until) if known is not None else (DeviceState.ACTIVE, None)
    state = row.choice("state", DeviceState, DeviceState, DeviceState.ACTIVE)
    if state not in INACTIVE:
        return state, None
    text = row.text("state_until")
    try:
        until = read_time(text) if text else None
    except (ValueError, OverflowError):
        row.fault("state_until", "bad-time", f"{text[:60]!r} is no time", "write, for example, 2026-12-01T08:00")
        return state, None
    if until is None:
        what = f"nothing says until when it is in {state}"
        row.fault("state_until", "missing-until", what, "write the time, or it would be silenced for ever")
    elif until <= now:
        return DeviceState.ACTIVE, None
    return state, until


def read_responsible(row: Row) -> Responsible:
    """A responsible body."""
    return Responsible(
        row.id("body"),
        row.code("grid", required=True),
        row.text("name", required=True),
    )


def read_contact(row: Row, known: Contact | None) -> Contact:
    """A contact. No fault quotes a number or an address."""
    known = known or Contact("", "", "")

    def cell(column: str, before: str) -> str:
        return row.text(column) if row.has(column) else before

    role = row.text("role", required=True)
    if role and role not in ROLES:
        row.fault("role", "unknown-role", f"there is no role {role[:60]!r}", f"write one of {', '.join(ROLES)}")
    contact = Contact(
        row.id("id"),
        row.text("name", required=True),
        role,
        cell("community", known.community),
        cell("place", known.place),
        row.code("grid") if row.has("grid") else known.grid,
        cell("body", known.body),
        row.whole("rank", 0, RANKS, 0) if row.has("rank") else known.rank,
        cell("phone", known.phone),
        cell("email", known.email),
        cell("webhook", known.webhook),
        _read_duty(row) if row.has("duty") else known.duty,
    )
    for column in ROLES.get(role, ()):
        if not getattr(contact, column):
            row.fault(column, "empty", f"a contact of role {role} needs its {column}", f"write the {column}")
    _check_ways(row, contact)
    return contact


def _read_duty(row: Row) -> tuple[Duty, ...]:
    try:
        return read_duty(row.text("duty"))
    except ValueError as error:
        row.fault("duty", "bad-duty", str(error), "write, for example, 1-5 08:00-18:00; 6,7 20:00-08:00")
        return ()


def _check_ways(row: Row, contact: Contact) -> None:
    if not (contact.phone or contact.email or contact.webhook):
        row.fault("phone", "unreachable", "nobody can be reached there", "write a phone, an email or a webhook")
    for column, form, mend in (
        ("phone", _PHONE, "write digits, with + or - if need be"),
        ("email", _EMAIL, "write name@host"),
        ("webhook", _WEBHOOK, "write an address that begins with https://"),
    ):
        way = getattr(contact, column)
        if way and form.fullmatch(way) is None:
            row.fault(column, "bad-contact", f"this is no {column}", mend)


def read_entry(row: Row) -> tuple[str, str, str]:
    """(list, entry, community); the community is empty for all of them."""
    return row.text("list", required=True), row.text("entry", required=True), row.id("community", required=False)


# --- writing ------------------------------------------------------------------------------------------------------


def write_grid(grid: Grid) -> tuple[str, ...]:
    """The cells of GRIDS."""
    return grid.code, grid.level, grid.name, grid.parent or ""


def write_community(community: Community) -> tuple[str, ...]:
    """The cells of COMMUNITIES."""
    grid = community.grids[-1] if community.grids else ""
    return community.id, str(community.serial), community.name, grid, community.zone


def write_place(community: str, place: Place) -> tuple[str, ...]:
    """The cells of PLACES."""
    has_position = place.lon is not None and place.lat is not None
    position = (repr(place.lon), repr(place.lat), str(Crs.CGCS2000)) if has_position else ("", "", "")
    attributes = write_attributes(place.attributes)
    return community, place.id, place.kind, place.name, place.parent or "", place.grid or "", *position, attributes


def write_source(community: str, source: Source) -> tuple[str, ...]:
    """The cells of SOURCES."""
    return community, source.id, source.place, source.device or ""


def write_device(community: str, device: Device) -> tuple[str, ...]:
    """The cells of DEVICES. That it is active need not be said."""
    state = "" if device.state is DeviceState.ACTIVE else str(device.state)
    until = write_time(device.state_until) if device.state_until is not None else ""
    own = (device.id, device.profile, device.source, device.place, device.name, device.address)
    return community, *own, state, until, write_attributes(device.attributes)


def write_responsible(responsible: Responsible) -> tuple[str, ...]:
    """The cells of RESPONSIBLE."""
    return responsible.body, responsible.grid, responsible.name


def write_contact(contact: Contact) -> tuple[str, ...]:
    """The cells of CONTACTS."""
    where = (contact.community, contact.place, contact.grid, contact.body)
    ways = (contact.phone, contact.email, contact.webhook)
    return contact.id, contact.name, contact.role, *where, str(contact.rank), *ways, write_duty(contact.duty)
