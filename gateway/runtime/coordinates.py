"""Positions as others give them, made into CGCS2000 longitude and latitude in degrees.

CGCS2000 and WGS 84 differ by centimetres and count as equal. GCJ-02 (AMap, Tencent) and BD-09 (Baidu) are shifted by
hundreds of metres; neither has an official text. The formulas are the ones that are published and used everywhere
(github.com/googollee/eviltransform, github.com/wandergis/coordtransform), and the tests hold them to the points that
are published with these.

No library on PyPI is fit to stand in for these thirty lines of arithmetic (looked at in November 2026). The one that
is kept, geocoordinates-rs, comes as a binary without its source and not for every system, and announces that its next
release breaks its names; it was used to check this file instead: over the whole district both agree to the last digit
that is kept. The others ask for a newer Python, bring GDAL along, or are years old; the common way back from GCJ-02,
one step without a correction, is metres off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

Position = tuple[float, float]
"""(lon, lat) in degrees."""

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

BOX: Final[Box] = (119.9, 36.1, 121.3, 36.9)
"""The box around 即墨区 (120.1, 36.3, 121.1, 36.7) with 0.2 degrees on each side."""

DIGITS: Final = 7
"""Converted positions are rounded to so many decimals: about a centimetre."""


METRES_PER_DEGREE: Final = 111_195.0
"""Of a great circle, with the earth's mean radius of 6,371 km."""


class Crs(StrEnum):
    """What a position is given in."""

    CGCS2000 = "cgcs2000"
    WGS84 = "wgs84"
    GCJ02 = "gcj02"
    BD09 = "bd09"


_NAMES: Final[Mapping[str, Crs]] = {
    **{crs.value: crs for crs in Crs},
    "epsg:4490": Crs.CGCS2000,
    "epsg:4326": Crs.WGS84,
    "ogc:crs84": Crs.WGS84,
}


def measure_distance(one: Position, other: Position) -> float:
    """Metres between two positions of one district: as on a plane, which is off by less than a thousandth there."""
    east = (other[0] - one[0]) * math.cos(math.radians((one[1] + other[1]) / 2))
    return math.hypot(east, other[1] - one[1]) * METRES_PER_DEGREE


def find_crs(name: str) -> Crs | None:
    """The system of this name, as tables and GeoJSON write it: ``gcj02``, ``GCJ-02``, ``EPSG:4490``,
    ``urn:ogc:def:crs:OGC:1.3:CRS84``; None when it is none of ours."""
    plain = name.strip().lower()
    if plain.startswith("urn:ogc:def:crs:"):
        authority, _, code = plain.removeprefix("urn:ogc:def:crs:").partition(":")
        plain = f"{authority}:{code.rpartition(':')[2]}"
    return _NAMES.get(plain) or _NAMES.get(plain.replace("-", ""))


def convert(position: Position, crs: Crs) -> Position:
    """The same place in CGCS2000. What is CGCS2000 or WGS 84 already stays as it is."""
    if crs in (Crs.CGCS2000, Crs.WGS84):
        return position
    if crs is Crs.BD09:
        position = _invert(_from_gcj02_to_bd09, position)
    lon, lat = _invert(from_wgs84_to_gcj02, position)
    return round(lon, DIGITS), round(lat, DIGITS)


def is_in_box(position: Position, box: Box = BOX) -> bool:
    """Whether it can lie in the district."""
    west, south, east, north = box
    return west <= position[0] <= east and south <= position[1] <= north


def from_wgs84_to_gcj02(position: Position) -> Position:
    """The shift of GCJ-02 (Krassovsky's ellipsoid, as everybody computes it)."""
    lon, lat = position
    x, y = lon - 105.0, lat - 35.0
    radius, squashed = 6378245.0, 0.00669342162296594323
    waves = 20 * math.sin(6 * math.pi * x) + 20 * math.sin(2 * math.pi * x)
    north = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * math.sqrt(abs(x))
    north += 2 / 3 * (waves + _waves(y, 20, 40, 160, 320))
    east = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * math.sqrt(abs(x))
    east += 2 / 3 * (waves + _waves(x, 20, 40, 150, 300))
    magic = 1 - squashed * math.sin(math.radians(lat)) ** 2
    along = radius / math.sqrt(magic)
    return (
        lon + math.degrees(east / (along * math.cos(math.radians(lat)))),
        lat + math.degrees(north / (along * (1 - squashed) / magic)),
    )


def _waves(at: float, first: float, second: float, third: float, fourth: float) -> float:
    return (
        first * math.sin(math.pi * at)
        + second * math.sin(math.pi * at / 3)
        + third * math.sin(math.pi * at / 12)
        + fourth * math.sin(math.pi * at / 30)
    )


def _from_gcj02_to_bd09(position: Position) -> Position:
    lon, lat = position
    turn = math.radians(3000)
    distance = math.hypot(lon, lat) + 0.00002 * math.sin(lat * turn)
    angle = math.atan2(lat, lon) + 0.000003 * math.cos(lon * turn)
    return distance * math.cos(angle) + 0.0065, distance * math.sin(angle) + 0.006


def from_wgs84_to_bd09(position: Position) -> Position:
    """The shift of BD-09, which comes on top of that of GCJ-02."""
    return _from_gcj02_to_bd09(from_wgs84_to_gcj02(position))


def _invert(shift: Callable[[Position], Position], shifted: Position) -> Position:
    """What was shifted there: neither formula can be solved, but its error shrinks about a hundredfold each time."""
    lon, lat = shifted
    for _ in range(12):
        there = shift((lon, lat))
        east, north = shifted[0] - there[0], shifted[1] - there[1]
        lon, lat = lon + east, lat + north
        if abs(east) < 1e-10 and abs(north) < 1e-10:
            break
    return lon, lat
