"""A district generated from a seed: the real proportions of the grid, invented communities, homes and devices.

The town-level units and the numbers of nodes are real; everything below them (names, codes, geometry, who lives where)
is generated and stands for nobody. The same seed gives the same district on every machine, and a community is the same
whether many or few are generated beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.cameras import GB28181, RTSP
from gateway.core.district import JIMO
from gateway.core.model import SIMULATED, Community, Device, Grid, GridLevel, Place, PlaceKind, Scalar, Source

CENTRES: Final = 133
STATIONS: Final = 1101
BASE_GRIDS: Final = 2698
DEPARTMENT_GRIDS: Final = 563
COMMUNITIES: Final = 277
DEVICES_PER_COMMUNITY: Final = 105
FEWEST_DEVICES: Final = 60
"""Below this a community cannot have one device of each kind and a speaker in every building."""
MOST_COMMUNITIES: Final = 999
"""A community's serial has three digits."""

BOX: Final = (120.1, 36.3, 121.1, 36.7)
"""West, south, east, north in degrees, CGCS2000: the box around the district; the layout inside it is invented."""

TOWNS: Final[Mapping[str, str]] = {
    "370215001": "环秀街道",
    "370215002": "潮海街道",
    "370215003": "通济街道",
    "370215004": "北安街道",
    "370215005": "龙山街道",
    "370215006": "龙泉街道",
    "370215007": "鳌山卫街道",
    "370215008": "温泉街道",
    "370215009": "灵山街道",
    "370215010": "蓝村街道",
    "370215011": "大信街道",
    "370215100": "田横镇",
    "370215101": "金口镇",
    "370215103": "段泊岚镇",
    "370215104": "移风店镇",
    "370215400": "通济新经济区",
    "370215402": "田横岛省级旅游度假区",
}
"""The 17 town-level units with their codes (modood/Administrative-divisions-of-China, dist/streets.csv)."""

DEPARTMENTS: Final = (
    "应急管理局", "消防救援大队", "公安分局", "交警大队", "综合行政执法局", "城市管理局", "住房和城乡建设局", "民政局",
    "市场监督管理局", "生态环境分局", "水务局", "卫生健康局", "教育和体育局", "自然资源局", "交通运输局", "农业农村局",
    "工业和信息化局", "司法局", "财政局", "人力资源和社会保障局", "商务局", "文化和旅游局", "退役军人事务局", "审计局",
    "统计局", "医疗保障局", "行政审批服务局", "大数据发展局", "信访局", "园林环卫服务中心", "供热服务中心", "供水企业",
    "燃气企业", "供电企业", "通信企业", "残疾人联合会",
)  # fmt: skip
"""36 departments: 53 second-level nodes less the 17 towns. Which they are is our choice."""

_TOWN_CODES_URBAN: Final = (*(code for code in TOWNS if int(code[6:]) < 100), "370215400")

_STEMS_FIRST: Final = "海松云青和锦丽春景华安福兰金玉星月清碧翠"
_STEMS_SECOND: Final = "韵涛岭泽悦澜枫晖棠樾岚沁筑湾汀屿桥溪堤林"
_ESTATES: Final = ("花园", "家园", "雅苑", "佳苑", "华庭", "名邸", "新苑", "小区")
_PHASES: Final = ("", "一期", "二期", "三期")


class Settlement(Struct, frozen=True):
    """One community as imported: itself, its places (the first is the community), its sources and its devices."""

    community: Community
    places: tuple[Place, ...]
    sources: tuple[Source, ...]
    devices: tuple[Device, ...]


class District(Struct, frozen=True):
    """A generated district. ``silent`` are the devices that never report (dead battery, no signal): the truth that the
    fleet plays and the gateway must find out, so it is not part of the import file."""

    grids: tuple[Grid, ...]
    communities: tuple[Settlement, ...]
    lists: dict[str, tuple[str, ...]]
    silent: frozenset[str]

    @property
    def device_count(self) -> int:
        return sum(len(settlement.devices) for settlement in self.communities)


