"""The generated district: the real proportions, one tree, nothing that the gateway could not import."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from gateway.core.cameras import refuse_camera
from gateway.core.district import JIMO, GridTree, PlaceTree
from gateway.core.model import DeviceState, Grid, GridLevel, PlaceKind
from simulators import district as generator
from simulators.__main__ import app
from simulators.catalog import read_catalog
from simulators.district import District, Settlement, encode, generate
from tests.servers import ROOT


@pytest.fixture(scope="module")
def district() -> District:
    return generate(1)


@pytest.fixture(scope="module")
def grids(district: District) -> GridTree:
    return GridTree(district.grids, JIMO)


class _Import(msgspec.Struct, forbid_unknown_fields=True):
    grids: tuple[Grid, ...]
    communities: tuple[Settlement, ...]
    lists: dict[str, tuple[str, ...]]


def test_the_grid_has_the_real_proportions(district: District, grids: GridTree) -> None:
    assert Counter(grid.level for grid in grids) == {
        GridLevel.DISTRICT: 1,
        GridLevel.TOWN: 17,
        GridLevel.DEPARTMENT: 36,
        GridLevel.CENTRE: 133,
        GridLevel.STATION: 1101,
        GridLevel.BASE: 2698,
        GridLevel.SPECIAL: 563,
    }


def test_every_grid_but_the_lowest_has_something_below_it(grids: GridTree) -> None:
    parents = {grid.parent for grid in grids}

    childless = {grid.level for grid in grids if grid.code not in parents}

    assert childless == {GridLevel.BASE, GridLevel.SPECIAL}


def test_department_grids_lie_in_a_centre_and_outside_the_base_serials(grids: GridTree) -> None:
    special = [grid for grid in grids if grid.level == GridLevel.SPECIAL]

    assert all(grids.grid(grid.code[:12]).level == GridLevel.CENTRE for grid in special)
    assert all(grids.at_level(grid.code, GridLevel.DEPARTMENT) == grid.parent for grid in special)
    assert min(int(grid.code[12:]) for grid in special) == 901


def test_there_are_277_communities_each_in_a_base_grid_of_its_own(district: District, grids: GridTree) -> None:
    assert [settlement.community.serial for settlement in district.communities] == list(range(1, 278))
    assert len({settlement.community.name for settlement in district.communities}) == 277
    base = [settlement.places[0].grid for settlement in district.communities]
    assert len(set(base)) == 277
    for settlement, code in zip(district.communities, base, strict=True):
        assert code is not None
        assert grids.at_level(code, GridLevel.BASE) == code
        chain = tuple(above for above in grids.chain(code) if grids.grid(above).level != GridLevel.STATION)
        assert (*settlement.community.grids, code) == chain


def test_the_communities_stand_mostly_in_the_streets(district: District) -> None:
    towns = Counter(settlement.community.grids[1] for settlement in district.communities)

    assert len(towns) >= 15
    assert sum(count for town, count in towns.items() if generator.TOWNS[town].endswith("街道")) > 200


def test_the_places_of_every_community_make_a_tree(district: District, grids: GridTree) -> None:
    ids: set[str] = set()
    for settlement in district.communities:
        places = PlaceTree(settlement.places, grids)
        assert places.root.id == settlement.community.id
        assert 6 <= sum(place.kind == PlaceKind.BUILDING for place in places) <= 20
        units = Counter(place.parent for place in places if place.kind == PlaceKind.UNIT)
        assert all(2 <= count <= 4 for count in units.values())
        assert places.attribute(settlement.community.id, "noise_class") in {"0", "1", "2", "3", "4"}
        ids |= {place.id for place in places}
    assert len(ids) == sum(len(settlement.places) for settlement in district.communities)


def test_homes_stand_on_floors_that_the_building_has(district: District) -> None:
    doors = [
        place.name
        for settlement in district.communities
        for place in settlement.places
        if place.kind == PlaceKind.HOUSEHOLD
    ]

    assert len(doors) > 277 * 20
    assert all(1 <= int(re.fullmatch(r"(\d{1,2})0[1-4]室", door)[1]) <= 18 for door in doors)  # type: ignore[index]


def test_communities_and_their_buildings_lie_inside_the_box_and_apart(district: District) -> None:
    west, south, east, north = generator.BOX
    centres: list[tuple[float, float]] = []
    for settlement in district.communities:
        located = [(place.lon, place.lat) for place in settlement.places if place.lon is not None]
        assert len(located) > 6
        for lon, lat in located:
            assert lon is not None
            assert lat is not None
            assert west < lon < east
            assert south < lat < north
        first = settlement.places[0]
        assert first.lon is not None
        assert first.lat is not None
        centres.append((first.lon, first.lat))
    nearest = min(
        (abs(a - c) ** 2 + abs(b - d) ** 2) ** 0.5
        for index, (a, b) in enumerate(centres)
        for c, d in centres[index + 1 :]
    )
    assert nearest > 0.001


def test_each_community_has_its_agent_and_at_least_a_hundred_devices(district: District) -> None:
    ids: list[str] = []
    for settlement in district.communities:
        [source] = settlement.sources
        places = PlaceTree(settlement.places)
        assert source.id == f"agent-{settlement.community.serial:03}"
        assert source.place in places
        [agent] = [device for device in settlement.devices if device.profile == "edge-agent"]
        assert source.device == agent.id
        assert len(settlement.devices) == 106
        for device in settlement.devices:
            assert device.source == source.id
            assert device.place in places
            assert device.state == DeviceState.ACTIVE
            assert re.fullmatch(r"[a-z0-9-]{1,48}", device.id)
        ids.extend(device.id for device in settlement.devices)
    assert len(ids) == len(set(ids)) == district.device_count == 277 * 106


def test_the_mix_is_realistic(district: District) -> None:
    mix = Counter(device.profile for settlement in district.communities for device in settlement.devices)

    assert mix.most_common(1)[0][0] == "nb-smoke"
    assert mix["door-magnet"] > 2000
    assert set(mix) == {kind.profile for kind in generator.KINDS} | {"edge-agent"}
    assert 0.15 < mix["nb-smoke"] / mix.total() < 0.5


def test_every_camera_has_an_id_of_its_own_that_the_registry_takes(district: District) -> None:
    devices = [device for settlement in district.communities for device in settlement.devices]
    cameras = [device for device in devices if device.profile in ("plate-camera", "face-camera")]

    assert len({device.attributes["gb28181"] for device in cameras}) == len(cameras) > 0
    assert {refuse_camera(device.attributes) for device in devices} == {None}


def test_every_profile_is_one_that_the_gateway_has() -> None:
    """Makers' own models stay out of the district, and so does a fire panel with its call points: an agent has them.
    A plain camera only shows pictures, and those do not come through the gateway."""
    known = {yaml.safe_load(path.read_text("utf-8"))["id"] for path in (ROOT / "device_profiles").glob("*/*.yaml")}

    used = {kind.profile for kind in generator.KINDS} | {generator.EDGE_AGENT}
    assert used <= known
    kinds = {profile: read_catalog().profiles[profile].kind for profile in known}
    assert set(kinds.values()) - {kinds[profile] for profile in used} == {"fire-panel", "call-point", "camera"}


def test_what_the_rules_ask_for_finds_a_target(district: District) -> None:
    for settlement in district.communities:
        by_profile: dict[str, set[str]] = {}
        for device in settlement.devices:
            by_profile.setdefault(device.profile, set()).add(device.place)
        buildings = {place.id for place in settlement.places if place.kind == PlaceKind.BUILDING}
        assert buildings | by_profile["fire-lane-occupancy"] < by_profile["ip-speaker"]
        assert by_profile["smart-valve"] & by_profile["water-immersion"]
        assert by_profile["sound-light-siren"] <= buildings


def test_some_elders_live_alone_and_some_of_them_are_away(district: District) -> None:
    at_home = away = 0
    for settlement in district.communities:
        elders = [place for place in settlement.places if place.attributes.get("elder_alone") is True]
        meters = {device.place for device in settlement.devices if device.profile == "cold-water-meter"}
        metered = [place for place in elders if place.id in meters]
        assert any(place.attributes["away"] is False for place in metered)
        at_home += sum(place.attributes["away"] is False for place in metered)
        away += sum(place.attributes["away"] is True for place in metered)
    assert 0.1 < away / (away + at_home) < 0.3


def test_lifts_are_watched_in_tall_units_only_and_doors_say_what_they_are(district: District) -> None:
    for settlement in district.communities[:20]:
        places = PlaceTree(settlement.places)
        for device in settlement.devices:
            if device.profile == "lift":
                assert places.place(places.within(device.place, "unit")).kind == PlaceKind.UNIT
                assert places.label(device.place).endswith("单元电梯")
        doors = [device for device in settlement.devices if device.profile == "door-magnet"]
        assert {frozenset(device.attributes) for device in doors} == {
            frozenset(),
            frozenset({"fire_door"}),
            frozenset({"locked_at_night"}),
            frozenset({"office"}),
        }


def test_the_silent_devices_are_as_many_as_in_a_running_platform(district: District) -> None:
    by_profile: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    for settlement in district.communities:
        for device in settlement.devices:
            by_profile[device.profile] += 1
            silent[device.profile] += device.id in district.silent

    assert 0.003 < silent["nb-smoke"] / by_profile["nb-smoke"] < 0.012
    assert 0.01 < silent["door-magnet"] / by_profile["door-magnet"] < 0.03
    assert silent["edge-agent"] == 0
    assert sum(silent.values()) == len(district.silent)


def test_the_watch_list_holds_plates_of_the_right_shape(district: District) -> None:
    assert len(district.lists["wanted"]) == 8
    assert all(re.fullmatch("鲁[BU][A-HJ-NP-Z0-9]{5}", plate) for plate in district.lists["wanted"])


# --- the same seed, the same district --------------------------------------------------------------------------------


def test_another_process_with_another_hash_seed_makes_the_same_district(district: District) -> None:
    script = (
        "import hashlib; from simulators.district import encode, generate; "
        "print(hashlib.sha256(encode(generate(1))).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }

    assert printed == {hashlib.sha256(encode(district)).hexdigest()}


def test_another_seed_makes_another_district(district: District) -> None:
    assert encode(generate(2, communities=3)) != encode(generate(1, communities=3))


def test_a_community_is_the_same_among_many_and_among_few(district: District) -> None:
    few = generate(1, communities=5)

    assert few.communities == district.communities[:5]
    assert few.grids == district.grids


@pytest.mark.parametrize("devices", [generator.FEWEST_DEVICES, 400])
def test_communities_may_be_smaller_and_larger(devices: int, grids: GridTree) -> None:
    for settlement in generate(3, communities=40, devices_per_community=devices).communities:
        PlaceTree(settlement.places, grids=None)
        assert len(settlement.devices) == devices + 1


@pytest.mark.parametrize(("communities", "devices"), [(0, 105), (1000, 105), (10, 59)])
def test_a_district_that_cannot_be_is_refused(communities: int, devices: int) -> None:
    with pytest.raises(ValueError, match="must"):
        generate(1, communities, devices)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_holds_the_district_and_not_what_is_hidden(tmp_path: Path) -> None:
    out = tmp_path / "district.json"

    result = CliRunner().invoke(app, ["district", "--seed", "5", "--communities", "12", "--out", str(out)])

    assert result.exit_code == 0
    assert "12 communities, 1272 devices" in result.output
    read = msgspec.json.decode(out.read_bytes(), type=_Import)
    made = generate(5, communities=12)
    assert read == _Import(made.grids, made.communities, made.lists)


def test_tables_hold_it_too(tmp_path: Path) -> None:
    out = tmp_path / "tables"

    result = CliRunner().invoke(app, ["district", "--seed", "5", "--communities", "12", "--write", str(out)])

    assert result.exit_code == 0
    sizes = {path.name: len(path.read_text("utf-8-sig").splitlines()) - 1 for path in out.iterdir()}
    made = generate(5, communities=12)
    assert (sizes["grids.csv"], sizes["devices.csv"]) == (len(made.grids), made.device_count)
    assert CliRunner().invoke(app, ["district"]).exit_code == 2


def test_the_command_line_refuses_what_cannot_be(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["district", "--communities", "5000", "--out", str(tmp_path / "d.json")])

    assert result.exit_code == 2
    assert not (tmp_path / "d.json").exists()
