"""Tables into the ledger and out again: only what differs is journalled, and an export gives the same back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.assembly import open_catalogs
from gateway.core.model import (
    Community,
    Device,
    DeviceState,
    Grid,
    GridLevel,
    ListChange,
    Place,
    PlaceKind,
    RegistryChange,
    Responsible,
    Scalar,
    Source,
)
from gateway.core.state import CommunityState
from gateway.errors import GatewayError
from gateway.runtime.district_export import write_district
from gateway.runtime.district_rows import FORMS, POINTS
from gateway.runtime.journal import Stored
from gateway.runtime.ports import Contact, Duty
from gateway.runtime.registrar import DistrictFile, find_changes, read_district, write_changes
from gateway.runtime.standing import Standing, read_standing
from gateway.runtime.writer import load_engine, without_collector
from simulators.district import encode, generate
from simulators.tables import write_tables
from tests.core.worlds import START, real_catalog
from tests.runtime.conftest import MakeWorld
from tests.runtime.districts import SEAL, TABLES, Office, write_folder

GRIDS, COMMUNITIES, PLACES, SOURCES, DEVICES, RESPONSIBLE, CONTACTS, LISTS = (form.file for form in FORMS)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A ledger with the small district."""
    office = Office()
    done = office.take(write_folder(tmp_path / "first"))
    assert (done.report.bad, done.refused) == ([], {})
    return office


def replaced(file: str, old: str, new: str) -> dict[str, str]:
    """One table of the small district, with something else in it."""
    assert old in TABLES[file]
    return {file: TABLES[file].replace(old, new)}


def last_change(office: Office, community: str) -> RegistryChange:
    *_, row = (row for row in office.ledger.read_journal(community, 0) if row.kind == "registry")
    return msgspec.json.decode(row.body, type=RegistryChange)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what an import changes ----------------------------------------------------------------------------------------


def test_the_same_again_changes_nothing(office: Office, tmp_path: Path) -> None:
    before = office.ledger.standing(["c001", "c002"])

    done = office.take(write_folder(tmp_path / "again"))

    assert done.changes.is_nothing
    assert done.changes.counts == {}
    assert office.ledger.standing(["c001", "c002"]) == before


def test_a_changed_row_changes_that_alone(office: Office, tmp_path: Path) -> None:
    other = office.head("c002")

    done = office.take(write_folder(tmp_path / "again", replaced(DEVICES, "烟感1", "卧室烟感")))

    assert done.changes.counts == {"devices": {"changed": 1}}
    change = last_change(office, "c001")
    assert [device.name for device in change.devices] == ["卧室烟感"]
    assert change == RegistryChange("test", devices=change.devices)
    assert office.head("c002") == other


def test_a_few_rows_of_one_table_are_enough(office: Office, tmp_path: Path) -> None:
    table = "community,id,profile,source,place\nc001,c001-smoke-2,nb-smoke,agent-001,c001-gate\n"

    done = office.take(write_folder(tmp_path / "again", {DEVICES: table}))

    assert done.report.bad == []
    assert done.changes.counts == {"devices": {"new": 1}}
    assert len(office.standing().communities["c001"].devices) == 4


def test_a_column_that_is_not_there_says_nothing_and_an_empty_cell_says_nothing_is_there(
    office: Office, tmp_path: Path
) -> None:
    named = "community,id,profile,source,place,name\nc001,c001-sos-1,fixed-sos,agent-001,c001-b1-101,床头\n"
    office.take(write_folder(tmp_path / "named", {DEVICES: named}))
    [device] = [d for d in office.standing().communities["c001"].devices if d.id == "c001-sos-1"]
    assert (device.name, device.address, device.attributes) == ("床头", "lora/1", {"powered_by": "agent-001"})

    emptied = named.replace("place,name", "place,address").replace("床头", "")
    office.take(write_folder(tmp_path / "emptied", {DEVICES: emptied}))

    [device] = [d for d in office.standing().communities["c001"].devices if d.id == "c001-sos-1"]
    assert (device.name, device.address) == ("床头", "")


