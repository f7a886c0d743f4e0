"""Which values are believed, and in which unit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.catalog import CatalogError, build_catalog
from gateway.core.profile import (
    OUT_OF_RANGE,
    UNKNOWN_UNIT,
    WRONG_TYPE,
    Disbelief,
    EventSpec,
    FieldSpec,
    MqttWrite,
    ReadingSpec,
    Refused,
    RegisterSpec,
    RegisterWrite,
    normalise,
)
from tests.core.files import SOUND, spoil

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


def test_a_dot_goes_into_an_object_unless_a_field_is_called_so() -> None:
    files, _, _ = spoil("heat-detector", "temperature: {from: f,", "temperature: {from: a.b.f,")
    example = "{in: {f: 302, rounds: 3}, out: {temperature: 150, rounds: 3}}"
    path = "device_profiles/heat/heat-detector.yaml"
    files[path] = files[path].replace(
        example, "{in: {a: {b: {f: 302}}, rounds: 3}, out: {temperature: 150, rounds: 3}}"
    )
    files[path] = files[path].replace("{in: {f: 303,", "{in: {a.b.f: 303,")
    profile = build_catalog(files).profiles["heat-detector"]
    assert normalise(profile, {"a": {"b": {"f": 212}}}) == ({"temperature": 100.0}, {})
    assert normalise(profile, {"a.b.f": 32, "a": {"b": {"f": 212}}}) == ({"temperature": 0.0}, {})
    nothing: tuple[object, ...] = ({"b": {}}, {"b": 5}, {"b.f": 1}, 5, None, "b", ["b"])
    for a in nothing:
        assert normalise(profile, {"a": a}) == ({}, {})


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


WITH_REGISTERS = """\
  rounds: {type: integer, modbus: {register: 7}}
  pressure: {type: number, modbus: {register: 0x10, type: float32, order: cdab}}
  leak: {type: number, modbus: {register: 0, kind: input, type: int16, scale: 0.1}}
  wet: {type: boolean, modbus: {register: 3, kind: discrete}}
  tilted: {type: boolean, modbus: {register: 4, bit: 15}}
commands:
  reset: {modbus: {register: 2, kind: coil, value: 1}}
  sound: {args: {seconds: {type: integer, range: [1, 600]}}, modbus: {register: 9, value: seconds}}
