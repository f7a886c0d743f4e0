"""Which values are believed, and in which unit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.catalog import build_catalog
from gateway.core.profile import (
    OUT_OF_RANGE,
    UNKNOWN_UNIT,
    WRONG_TYPE,
    Disbelief,
    EventSpec,
    FieldSpec,
    ReadingSpec,
    Refused,
    normalise,
)
from tests.core.files import SOUND

FAHRENHEIT = {"degF": (0.5555555555555556, -17.77777777777778)}
TEMPERATURE = ReadingSpec("t", "t", "number", "Cel", FAHRENHEIT, -40.0, 150.0)
FREE = ReadingSpec("x", "x", "number")
FLOOR = ReadingSpec("floor", "floor", "integer", low=-9.0, high=99.0)
SMOKE = ReadingSpec("smoke", "smoke", "boolean")
VALVE = ReadingSpec("valve", "valve", "text", values=("open", "closed"))
WORDS = ReadingSpec("words", "words", "text")


@pytest.mark.parametrize(
    ("spec", "value", "unit", "expected"),
    [
        (TEMPERATURE, 21.5, None, 21.5),
        (TEMPERATURE, 21.5, "Cel", 21.5),
        (TEMPERATURE, 21, None, 21.0),
        (TEMPERATURE, -40, None, -40.0),
        (TEMPERATURE, 150.0, None, 150.0),
        (TEMPERATURE, 150.1, None, OUT_OF_RANGE),
        (TEMPERATURE, -40.1, None, OUT_OF_RANGE),
        (TEMPERATURE, 302, "degF", 150.0),  # the limit in one unit is the limit in the other
        (TEMPERATURE, 302.1, "degF", OUT_OF_RANGE),
        (TEMPERATURE, 300, "K", UNKNOWN_UNIT),
        (TEMPERATURE, "hot", "K", UNKNOWN_UNIT),
        (TEMPERATURE, True, None, WRONG_TYPE),
        (TEMPERATURE, True, "degF", WRONG_TYPE),
        (TEMPERATURE, "21.5", None, WRONG_TYPE),
        (TEMPERATURE, None, None, WRONG_TYPE),
        (TEMPERATURE, [21.5], None, WRONG_TYPE),
        (TEMPERATURE, math.nan, None, WRONG_TYPE),
        (TEMPERATURE, math.inf, None, WRONG_TYPE),
        (TEMPERATURE, -math.inf, "degF", WRONG_TYPE),
        (TEMPERATURE, 10**400, None, OUT_OF_RANGE),
        (TEMPERATURE, 10**400, "degF", OUT_OF_RANGE),
        (FREE, 1e308, None, 1e308),
        (FREE, -math.inf, None, WRONG_TYPE),
        (FREE, 10**400, None, OUT_OF_RANGE),
        (FREE, 5, "Cel", UNKNOWN_UNIT),
        (FLOOR, 12, None, 12.0),
        (FLOOR, 12.0, None, 12.0),
        (FLOOR, 12.5, None, WRONG_TYPE),
        (FLOOR, 100, None, OUT_OF_RANGE),
        (FLOOR, True, None, WRONG_TYPE),
        (SMOKE, True, None, True),
        (SMOKE, False, "Cel", False),  # the base unit of a pack does not touch a truth value
        (SMOKE, 1, None, True),
        (SMOKE, 0.0, None, False),
        (SMOKE, 1, "Cel", UNKNOWN_UNIT),
        (SMOKE, 2, None, WRONG_TYPE),
        (SMOKE, "true", None, WRONG_TYPE),
        (SMOKE, math.nan, None, WRONG_TYPE),
        (VALVE, "open", None, "open"),
        (VALVE, "open", "Cel", "open"),
        (VALVE, "half", None, OUT_OF_RANGE),
        (VALVE, 1, None, WRONG_TYPE),
        (WORDS, "", None, ""),
        (WORDS, "x" * 256, None, "x" * 256),
        (WORDS, "x" * 257, None, OUT_OF_RANGE),
    ],
)
def test_a_value_is_believed_in_the_canonical_unit_or_not_at_all(
    spec: ReadingSpec, value: object, unit: str | None, expected: object
) -> None:
    found = spec.believe(value, unit)
    assert found == expected
    assert type(found) is type(expected)


@given(
    st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=8), st.none()),
    st.sampled_from([None, "Cel", "degF", "K"]),
)
def test_a_believed_number_is_finite_and_inside_its_range(value: object, unit: str | None) -> None:
    found = TEMPERATURE.believe(value, unit)
    assert isinstance(found, Disbelief) or (isinstance(found, float) and -40.0 <= found <= 150.0)


def test_the_check_of_a_reading_is_made_once() -> None:
    assert TEMPERATURE.believe is TEMPERATURE.believe


def test_specs_compare_by_what_they_say() -> None:
    again = ReadingSpec("t", "t", "number", "Cel", FAHRENHEIT, -40.0, 150.0)
    assert again.believe(1, None) == 1.0
    assert again == TEMPERATURE


def test_normalise_takes_a_devices_own_message_apart() -> None:
    profile = build_catalog(SOUND).profiles["heat-detector"]
    assert normalise(profile, {"f": 212, "rounds": 2.5, "rssi": -70}) == (
        {"temperature": 100.0},
        {"rounds": "wrong-type"},
    )
    assert normalise(profile, {}) == ({}, {})


FALL = EventSpec(
    "fall",
    "alarm",
    data={
        "score": FieldSpec("number", 0.0, 1.0),
        "steps": FieldSpec("integer"),
        "how": FieldSpec("text", values=("hard", "soft")),
        "alone": FieldSpec("boolean"),
        "plate": FieldSpec("plate"),
    },
)


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({}, None),
        ({"score": 0.5, "steps": 3, "how": "hard", "alone": True, "plate": "鲁B12345"}, None),
        ({"score": 1.5}, Refused("score", "out-of-range", "1.5")),
        ({"score": True}, Refused("score", "wrong-type", "True")),
        ({"score": math.nan}, Refused("score", "wrong-type", "nan")),
        ({"score": math.inf}, Refused("score", "wrong-type", "inf")),
        ({"steps": 2.5}, Refused("steps", "wrong-type", "2.5")),
        ({"steps": 10**400}, None),
        ({"how": "badly"}, Refused("how", "out-of-range", "badly")),
        ({"alone": 1}, Refused("alone", "wrong-type", "1")),
        ({"plate": ""}, Refused("plate", "out-of-range", "not shown")),
        ({"plate": 5}, Refused("plate", "wrong-type", "not shown")),
        ({"plate": "鲁" * 300}, Refused("plate", "out-of-range", "not shown")),
        ({"image": "/9j/4AAQSkZJRg"}, Refused("image", "unknown-field", "str not shown")),
    ],
)
def test_an_event_is_refused_for_its_first_wrong_field(data: dict[str, object], refused: Refused | None) -> None:
    assert FALL.refuse(data) == refused


def test_what_is_refused_never_shows_a_plate_or_a_picture() -> None:
    for data in ({"plate": ["鲁B12345"]}, {"face": "鲁B12345"}):
        refused = FALL.refuse(data)
        assert refused is not None
        assert "鲁B12345" not in refused.value