def test_a_state_that_nobody_writes_stays_and_one_that_is_over_has_ended(office: Office, tmp_path: Path) -> None:
    def state(device: str) -> tuple[DeviceState, int | None]:
        [found] = [d for s in office.standing().communities.values() for d in s.devices if d.id == device]
        return found.state, found.state_until

    assert state("c002-door-1")[0] is DeviceState.MAINTENANCE
    office.take(write_folder(tmp_path / "unsaid", replaced(DEVICES, "maintenance,2026-11-24T08:00", ",")))
    assert state("c002-door-1")[0] is DeviceState.MAINTENANCE

    office.take(write_folder(tmp_path / "over", replaced(DEVICES, "2026-11-24T08:00", "2026-11-20T08:00")))
    assert state("c002-door-1") == (DeviceState.ACTIVE, None)


def test_grids_and_bodies_reach_communities_that_no_table_names(office: Office, tmp_path: Path) -> None:
    grids = TABLES[GRIDS].replace("示例第2工作站", "示例南工作站")
    bodies = TABLES[RESPONSIBLE].replace("示例物业（模拟）", "新物业（模拟）")

    office.take(write_folder(tmp_path / "again", {GRIDS: grids, RESPONSIBLE: bodies}))

    for community in ("c001", "c002"):
        change = last_change(office, community)
        assert [grid.name for grid in change.grids] == ["示例南工作站"]
        assert change.responsible is not None
        assert [one.name for one in change.responsible] == ["新物业（模拟）", "示例执法中队（模拟）"]
        assert (change.devices, change.places, change.community) == ((), (), None)


def test_a_community_keeps_its_serial_because_its_incidents_are_numbered_by_it(office: Office, tmp_path: Path) -> None:
    done = office.take(write_folder(tmp_path / "again", replaced(COMMUNITIES, "c001,1,", "c001,7,")))

    assert done.codes == ["changed-serial"]
    assert done.report.bad[0].mend == "write 1"


def test_plates_are_sealed_and_a_list_is_every_community_s(office: Office, tmp_path: Path) -> None:
    sealed = SEAL.seal("鲁B00001")
    assert {id: state.lists for id, state in office.standing().communities.items()} == {
        "c001": {"wanted": [sealed]},
        "c002": {"wanted": [sealed]},
    }

    done = office.take(
        write_folder(tmp_path / "again", {LISTS: "list,entry,community\nwanted,鲁B00002,c002\nguests,x,\n"})
    )

    assert [note.code for note in done.report.notes] == ["vanished", "unread-list"]
    lists = {id: state.lists for id, state in office.standing().communities.items()}
    assert lists["c001"] == {"guests": [SEAL.seal("x")], "wanted": [sealed]}
    assert lists["c002"]["wanted"] == sorted([sealed, SEAL.seal("鲁B00002")])


def test_a_new_community_without_its_lists_is_told(office: Office, tmp_path: Path) -> None:
    tables = {
        COMMUNITIES: "id,serial,name,grid\nc003,3,示例三期,370215001005\n",
        PLACES: "community,id,kind,name,parent,grid\nc003,c003,community,示例三期,,370215001005001\n",
    }

    done = office.take(write_folder(tmp_path / "again", tables))

    assert done.report.bad == []
    assert [(note.file, note.code) for note in done.report.notes] == [
        (COMMUNITIES, "no-lists"),
        (COMMUNITIES, "vanished"),
        (COMMUNITIES, "vanished"),
    ]
    assert office.standing().communities["c003"].community.grids == ("370215", "370215001", "370215001005")


def test_what_was_interrupted_is_finished_by_the_next_import(tmp_path: Path) -> None:
    office = Office()
    office.ledger.add_communities([Community("c001", 1, "示例一期", ("370215", "370215001", "370215001004"))])

    done = office.take(write_folder(tmp_path / "first"))

    assert (done.report.bad, done.refused) == ([], {})
    assert len(office.standing().communities["c001"].devices) == 3


