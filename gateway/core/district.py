"""The five-level grid and the places of a community: two trees, checked when they are built, then only read.

Grids are the district's administrative order (district, town or department, community grid centre, workstation, base
grid; department grids overlay the base grids). Places are where things are inside one community. A place names the
base grid that it lies in; nothing else joins the two trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct, field

from gateway.core.model import Grid, GridLevel, Place, PlaceKind, Scalar

_ID: Final = re.compile(r"[a-z0-9-]{1,48}")
_SHOWN_FAULTS: Final = 5


class Fault(Struct, frozen=True):
    """One thing wrong with a grid or a place. ``code`` is stable; ``what`` names the thing; ``detail`` says what is
    wrong with it and what to do."""

    code: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


class DistrictError(ValueError):
    """Grids or places that make no tree, or a question about one that is not there. ``faults`` holds every fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        shown = "; ".join(str(fault) for fault in self.faults[:_SHOWN_FAULTS])
        more = len(self.faults) - _SHOWN_FAULTS
        super().__init__(f"{shown}; and {more} more" if more > 0 else shown)


# --- the grid -----------------------------------------------------------------------------------------------


class LevelScheme(Struct, frozen=True):
    """How the codes of one level are built.

    ``length`` is the number of digits, ``parents`` the levels that may stand above, ``shared`` how many leading digits
    a code has in common with its parent's, and ``serials`` the range (inclusive) of the number that its last digits
    make; there are as many of these as the upper bound has."""

    length: int
    parents: tuple[GridLevel, ...]
    shared: int
    serials: tuple[int, int] | None = None


def _default_levels() -> dict[GridLevel, LevelScheme]:
    # docs/decisions/0003-grid-codes.md says where each number comes from.
    return {
        GridLevel.DISTRICT: LevelScheme(6, (), 0),
        GridLevel.TOWN: LevelScheme(9, (GridLevel.DISTRICT,), 6, (1, 900)),
        GridLevel.DEPARTMENT: LevelScheme(9, (GridLevel.DISTRICT,), 6, (901, 999)),
        GridLevel.CENTRE: LevelScheme(12, (GridLevel.TOWN,), 9, (1, 999)),
        GridLevel.STATION: LevelScheme(14, (GridLevel.CENTRE,), 12, (1, 99)),
        GridLevel.BASE: LevelScheme(15, (GridLevel.STATION, GridLevel.CENTRE), 12, (1, 899)),
        GridLevel.SPECIAL: LevelScheme(15, (GridLevel.DEPARTMENT,), 6, (901, 999)),
    }


class GridScheme(Struct, frozen=True):
    """How grid codes are built: ``prefix`` is the district's administrative code, with which every code begins."""

    prefix: str
    levels: dict[GridLevel, LevelScheme] = field(default_factory=_default_levels)


JIMO: Final = GridScheme(prefix="370215")
"""The scheme used here: 370215 is 即墨区 (GB/T 2260); base grids have 15 digits."""


class GridTree:
    """The grid as a tree by code. Raises DistrictError with every fault when the grids make no tree."""

    def __init__(self, grids: Iterable[Grid], scheme: GridScheme) -> None:
        listed = list(grids)
        faults = check_grids(listed, scheme)
        if faults:
            raise DistrictError(faults)
        self.scheme = scheme
        self._grids: Mapping[str, Grid] = {grid.code: grid for grid in listed}

    def __contains__(self, code: object) -> bool:
        return code in self._grids

    def __iter__(self) -> Iterator[Grid]:
        return iter(self._grids.values())

    def __len__(self) -> int:
        return len(self._grids)

    def grid(self, code: str) -> Grid:
        """The grid with this code. Raises DistrictError when there is none."""
        found = self._grids.get(code)
        if found is None:
            raise DistrictError([Fault("unknown-grid", f"grid {code}", "is not in the district's grid")])
        return found

    def ancestors(self, code: str) -> tuple[str, ...]:
        """The codes above ``code``, the nearest first, the district last."""
        above: list[str] = []
        parent = self.grid(code).parent
        while parent is not None:
            above.append(parent)
            parent = self._grids[parent].parent
        return tuple(above)

    def chain(self, code: str) -> tuple[str, ...]:
        """The codes from the district down to ``code`` itself, as a community carries them."""
        return (*reversed(self.ancestors(code)), code)

    def at_level(self, code: str, level: GridLevel) -> str | None:
        """The grid of this level at or above ``code``, or None when the chain has none."""
        for candidate in (code, *self.ancestors(code)):
            if self._grids[candidate].level == level:
                return candidate
        return None


