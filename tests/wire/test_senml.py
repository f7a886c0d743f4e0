"""Packs resolve as RFC 8428 says, and what is no SenML is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.senml import SenmlFault, resolve

NOW = 1_498_780_179.0
"""When the recorded examples were resolved: the records of the first two are relative to it."""

NAME = "urn:dev:ow:10e2073a01080063"


def test_recorded_packs_resolve_to_the_records_beside_them(shared_data: Path) -> None:
    packs = [path for path in sorted((shared_data / "senml").glob("*.json")) if "resolved" not in path.name]
    assert packs, "the folder senml has no packs"
    for path in packs:
        expected = json.loads(path.with_suffix(".resolved.json").read_text(encoding="utf-8"))
        assert resolve(json.loads(path.read_text(encoding="utf-8")), NOW) == expected, path.name


def test_base_fields_hold_until_they_are_set_again() -> None:
    pack: list[dict[str, Any]] = [
        {"bn": "a:", "bt": 1e9, "bu": "Cel", "bv": 20, "bs": 100, "n": "x", "v": 1, "s": 1},
        {"n": "y"},
        {"bn": "b:", "bu": "V", "bv": 0, "n": "x", "u": "mV", "v": 3, "t": 1},
        {"n": "z", "vs": "text", "t": 2},
    ]
    assert resolve(pack, NOW) == [
        {"n": "a:x", "u": "Cel", "v": 21, "s": 101, "t": 1e9},
        {"n": "a:y", "u": "Cel", "v": 20, "s": 100, "t": 1e9},
        {"n": "b:x", "u": "mV", "v": 3, "s": 100, "t": 1e9 + 1},
        {"n": "b:z", "u": "V", "vs": "text", "s": 100, "t": 1e9 + 2},
    ]


def test_a_record_of_base_fields_alone_is_no_measurement() -> None:
    assert resolve([{"bn": NAME + ":"}, {"n": "heat", "u": "/", "v": 1}], NOW) == [
        {"n": NAME + ":heat", "u": "/", "v": 1, "t": NOW}
    ]


def test_each_kind_of_value_is_kept() -> None:
    pack: list[dict[str, Any]] = [
        {"bn": "d:", "n": "temp", "u": "Cel", "v": 23.1},
        {"n": "label", "vs": "Machine Room"},
        {"n": "open", "vb": False},
        {"n": "reader", "vd": "aGkgCg"},
        {"n": "energy", "s": 5, "ut": 60},
    ]
    assert resolve(pack, 2**30) == [
        {"n": "d:temp", "u": "Cel", "v": 23.1, "t": 2**30},
        {"n": "d:label", "vs": "Machine Room", "t": 2**30},
        {"n": "d:open", "vb": False, "t": 2**30},
        {"n": "d:reader", "vd": "aGkgCg", "t": 2**30},
        {"n": "d:energy", "s": 5, "ut": 60, "t": 2**30},
    ]


@pytest.mark.parametrize(
    ("t", "absolute"),
    [(0, NOW), (-5, NOW - 5), (5, NOW + 5), (2**28 - 1, NOW + 2**28 - 1), (2**28, 2**28), (-(2**28), NOW - 2**28)],
)
def test_a_time_below_two_to_the_28_counts_from_now(t: float, absolute: float) -> None:
    assert resolve([{"n": "x", "v": 1, "t": t}], NOW)[0]["t"] == absolute


def test_the_records_of_one_name_come_in_chronological_order() -> None:
    pack = [
        {"n": n, "v": v, "t": t} for n, v, t in (("a", 3, -1), ("b", 1, 0), ("a", 1, -3), ("a", 4, -1), ("a", 2, -2))
    ]
    assert [(record["n"], record["v"]) for record in resolve(pack, NOW)] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("a", 3),
        ("a", 4),
    ]


def test_unknown_labels_are_passed_over() -> None:
    assert resolve([{"n": "x", "v": 1, "foo": [1], "bfoo": {}}], NOW) == [{"n": "x", "v": 1, "t": NOW}]


@pytest.mark.parametrize(
    ("pack", "index", "words"),
    [
        ({"n": "x", "v": 1}, None, "no array"),
        ([], None, "empty"),
        ([{"n": "x", "v": 1}, 5], 1, "no object"),
        ([{}], 0, "empty"),
        ([{"n": "x"}], 0, "neither a value nor a sum"),
        ([{"n": "x", "v": 1, "vs": "one"}], 0, "one value"),
        ([{"v": 1}], 0, "name"),
        ([{"n": "_x", "v": 1}], 0, "name"),
        ([{"n": "x y", "v": 1}], 0, "name"),
        ([{"n": "烟", "v": 1}], 0, "name"),
        ([{"n": "x", "v": 1, "foo_": 1}], 0, "must be understood"),
        ([{"n": "x", "v": 1, "bver": 11}], 0, "not understood"),
        ([{"n": "x", "v": 1, "bver": 0}], 0, "positive integer"),
        ([{"n": "x", "v": 1, "bver": 5}, {"n": "y", "v": 1, "bver": 10}], 1, "version 5"),
        ([{"n": "x", "v": 1}, {"n": "y", "v": 1, "bver": 5}], 1, "version 10"),
        ([{"n": "x", "v": "1"}], 0, "no finite number"),
        ([{"n": "x", "v": True}], 0, "no finite number"),
        ([{"n": "x", "v": float("nan")}], 0, "no finite number"),
        ([{"n": "x", "v": 10**400}], 0, "no finite number"),
        ([{"n": "x", "v": 1e308, "bv": 1e308}], 0, "not finite"),
        ([{"n": "x", "vb": 1}], 0, "neither true nor false"),
        ([{"n": "x", "vs": 1}], 0, "no string"),
        ([{"n": 5, "v": 1}], 0, "no string"),
        ([{"n": "x", "vd": "a+/="}], 0, "base64url"),
    ],
)
def test_what_is_no_senml_is_refused_with_its_place(pack: Any, index: int | None, words: str) -> None:
    with pytest.raises(SenmlFault, match=words) as caught:
        resolve(pack, NOW)
    assert caught.value.index == index