async def test_what_stands_is_what_the_running_engine_knows(make_world: MakeWorld) -> None:
    """Read from the checkpoint and the changes after it, refused ones among them."""
    world = make_world(2)
    pipeline = await world.start()
    pool, lamp = Place("pool", PlaceKind.PUBLIC, "泳池", "c001"), Device("lamp-1", "nb-smoke", "agent-1", "pool")
    homeless = replace(lamp, id="lamp-2", place="nowhere")
    changes: list[Stored] = [
        RegistryChange("test", places=(pool,), devices=(lamp,), retired=("smoke-3",)),
        RegistryChange("test", devices=(homeless,)),
        RegistryChange("test", grids=(Grid("370215", GridLevel.DISTRICT, "即墨区"),), responsible=()),
        ListChange("test", "wanted", ("a", "b")),
    ]
    for number, change in enumerate(changes):
        await pipeline.submit("c001", change, f"change-{number}")
    await world.stop()
    with SqlLedger(world.url).database.writing() as session:
        session.run("DELETE FROM checkpoint WHERE seq > 1")

    catalogs = open_catalogs(world.ledger, world.catalog)
    standing = read_standing(world.ledger, catalogs, world.catalog, world.clock())

    for community in world.ledger.communities():
        known = load_engine(world.ledger, community, catalogs, world.catalog).engine.snapshot()
        found = standing.communities[community.id]
        for name in ("community", "places", "sources", "devices", "lists", "grids", "responsible"):
            assert getattr(found, name) == getattr(known, name), name
    assert "lamp-1" in {device.id for device in standing.communities["c001"].devices}


# --- what is gone ----------------------------------------------------------------------------------------------------


def without(file: str, *words: str) -> dict[str, str]:
    lines = TABLES[file].splitlines(keepends=True)
    return {file: "".join(line for line in lines if not any(word in line for word in words))}


def test_what_a_table_has_no_more_is_told_and_stays(office: Office, tmp_path: Path) -> None:
    tables = {
        **without(DEVICES, "c001-smoke-1"),
        **without(CONTACTS, "keeper-1"),
        **without(RESPONSIBLE, "urban"),
        **without(PLACES, "c001-gate"),
        **without(GRIDS, "370215001005001", "370215001004018"),
    }

    done = office.take(write_folder(tmp_path / "again", tables))

    assert done.report.bad == []
    assert [(note.file, note.code, note.what.split(" is ")[0]) for note in done.report.notes] == [
        (GRIDS, "vanished", "grid 370215001005001"),
        (GRIDS, "kept", "grid 370215001004018"),
        (PLACES, "vanished", "place c001-gate of c001"),
        (DEVICES, "vanished", "device c001-smoke-1 of c001"),
        (RESPONSIBLE, "vanished", "responsible body urban-management of 370215001"),
        (CONTACTS, "vanished", "contact keeper-1"),
    ]
    assert done.changes.is_nothing


def test_retire_takes_it_out(office: Office, tmp_path: Path) -> None:
    tables = {
        **without(DEVICES, "c001-smoke-1"),
        **without(CONTACTS, "keeper-1"),
        **without(RESPONSIBLE, "urban"),
        **without(PLACES, "c001-gate"),
        **without(GRIDS, "370215001005", "370215001004018"),
        LISTS: "list,entry,community\nwanted,鲁B00002,\n",
    }

    done = office.take(write_folder(tmp_path / "again", tables), retire=True)

    standing = office.standing()
    assert done.report.bad == []
    assert [device.id for device in standing.communities["c001"].devices] == ["agent-001", "c001-sos-1"]
    assert last_change(office, "c001").retired == ("c001-smoke-1",)
    assert list(standing.contacts) == ["family-1"]
    assert [body for body, _ in standing.responsible] == ["property"]
    assert "370215001005" not in standing.grids
    assert "370215001005001" not in standing.grids
    assert "370215001004018" in standing.grids  # c002 lies in it.
    assert "c001-gate" in {place.id for place in standing.communities["c001"].places}
    assert standing.communities["c002"].lists == {"wanted": [SEAL.seal("鲁B00002")]}


@pytest.mark.parametrize("spoilt", ["c001,c001-x,nb-smok,agent-001,c001-gate,,,,,\n", '"\n'])
def test_a_table_with_a_bad_row_retires_nothing(office: Office, tmp_path: Path, spoilt: str) -> None:
    tables = without(DEVICES, "c001-smoke-1")

    done = office.take(write_folder(tmp_path / "again", {DEVICES: tables[DEVICES] + spoilt}), retire=True)

    assert len(done.report.bad) == 1
    assert [note.mend for note in done.report.notes] == [
        "it stays; --retire takes it out, once no row of this table is bad"
    ]
    assert done.changes.is_nothing


def test_a_table_without_rows_retires_nothing(office: Office, tmp_path: Path) -> None:
    empty = {form.file: ",".join(form.columns) + "\n" for form in FORMS}

    done = office.take(write_folder(tmp_path / "again", empty), retire=True)

    assert done.changes.is_nothing


