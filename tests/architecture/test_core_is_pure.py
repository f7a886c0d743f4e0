"""The core is told what time it is and what was read: its source calls nothing that would find out by itself.

The contract on imports cannot see ``datetime.now()``, because the core may use ``datetime``; this can.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

CORE = sorted((ROOT / "gateway" / "core").rglob("*.py"))

CLOCK_READS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}
"""Methods that read a clock when what they belong to is one of the modules or classes below."""
CLOCKS = {"datetime", "date", "time"}
RANDOM_IDS = {"uuid1", "uuid4", "getnode"}
WORLD = {"open", "input", "print", "eval", "exec", "compile", "__import__", "breakpoint"}


def find_impurities(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each call that reads a clock, draws a random id or touches the world."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in WORLD | RANDOM_IDS:
                yield node.lineno, name
            case ast.Attribute(value=owner, attr=name) if name in RANDOM_IDS:
                yield node.lineno, f"{ast.unparse(owner)}.{name}"
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
                if owner in CLOCKS and name in CLOCK_READS and (owner, name) != ("datetime", "time"):
                    yield node.lineno, f"{owner}.{name}"
            case ast.ImportFrom(module="uuid", names=names):
                yield from ((node.lineno, f"uuid.{alias.name}") for alias in names if alias.name in RANDOM_IDS)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_reads_no_clock_and_touches_nothing(path: Path) -> None:
    assert list(find_impurities(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "time.time()",
        "key=datetime.now",
        "uuid.uuid4()",
        "uuid4()",
        "from uuid import uuid4",
        "open('state')",
        "eval('1 + 1')",
    ],
)
def test_an_impure_line_is_noticed(line: str) -> None:
    source = line if "=" not in line else f"sorted([], {line})"
    assert [number for number, _ in find_impurities(source)] != []


@pytest.mark.parametrize(
    "line", ["datetime.fromtimestamp(at, UTC)", "uuid5(space, name)", "self.now", "re.compile('a')"]
)
def test_a_pure_line_is_left_alone(line: str) -> None:
    assert list(find_impurities(line)) == []