def generate(seed: int, communities: int = COMMUNITIES, devices_per_community: int = DEVICES_PER_COMMUNITY) -> District:
    """The district of this seed. ``devices_per_community`` does not count the community's edge agent.

    Raises ValueError when there are to be more communities than serials or too few devices for one of each kind."""
    if not 1 <= communities <= MOST_COMMUNITIES:
        raise ValueError(f"communities must lie in 1..{MOST_COMMUNITIES}, not {communities}")
    if devices_per_community < FEWEST_DEVICES:
        raise ValueError(f"devices_per_community must be at least {FEWEST_DEVICES}, not {devices_per_community}")
    grids, sites = _generate_grids(seed)
    names = _estate_names(Random(f"{seed}/names"))
    settlements: list[Settlement] = []
    silent: set[str] = set()
    for serial, site in zip(range(1, communities + 1), sites, strict=False):
        settlement, lost = _settle(seed, serial, names[serial - 1], site, devices_per_community)
        settlements.append(settlement)
        silent |= lost
    wanted = _plates(Random(f"{seed}/wanted"), 8)
    return District(tuple(grids), tuple(settlements), {"wanted": wanted}, frozenset(silent))


def generate_test_communities(seed: int, count: int = 2) -> District:
    """Communities of simulated devices alone, for the test stand: marked at their topmost place, so that nothing that
    comes of them reaches a real platform. Their serials lie above those of the district; nothing in them is silent.
    The grids are those that they lie in."""
    grids, sites = _generate_grids(seed)
    settlements = []
    for number, site in zip(range(1, count + 1), reversed(sites), strict=False):
        settlement, _ = _settle(
            seed, MOST_COMMUNITIES - count + number, f"试验小区{number}", site, DEVICES_PER_COMMUNITY
        )
        settlements.append(mark_simulated(settlement))
    parents = {grid.code: grid.parent for grid in grids}
    wanted = {place.grid for settlement in settlements for place in settlement.places}
    while above := {parents[code] for code in wanted if code is not None} - wanted:
        wanted |= above
    lists = {"wanted": _plates(Random(f"{seed}/wanted"), 8)}
    return District(tuple(grid for grid in grids if grid.code in wanted), tuple(settlements), lists, frozenset())


def mark_simulated(settlement: Settlement) -> Settlement:
    """The same, marked as a community of simulated devices."""
    places = tuple(
        replace(place, attributes={**place.attributes, SIMULATED: True}) if place.parent is None else place
        for place in settlement.places
    )
    return replace(settlement, places=places)


def read(path: Path) -> District:
    """An import file, read back; who is silent does not stand in it. Raises ValueError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_ImportFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path}: {error}") from error
    return District(found.grids, found.communities, found.lists, frozenset())


class _ImportFile(Struct, frozen=True):
    grids: tuple[Grid, ...]
    communities: tuple[Settlement, ...]
    lists: dict[str, tuple[str, ...]]


def encode(district: District) -> bytes:
    """The district in the gateway's import format: one JSON object with ``grids``, ``communities`` and ``lists``."""
    return msgspec.json.encode({"grids": district.grids, "communities": district.communities, "lists": district.lists})


def write(district: District, path: Path) -> None:
    """Writes the import file."""
    path.write_bytes(encode(district))


# --- the grid ------------------------------------------------------------------------------------------------------

_Box = tuple[float, float, float, float]


class _Site(Struct, frozen=True):
    """Where a community may be built: a base grid of its own, the chain above it, and its piece of the map."""

    grid: str
    chain: tuple[str, ...]
    box: _Box
    urban: bool