def test_a_row_may_retire_its_own_device(office: Office, tmp_path: Path) -> None:
    table = "community,id,profile,source,place,state\nc001,c001-smoke-1,nb-smoke,agent-001,c001-b1-101,retired\n"

    office.take(write_folder(tmp_path / "again", {DEVICES: table}))

    assert "c001-smoke-1" not in {device.id for device in office.standing().communities["c001"].devices}
    assert office.take(write_folder(tmp_path / "thrice", {DEVICES: table})).changes.is_nothing


MOVED = ("c001,c001-smoke-1,nb-smoke,agent-001,c001-b1-101", "c002,c001-smoke-1,nb-smoke,agent-002,c002-gate")


def test_a_device_moves_to_another_community_only_when_it_may_leave_the_first(office: Office, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "again", replaced(DEVICES, *MOVED))

    refused = office.take(folder)

    assert [(bad.code, bad.line) for bad in refused.report.bad] == [("moved", 3)]
    assert "--retire" in refused.report.bad[0].mend
    done = office.take(folder, retire=True)
    assert done.report.bad == []
    homes = {d.id: id for id, state in office.standing().communities.items() for d in state.devices}
    assert homes["c001-smoke-1"] == "c002"
    assert last_change(office, "c001").retired == ("c001-smoke-1",)


def test_a_source_and_a_place_stay_in_their_community(office: Office, tmp_path: Path) -> None:
    tables = {
        **replaced(SOURCES, "c001,agent-001,c001-gate,agent-001", "c002,agent-001,c002-gate,"),
        **replaced(PLACES, "c001,c001-gate,public,南门,c001", "c002,c001-gate,public,南门,c002"),
    }

    done = office.take(write_folder(tmp_path / "again", tables), retire=True)

    assert done.codes == ["moved", "moved"]


# --- a map -----------------------------------------------------------------------------------------------------------

MAP = """{
"type": "FeatureCollection",
"crs": {"type": "name", "properties": {"name": "%s"}},
"features": [
{"type": "Feature", "geometry": {"type": "Point", "coordinates": [%s]},
 "properties": {"community": "c001", "id": "c001-pond", "kind": "public", "name": "水池", "parent": "c001",
  "attributes": {"depth": 1.5, "fenced": true}}},
{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}, "properties": {"id": "c001-lawn"}},
{"type": "Feature", "geometry": null,
 "properties": {"community": "c001", "id": "c001-hall", "kind": "hall", "name": "会所", "parent": "c001"}},
7
]}
"""


def test_places_may_come_as_points_of_a_map(office: Office, tmp_path: Path) -> None:
    done = office.take(write_folder(tmp_path / "again", {POINTS: MAP % ("GCJ-02", "120.4551, 36.3905, 12.0")}))

    assert [(bad.line, bad.column, bad.code) for bad in done.report.bad] == [
        (8, 0, "not-a-feature"),
        (9, 0, "unknown-kind"),
        (11, 0, "not-a-feature"),
    ]
    [pond] = [place for place in office.standing().communities["c001"].places if place.id == "c001-pond"]
    assert pond.attributes == {"depth": 1.5, "fenced": True}
    assert pond.lon == pytest.approx(120.4499, abs=2e-4)
    assert pond.lat == pytest.approx(36.3900, abs=5e-4)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (MAP % ("epsg:3857", "1, 2"), "unknown-crs", 0),
        ((MAP % ("EPSG:4490", "120.45, 36.39"))[:-4], "not-json", 11),
        ("[]", "not-json", 1),
        ('{"type": "Feature"}', "not-json", 0),
        ('{"type": "FeatureCollection", "features": [' + "[" * 100_000, "not-json", 0),
        ("", "not-json", 1),
    ],
)
def test_a_map_that_cannot_be_read_is_told(office: Office, tmp_path: Path, text: str, code: str, line: int) -> None:
    done = office.take(write_folder(tmp_path / "again", {POINTS: text}))

    assert (code, line) in [(bad.code, bad.line) for bad in done.report.bad]


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geojson", [False, True])
def test_an_export_gives_the_same_back(office: Office, tmp_path: Path, geojson: bool) -> None:
    write_district(tmp_path / "out", office.standing(), geojson=geojson)
    again = Office()
    done = again.take(tmp_path / "out")
    write_district(tmp_path / "back", again.standing(), geojson=geojson)

    assert done.report.bad == []
    assert files_of(tmp_path / "back") == files_of(tmp_path / "out")
    assert again.standing() == office.standing()