def climb(code: str, grids: Mapping[str, Grid]) -> tuple[str, ...]:
    """The codes from the district down to ``code``, as far as they are among these grids, which need be no tree."""
    chain: list[str] = []
    at: str | None = code
    while at is not None and at in grids and at not in chain:
        chain.append(at)
        at = grids[at].parent
    return tuple(reversed(chain))


def check_grids(grids: Iterable[Grid], scheme: GridScheme) -> tuple[Fault, ...]:
    """Every fault of these grids under this scheme, in their order; empty when they make one tree.

    Codes of faults: ``wrong-digits wrong-prefix wrong-length wrong-serial unknown-level duplicate unknown-parent
    wrong-parent not-below-parent cycle no-root second-root``."""
    listed = list(grids)
    faults: list[Fault] = []
    first: dict[str, Grid] = {}
    for grid in listed:
        if grid.code in first:
            faults.append(
                Fault(
                    "duplicate",
                    f"grid {grid.code}",
                    f"{grid.name} has the code of {first[grid.code].name}; give one of them another",
                )
            )
        else:
            first[grid.code] = grid
    for grid in listed:
        wrong = list(_check_code(grid, scheme))
        # What is wrong with the code would be wrong beside its parent's too: one fault says it.
        faults.extend(wrong or _check_grid_parent(grid, first, scheme))
    faults.extend(_find_cycles("grid", {code: grid.parent for code, grid in first.items()}))
    roots = [grid for grid in first.values() if grid.level == GridLevel.DISTRICT]
    if not roots:
        faults.append(
            Fault("no-root", "grid", f"there is no grid of level district; add the one with code {scheme.prefix}")
        )
    faults.extend(
        Fault(
            "second-root", f"grid {grid.code}", f"is a second district beside {roots[0].code}; only one can be the root"
        )
        for grid in roots[1:]
    )
    return tuple(faults)


def _check_code(grid: Grid, scheme: GridScheme) -> Iterator[Fault]:
    what = f"grid {grid.code}"
    level = scheme.levels.get(grid.level)
    if level is None:
        yield Fault(
            "unknown-level", what, f"level {grid.level} is not in the scheme; use one of {_listed(scheme.levels)}"
        )
        return
    if not (grid.code.isascii() and grid.code.isdigit()):
        yield Fault("wrong-digits", what, "a code has digits only; remove everything else")
        return
    if not grid.code.startswith(scheme.prefix):
        yield Fault("wrong-prefix", what, f"does not begin with {scheme.prefix}, the district's code")
    if len(grid.code) != level.length:
        yield Fault("wrong-length", what, f"has {len(grid.code)} digits; level {grid.level} takes {level.length}")
    elif level.serials is not None:
        low, high = level.serials
        serial = grid.code[-len(str(high)) :]
        if not low <= int(serial) <= high:
            yield Fault(
                "wrong-serial", what, f"serial {serial} is outside {low}..{high}, the range of level {grid.level}"
            )