def _generate_grids(seed: int) -> tuple[list[Grid], list[_Site]]:
    """All grids, and all base grids as sites in the order in which communities take them."""
    rng = Random(f"{seed}/grids")
    district = Grid(JIMO.prefix, GridLevel.DISTRICT, "即墨区")
    towns = [Grid(code, GridLevel.TOWN, name, district.code) for code, name in TOWNS.items()]
    departments = [
        Grid(f"{district.code}{901 + index}", GridLevel.DEPARTMENT, name, district.code)
        for index, name in enumerate(DEPARTMENTS)
    ]
    urban = set(_TOWN_CODES_URBAN)
    town_boxes = _split(BOX, len(towns))
    rng.shuffle(town_boxes)
    stems = _stems(rng)
    centres: list[Grid] = []
    stations: list[Grid] = []
    bases: list[Grid] = []
    sites: list[tuple[float, _Site]] = []
    shares = _apportion(CENTRES, [(3.0 if town.code in urban else 1.0) * rng.uniform(0.7, 1.3) for town in towns])
    centre_boxes: dict[str, _Box] = {}
    for town, box, share in zip(towns, town_boxes, shares, strict=True):
        for index, piece in enumerate(_split(box, share)):
            centre = Grid(f"{town.code}{index + 1:03}", GridLevel.CENTRE, f"{next(stems)}社区网格中心", town.code)
            centres.append(centre)
            centre_boxes[centre.code] = piece
    per_centre = _apportion(STATIONS, [rng.uniform(0.5, 1.5) for _ in centres])
    for centre, count in zip(centres, per_centre, strict=True):
        stem = centre.name.removesuffix("社区网格中心")
        stations.extend(
            Grid(f"{centre.code}{index + 1:02}", GridLevel.STATION, f"{stem}第{index + 1}工作站", centre.code)
            for index in range(count)
        )
    per_station = _apportion(BASE_GRIDS, [rng.uniform(0.5, 1.5) for _ in stations])
    serials = dict.fromkeys(centre_boxes, 0)
    names = {centre.code: centre.name.removesuffix("社区网格中心") for centre in centres}
    for station, count in zip(stations, per_station, strict=True):
        above = station.parent or ""
        for _ in range(count):
            serials[above] += 1
            code = f"{above}{serials[above]:03}"
            bases.append(Grid(code, GridLevel.BASE, f"{names[above]}第{serials[above]}网格", station.code))
    pieces = {code: _split(centre_boxes[code], count) for code, count in serials.items()}
    for base in bases:
        centre_code = base.code[:12]
        town_code = base.code[:9]
        site = _Site(
            grid=base.code,
            chain=(district.code, town_code, centre_code),
            box=pieces[centre_code][int(base.code[12:]) - 1],
            urban=town_code in urban,
        )
        # A weighted order: the smart communities of a district stand mostly in its streets.
        sites.append((rng.random() ** (0.3 if site.urban else 1.0), site))
    sites.sort(key=lambda ranked: (-ranked[0], ranked[1].grid))
    specials = _department_grids(rng, departments, [centre.code for centre in centres])
    grids = [district, *towns, *departments, *centres, *stations, *bases, *specials]
    return grids, [site for _, site in sites]


def _department_grids(rng: Random, departments: Sequence[Grid], centres: Sequence[str]) -> Iterator[Grid]:
    """Grids of departments: each overlays a part of one centre's area and takes its serial from 901 on."""
    taken: dict[str, int] = {}
    shares = _apportion(DEPARTMENT_GRIDS, [rng.uniform(0.5, 1.5) for _ in departments])
    for department, share in zip(departments, shares, strict=True):
        for number in range(1, share + 1):
            centre = rng.choice(centres)
            while taken.get(centre, 0) >= 99:
                centre = rng.choice(centres)
            taken[centre] = taken.get(centre, 0) + 1
            code = f"{centre}{900 + taken[centre]}"
            yield Grid(code, GridLevel.SPECIAL, f"{department.name}专属网格{number}", department.code)


# --- a community ---------------------------------------------------------------------------------------------------


