"""Positions from other systems, held to the points that the published implementation is tested with."""

from __future__ import annotations

import math

import pytest

from gateway.runtime.coordinates import (
    Crs,
    Position,
    convert,
    find_crs,
    from_wgs84_to_bd09,
    from_wgs84_to_gcj02,
    is_in_box,
)

# github.com/googollee/eviltransform, python/tests: (lon, lat) in WGS 84, then in GCJ-02.
GCJ02 = [
    ((121.5272106, 31.1774276), (121.531541859215, 31.17530398364597)),
    ((113.912316, 22.543847), (113.9171764808363, 22.540796131694766)),
    ((116.377817, 39.911954), (116.38404722455657, 39.91334545536069)),
]
# github.com/wandergis/coordtransform, README: (lon, lat) in WGS 84, then in BD-09.
TIANANMEN = (116.404, 39.915)
TIANANMEN_BD09 = (116.41662724378733, 39.922699552216216)
METRE = 1e-5
"""In degrees."""


def distance(one: Position, other: Position) -> float:
    """Metres, well enough for short ways."""
    north = (one[1] - other[1]) * 111_320
    return math.hypot(north, (one[0] - other[0]) * 111_320 * math.cos(math.radians(one[1])))


@pytest.mark.parametrize(("wgs84", "gcj02"), GCJ02)
def test_the_published_points_of_gcj02(wgs84: Position, gcj02: Position) -> None:
    assert from_wgs84_to_gcj02(wgs84) == pytest.approx(gcj02, abs=METRE)
    assert convert(gcj02, Crs.GCJ02) == pytest.approx(wgs84, abs=METRE)


def test_the_published_point_of_bd09() -> None:
    assert from_wgs84_to_bd09(TIANANMEN) == pytest.approx(TIANANMEN_BD09, abs=1e-12)
    assert convert(TIANANMEN_BD09, Crs.BD09) == pytest.approx(TIANANMEN, abs=1e-7)


@pytest.mark.parametrize("lon", [119.9, 120.45, 120.97, 121.3])
@pytest.mark.parametrize("lat", [36.1, 36.39, 36.9])
def test_there_and_back_is_the_same_place_all_over_the_district(lon: float, lat: float) -> None:
    for shift, crs in ((from_wgs84_to_gcj02, Crs.GCJ02), (from_wgs84_to_bd09, Crs.BD09)):
        shifted = shift((lon, lat))
        assert 300 < distance(shifted, (lon, lat)) < 1_500
        assert convert(shifted, crs) == pytest.approx((lon, lat), abs=1e-7)


def test_cgcs2000_and_wgs84_stay_to_the_last_digit() -> None:
    assert convert((120.123456789, 36.4), Crs.CGCS2000) == (120.123456789, 36.4)
    assert convert((120.123456789, 36.4), Crs.WGS84) == (120.123456789, 36.4)


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("cgcs2000", Crs.CGCS2000),
        ("GCJ-02", Crs.GCJ02),
        (" bd09 ", Crs.BD09),
        ("EPSG:4490", Crs.CGCS2000),
        ("urn:ogc:def:crs:EPSG::4490", Crs.CGCS2000),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", Crs.WGS84),
        ("WGS-84", Crs.WGS84),
        ("", None),
        ("epsg:3857", None),
        ("utm", None),
    ],
)
def test_names_of_systems(name: str, crs: Crs | None) -> None:
    assert find_crs(name) is crs


def test_the_box_has_a_margin_and_an_end() -> None:
    assert is_in_box((120.1, 36.3))
    assert is_in_box((119.95, 36.85))
    assert not is_in_box((36.4, 120.5))  # The wrong way round.
    assert not is_in_box((121.4, 36.4))
