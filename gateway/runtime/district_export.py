"""The district as the ledger has it, as tables that give the same again when they are imported.

Rows are in the order of their names, so that the same district makes the same files, whatever its history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.errors import GatewayError
from gateway.runtime.district_rows import (
    COMMUNITIES,
    CONTACTS,
    DEVICES,
    FORMS,
    GRIDS,
    LISTS,
    PLACES,
    POINTS,
    RESPONSIBLE,
    SOURCES,
    write_community,
    write_contact,
    write_device,
    write_grid,
    write_place,
    write_responsible,
    write_source,
)
from gateway.runtime.district_tables import write_table
from gateway.runtime.geojson import format_points
from gateway.runtime.standing import Standing

PRIVATE: frozenset[str] = frozenset({CONTACTS.file})
"""Tables that only their owner may read."""


def write_district(folder: Path, standing: Standing, *, geojson: bool = False) -> dict[str, int]:
    """Writes all tables into a folder that has none yet; with ``geojson`` the places are points of a map. Returns the
    number of rows by file. Raises GatewayError."""
    known = {*(form.file for form in FORMS), POINTS}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir() if path.name in known)
        if there:
            raise GatewayError("not-empty", f"{there[0]} is there already", str(folder), "give a new folder")
        counts: dict[str, int] = {}
        for form in FORMS:
            rows = sorted(_ROWS[form.file](standing))
            if form is PLACES and geojson:
                (folder / POINTS).write_text(_format_places(rows, standing), encoding="utf-8")
                counts[POINTS] = len(rows)
                continue
            write_table(folder / form.file, form.columns, rows, mode=0o600 if form.file in PRIVATE else 0o644)
            counts[form.file] = len(rows)
    except OSError as error:
        where = str(error.filename or folder)
        raise GatewayError("unwritable", f"cannot write it: {error.strerror}", where, "give another folder") from error
    return counts


def _format_places(rows: Sequence[tuple[str, ...]], standing: Standing) -> str:
    attributes = {
        (id, place.id): place.attributes for id, state in standing.communities.items() for place in state.places
    }
    return format_points(PLACES.columns, rows, [attributes[row[0], row[1]] for row in rows])


def _list_entries(standing: Standing) -> Iterator[tuple[str, ...]]:
    """What all communities have in common is written once."""
    states = standing.communities
    names = sorted({name for state in states.values() for name in state.lists})
    for name in names:
        own = {id: set(state.lists.get(name, ())) for id, state in states.items()}
        common = set.intersection(*own.values())
        yield from ((name, entry, "") for entry in common)
        for id, entries in own.items():
            yield from ((name, entry, id) for entry in entries - common)


_ROWS = {
    GRIDS.file: lambda standing: map(write_grid, standing.grids.values()),
    COMMUNITIES.file: lambda standing: (write_community(state.community) for state in standing.communities.values()),
    PLACES.file: lambda standing: (
        write_place(id, place) for id, state in standing.communities.items() for place in state.places
    ),
    SOURCES.file: lambda standing: (
        write_source(id, source) for id, state in standing.communities.items() for source in state.sources
    ),
    DEVICES.file: lambda standing: (
        write_device(id, device) for id, state in standing.communities.items() for device in state.devices
    ),
    RESPONSIBLE.file: lambda standing: map(write_responsible, standing.responsible.values()),
    CONTACTS.file: lambda standing: map(write_contact, standing.contacts.values()),
    LISTS.file: _list_entries,
}
"""File → its rows, as the standing district has them."""