class _Plan:
    """A community while it is being laid out: its places so far, and where the next device of a kind goes."""

    def __init__(self, rng: Random, id: str, name: str, site: _Site) -> None:
        self.rng = rng
        self.id = id
        west, south, east, north = site.box
        self.lon = (west + east) / 2 + rng.uniform(-0.1, 0.1) * (east - west)
        self.lat = (south + north) / 2 + rng.uniform(-0.1, 0.1) * (north - south)
        # Buildings stand about 70 m apart, and closer where the piece of the map is small.
        self.pitch = (min(0.0008, (east - west) / 8), min(0.00065, (north - south) / 7))
        noise_class = rng.choices("01234", weights=(3, 52, 30, 5, 10))[0] if site.urban else "1"
        self.places: list[Place] = [
            Place(
                id=id,
                kind=PlaceKind.COMMUNITY,
                name=name,
                grid=site.grid,
                lon=round(self.lon, 6),
                lat=round(self.lat, 6),
                attributes={"noise_class": noise_class},
            )
        ]
        self.buildings: list[str] = []
        self.units: list[str] = []
        self.tall_units: list[str] = []
        self.households: list[str] = []
        self.elders: list[str] = []
        self._doors: set[str] = set()
        self._floors: dict[str, int] = {}
        self._spots: dict[str, str] = {}
        self._build()

    def _build(self) -> None:
        rng = self.rng
        for number in range(1, round(rng.triangular(6, 20, 6)) + 1):
            row, column = divmod(number - 1, 5)
            floors = rng.choice((6, 6, 6, 11, 11, 15, 17, 18))
            building = self._add(
                f"b{number:02}",
                PlaceKind.BUILDING,
                f"{number}号楼",
                self.id,
                at=(column - 2 + rng.uniform(-0.15, 0.15), row - 1.5 + rng.uniform(-0.15, 0.15)),
            )
            self.buildings.append(building)
            for number_in_building in range(1, rng.randint(2, 4) + 1):
                unit = self._add(
                    f"b{number:02}-u{number_in_building}", PlaceKind.UNIT, f"{number_in_building}单元", building
                )
                self.units.append(unit)
                self._floors[unit] = floors
                # Below seven storeys houses are built without a lift.
                if floors > 6:
                    self.tall_units.append(unit)

    def _add(
        self,
        slug: str,
        kind: PlaceKind,
        name: str,
        parent: str,
        at: tuple[float, float] | None = None,
        attributes: dict[str, Scalar] | None = None,
    ) -> str:
        """Adds a place; ``at`` is its position in pitches east and north of the community's middle."""
        lon = None if at is None else round(self.lon + at[0] * self.pitch[0], 6)
        lat = None if at is None else round(self.lat + at[1] * self.pitch[1], 6)
        place = Place(f"{self.id}-{slug}", kind, name, parent, lon=lon, lat=lat, attributes=attributes or {})
        self.places.append(place)
        return place.id

    def public(self, slug: str, name: str, parent: str | None = None) -> str:
        """The public place of this slug, made when it is first asked for."""
        if slug not in self._spots:
            at = None if parent else (self.rng.uniform(-2.5, 2.5), self.rng.uniform(-2.2, 2.2))
            self._spots[slug] = self._add(slug, PlaceKind.PUBLIC, name, parent or self.id, at=at)
        return self._spots[slug]

    def new_household(self, attributes: dict[str, Scalar] | None = None) -> str:
        while True:
            unit = self.rng.choice(self.units)
            door = f"{self.rng.randint(1, self._floors[unit])}{self.rng.randint(1, 4):02}"
            slug = f"{unit.removeprefix(self.id + '-')}-{door:0>4}"
            if slug not in self._doors:
                self._doors.add(slug)
                break
        household = self._add(slug, PlaceKind.HOUSEHOLD, f"{door}室", unit, attributes=attributes)
        self.households.append(household)
        return household

    def household(self) -> str:
        """A home for a device: mostly a new one, often enough one that has devices already."""
        if self.households and self.rng.random() < 0.35:
            return self.rng.choice(self.households)
        return self.new_household()

    def elder(self, index: int) -> str:
        """The home of the elder with this number, made when it is first asked for; about one in four is away."""
        while len(self.elders) <= index:
            # The first elder is at home, so that every community has somebody to watch over.
            away = bool(self.elders) and self.rng.random() < 0.25
            self.elders.append(self.new_household({"elder_alone": True, "away": away}))
        return self.elders[index]


