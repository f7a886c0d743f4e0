"""The series notation, and the cases of a rule as written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.catalog import CatalogError, build_catalog
from gateway.core.district import check_places
from gateway.core.model import Level, Phase
from gateway.core.trial import PLACES, SAMPLES_LIMIT, SeriesError, Trial, parse_series
from tests.core.files import SMOKE_TEST, SOUND, path_of


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("5", [5]),
        ("1x3", [1, 1, 1, 1]),
        ("0 1 0x2", [0, 1, 0, 0, 0]),
        ("20+5x3", [20, 25, 30, 35]),
        ("20-5x2", [20, 15, 10]),
        ("-20+5x1", [-20, -15]),
        ("-5-5x1", [-5, -10]),
        ("0.1+0.1x2", [0.1, 0.2, 0.3]),
        ("1e3 1.5e-3", [1000.0, 0.0015]),
        ("_ 1 _x1 2", [None, 1, None, None, 2]),
        ("true false truex1", [True, False, True, True]),
        ("open closedx1", ["open", "closed", "closed"]),
        ("20 nan 21", [20, "nan", 21]),
        ("", []),
    ],
)
def test_series_notation_has_promtools_meaning(text: str, samples: list[object]) -> None:
    found = parse_series(text, is_number=True)
    assert found == samples
    assert [type(sample) for sample in found] == [type(sample) for sample in samples]


@pytest.mark.parametrize("text", ["1x", "20+5", "20+x3", "1y3", "5..3", "1,2", "20+5x3x4", "-x3 5-", "1x9999999"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SeriesError):
        parse_series(text, is_number=True)


def test_a_series_is_not_endless() -> None:
    assert len(parse_series(f"1x{SAMPLES_LIMIT - 1}", is_number=True)) == SAMPLES_LIMIT
    with pytest.raises(SeriesError, match="more than"):
        parse_series(f"1x{SAMPLES_LIMIT} 2x9", is_number=True)


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 9), st.integers(0, 20)), max_size=6))
def test_a_written_series_is_read_back(parts: list[tuple[int, int, int]]) -> None:
    text = " ".join(f"{start}+{step}x{repeats}" for start, step, repeats in parts)
    expected = [start + step * i for start, step, repeats in parts for i in range(repeats + 1)]
    assert parse_series(text, is_number=True) == expected


def test_the_places_of_the_test_community_make_one_tree() -> None:
    assert check_places(PLACES) == ()
    assert {"building-2", "unit-1-2", "household-2-1-2", "public-1"} <= {place.id for place in PLACES}


def trials(text: str) -> list[Trial]:
    catalog = build_catalog({**SOUND, path_of("smoke-persists.test"): text})
    return list(catalog.tests["fire.smoke-persists"].trials)


def faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(CatalogError) as caught:
        build_catalog({**SOUND, path_of("smoke-persists.test"): text})
    return [(problem.line, problem.code) for problem in caught.value.problems]


def test_a_case_is_read_with_its_times_in_milliseconds() -> None:
    [_, case] = trials(SMOKE_TEST)
    assert case.line == 7
    assert case.start == 1_795_406_400_000
    assert [(s.at, s.device, s.reading, s.value) for s in case.samples[:4]] == [
        (0, "device", "smoke", 0),
        (0, "device", "mode", "normal"),
        (5_000, "device", "smoke", 1),
        (10_000, "device", "smoke", 1),
    ]
    assert [(e.at, e.phase, e.incidents, e.level) for e in case.expectations] == [
        (10_000, Phase.PENDING, None, None),
        (20_000, Phase.FIRING, None, None),
        (60_000, None, 1, Level.CRITICAL),
    ]
    assert [(d.id, d.profile, d.place) for d in case.devices] == [
        ("device", "nb-smoke", "household-1-1-1"),
        ("agent", "edge-agent", "public-1"),
    ]


def test_a_case_has_its_own_head_where_it_writes_one() -> None:
    text = """\
every: 5s
profile: nb-smoke
attributes: {floor: 3}
devices: {speaker: {profile: ip-speaker, place: building-1}}
cases:
  - {name: a, feed: {smoke: "1x2"}, expect: {0s: pending}}
  - name: b
    every: 1m
    start: 2026-01-01T00:00:00Z
    profile: heat-detector
    attributes: {}
    devices: {other: {profile: nb-smoke}}
    state: drill
    feed: {temperature: 20, other.smoke: 1}
    events: {other.self_test: [5s, {at: 7s}]}
    presence: {2m: online, 90s: offline}
    lists: {wanted: [x]}
    expect: {0: quiet}
