"""All tables of a district together: each row against the others and against what the ledger has.

What is good becomes a `Plan`. A bad row stays out, with what cannot stand without it; every one is in the report. What
the ledger has and a table does not is told, and goes only when it is asked for (``retire``) and the table is whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.attributes import find_uses, refuse, tests_of
from gateway.core.authoring import suggest
from gateway.core.cameras import CAMERA_ATTRIBUTES, refuse_camera
from gateway.core.casebook import UPSTREAM
from gateway.core.catalog import Catalog
from gateway.core.condition import Listed, iter_leaves
from gateway.core.district import JIMO, GridScheme, check_grids, check_places, climb
from gateway.core.model import Community, Device, DeviceState, Grid, GridLevel, Place, Responsible, Scalar, Source
from gateway.errors import GatewayError
from gateway.runtime.coordinates import BOX, Box
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
    Form,
    read_community,
    read_contact,
    read_device,
    read_entry,
    read_grid,
    read_place,
    read_responsible,
    read_source,
)
from gateway.runtime.district_sieve import MEND_FIRST, STAYS, TAKEN_OUT, Found, Sieve, Tables
from gateway.runtime.district_tables import BadRow, Report, Row, Table, is_report, read_table
from gateway.runtime.geojson import read_points
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Contact
from gateway.runtime.registrar import CommunityPlan, Dropped, Plan
from gateway.runtime.standing import Standing


class Rules(Struct, frozen=True):
    """What rows are held to, beside each other: profiles, rules and bodies, how grid codes are built, and where."""

    catalog: Catalog
    scheme: GridScheme = JIMO
    box: Box = BOX


def read_tables(folder: Path, report: Report) -> Tables:
    """Reads the tables of a folder. Raises GatewayError when there is none."""
    rows: dict[str, Sequence[Row]] = {}
    broken: set[str] = set()
    try:
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        for form in FORMS:
            found: list[Table] = []
            if form.file in files:
                found.append(read_table(files[form.file], form.required, form.optional, report))
            if form is PLACES and POINTS in files:
                found.append(read_points(files[POINTS], form.columns, report))
            if found:
                rows[form.file] = [row for table in found for row in table.rows]
                if not all(table.is_whole for table in found):
                    broken.add(form.file)
    except OSError as error:
        where = str(error.filename or folder)
        raise GatewayError(
            "unreadable", f"cannot read it: {error.strerror}", where, "give a folder of tables"
        ) from error
    known = [*(form.file for form in FORMS), POINTS]
    if not rows:
        raise GatewayError("no-tables", "there is no table in it", str(folder), f"write {', '.join(known)}")
    for name, path in sorted(files.items()):
        if name not in known and name.lower().endswith((".csv", ".geojson", ".xls", ".xlsx")) and not is_report(path):
            mend = suggest(name.rpartition(".")[0], [one.rpartition(".")[0] for one in known])
            report.bad.append(BadRow(name, 0, 0, "unknown-file", "nobody reads this file", mend))
    return Tables(rows, broken)


def check_tables(
    tables: Tables,
    standing: Standing,
    rules: Rules,
    seal: PlateSeal,
    now: int,
    report: Report,
    *,
    retire: bool = False,
    on_rows: Callable[[int], None] = lambda count: None,
) -> Plan:
    """What the district should be after the good rows. What is bad comes into the report, in the order of files and
    lines. ``now`` is the time in ms."""
    plan = _Check(tables, standing, rules, seal, now, report, on_rows).run(retire=retire)
    order = {form.file: index for index, form in enumerate(FORMS)}
    for found in (report.bad, report.notes):
        found.sort(key=lambda row: (order.get(row.file, len(order)), row.file, row.line, row.column))
    return plan


class _Check:
    """``communities``, ``grids`` … are what will be there: what the ledger has, and the good rows over it."""

    def __init__(
        self,
        tables: Tables,
        standing: Standing,
        rules: Rules,
        seal: PlateSeal,
        now: int,
        report: Report,
        on_rows: Callable[[int], None],
    ) -> None:
        self._standing = standing
        self._catalog = rules.catalog
        self._rules = rules
        self._seal = seal
        self._now = now
        self._report = report
        self._uses = find_uses(rules.catalog.rules)
        self._guesses: dict[str, str | None] = {}
        self.grids: dict[str, Grid] = dict(standing.grids)
        self.communities: dict[str, Community] = {id: s.community for id, s in standing.communities.items()}
        self.places: dict[str, dict[str, Place]] = {}
        self.sources: dict[str, dict[str, Source]] = {}
        self.devices: dict[str, dict[str, Device]] = {}
        for id, state in standing.communities.items():
            self.places[id] = {place.id: place for place in state.places}
            self.sources[id] = {source.id: source for source in state.sources}
            self.devices[id] = {device.id: device for device in state.devices}
        self._homes = {
            form.file: _find_homes(known)
            for form, known in ((PLACES, self.places), (SOURCES, self.sources), (DEVICES, self.devices))
        }
        self._sieve = Sieve(tables, report, self._homes, on_rows)

    def run(self, *, retire: bool) -> Plan:
        grids = self._check_grids()
        communities = self._check_communities()
        places = self._check_places(communities)
        sources = self._check_sources()
        devices, moved = self._check_devices(may_move=retire)
        responsible = self._check_responsible()
        contacts = self._check_contacts()
        lists = self._check_lists(retire=retire)
        retired = self._find_retired(devices, moved, retire=retire)
        dropped = self._find_dropped(grids, responsible, contacts, retire=retire)
        self._note_staying()
        plans = [
            CommunityPlan(
                self.communities[id],
                [one.value for one in places.get(id, {}).values()],
                [one.value for one in sources.get(id, {}).values()],
                [one.value for one in devices.get(id, {}).values() if one.value.state is not DeviceState.RETIRED],
                retired.get(id, ()),
                lists.get(id, {}),
            )
            for id in sorted(self.communities)
        ]
        return Plan(
            plans,
            [one.value for one in grids.values()],
            [one.value for one in responsible.values()],
            [one.value for one in contacts.values()],
            dropped,
        )

    # --- the stages, each standing on those before it ---------------------------------------------------------

    def _check_grids(self) -> dict[str, Found[Grid]]:
        found = self._sieve.read(GRIDS, read_grid, lambda grid: grid.code)
        scheme = self._rules.scheme
        self.grids, rest = self._sieve.settle(GRIDS, found, self.grids, lambda grids: check_grids(grids, scheme))
        is_rootless = any(fault.code == "no-root" for fault in rest)
        if is_rootless and self._sieve.rows(GRIDS) and not self._sieve.is_bad(GRIDS, scheme.prefix):
            what, mend = "there is no grid of level district", f"add the one with code {scheme.prefix}"
            self._report.bad.append(BadRow(GRIDS.file, 0, 0, "no-root", what, mend))
        return found

    def _check_communities(self) -> dict[str, Found[Community]]:
        found = self._sieve.read(
            COMMUNITIES, lambda row: read_community(row, self.communities.get(row.peek("id"))), lambda one: one.id
        )
        taken = {community.serial: community.id for community in self.communities.values()}
        for id, one in list(found.items()):
            row, community = one.row, one.value
            known = self.communities.get(id)
            if known is not None and known.serial != community.serial:
                what = f"serial {community.serial} is not {known.serial}, by which its incidents are numbered"
                row.fault("serial", "changed-serial", what, f"write {known.serial}")
            elif taken.get(community.serial, id) != id:
                what = f"serial {community.serial} is that of {taken[community.serial]}"
                row.fault("serial", "duplicate-serial", what, "give one of them another")
            code = community.grids[0]
            if (
                self._sieve.look_for(row, "grid", GRIDS, code, self.grids)
                and self.grids[code].level not in _ABOVE_STATIONS
            ):
                what = f"grid {code} is of level {self.grids[code].level}"
                row.fault("grid", "wrong-grid-level", what, "name the centre, or the town")
            if self._sieve.keep(COMMUNITIES, found, id):
                one.value = self.communities[id] = replace(community, grids=climb(code, self.grids))
                taken[community.serial] = id
        return found

    def _check_places(self, communities: dict[str, Found[Community]]) -> dict[str, dict[str, Found[Place]]]:
        def read(row: Row) -> Place:
            known = self.places.get(row.peek("community"), {}).get(row.peek("id"))
            return read_place(row, known, self._rules.box)

        found = self._sieve.read(PLACES, read, lambda place: place.id)
        grouped: dict[str, dict[str, Found[Place]]] = {id: {} for id in communities}
        for id, one in list(found.items()):
            community = self._check_home(PLACES, one.row, id)
            self._check_grid_of(one.row, one.value, community)
            self._check_attributes(one.row, one.value.attributes, None)
            if self._sieve.keep(PLACES, found, id):
                grouped.setdefault(community, {})[id] = one
                self._homes[PLACES.file].setdefault(id, set()).add(community)
        for community, own in grouped.items():
            known = self.places.get(community, {})
            there, rest = self._sieve.settle(PLACES, own, known, check_places)
            if any(fault.code == "no-root" for fault in rest):
                self._refuse_rootless(community, own, communities.get(community))
            else:
                self.places[community] = there
                self.sources.setdefault(community, {})
                self.devices.setdefault(community, {})
        return grouped

    def _refuse_rootless(self, community: str, places: dict[str, Found[Place]], found: Found[Community] | None) -> None:
        """A community without a place for itself cannot be, and nothing in it."""
        root = self._sieve.where_bad(PLACES, community)
        code, what = "no-root", f"community {community} has no place of kind community"
        mend = f"add it to {PLACES.file}"
        if root is not None:
            code, what, mend = "needs-bad-row", f"place {community} stands in {root}, which is bad", MEND_FIRST
        if found is not None:
            found.row.fault("id", code, what, mend)
            self._sieve.refuse(COMMUNITIES, community, found.row)
        else:
            self._report.bad.append(BadRow(PLACES.file, 0, 0, code, what, mend))
            self._sieve.lose(COMMUNITIES, community, PLACES.file)
        self.communities.pop(community, None)
        for id, one in list(places.items()):
            self._sieve.look_for(one.row, "community", COMMUNITIES, community, self.communities)
            self._sieve.keep(PLACES, places, id)

    def _check_sources(self) -> dict[str, dict[str, Found[Source]]]:
        def read(row: Row) -> Source:
            return read_source(row, self.sources.get(row.peek("community"), {}).get(row.peek("id")))

        # Whether the source's own device is good in all else does not matter here: it is named by both.
        named: dict[str, set[str]] = {id: set(devices) for id, devices in self.devices.items()}
        for row in self._sieve.rows(DEVICES):
            named.setdefault(row.peek("community"), set()).add(row.peek("id"))
        found = self._sieve.read(SOURCES, read, lambda source: source.id)
        grouped: dict[str, dict[str, Found[Source]]] = {}
        for id, one in list(found.items()):
            row, source = one.row, one.value
            community = self._check_home(SOURCES, row, id)
            if community:
                self._sieve.look_for(row, "place", PLACES, source.place, self.places[community])
                if source.device is not None:
                    self._sieve.look_for(row, "device", DEVICES, source.device, named.get(community, ()))
            if self._sieve.keep(SOURCES, found, id):
                grouped.setdefault(community, {})[id] = one
                self.sources[community][id] = source
                self._homes[SOURCES.file].setdefault(id, set()).add(community)
        return grouped

    def _check_devices(self, *, may_move: bool) -> tuple[dict[str, dict[str, Found[Device]]], dict[str, set[str]]]:
        """The good rows by community; and what has moved, by the community that it leaves."""

        def read(row: Row) -> Device:
            return read_device(row, self.devices.get(row.peek("community"), {}).get(row.peek("id")), self._now)

        found = self._sieve.read(DEVICES, read, lambda device: device.id)
        named: dict[str, set[str]] = {id: set(devices) for id, devices in self.devices.items()}
        for id, one in found.items():
            named.setdefault(one.row.peek("community"), set()).add(id)
        movers: list[str] = []
        for id, one in list(found.items()):
            row, device = one.row, one.value
            community = self._check_home(DEVICES, row, id, is_movable=True)
            if device.profile not in self._catalog.profiles:
                mend = suggest(device.profile, self._catalog.profiles)
                row.fault("profile", "unknown-profile", f"there is no profile {device.profile}", mend)
            if community:
                self._sieve.look_for(row, "source", SOURCES, device.source, self.sources[community])
                self._sieve.look_for(row, "place", PLACES, device.place, self.places[community])
            self._check_attributes(row, device.attributes, named.get(community, ()))
            if self._sieve.keep(DEVICES, found, id) and community not in self._homes[DEVICES.file].get(id, {community}):
                movers.append(id)
        moved: dict[str, set[str]] = {}
        may_move = may_move and self._sieve.is_clean(DEVICES)
        for id in movers:
            homes = self._homes[DEVICES.file][id]
            if may_move:
                for home in homes:
                    moved.setdefault(home, set()).add(id)
                continue
            mend = "give it another id, or take it out there with --retire (which a bad row in this table prevents)"
            found[id].row.fault("community", "moved", f"device {id} is of {', '.join(sorted(homes))}", mend)
            self._sieve.keep(DEVICES, found, id)
        grouped: dict[str, dict[str, Found[Device]]] = {}
        for id, one in found.items():
            grouped.setdefault(one.row.peek("community"), {})[id] = one
        return grouped, moved

    def _check_responsible(self) -> dict[tuple[str, str], Found[Responsible]]:
        found = self._sieve.read(RESPONSIBLE, read_responsible, lambda one: (one.body, one.grid))
        for key, one in list(found.items()):
            self._check_body(one.row, one.value.body)
            self._sieve.look_for(one.row, "grid", GRIDS, one.value.grid, self.grids)
            self._sieve.keep(RESPONSIBLE, found, key)
        return found

    def _check_contacts(self) -> dict[str, Found[Contact]]:
        known = self._standing.contacts
        places: Collection[str] = {id for own in self.places.values() for id in own}
        found = self._sieve.read(CONTACTS, lambda row: read_contact(row, known.get(row.peek("id"))), lambda one: one.id)
        for id, one in list(found.items()):
            row, contact = one.row, one.value
            if contact.community:
                self._sieve.look_for(row, "community", COMMUNITIES, contact.community, self.communities)
            if contact.place:
                self._sieve.look_for(row, "place", PLACES, contact.place, self.places.get(contact.community, places))
            if contact.grid:
                self._sieve.look_for(row, "grid", GRIDS, contact.grid, self.grids)
            if contact.body:
                self._check_body(row, contact.body)
            self._sieve.keep(CONTACTS, found, id)
        return found

    def _check_lists(self, *, retire: bool) -> dict[str, dict[str, Sequence[str]]]:
        """Community → list → all its entries, sealed, where a row says something of the list."""
        if not self._sieve.has(LISTS):
            return self._note_unlisted()
        found = self._sieve.read(LISTS, read_entry, lambda entry: entry)
        read_by_rules = {
            arg.name
            for rule in self._catalog.rules
            for _, leaf in iter_leaves(rule.when)
            for test in tests_of(leaf)
            for arg in test.args
            if isinstance(arg, Listed)
        }
        wanted: dict[str, dict[str, set[str]]] = {}
        for key, one in list(found.items()):
            name, entry, community = one.value
            if community:
                self._sieve.look_for(one.row, "community", COMMUNITIES, community, self.communities)
            if not self._sieve.keep(LISTS, found, key):
                continue
            if name not in read_by_rules:
                what = f"no rule reads list {name[:60]}"
                self._sieve.note(one.row, "list", "unread-list", what, suggest(name, read_by_rules))
            wanted.setdefault(community, {}).setdefault(name, set()).add(self._seal.seal(entry))
        everywhere = wanted.get("", {})
        may_go = retire and bool(found) and self._sieve.is_clean(LISTS)
        lists: dict[str, dict[str, Sequence[str]]] = {}
        gone: dict[str, int] = {}
        for id in self.communities:
            state = self._standing.communities.get(id)
            known = {name: set(entries) for name, entries in state.lists.items()} if state is not None else {}
            own = wanted.get(id, {})
            for name in sorted({*everywhere, *own, *(known if found else ())}):
                there = everywhere.get(name, set()) | own.get(name, set())
                left = known.get(name, set()) - there
                gone[name] = max(gone.get(name, 0), len(left))
                lists.setdefault(id, {})[name] = sorted(there if may_go else there | left)
        for name, count in gone.items():
            if count:
                what = f"{count} entries of list {name} are in the ledger and not in this table"
                self._report.notes.append(BadRow(LISTS.file, 0, 0, "vanished", what, TAKEN_OUT if may_go else STAYS))
        return lists

    def _note_unlisted(self) -> dict[str, dict[str, Sequence[str]]]:
        """A list is each community's own: a new one has none until the table comes with it."""
        if any(entries for state in self._standing.communities.values() for entries in state.lists.values()):
            mend = f"import it together with {LISTS.file}"
            self._report.notes.extend(
                BadRow(COMMUNITIES.file, 0, 0, "no-lists", f"community {id} is new and has no lists", mend)
                for id in self.communities
                if id not in self._standing.communities
            )
        return {}

    # --- what the ledger has and the tables have not -----------------------------------------------------------

    def _find_retired(
        self, devices: Mapping[str, dict[str, Found[Device]]], moved: Mapping[str, set[str]], *, retire: bool
    ) -> dict[str, list[str]]:
        """The devices that go, by community: those whose rows say so, and with ``retire`` those that have none."""
        may_go = retire and self._sieve.is_clean(DEVICES)
        retired: dict[str, list[str]] = {id: sorted(ids) for id, ids in moved.items()}
        for id, own in devices.items():
            said = [device for device, one in own.items() if one.value.state is DeviceState.RETIRED]
            retired.setdefault(id, []).extend(said)
        for id in self._communities_in(DEVICES):
            gone = self._names_left(DEVICES, self._standing.communities[id].devices, devices.get(id, {}))
            gone = [device for device in gone if device not in retired.get(id, ())]
            self._sieve.note_vanished(DEVICES, (f"{device} of {id}" for device in gone), may_go=may_go)
            if may_go:
                retired.setdefault(id, []).extend(gone)
        return retired

    def _find_dropped(
        self,
        grids: Mapping[str, object],
        responsible: Mapping[tuple[str, str], object],
        contacts: Mapping[str, Found[Contact]],
        *,
        retire: bool,
    ) -> Dropped:
        standing = self._standing
        people = [
            id for id in standing.contacts if contacts and id not in contacts and not self._sieve.is_bad(CONTACTS, id)
        ]
        bodies = [
            key
            for key in standing.responsible
            if responsible and key not in responsible and not self._sieve.is_bad(RESPONSIBLE, key)
        ]
        codes = [code for code in standing.grids if grids and code not in grids and not self._sieve.is_bad(GRIDS, code)]
        may = {form.file: retire and self._sieve.is_clean(form) for form in (CONTACTS, RESPONSIBLE, GRIDS)}
        self._sieve.note_vanished(CONTACTS, people, may_go=may[CONTACTS.file])
        self._sieve.note_vanished(
            RESPONSIBLE, (f"{body} of {grid}" for body, grid in bodies), may_go=may[RESPONSIBLE.file]
        )
        dropped_bodies = bodies if may[RESPONSIBLE.file] else []
        dropped_people = people if may[CONTACTS.file] else []
        used = self._used_grids(codes, dropped_bodies, dropped_people, contacts)
        free = [code for code in codes if code not in used]
        self._sieve.note_vanished(GRIDS, free, may_go=may[GRIDS.file])
        for code in codes:
            if code in used:
                what = f"grid {code} is in the ledger and not in this table"
                mend = "it stays: something lies in it, or below it, or names it"
                self._report.notes.append(BadRow(GRIDS.file, 0, 0, "kept", what, mend))
        return Dropped(free if may[GRIDS.file] else (), dropped_bodies, dropped_people)

    def _used_grids(
        self,
        vanished: Collection[str],
        bodies: Collection[tuple[str, str]],
        people: Collection[str],
        contacts: Mapping[str, Found[Contact]],
    ) -> set[str]:
        """The grids that something still hangs on, with all above them."""
        there = {**self._standing.contacts, **{id: one.value for id, one in contacts.items()}}
        used = {code for code in self.grids if code not in vanished}
        used.update(code for community in self.communities.values() for code in community.grids)
        used.update(place.grid for own in self.places.values() for place in own.values() if place.grid is not None)
        used.update(grid for body, grid in self._standing.responsible if (body, grid) not in bodies)
        used.update(contact.grid for id, contact in there.items() if id not in people)
        return {above for code in used for above in climb(code, self.grids)}

    def _note_staying(self) -> None:
        """Communities, places and sources stay in any case: what happened is told by their names."""
        states = self._standing.communities
        if self._sieve.rows(COMMUNITIES):
            said = {row.peek("id") for row in self._sieve.rows(COMMUNITIES)}
            self._sieve.note_vanished(COMMUNITIES, (id for id in states if id not in said), may_go=False, stays=True)
        for form in (PLACES, SOURCES):
            said = {row.peek("id") for row in self._sieve.rows(form)}
            for id in self._communities_in(form):
                known: Iterable[Place | Source] = states[id].places if form is PLACES else states[id].sources
                gone = (f"{one.id} of {id}" for one in known if one.id not in said)
                self._sieve.note_vanished(form, gone, may_go=False, stays=True)

    def _communities_in(self, form: Form) -> list[str]:
        """The communities of the ledger that a table has rows of: of others it says nothing."""
        named = {row.peek("community") for row in self._sieve.rows(form)}
        return [id for id in self._standing.communities if id in named]

    def _names_left(self, form: Form, known: Iterable[Device], found: Mapping[str, object]) -> list[str]:
        return [one.id for one in known if one.id not in found and not self._sieve.is_bad(form, one.id)]

    # --- what the stages share ----------------------------------------------------------------------------------

    def _check_home(self, form: Form, row: Row, id: str, *, is_movable: bool = False) -> str:
        """The row's community; empty when it is none, or when the ledger has the thing in another one."""
        community = row.text("community", required=True)
        if not community or not self._sieve.look_for(row, "community", COMMUNITIES, community, self.communities):
            return ""
        homes = self._homes[form.file].get(id)
        if homes and community not in homes and not is_movable:
            what = f"{form.noun} {id} is of {', '.join(sorted(homes))}"
            row.fault("community", "moved", what, f"a {form.noun} stays where it is: give this one another id")
            return ""
        return community

    def _check_grid_of(self, row: Row, place: Place, community: str) -> None:
        if place.grid is None or not self._sieve.look_for(row, "grid", GRIDS, place.grid, self.grids):
            return
        level = self.grids[place.grid].level
        if level is not GridLevel.BASE and GridLevel.BASE in self._rules.scheme.levels:
            row.fault("grid", "wrong-grid-level", f"grid {place.grid} is of level {level}", "name a base grid")
        above = self.communities[community].grids[-1:] if community else ()
        if above and above[0] not in climb(place.grid, self.grids):
            what = f"grid {place.grid} does not lie below {above[0]}, the grid of {community}"
            row.fault("grid", "other-grid", what, f"correct it, or the grid of {community}")

    def _check_attributes(self, row: Row, attributes: Mapping[str, Scalar], devices: Collection[str] | None) -> None:
        """``devices`` are those that a device may hang on; None for a place, which hangs on none."""
        for name, value in attributes.items():
            if name in UPSTREAM and devices is None:
                what = f"{name} is what a device hangs on, and this is a {PLACES.noun}"
                row.fault("attributes", "wrong-attribute", what, f"write it in {DEVICES.file}")
                continue
            if name in UPSTREAM:
                self._sieve.look_for(row, "attributes", DEVICES, str(value), devices or ())
                continue
            blurred = refuse_camera({name: value}) if devices is not None else None
            if blurred is not None:
                row.fault("attributes", "wrong-attribute", blurred, "correct it, in quotes")
                continue
            wanted = refuse(name, value, self._uses)
            if wanted is not None:
                what = f"{name} is {value!r}, and {wanted}"
                row.fault("attributes", "wrong-attribute", what, "correct the value; quote a text of digits")
            elif name not in (*self._uses, *CAMERA_ATTRIBUTES) and (meant := self._guess(name)) is not None:
                what = f"no rule reads {name}"
                self._sieve.note(row, "attributes", "misspelt-attribute", what, f"did you mean {meant}?")

    def _guess(self, name: str) -> str | None:
        if name not in self._guesses:
            close = difflib.get_close_matches(name, [*self._uses, *UPSTREAM, *CAMERA_ATTRIBUTES], 1, 0.8)
            self._guesses[name] = close[0] if close else None
        return self._guesses[name]

    def _check_body(self, row: Row, body: str) -> None:
        if body not in self._catalog.bodies:
            mend = suggest(body, self._catalog.bodies)
            row.fault("body", "unknown-body", f"there is no body {body[:60]}", mend)


_ABOVE_STATIONS: Final = (GridLevel.CENTRE, GridLevel.TOWN, GridLevel.DISTRICT)


def _find_homes(known: Mapping[str, Mapping[str, object]]) -> dict[str, set[str]]:
    """Id → the communities that have it."""
    homes: dict[str, set[str]] = {}
    for community, own in known.items():
        for id in own:
            homes.setdefault(id, set()).add(community)
    return homes