"""


def test_a_profile_says_where_a_modbus_device_keeps_its_readings_and_what_its_commands_write() -> None:
    files, _, _ = spoil("heat-detector", "  rounds: {type: integer}\n", WITH_REGISTERS.replace("0x10", "16"))
    profile = build_catalog(files).profiles["heat-detector"]
    assert {name: spec.modbus for name, spec in profile.readings.items()} == {
        "temperature": None,
        "rounds": RegisterSpec(7, "holding", "uint16", 1.0, "abcd"),
        "pressure": RegisterSpec(16, "holding", "float32", 1.0, "cdab"),
        "leak": RegisterSpec(0, "input", "int16", 0.1, "abcd"),
        "wet": RegisterSpec(3, "discrete", "bit"),
        "tilted": RegisterSpec(4, "holding", "bit", bit=15),
    }
    assert profile.commands["reset"].modbus == RegisterWrite(2, 1, "coil")
    assert profile.commands["sound"].modbus == RegisterWrite(9, "seconds")


@pytest.mark.parametrize(
    ("modbus", "what", "mend"),
    [
        ("{kind: coil}", "register is missing", "add register:"),
        ("{register: 65536}", "65536 is not between 0 and 65535", "write a whole number from 0 to 65535"),
        ("{register: 0x10}", "'0x10' is not a whole number", "write a whole number"),
        ("{register: 1, kind: holdng}", "'holdng' is not allowed", "did you mean holding?"),
        ("{register: 1, size: 2}", "unknown key 'size'", "known here: bit, kind, order, register, scale, type"),
        ("{register: 1, bit: 3}", "one bit is true or false", "write type: boolean"),
        ("{register: 1, type: bit}", "a register has 16 bits", "add bit: from 0"),
        ("{register: 1, kind: coil}", "one bit is true or false", "write type: boolean"),
        ("{register: 1, kind: coil, type: int16}", "a coil is one bit, not int16", "remove type:"),
        ("{register: 1, kind: input, type: int16, bit: 2}", "bit: is of a bit", "remove bit:"),
        ("{register: 1, bit: 16}", "16 is not between 0 and 15", "from 0 to 15"),
        ("{register: 1, order: cdab}", "uint16 has no order", "remove order:"),
        ("{register: 65535, type: uint32}", "uint32 takes two registers", "write a lower register"),
        ("{register: 1, scale: 0}", "the scale is 0", "finite number other than 0"),
    ],
)
def test_a_wrong_register_is_named_with_its_line_and_mend(modbus: str, what: str, mend: str) -> None:
    files, path, line = spoil(
        "heat-detector", "rounds: {type: integer}", f"rounds: {{type: integer, modbus: {modbus}}}"
    )
    with pytest.raises(CatalogError) as caught:
        build_catalog(files)
    assert any(
        problem.file == path and problem.line == line and what in problem.what and mend in problem.mend
        for problem in caught.value.problems
    ), caught.value.problems


def test_a_text_is_in_no_register_and_a_truth_value_has_no_scale() -> None:
    files, _, _ = spoil("nb-smoke", "{type: text,", "{modbus: {register: 1}, type: text,")
    with pytest.raises(CatalogError, match="a register holds a number, not a text"):
        build_catalog(files)
    files, _, _ = spoil("nb-smoke", "{type: boolean,", "{modbus: {register: 1, scale: 10}, type: boolean,")
    with pytest.raises(CatalogError, match="has no scale"):
        build_catalog(files)


@pytest.mark.parametrize(
    ("modbus", "what"),
    [
        ("{register: 1}", "value is missing"),
        ("{register: 1, value: 65536}", "65536 cannot be written"),
        ("{register: 1, value: true}", "true cannot be written"),
        ("{register: 1, value: [1]}", "a list cannot be written"),
        ("{register: 1, value: minuts}", "minuts is no argument of the command"),
        ("{register: 1, kind: coil, value: 2}", "a coil is 0 or 1, not 2"),
        ("{register: 1, kind: coil, value: minutes}", "not every value of minutes fits a coil"),
        ("{register: 1, kind: input, value: 1}", "'input' is not allowed"),
    ],
)
def test_a_wrong_write_is_named_with_its_line(modbus: str, what: str) -> None:
    files, path, line = spoil("nb-smoke", "mute: {args:", f"mute: {{modbus: {modbus}, args:")
    with pytest.raises(CatalogError) as caught:
        build_catalog(files)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [(path, line)] * len(
        caught.value.problems
    )
    assert any(what in problem.what for problem in caught.value.problems), caught.value.problems


def test_a_profile_says_what_its_commands_publish_to_a_device_on_a_local_broker() -> None:
    mqtt = 'mqtt: {topic: MUTE, payload: {mute: ["{minutes}", "on {minutes}"]}, answered: false}'
    files, _, _ = spoil("nb-smoke", "mute: {args:", f"mute: {{{mqtt}, args:")
    spec = build_catalog(files).profiles["nb-smoke"].commands["mute"]
    assert spec.mqtt == MqttWrite({"mute": ["{minutes}", "on {minutes}"]}, "MUTE", answered=False)


@pytest.mark.parametrize(
    ("mqtt", "what"),
    [
        ("{topic: POWER}", "payload is missing"),
        ('{payload: {mute: "{minuts}"}}', "minuts is no argument of the command"),
        ('{payload: [1, {a: ["{x}"]}]}', "x is no argument of the command"),
        ("{payload: 1, topic: a/b}", "'a/b' is not one level of a topic"),
        ("{payload: 1, topic: '#'}", "'#' is not one level of a topic"),
        ("{payload: 1, answered: maybe}", "'maybe' is not true or false"),
    ],
)
def test_what_cannot_be_published_is_named_with_its_line(mqtt: str, what: str) -> None:
    files, path, line = spoil("nb-smoke", "mute: {args:", f"mute: {{mqtt: {mqtt}, args:")
    with pytest.raises(CatalogError) as caught:
        build_catalog(files)
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [(path, line)] * len(
        caught.value.problems
    )
    assert any(what in problem.what for problem in caught.value.problems), caught.value.problems