def _check_grid_parent(grid: Grid, known: Mapping[str, Grid], scheme: GridScheme) -> Iterator[Fault]:
    what = f"grid {grid.code}"
    level = scheme.levels[grid.level]
    if grid.parent is None:
        if level.parents:
            yield Fault(
                "wrong-parent", what, f"has no parent; level {grid.level} stands below {_listed(level.parents)}"
            )
        return
    parent = known.get(grid.parent)
    if parent is None:
        yield Fault(
            "unknown-parent", what, f"parent {grid.parent} is not among the grids; add it or correct the parent"
        )
    elif parent.level not in level.parents:
        expected = f"stands below {_listed(level.parents)}" if level.parents else "has no parent"
        yield Fault(
            "wrong-parent", what, f"parent {parent.code} is of level {parent.level}; level {grid.level} {expected}"
        )
    elif grid.code[: level.shared] != parent.code[: level.shared]:
        yield Fault(
            "not-below-parent", what, f"does not share the first {level.shared} digits with its parent {parent.code}"
        )


# --- places -------------------------------------------------------------------------------------------------

_ALLOWED_ABOVE: Final[Mapping[PlaceKind, tuple[PlaceKind, ...]]] = {
    PlaceKind.COMMUNITY: (),
    PlaceKind.BUILDING: (PlaceKind.COMMUNITY,),
    PlaceKind.UNIT: (PlaceKind.BUILDING,),
    PlaceKind.HOUSEHOLD: (PlaceKind.UNIT, PlaceKind.BUILDING, PlaceKind.COMMUNITY),
    PlaceKind.PUBLIC: (PlaceKind.COMMUNITY, PlaceKind.BUILDING, PlaceKind.UNIT, PlaceKind.PUBLIC),
}


class PlaceTree:
    """The places of one community as a tree by id. Raises DistrictError with every fault when they make no tree.

    A changed registry makes a new tree; this one never changes."""

    def __init__(self, places: Iterable[Place], grids: GridTree | None = None) -> None:
        listed = list(places)
        faults = check_places(listed, grids)
        if faults:
            raise DistrictError(faults)
        by_id = {place.id: place for place in listed}
        self._chains: Mapping[str, tuple[Place, ...]] = {place.id: _climb(place, by_id) for place in listed}
        self.root: Place = next(place for place in listed if place.parent is None)

    def __contains__(self, place: object) -> bool:
        return place in self._chains

    def __iter__(self) -> Iterator[Place]:
        return (chain[0] for chain in self._chains.values())

    def __len__(self) -> int:
        return len(self._chains)

    def place(self, place: str) -> Place:
        """The place with this id. Raises DistrictError when there is none."""
        return self._chain(place)[0]

    def ancestors(self, place: str) -> tuple[str, ...]:
        """The ids above ``place``, the nearest first, the community last."""
        return tuple(above.id for above in self._chain(place)[1:])

    def within(self, place: str, kind: str) -> str:
        """The nearest place of ``kind`` at or above ``place``: the building of a household, for instance.

        ``place`` as a kind means the place itself. When nothing of the kind is above (a unit is asked for at the gate,
        a household in a lift), the answer is the place itself: the narrowest scope that is true, never a wider one."""
        chain = self._chain(place)
        if kind == "place":
            return place
        for candidate in chain:
            if candidate.kind == kind:
                return candidate.id
        return place

    def attribute(self, place: str, name: str) -> Scalar | None:
        """The attribute's value at the nearest place at or above ``place`` that has it, or None."""
        for candidate in self._chain(place):
            if name in candidate.attributes:
                return candidate.attributes[name]
        return None

    def grid(self, place: str) -> str | None:
        """The base grid of the nearest place at or above ``place`` that names one, or None."""
        return next((above.grid for above in self._chain(place) if above.grid is not None), None)

    def position(self, place: str) -> tuple[float, float] | None:
        """(lon, lat) in degrees, CGCS2000, of the nearest place at or above ``place`` that has them, or None."""
        for candidate in self._chain(place):
            if candidate.lon is not None and candidate.lat is not None:
                return candidate.lon, candidate.lat
        return None

    def label(self, place: str) -> str:
        """The place as people say it, the widest part first: ``海韵花园3号楼2单元301室``."""
        return "".join(above.name for above in reversed(self._chain(place)))

    def _chain(self, place: str) -> tuple[Place, ...]:
        chain = self._chains.get(place)
        if chain is None:
            raise DistrictError([Fault("unknown-place", f"place {place}", f"is not a place of {self.root.id}")])
        return chain


