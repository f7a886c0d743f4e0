"""The grid and the places as trees: what they answer, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.core.district import (
    JIMO,
    DistrictError,
    Fault,
    GridScheme,
    GridTree,
    LevelScheme,
    PlaceTree,
    check_grids,
    check_places,
)
from gateway.core.model import Grid, GridLevel, Place, PlaceKind

GRIDS = (
    Grid("370215", GridLevel.DISTRICT, "即墨区"),
    Grid("370215001", GridLevel.TOWN, "环秀街道", "370215"),
    Grid("370215901", GridLevel.DEPARTMENT, "应急管理局", "370215"),
    Grid("370215001004", GridLevel.CENTRE, "海韵社区网格中心", "370215001"),
    Grid("37021500100402", GridLevel.STATION, "海韵第2工作站", "370215001004"),
    Grid("370215001004017", GridLevel.BASE, "海韵第17网格", "37021500100402"),
    Grid("370215001004901", GridLevel.SPECIAL, "应急管理局专属网格1", "370215901"),
)

PLACES = (
    Place("c042", PlaceKind.COMMUNITY, "海韵花园", grid="370215001004017", lon=120.45, lat=36.39,
          attributes={"noise_class": "1", "night": 45}),
    Place("b3", PlaceKind.BUILDING, "3号楼", "c042", lon=120.451, lat=36.391),
    Place("b3-u2", PlaceKind.UNIT, "2单元", "b3", attributes={"noise_class": "2"}),
    Place("b3-u2-0301", PlaceKind.HOUSEHOLD, "301室", "b3-u2", attributes={"away": False}),
    Place("b3-u2-lift", PlaceKind.PUBLIC, "电梯", "b3-u2"),
    Place("villa", PlaceKind.HOUSEHOLD, "1号院", "c042"),
    Place("gate", PlaceKind.PUBLIC, "南门", "c042", attributes={"noise_class": "4"}),
    Place("gate-lane", PlaceKind.PUBLIC, "消防通道", "gate"),
)  # fmt: skip


@pytest.fixture
def grids() -> GridTree:
    return GridTree(GRIDS, JIMO)


@pytest.fixture
def places(grids: GridTree) -> PlaceTree:
    return PlaceTree(PLACES, grids)


# --- what the grid answers --------------------------------------------------------------------------------------------


def test_a_chain_leads_from_the_district_down_to_the_grid(grids: GridTree) -> None:
    assert grids.chain("370215001004017") == (
        "370215",
        "370215001",
        "370215001004",
        "37021500100402",
        "370215001004017",
    )
    assert grids.ancestors("370215001004017")[0] == "37021500100402"
    assert grids.ancestors("370215") == ()


def test_a_grid_of_a_level_is_found_at_or_above(grids: GridTree) -> None:
    assert grids.at_level("370215001004017", GridLevel.CENTRE) == "370215001004"
    assert grids.at_level("370215001004017", GridLevel.BASE) == "370215001004017"
    assert grids.at_level("370215001004901", GridLevel.DEPARTMENT) == "370215901"
    assert grids.at_level("370215001004901", GridLevel.TOWN) is None


def test_a_tree_holds_its_grids(grids: GridTree) -> None:
    assert tuple(grids) == GRIDS
    assert len(grids) == len(GRIDS)
    assert "370215001" in grids
    assert grids.grid("370215001").name == "环秀街道"


def test_a_grid_that_is_not_there_is_an_error_that_names_it(grids: GridTree) -> None:
    with pytest.raises(DistrictError, match="grid 370215002: is not in the district's grid"):
        grids.ancestors("370215002")


# --- what the grid refuses --------------------------------------------------------------------------------------------


def _codes(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.code for fault in faults]


@pytest.mark.parametrize(
    ("grid", "code", "words"),
    [
        (Grid("37021500200A", GridLevel.CENTRE, "x", "370215001"), "wrong-digits", "digits only"),
        (Grid("３７0215001005", GridLevel.CENTRE, "x", "370215001"), "wrong-digits", "digits only"),
        (Grid("370214001", GridLevel.TOWN, "x", "370215"), "wrong-prefix", "does not begin with 370215"),
        (Grid("37021500100", GridLevel.CENTRE, "x", "370215001"), "wrong-length", "has 11 digits; level centre takes"),
        (Grid("370215001004901", GridLevel.BASE, "x", "37021500100402"), "wrong-serial", "serial 901 is outside 1.."),
        (Grid("370215001004899", GridLevel.SPECIAL, "x", "370215901"), "wrong-serial", "serial 899 is outside 901.."),
        (Grid("37021500100400", GridLevel.STATION, "x", "370215001004"), "wrong-serial", "serial 00 is outside 1..99"),
        (Grid("370215001005", GridLevel.CENTRE, "x", "370215007"), "unknown-parent", "parent 370215007 is not among"),
        (Grid("370215001005", GridLevel.CENTRE, "x"), "wrong-parent", "has no parent; level centre stands below town"),
        (Grid("370215001005", GridLevel.CENTRE, "x", "370215"), "wrong-parent", "is of level district"),
        (Grid("370215002005", GridLevel.CENTRE, "x", "370215001"), "not-below-parent", "first 9 digits"),
    ],
)  # fmt: skip
def test_a_bad_grid_is_one_clear_fault(grid: Grid, code: str, words: str) -> None:
    others = [other for other in GRIDS if other.code != grid.code]

    [fault] = check_grids([*others, grid], JIMO)

    assert fault.code == code
    assert fault.what == f"grid {grid.code}"
    assert words in str(fault)


def test_two_grids_with_one_code_are_a_fault() -> None:
    twin = structs.replace(GRIDS[1], name="潮海街道")

    assert _codes(check_grids([*GRIDS, twin], JIMO)) == ["duplicate"]


def test_there_is_exactly_one_district() -> None:
    assert _codes(check_grids(GRIDS[1:2], JIMO)) == ["unknown-parent", "no-root"]
    scheme = GridScheme("37", {GridLevel.DISTRICT: LevelScheme(6, (), 0)})
    assert _codes(check_grids([GRIDS[0], Grid("370213", GridLevel.DISTRICT, "李沧区")], scheme)) == ["second-root"]


def test_a_grid_cannot_be_its_own_ancestor() -> None:
    scheme = GridScheme(
        "1", {GridLevel.DISTRICT: LevelScheme(1, (), 0), GridLevel.TOWN: LevelScheme(2, (GridLevel.TOWN,), 1)}
    )
    ring = [
        Grid("1", GridLevel.DISTRICT, "d"),
        Grid("11", GridLevel.TOWN, "a", "12"),
        Grid("12", GridLevel.TOWN, "b", "11"),
        Grid("13", GridLevel.TOWN, "c", "11"),
    ]

    [fault] = check_grids(ring, scheme)

    assert fault.code == "cycle"
    assert "11 → 12 → 11" in fault.detail


def test_another_district_has_another_scheme() -> None:
    scheme = GridScheme(
        "610104",
        {
            GridLevel.DISTRICT: LevelScheme(6, (), 0),
            GridLevel.TOWN: LevelScheme(9, (GridLevel.DISTRICT,), 6),
            GridLevel.CENTRE: LevelScheme(12, (GridLevel.TOWN,), 9),
            GridLevel.BASE: LevelScheme(17, (GridLevel.CENTRE,), 12),
        },
    )
    grids = [
        Grid("610104", GridLevel.DISTRICT, "a"),
        Grid("610104002", GridLevel.TOWN, "b", "610104"),
        Grid("610104002003", GridLevel.CENTRE, "c", "610104002"),
        Grid("61010400200300001", GridLevel.BASE, "d", "610104002003"),
    ]

    assert len(GridTree(grids, scheme)) == 4
    assert _codes(check_grids([*grids, Grid("61010400200301", GridLevel.STATION, "e", "610104002003")], scheme)) == [
        "unknown-level"
    ]


def test_an_error_shows_the_first_faults_and_counts_the_rest() -> None:
    many = [Grid(f"370215001{serial:03}", GridLevel.CENTRE, "x", "370215002") for serial in range(5, 15)]

    with pytest.raises(DistrictError, match="and 5 more") as raised:
        GridTree([*GRIDS, *many], JIMO)

    assert _codes(raised.value.faults) == ["unknown-parent"] * 10


# --- what places answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "kind", "found"),
    [
        ("b3-u2-0301", "household", "b3-u2-0301"),
        ("b3-u2-0301", "unit", "b3-u2"),
        ("b3-u2-0301", "building", "b3"),
        ("b3-u2-0301", "place", "b3-u2-0301"),
        ("b3-u2-0301", "community", "c042"),
        ("b3-u2-lift", "unit", "b3-u2"),
        ("b3-u2-lift", "building", "b3"),
        ("b3-u2-lift", "household", "b3-u2-lift"),
        ("b3-u2-lift", "place", "b3-u2-lift"),
        ("b3", "unit", "b3"),
        ("gate", "place", "gate"),
        ("gate", "unit", "gate"),
        ("gate", "building", "gate"),
        ("gate-lane", "building", "gate-lane"),
        ("gate", "community", "c042"),
        ("villa", "building", "villa"),
        ("c042", "building", "c042"),
        ("c042", "household", "c042"),
    ],
)
def test_the_place_of_a_kind_is_the_nearest_at_or_above_or_the_place_itself(
    places: PlaceTree, place: str, kind: str, found: str
) -> None:
    assert places.within(place, kind) == found


def test_ancestors_lead_up_to_the_community(places: PlaceTree) -> None:
    assert places.ancestors("b3-u2-0301") == ("b3-u2", "b3", "c042")
    assert places.ancestors("c042") == ()


def test_an_attribute_is_the_nearest_one(places: PlaceTree) -> None:
    assert places.attribute("b3-u2-0301", "noise_class") == "2"
    assert places.attribute("b3", "noise_class") == "1"
    assert places.attribute("gate-lane", "noise_class") == "4"
    assert places.attribute("b3-u2-0301", "night") == 45
    assert places.attribute("b3-u2-0301", "away") is False
    assert places.attribute("villa", "away") is None


def test_a_place_is_labelled_as_people_say_it(places: PlaceTree) -> None:
    assert places.label("b3-u2-0301") == "海韵花园3号楼2单元301室"
    assert places.label("b3-u2-lift") == "海韵花园3号楼2单元电梯"
    assert places.label("gate") == "海韵花园南门"
    assert places.label("c042") == "海韵花园"


def test_grid_and_position_are_the_nearest_ones(places: PlaceTree) -> None:
    assert places.grid("b3-u2-lift") == "370215001004017"
    assert places.position("b3-u2-lift") == (120.451, 36.391)
    assert places.position("gate") == (120.45, 36.39)
    bare = PlaceTree([Place("c001", PlaceKind.COMMUNITY, "松涛家园")])
    assert (bare.grid("c001"), bare.position("c001")) == (None, None)


def test_a_tree_holds_its_places(places: PlaceTree) -> None:
    assert tuple(places) == PLACES
    assert len(places) == len(PLACES)
    assert "gate" in places
    assert "nowhere" not in places
    assert places.place("gate").name == "南门"
    assert places.root.id == "c042"


@pytest.mark.parametrize("ask", ["ancestors", "label", "grid", "position", "place"])
def test_a_place_that_is_not_there_is_an_error_that_names_it(places: PlaceTree, ask: str) -> None:
    with pytest.raises(DistrictError, match="place nowhere: is not a place of c042"):
        getattr(places, ask)("nowhere")
    with pytest.raises(DistrictError):
        places.within("nowhere", "place")


# --- what places refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        (Place("b9", PlaceKind.BUILDING, "x", "c043"), "unknown-parent", "parent c043 is not among the places"),
        (Place("b9", PlaceKind.BUILDING, "x"), "wrong-parent", "has no parent; a building stands below community"),
        (Place("u9", PlaceKind.UNIT, "x", "c042"), "wrong-parent", "a unit stands below building"),
        (Place("h9", PlaceKind.HOUSEHOLD, "x", "gate"), "wrong-parent", "parent gate is a public"),
        (Place("p9", PlaceKind.PUBLIC, "x", "b3-u2-0301"), "wrong-parent", "parent b3-u2-0301 is a household"),
        (Place("gate", PlaceKind.PUBLIC, "北门", "c042"), "duplicate", "北门 has the id of 南门"),
        (Place("p9", PlaceKind.PUBLIC, "x", "p9"), "cycle", "p9 → p9"),
        (Place("Gate", PlaceKind.PUBLIC, "x", "c042"), "wrong-id", "1 to 48 of the characters"),
        (Place("p" * 49, PlaceKind.PUBLIC, "x", "c042"), "wrong-id", "1 to 48 of the characters"),
        (Place("c043", PlaceKind.COMMUNITY, "x"), "second-root", "is a second community beside c042"),
        (Place("p9", PlaceKind.PUBLIC, "x", "c042", grid="370215001004018"), "unknown-grid", "grid 370215001004018"),
        (Place("p9", PlaceKind.PUBLIC, "x", "c042", lon=120.4), "half-position", "give both or neither"),
    ],
)
def test_a_bad_place_is_one_clear_fault(grids: GridTree, place: Place, code: str, words: str) -> None:
    [fault] = check_places([*PLACES, place], grids)

    assert fault.code == code
    assert fault.what == f"place {place.id}"
    assert words in str(fault)
    with pytest.raises(DistrictError):
        PlaceTree([*PLACES, place], grids)


def test_a_long_ring_of_places_is_found_once() -> None:
    ring = [
        Place("p1", PlaceKind.PUBLIC, "a", "p3"),
        Place("p2", PlaceKind.PUBLIC, "b", "p1"),
        Place("p3", PlaceKind.PUBLIC, "c", "p2"),
        Place("p4", PlaceKind.PUBLIC, "d", "p1"),
    ]

    [fault] = check_places([*PLACES, *ring])

    assert (fault.code, fault.what) == ("cycle", "place p1")
    assert "p1 → p3 → p2 → p1" in fault.detail


def test_places_without_a_community_are_refused() -> None:
    assert _codes(check_places([])) == ["no-root"]
    assert _codes(check_places([Place("b1", PlaceKind.BUILDING, "1号楼", "c042")])) == ["unknown-parent", "no-root"]


@given(st.data())
def test_any_parents_make_a_tree_or_faults_and_never_an_endless_climb(data: st.DataObject) -> None:
    ids = [f"p{number}" for number in range(data.draw(st.integers(1, 8)))]
    parents = data.draw(st.lists(st.sampled_from([*ids, "c042", "nowhere"]), min_size=len(ids), max_size=len(ids)))
    listed = [Place("c042", PlaceKind.COMMUNITY, "海韵花园")]
    listed += [Place(id, PlaceKind.PUBLIC, id, parent) for id, parent in zip(ids, parents, strict=True)]

    faults = check_places(listed)

    if faults:
        assert {fault.code for fault in faults} <= {"unknown-parent", "cycle"}
        return
    tree = PlaceTree(listed)
    for id in ids:
        assert tree.ancestors(id)[-1] == "c042"
        assert tree.within(id, "community") == "c042"