_Siting = Callable[[_Plan, int], str]
"""Where the device with this number (from 0) of a kind goes: a place id."""


def _in_elder_home_or(other: _Siting, elders: int) -> _Siting:
    return lambda plan, index: plan.elder(index) if index < elders else other(plan, index)


def _in_household(plan: _Plan, index: int) -> str:
    return plan.household()


def _in_household_or_stairwell(plan: _Plan, index: int) -> str:
    return plan.rng.choice(plan.units) if index % 5 == 4 else plan.household()


def _in_stairwell(plan: _Plan, index: int) -> str:
    return plan.rng.choice(plan.units)


def _in_building(plan: _Plan, index: int) -> str:
    return plan.buildings[index % len(plan.buildings)]


def _at_lane(plan: _Plan, index: int) -> str:
    return plan.public(f"lane-{index + 1:02}", f"{index + 1}号消防通道")


def _within_hearing(plan: _Plan, index: int) -> str:
    """Every building, then every fire lane, then the plaza."""
    if index < len(plan.buildings):
        return plan.buildings[index]
    lane = index - len(plan.buildings)
    return _at_lane(plan, lane) if lane < _FIRE_LANES else _at_plaza(plan, index)


def _at_door(plan: _Plan, index: int) -> str:
    """The first doors are elders' own, the next is the property office's, the others are in stairwells."""
    if index < _ELDER_DOORS:
        return plan.elder(index)
    return plan.public(*_OPEN_SPOTS[3]) if index == _ELDER_DOORS else _in_stairwell(plan, index)


def _in_lift(plan: _Plan, index: int) -> str:
    unit = plan.tall_units[index]
    return plan.public(f"{unit.removeprefix(plan.id + '-')}-lift", "电梯", unit)


def _at_spot(slug: str, name: str) -> _Siting:
    """Each device at a numbered public place of its own."""
    return lambda plan, index: plan.public(f"{slug}-{index + 1:02}", f"{index + 1}号{name}")


_ELDER_DOORS: Final = 3
_FIRE_LANES: Final = 2
_ROOMS: Final = (("pump-room", "水泵房"), ("power-room", "配电室"), ("garage", "地下车库"))
_OPEN_SPOTS: Final = (
    ("gate-south", "南门"),
    ("plaza", "中心广场"),
    ("gate-north", "北门"),
    ("service", "物业服务中心"),
    ("garage", "地下车库"),
    ("playground", "儿童活动区"),
)


def _in_room(plan: _Plan, index: int) -> str:
    return plan.public(*_ROOMS[index % len(_ROOMS)])


def _in_power_room_or_building(plan: _Plan, index: int) -> str:
    return plan.public(*_ROOMS[1]) if index == 0 else _in_building(plan, index - 1)


def _at_open_spot(plan: _Plan, index: int) -> str:
    return plan.public(*_OPEN_SPOTS[index % len(_OPEN_SPOTS)])


def _at_gate(plan: _Plan, index: int) -> str:
    return plan.public(*(_OPEN_SPOTS[0], _OPEN_SPOTS[2])[index % 2])


def _at_plaza(plan: _Plan, index: int) -> str:
    return plan.public(*_OPEN_SPOTS[1])


_Attributes = Callable[[int], dict[str, Scalar]]
"""What is registered about the device with this number of a kind, beside what its profile says of all."""


def _no_attributes(index: int) -> dict[str, Scalar]:
    return {}