def check_places(places: Iterable[Place], grids: GridTree | None = None) -> tuple[Fault, ...]:
    """Every fault of one community's places, in their order; empty when they make one tree.

    With ``grids``, the grid that a place names must be one of them. Codes of faults: ``wrong-id duplicate
    unknown-parent wrong-parent cycle no-root second-root unknown-grid half-position``."""
    listed = list(places)
    faults: list[Fault] = []
    first: dict[str, Place] = {}
    for place in listed:
        if place.id in first:
            faults.append(
                Fault(
                    "duplicate",
                    f"place {place.id}",
                    f"{place.name} has the id of {first[place.id].name}; give one of them another",
                )
            )
        else:
            first[place.id] = place
    for place in listed:
        faults.extend(_check_place(place, first, grids))
    faults.extend(_find_cycles("place", {id: place.parent for id, place in first.items()}))
    roots = [place for place in first.values() if place.kind == PlaceKind.COMMUNITY]
    if not roots:
        faults.append(Fault("no-root", "place", "there is no place of kind community; add the community itself"))
    faults.extend(
        Fault(
            "second-root",
            f"place {place.id}",
            f"is a second community beside {roots[0].id}; its places belong in a file of their own",
        )
        for place in roots[1:]
    )
    return tuple(faults)


def _check_place(place: Place, known: Mapping[str, Place], grids: GridTree | None) -> Iterator[Fault]:
    what = f"place {place.id}"
    if _ID.fullmatch(place.id) is None:
        yield Fault("wrong-id", what, "an id has 1 to 48 of the characters a-z, 0-9 and -")
    allowed = _ALLOWED_ABOVE[place.kind]
    if place.parent is None:
        if allowed:
            yield Fault("wrong-parent", what, f"has no parent; a {place.kind} stands below {_listed(allowed)}")
    elif place.parent not in known:
        yield Fault(
            "unknown-parent", what, f"parent {place.parent} is not among the places; add it or correct the parent"
        )
    elif (above := known[place.parent].kind) not in allowed:
        expected = f"stands below {_listed(allowed)}" if allowed else "has no parent"
        yield Fault("wrong-parent", what, f"parent {place.parent} is a {above}; a {place.kind} {expected}")
    if grids is not None and place.grid is not None and place.grid not in grids:
        yield Fault(
            "unknown-grid", what, f"grid {place.grid} is not in the district's grid; add it or correct the place"
        )
    if (place.lon is None) != (place.lat is None):
        yield Fault("half-position", what, "has one of lon and lat; give both or neither")


def _climb(place: Place, by_id: Mapping[str, Place]) -> tuple[Place, ...]:
    chain = [place]
    while (parent := chain[-1].parent) is not None:
        chain.append(by_id[parent])
    return tuple(chain)


# --- both ---------------------------------------------------------------------------------------------------


def _find_cycles(noun: str, parents: Mapping[str, str | None]) -> Iterator[Fault]:
    settled: set[str] = set()
    for start in parents:
        path: list[str] = []
        on_path: set[str] = set()
        at: str | None = start
        while at is not None and at in parents and at not in settled and at not in on_path:
            path.append(at)
            on_path.add(at)
            at = parents[at]
        if at is not None and at in on_path:
            ring = [*path[path.index(at) :], at]
            yield Fault(
                "cycle", f"{noun} {at}", f"is its own ancestor ({' → '.join(ring)}); correct one of these parents"
            )
        settled |= on_path


def _listed(items: Iterable[str]) -> str:
    return " or ".join(str(item) for item in items)