"""
    [a, b] = trials(text)
    assert [device.id for device in a.devices] == ["device", "agent", "speaker"]
    assert a.devices[0].attributes == {"floor": 3}
    assert [(device.id, device.profile, device.place) for device in b.devices] == [
        ("device", "heat-detector", "household-1-1-1"),
        ("agent", "edge-agent", "public-1"),
        ("other", "nb-smoke", "household-1-1-1"),
    ]
    assert (b.start, b.state, b.devices[0].attributes) == (1_767_225_600_000, "drill", {})
    assert [(e.at, e.device, e.kind) for e in b.occurrences] == [
        (5_000, "other", "self_test"),
        (7_000, "other", "self_test"),
    ]
    assert b.presence == ((90_000, False), (120_000, True))
    assert b.lists == {"wanted": ("x",)}


def test_without_a_profile_the_first_supported_one_that_fits_is_taken() -> None:
    [case] = trials('cases: [{name: a, feed: {smoke: "1"}, expect: {0s: pending}}]')
    assert case.devices[0].profile == "nb-smoke"


def test_an_edge_agent_under_test_is_the_source_itself() -> None:
    [case] = trials("profile: edge-agent\ncases: [{name: a, presence: {5s: offline}, expect: {6s: quiet}}]")
    assert [(device.id, device.profile) for device in case.devices] == [("agent", "edge-agent")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{name: a, devices: {x: {profile: nb-smoke, place: moon}}, expect: {0s: quiet}}", "unknown-place"),
        ("{name: a, feed: {smoke: 1}, devices: {device: {profile: nb-smoke}}, expect: {0s: quiet}}", "reserved"),
        ("{name: a, feed: {x.smoke: 1}, expect: {0s: quiet}}", "unknown-device"),
        ("{name: a, feed: {smoke: 1x}, expect: {0s: {phase: quiet}}, every: -5s}", "wrong-value"),
        ("{name: a, events: {pressed: [5s]}, expect: {0s: quiet}}", "unknown-name"),
        ("{name: a, events: {self_test: [{}]}, expect: {0s: quiet}}", "missing-key"),
        ("{name: a, events: {self_test: [{at: 5s, x: 1}]}, expect: {0s: quiet}}", "unknown-field"),
        ("{name: a, events: {self_test: [{at: soon}]}, expect: {0s: quiet}}", "wrong-value"),
        ("{name: a, presence: {5s: away}, expect: {0s: quiet}}", "wrong-value"),
        ("{name: a, presence: {soon: offline}, expect: {0s: quiet}}", "wrong-value"),
        ("{name: a, feed: {smoke: 1}, start: today, expect: {0s: quiet}}", "wrong-value"),
        ("{name: a, feed: {smoke: 1}, start: 2026-01-01T00:00:00, expect: {0s: quiet}}", "wrong-value"),
        ("{name: a, feed: {smoke: 1}}", "missing-key"),
        ("{name: a, feed: {smoke: 1}, expect: {}}", "wrong-value"),
        ("{name: a, feed: {smoke: 1}, expect: {61d: quiet}}", "wrong-value"),
        ("{name: a, feed: {battery: 1x}, expect: {0s: quiet}}", "series"),
        ("{name: a, profile: heat-detector, feed: {smoke: 1}, expect: {0s: quiet}}", "unknown-name"),
    ],
)  # fmt: skip
def test_a_fault_of_a_case_is_named_with_its_line(line: str, code: str) -> None:
    assert faults(f"profile: nb-smoke\ncases:\n  - {line}\n") == [(3, code)]


def test_a_fault_of_the_head_is_named_once_and_there() -> None:
    cases = "cases:\n  - {name: a, expect: {0s: quiet}}\n  - {name: b, expect: {0s: quiet}}\n"
    assert faults(f"every: 5s\nprofile: smok\n{cases}") == [(2, "unknown-profile")]


def test_two_cases_cannot_have_one_name() -> None:
    cases = "cases:\n  - {name: a, expect: {0s: quiet}}\n  - {name: a, expect: {0s: quiet}}\n"
    assert faults(f"profile: nb-smoke\n{cases}") == [(4, "duplicate-case")]