def _door_attributes(index: int) -> dict[str, Scalar]:
    """As the doors of `_at_door` are; those in stairwells are by turns fire doors and doors locked at night."""
    if index < _ELDER_DOORS:
        return {}
    if index == _ELDER_DOORS:
        return {"office": True}
    return {"fire_door": True} if index % 2 else {"locked_at_night": True}


class Kind(Struct, frozen=True):
    """A kind of device in the fleet: its profile, its part in device ids, its name, its weight in the mix, the share
    that never reports (``loss``) and the chance that a community's whole group of it is dead (``dead_group``)."""

    profile: str
    slug: str
    title: str
    weight: float
    loss: float
    siting: _Siting
    dead_group: float = 0.0
    attributes: _Attributes = _no_attributes


EDGE_AGENT: Final = "edge-agent"
SPEAKER: Final = Kind("ip-speaker", "speaker", "广播音柱", 0, 0.01, _within_hearing)
LIFT: Final = Kind("lift", "lift", "电梯监测", 0, 0.005, _in_lift)
PLATE_CAMERA: Final = Kind("plate-camera", "plate", "车辆识别摄像机", 0, 0.005, _at_gate)
FACE_CAMERA: Final = Kind("face-camera", "face", "人脸识别摄像机", 0, 0.005, _at_gate)
NOISE: Final = Kind("noise-station", "noise", "噪声监测站", 0, 0.01, _at_plaza)
PARTICULATES: Final = Kind("pm-station", "dust", "颗粒物监测站", 0, 0.01, _at_plaza)
LANE: Final = Kind("fire-lane-occupancy", "lane", "消防通道监测", 0, 0.01, _at_lane)
VALVE: Final = Kind("smart-valve", "valve", "智能水阀", 0, 0.01, _in_room)
MIXED: Final = (
    Kind("nb-smoke", "smoke", "烟感", 40, 15 / 2405, _in_household_or_stairwell),
    Kind(
        "door-magnet",
        "door",
        "门磁",
        24,
        10 / 510,
        _at_door,
        attributes=_door_attributes,
    ),
    Kind("manhole-cover", "manhole", "井盖", 9, 0.01, _at_spot("manhole", "井盖")),
    Kind("household-gas", "gas", "燃气探测器", 8, 0.01, _in_household, dead_group=0.01),
    Kind("fixed-sos", "sos", "一键求助", 7, 0.005, _in_elder_home_or(_at_open_spot, 2)),
    Kind("cold-water-meter", "meter", "水表", 5, 0.01, _in_elder_home_or(_in_household, 4)),
    Kind("electrical-fire", "power", "电气火灾监测", 4, 0.01, _in_power_room_or_building),
    Kind("hydrant-pressure", "hydrant", "消火栓", 4, 0.01, _at_spot("hydrant", "消火栓")),
    Kind("water-immersion", "flood", "水浸", 3, 0.01, _in_room),
    Kind("temperature-humidity", "climate", "温湿度", 3, 0.01, _in_room),
    Kind("sos-wristband", "band", "求助手环", 3, 0.05, _in_elder_home_or(_in_household, 6), dead_group=0.03),
    Kind("heat-detector", "heat", "感温探测器", 3, 0.01, _in_stairwell),
    Kind("sound-light-siren", "siren", "声光警报器", 2, 0.01, _in_building),
)
"""Weights and losses after the public figures of a running platform (2405 smoke detectors with 15 lost, 510 door
magnets with 10 lost, 515 manhole covers; some small groups wholly offline); where it gives none they are our choice."""

KINDS: Final = (SPEAKER, LIFT, PLATE_CAMERA, FACE_CAMERA, NOISE, PARTICULATES, LANE, VALVE, *MIXED)
"""Every kind of device beside the edge agent: the one table in which profile ids stand."""