def test_an_export_is_what_was_imported_but_for_the_plates(office: Office, tmp_path: Path) -> None:
    write_district(tmp_path / "out", office.standing())

    for file, text in TABLES.items():
        written = (tmp_path / "out" / file).read_text("utf-8-sig")
        lines = text.splitlines()
        expected = "\n".join([lines[0], *sorted(lines[1:])]) + "\n"
        if file == PLACES:
            expected = expected.replace("-1层", "'-1层")
        assert written == (expected.replace("鲁B00001", SEAL.seal("鲁B00001")) if file == LISTS else expected)
    assert (tmp_path / "out" / CONTACTS).stat().st_mode & 0o077 == 0


def test_an_export_overwrites_nothing(office: Office, tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="give a new folder"):
        write_district(tmp_path / "first", office.standing())


def test_the_simulated_district_comes_back_byte_for_byte(tmp_path: Path) -> None:
    generated = generate(1)
    sealed = {name: tuple(SEAL.seal(entry) for entry in entries) for name, entries in generated.lists.items()}
    write_tables(replace(generated, lists=sealed), tmp_path / "out", has_desks=True)
    office = Office()

    with without_collector():
        done = office.take(tmp_path / "out")
        write_district(tmp_path / "back", office.standing())

    assert (done.report.bad, done.report.notes, done.refused) == ([], [], {})
    assert done.changes.counts["devices"] == {"new": generated.device_count}
    assert files_of(tmp_path / "back") == files_of(tmp_path / "out")


def test_tables_and_the_json_file_make_the_same_ledger(tmp_path: Path) -> None:
    generated = generate(3, communities=6)
    write_tables(generated, tmp_path / "out")
    (tmp_path / "district.json").write_bytes(encode(generated))
    by_tables, by_file = Office(), Office()

    by_tables.take(tmp_path / "out")
    file: DistrictFile = read_district(tmp_path / "district.json")
    changes = find_changes(file.plan(SEAL), by_file.standing(), "test")
    write_changes(by_file.ledger, changes, real_catalog(), lambda hash: real_catalog(), START)

    assert ordered(by_tables.standing()) == ordered(by_file.standing())


def ordered(standing: Standing) -> Standing:
    """The same, its communities' places and devices in the order of their ids."""
    states = {
        id: replace(
            state,
            places=sorted(state.places, key=lambda place: place.id),
            devices=sorted(state.devices, key=lambda device: device.id),
            heard=sorted(state.heard, key=lambda heard: heard.device),
            watches=sorted(state.watches, key=lambda watch: (watch.rule, watch.key)),
        )
        for id, state in standing.communities.items()
    }
    return replace(standing, communities=states)


@pytest.fixture
def postgres_office(database_url: str) -> Iterator[Office]:
    ledger = open_ledger(database_url)
    ledger.migrate()
    yield Office(ledger)
    ledger.close()


def test_postgresql_gives_the_same_back_too(postgres_office: Office, office: Office, tmp_path: Path) -> None:
    done = postgres_office.take(write_folder(tmp_path / "first"))

    assert (done.report.bad, done.refused) == ([], {})
    assert postgres_office.standing() == office.standing()
    assert postgres_office.take(tmp_path / "first").changes.is_nothing
    retired = postgres_office.take(write_folder(tmp_path / "again", without(CONTACTS, "keeper-1")), retire=True)
    assert retired.changes.counts == {"contacts": {"gone": 1}}
    assert list(postgres_office.standing().contacts) == ["family-1"]


# --- any small district ----------------------------------------------------------------------------------------------

NAMES = st.text(
    st.one_of(
        st.sampled_from("网格楼' =+-@,\";'\u3000"), st.characters(codec="utf-8", categories=["L", "N", "P", "S"])
    ),
    min_size=1,
    max_size=12,
).filter(lambda text: text == text.strip())
TEXTS = st.one_of(st.just(""), NAMES)
SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
ATTRIBUTES = st.dictionaries(st.from_regex(r"x_[a-z0-9_]{1,6}", fullmatch=True), SCALARS, max_size=3)
LON, LAT = st.floats(119.9, 121.3), st.floats(36.1, 36.9)
TIMES = st.integers(START + 60_000, START + 10**12)
DUTIES = st.lists(
    st.builds(
        Duty,
        st.lists(st.integers(0, 6), min_size=1, max_size=7).map(tuple),
        st.integers(0, 1440),
        st.integers(0, 1440),
        st.one_of(st.none(), st.integers(0, START)),
        st.one_of(st.none(), TIMES),
    ),
    max_size=2,
).map(tuple)
TOWN, CENTRE, STATION = "370215001", "370215001001", "37021500100101"
UNTIL = st.sampled_from([DeviceState.DRILL, DeviceState.COMMISSIONING, DeviceState.MAINTENANCE])