def _settle(seed: int, serial: int, name: str, site: _Site, devices: int) -> tuple[Settlement, set[str]]:
    id = f"c{serial:03}"
    rng = Random(f"{seed}/{id}")
    plan = _Plan(rng, id, name, site)
    agent = f"agent-{serial:03}"
    counts: list[tuple[Kind, int]] = [
        (SPEAKER, len(plan.buildings) + _FIRE_LANES + 1),
        (LIFT, min(len(plan.tall_units), rng.randint(1, 4))),
        (PLATE_CAMERA, 2),
        (FACE_CAMERA, rng.randint(1, 2)),
        (NOISE, 1),
        (PARTICULATES, 1),
        (LANE, _FIRE_LANES),
        (VALVE, 1),
    ]
    left = devices - sum(count for _, count in counts)
    counts.extend(zip(MIXED, _apportion(left, [kind.weight for kind in MIXED]), strict=True))
    registered = [Device(agent, EDGE_AGENT, agent, plan.public("service", "物业服务中心"), "边缘网关")]
    silent: set[str] = set()
    cameras = 0
    for kind, count in counts:
        dead = rng.random() < kind.dead_group
        for index in range(count):
            device = f"{id}-{kind.slug}-{index + 1:04}"
            place = kind.siting(plan, index)
            attributes = kind.attributes(index)
            if kind in (PLATE_CAMERA, FACE_CAMERA):
                cameras += 1
                attributes |= _camera_attributes(device, serial, cameras)
            registered.append(
                Device(device, kind.profile, agent, place, f"{kind.title}{index + 1}", attributes=attributes)
            )
            if dead or rng.random() < kind.loss:
                silent.add(device)
    community = Community(id=id, serial=serial, name=name, grids=site.chain)
    source = Source(id=agent, place=plan.public("service", "物业服务中心"), device=agent)
    return Settlement(community, tuple(plan.places), (source,), tuple(registered)), silent


def _camera_attributes(device: str, community: int, number: int) -> dict[str, Scalar]:
    """An id as GB/T 28181 builds it (the district, a community's camera, 132 a network camera), and an address that
    leads nowhere."""
    id = f"{JIMO.prefix}00011320{community:03}{number:03}"
    return {GB28181: id, RTSP: f"rtsp://{device}.cameras.example/main"}


# --- shares, pieces of the map, names ------------------------------------------------------------------------------


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` in whole parts by weight, at least one each: the largest remainders get what is over."""
    spare = total - len(weights)
    if spare < 0:
        raise ValueError(f"{total} cannot be shared among {len(weights)} with at least one each")
    exact = [spare * weight / sum(weights) for weight in weights]
    parts = [1 + math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: (math.floor(exact[index]) - exact[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def _split(box: _Box, count: int) -> list[_Box]:
    """``count`` pieces of the box that do not overlap, in rows from the west to the east and the north to the south."""
    west, south, east, north = box
    columns = math.ceil(math.sqrt(count * (east - west) / (north - south)))
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    width, height = (east - west) / columns, (north - south) / rows
    pieces: list[_Box] = []
    for index in range(count):
        row, column = divmod(index, columns)
        left, top = west + column * width, north - row * height
        pieces.append((left, top - height, left + width, top))
    return pieces


def _stems(rng: Random) -> Iterator[str]:
    stems = [first + second for first in _STEMS_FIRST for second in _STEMS_SECOND]
    rng.shuffle(stems)
    return iter(stems)


def _estate_names(rng: Random) -> list[str]:
    """Names that are plainly generated: every combination of a stem, a kind and a phase, shuffled."""
    names = [stem + estate + phase for stem in _stems(rng) for estate in _ESTATES for phase in _PHASES]
    rng.shuffle(names)
    return names[:MOST_COMMUNITIES]


def _plates(rng: Random, count: int) -> tuple[str, ...]:
    """Invented plates of this city's office (鲁B, 鲁U) with the five characters of GA 36-2018, without I and O."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    plates: set[str] = set()
    while len(plates) < count:
        digits = "".join(str(rng.randrange(10)) for _ in range(4))
        plates.add(f"鲁{rng.choice('BU')}{rng.choice(letters)}{digits}")
    return tuple(sorted(plates))