@st.composite
def districts(draw: st.DrawFn) -> Standing:
    """Any district of a few grids, communities, places and devices, with whatever texts people write."""

    def name() -> str:
        return draw(NAMES)

    grids = [
        Grid("370215", GridLevel.DISTRICT, name()),
        Grid(TOWN, GridLevel.TOWN, name(), "370215"),
        Grid(CENTRE, GridLevel.CENTRE, name(), TOWN),
        Grid(STATION, GridLevel.STATION, name(), CENTRE),
    ]
    bases = [f"{CENTRE}{serial:03}" for serial in range(1, draw(st.integers(1, 3)) + 1)]
    grids += [Grid(code, GridLevel.BASE, name(), STATION) for code in bases]
    listed = draw(st.dictionaries(st.sampled_from(["wanted", "guests"]), st.sets(NAMES, min_size=1, max_size=2)))
    states = {}
    for serial in range(1, draw(st.integers(1, 3)) + 1):
        id = f"c{serial:03}"
        chain = ("370215", TOWN, CENTRE)[: draw(st.integers(1, 3))]
        places = [Place(id, PlaceKind.COMMUNITY, name(), None, draw(st.sampled_from([None, *bases])))]
        for number in range(draw(st.integers(0, 3))):
            lon, lat = draw(st.one_of(st.just((None, None)), st.tuples(LON, LAT)))
            above = draw(st.sampled_from([id, *(place.id for place in places[1:])]))
            places.append(Place(f"{id}-p{number}", PlaceKind.PUBLIC, name(), above, None, lon, lat, draw(ATTRIBUTES)))
        spot = st.sampled_from([place.id for place in places])
        source = Source(f"agent-{serial}", draw(spot), draw(st.sampled_from([None, f"{id}-d0"])))
        devices = []
        for number in range(draw(st.integers(1, 3))):
            state, until = draw(st.one_of(st.just((DeviceState.ACTIVE, None)), st.tuples(UNTIL, TIMES)))
            own = (name(), draw(TEXTS), state, until, draw(ATTRIBUTES))
            devices.append(Device(f"{id}-d{number}", "nb-smoke", source.id, draw(spot), *own))
        more = draw(st.dictionaries(st.just("wanted"), st.sets(NAMES, min_size=1, max_size=2), max_size=1))
        lists = {
            key: sorted({SEAL.seal(entry) for entry in listed.get(key, set()) | more.get(key, set())})
            for key in sorted({*listed, *more})
        }
        states[id] = CommunityState(
            Community(id, serial, name(), chain, draw(TEXTS)),
            places=places,
            sources=[source],
            devices=devices,
            lists=lists,
        )
    bodies = draw(st.sets(st.tuples(st.sampled_from(["property", "street"]), st.sampled_from(bases)), max_size=3))
    contacts = [
        Contact(
            f"person-{number}", name(), "duty", grid=draw(st.sampled_from(bases)), rank=draw(st.integers(0, 9)),
            phone="000-0000-0000", duty=draw(DUTIES),
        )
        for number in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    return Standing(
        {grid.code: grid for grid in grids},
        {key: Responsible(*key, name()) for key in bodies},
        {contact.id: contact for contact in contacts},
        states,
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(districts(), st.booleans())
def test_any_district_comes_back_byte_for_byte(district: Standing, geojson: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_district(folder / "out", district, geojson=geojson)
        office = Office()

        done = office.take(folder / "out")
        standing = office.standing()
        write_district(folder / "back", standing, geojson=geojson)

        assert (done.report.bad, done.refused) == ([], {})
        assert files_of(folder / "back") == files_of(folder / "out")
        assert {id: state.devices for id, state in standing.communities.items()} == {
            id: state.devices for id, state in district.communities.items()
        }
        assert standing.contacts == district.contacts
        assert office.take(folder / "out").changes.is_nothing
