"""What a rule may ask of readings and events: a closed tree, read from files and told in words.

A condition is parsed once into a frozen tree here, and bound to what it looks at by the one evaluator (`evaluator`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from gateway.core.model import Scalar

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_COMPARISONS: Final = ("is", "above", "below", "between", "in", "changed")


class ConditionError(Exception):
    """A condition that is not in the language: where in the tree, what is wrong, what to write instead."""

    def __init__(self, path: str, what: str, mend: str) -> None:
        super().__init__(f"{path or 'condition'}: {what}; {mend}")
        self.path = path
        self.what = what
        self.mend = mend


def parse_duration(text: object, path: str = "") -> int:
    """Milliseconds of ``10s``, ``2m``, ``12h``, ``7d``, ``500ms``."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConditionError(
            path, f"{text!r} is no duration", "write a number and a unit, such as 500ms, 10s, 2m, 12h or 7d"
        )
    return round(float(found[1]) * _UNIT_MS[found[2]])


# --- the tree -----------------------------------------------------------------------------------------------


class Attribute(Struct, frozen=True):
    """A number taken from an attribute of the device, its place or a place above; ``table`` maps its text to one."""

    name: str
    default: float | None = None
    table: dict[str, float] | None = None


Number = float | Attribute


class Listed(Struct, frozen=True):
    """The entries of a registered watch list."""

    name: str


class Compare(Struct, frozen=True):
    """One comparison: ``op`` of is, above, below, between, in, changed; ``args`` as the operator needs."""

    op: str
    args: tuple[Number | bool | str | Listed, ...]


class All(Struct, frozen=True, tag="all"):
    """All parts hold."""

    parts: tuple[Condition, ...]


class Any(Struct, frozen=True, tag="any"):
    """At least one part holds."""

    parts: tuple[Condition, ...]


class Not(Struct, frozen=True, tag="not"):
    """The part does not hold."""

    part: Condition


class Reads(Struct, frozen=True, tag="reads"):
    """A reading's value passes all comparisons, now or (``within``, ms) at some moment of that window."""

    name: str
    tests: tuple[Compare, ...]
    within: int | None = None


class Has(Struct, frozen=True, tag="has"):
    """A registered attribute passes all comparisons; ``default`` stands where it is not set."""

    name: str
    tests: tuple[Compare, ...]
    default: Scalar | None = None


class Rate(Struct, frozen=True, tag="rate"):
    """The value now, less the value at the start of the window (ms), passes the comparison."""

    name: str
    within: int
    test: Compare


class Sum(Struct, frozen=True, tag="sum"):
    """The amount accumulated in the window (ms) passes the comparison."""

    name: str
    within: int
    test: Compare


class Count(Struct, frozen=True, tag="count"):
    """At least so many events, or times that a boolean reading became true, in the window (ms)."""

    name: str
    within: int
    at_least: int
    where: dict[str, tuple[Compare, ...]] = {}


class Missing(Struct, frozen=True, tag="missing"):
    """Nothing of the reading (or of the ``device`` at all) for ``after`` ms; None: the profile's heartbeat."""

    name: str
    after: int | None


class Seen(Struct, frozen=True, tag="seen"):
    """An event: this very one (``within`` None, momentary), or one of the last ``within`` ms."""

    name: str
    within: int | None
    where: dict[str, tuple[Compare, ...]] = {}


Leaf = Reads | Has | Rate | Sum | Count | Missing | Seen
Condition = All | Any | Not | Leaf
NameKind = Literal["reading", "event", "device", "attribute", "reading-or-event"]


class Named(Struct, frozen=True):
    """A name that a condition uses, and as what; ``leaf`` is the leaf itself, ``path`` where it stands."""

    name: str
    kind: NameKind
    leaf: Leaf
    path: str


def iter_leaves(condition: Condition, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every leaf with its path, in the order in which they are written."""
    match condition:
        case All(parts) | Any(parts):
            word = "all" if isinstance(condition, All) else "any"
            for i, part in enumerate(parts):
                yield from iter_leaves(part, f"{path}{word}[{i}].")
        case Not(part):
            yield from iter_leaves(part, f"{path}not.")
        case _:
            yield path + condition.name, condition


def names(condition: Condition) -> list[Named]:
    """The names that the condition uses and what each must be."""
    found = []
    for path, leaf in iter_leaves(condition):
        kind: NameKind
        match leaf:
            case Has():
                kind = "attribute"
            case Seen():
                kind = "event"
            case Count():
                kind = "reading-or-event"
            case Missing(name="device"):
                kind = "device"
            case _:
                kind = "reading"
        found.append(Named(leaf.name, kind, leaf, path))
    return found


def is_momentary(condition: Condition) -> bool:
    """Whether the condition is about this very event (``seen: true``): then it has no hold and no clear."""
    return any(isinstance(leaf, Seen) and leaf.within is None for _, leaf in iter_leaves(condition))


def is_absence(condition: Condition) -> bool:
    """Whether silence can make the condition true."""
    return any(isinstance(leaf, Missing) for _, leaf in iter_leaves(condition))


def is_answerable(condition: Condition, known: frozenset[str]) -> bool:
    """Whether devices with these readings and events could ever make the condition true."""
    match condition:
        case All(parts):
            return all(is_answerable(part, known) for part in parts)
        case Any(parts):
            return any(is_answerable(part, known) for part in parts)
        case Not(part):
            return is_answerable(part, known)
        case Has() | Missing(name="device"):
            return True
        case _:
            return condition.name in known


# --- parsing ------------------------------------------------------------------------------------------------


def parse_condition(data: object, path: str = "") -> Condition:
    """The tree of plain data as read from a file. Raises ConditionError with the path of the first fault."""
    if not isinstance(data, Mapping) or not data:
        raise ConditionError(
            path, "a condition is a mapping", "write all:, any:, not:, or the name of a reading or event"
        )
    if len(data) > 1:
        raise ConditionError(
            path, f"several keys in one condition: {', '.join(map(str, data))}", "put them in a list under all: or any:"
        )
    [(word, body)] = data.items()
    here = f"{path}.{word}" if path else str(word)
    match word:
        case "all" | "any":
            if not isinstance(body, Sequence) or isinstance(body, str) or not body:
                raise ConditionError(here, f"{word}: needs a list of conditions", "write them as list items")
            parts = tuple(parse_condition(item, f"{here}[{i}]") for i, item in enumerate(body))
            return All(parts) if word == "all" else Any(parts)
        case "not":
            return Not(parse_condition(body, here))
        case str():
            return _parse_leaf(word, body, here)
        case _:
            raise ConditionError(here, f"{word!r} is no name", "write the name of a reading or an event")


def _parse_leaf(name: str, body: object, path: str) -> Condition:
    if not isinstance(body, Mapping) or not body:
        raise ConditionError(path, "a leaf needs its tests", f"write, for example, {name}: {{above: 5}}")
    rest = dict(body)
    if name == "attribute":
        return _parse_attribute(rest, path)
    where = _parse_where(rest.pop("where"), f"{path}.where") if "where" in rest else {}
    compares = _take_comparisons(rest, path)
    parts: list[Condition] = []
    within = parse_duration(rest.pop("within"), f"{path}.within") if "within" in rest else None
    if compares:
        parts.append(Reads(name, compares, within))
    elif within is not None:
        raise ConditionError(
            f"{path}.within",
            "within: stands beside is, above, below, between or in",
            "add the test that must have held",
        )
    for word in ("rate", "sum"):
        if word in rest:
            span, inner = _parse_window(rest.pop(word), f"{path}.{word}")
            tests = _take_comparisons(inner, f"{path}.{word}")
            _refuse_rest(inner, f"{path}.{word}", "within above below")
            if len(tests) != 1 or tests[0].op not in ("above", "below"):
                raise ConditionError(f"{path}.{word}", f"{word}: needs one of above: and below:", "add one")
            parts.append(Rate(name, span, tests[0]) if word == "rate" else Sum(name, span, tests[0]))
    if "count" in rest:
        span, inner = _parse_window(rest.pop("count"), f"{path}.count")
        least = inner.pop("at_least", None)
        _refuse_rest(inner, f"{path}.count", "within at_least")
        if isinstance(least, bool) or not isinstance(least, int) or not 1 <= least <= 1000:
            raise ConditionError(
                f"{path}.count.at_least", f"{least!r} is no count", "write a whole number from 1 to 1000"
            )
        parts.append(Count(name, span, least, where))
    if "missing" in rest:
        after = rest.pop("missing")
        parts.append(Missing(name, None if after == "heartbeat" else parse_duration(after, f"{path}.missing")))
    if "seen" in rest:
        span_or_now = rest.pop("seen")
        parts.append(Seen(name, None if span_or_now is True else parse_duration(span_or_now, f"{path}.seen"), where))
    _refuse_rest(rest, path, "is above below between in changed within rate sum count missing seen where")
    if where and not any(isinstance(part, Seen | Count) for part in parts):
        raise ConditionError(f"{path}.where", "where: narrows events", "write it beside seen: or count:")
    if name == "device" and not all(isinstance(part, Missing) for part in parts):
        raise ConditionError(path, "device: has only the test missing:", "write device: {missing: heartbeat}")
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _parse_attribute(rest: dict[str, object], path: str) -> Has:
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise ConditionError(path, "an attribute leaf needs its name", "write attribute: {name: away, is: true}")
    default = rest.pop("default", None)
    tests = _take_comparisons(rest, path)
    _refuse_rest(rest, path, "name default is above below between in")
    if not tests or any(test.op == "changed" for test in tests):
        raise ConditionError(path, "an attribute leaf needs is, above, below, between or in", "add one")
    if default is not None and not isinstance(default, bool | int | float | str):
        raise ConditionError(f"{path}.default", "a default is one value", "write a number, a text or true/false")
    return Has(name, tests, default)


def _parse_window(body: object, path: str) -> tuple[int, dict[str, object]]:
    if not isinstance(body, Mapping) or "within" not in body:
        raise ConditionError(path, "needs its window", "add within:, for example within: 10m")
    inner = dict(body)
    span = parse_duration(inner.pop("within"), f"{path}.within")
    if span <= 0:
        raise ConditionError(f"{path}.within", "a window must be longer than nothing", "write, for example, 10m")
    return span, inner


def _parse_where(body: object, path: str) -> dict[str, tuple[Compare, ...]]:
    if not isinstance(body, Mapping) or not body:
        raise ConditionError(path, "where: is a mapping of fields to tests", "write where: {score: {above: 0.8}}")
    found = {}
    for field, tests in body.items():
        if not isinstance(tests, Mapping):
            raise ConditionError(f"{path}.{field}", "a field needs its tests", f"write {field}: {{is: …}}")
        rest = dict(tests)
        found[str(field)] = _take_comparisons(rest, f"{path}.{field}")
        _refuse_rest(rest, f"{path}.{field}", "is above below between in")
        if not found[str(field)] or any(test.op == "changed" for test in found[str(field)]):
            raise ConditionError(f"{path}.{field}", "a field is tested by is, above, below, between or in", "add one")
    return found


def _take_comparisons(rest: dict[str, object], path: str) -> tuple[Compare, ...]:
    tests = []
    for op in _COMPARISONS:
        if op not in rest:
            continue
        arg, here = rest.pop(op), f"{path}.{op}"
        match op:
            case "is":
                if not isinstance(arg, bool | int | float | str):
                    raise ConditionError(here, f"{arg!r} is no value", "write true, false, a number or a text")
                tests.append(Compare(op, (arg if isinstance(arg, bool | str) else float(arg),)))
            case "above" | "below":
                tests.append(Compare(op, (_parse_number(arg, here),)))
            case "between":
                if not isinstance(arg, Sequence) or isinstance(arg, str) or len(arg) != 2:
                    raise ConditionError(here, "between: needs two numbers", "write between: [low, high]")
                tests.append(Compare(op, (_parse_number(arg[0], f"{here}[0]"), _parse_number(arg[1], f"{here}[1]"))))
            case "in":
                tests.append(Compare(op, _parse_members(arg, here)))
            case _:
                if arg is not True:
                    raise ConditionError(here, "changed: takes only true", "write changed: true, or not: {…} around it")
                tests.append(Compare(op, ()))
    return tuple(tests)


def _parse_members(arg: object, path: str) -> tuple[Number | bool | str | Listed, ...]:
    if isinstance(arg, Mapping):
        if set(arg) != {"list"} or not isinstance(arg["list"], str):
            raise ConditionError(path, "in: takes a list of values or a watch list", "write in: {list: NAME}")
        return (Listed(arg["list"]),)
    if not isinstance(arg, Sequence) or isinstance(arg, str) or not arg:
        raise ConditionError(path, "in: takes a list of values or a watch list", "write in: [a, b] or in: {list: NAME}")
    if not all(isinstance(item, bool | int | float | str) for item in arg):
        raise ConditionError(path, "in: lists plain values", "write numbers, texts or true/false")
    return tuple(item if isinstance(item, bool | str) else float(item) for item in arg)


def _parse_number(arg: object, path: str) -> Number:
    if isinstance(arg, Mapping):
        rest = dict(arg)
        name, default, table = rest.pop("attribute", None), rest.pop("default", None), rest.pop("table", None)
        _refuse_rest(rest, path, "attribute default table")
        if not isinstance(name, str):
            raise ConditionError(path, "a number or {attribute: NAME}", "write attribute: and its name")
        if table is not None and not isinstance(table, Mapping):
            raise ConditionError(f"{path}.table", "a table maps texts to numbers", 'write table: {"1": 45}')
        return Attribute(
            name,
            None if default is None else _parse_plain_number(default, f"{path}.default"),
            None if table is None else {str(k): _parse_plain_number(v, f"{path}.table") for k, v in table.items()},
        )
    return _parse_plain_number(arg, path)


def _parse_plain_number(arg: object, path: str) -> float:
    if isinstance(arg, bool) or not isinstance(arg, int | float) or not math.isfinite(arg):
        raise ConditionError(path, f"{arg!r} is no number", "write a number")
    return float(arg)


def _refuse_rest(rest: Mapping[str, object], path: str, known: str) -> None:
    if rest:
        raise ConditionError(path, f"unknown test {', '.join(map(repr, rest))}", f"known here: {known}")


# --- in words -----------------------------------------------------------------------------------------------


def show(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def show_duration(ms: int) -> str:
    """``90000`` → ``90s``: the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _UNIT_MS[unit] == 0:
            return f"{ms // _UNIT_MS[unit]}{unit}"
    return f"{ms}ms"


def describe(leaf: Leaf) -> str:
    """The leaf in the words of the rule file, one line; equal leaves read equal."""
    match leaf:
        case Reads(name, tests, within):
            lately = "" if within is None else f" within {show_duration(within)}"
            return f"{name} {_describe_all(tests)}{lately}"
        case Has(name, tests, default):
            return f"attribute {name} {_describe_all(tests)}" + (
                "" if default is None else f" (default {show(default)})"
            )
        case Rate(name, within, test):
            return f"{name} rate in {show_duration(within)} {_describe(test)}"
        case Sum(name, within, test):
            return f"{name} sum in {show_duration(within)} {_describe(test)}"
        case Count(name, within, least, where):
            return f"{name}{_describe_where(where)} at least {least} times in {show_duration(within)}"
        case Missing(name, after):
            return f"{name} missing for {'its heartbeat' if after is None else show_duration(after)}"
        case Seen(name, within, where):
            return f"{name}{_describe_where(where)} seen" + (
                "" if within is None else f" in the last {show_duration(within)}"
            )


def _describe_all(tests: Iterable[Compare]) -> str:
    return " and ".join(map(_describe, tests))


def _describe(test: Compare) -> str:
    match test.op, test.args:
        case "changed", _:
            return "changed"
        case "between", (low, high):
            return f"between {_describe_arg(low)} and {_describe_arg(high)}"
        case "in", (Listed(name),):
            return f"in list {name}"
        case "in", members:
            return "in [" + ", ".join(_describe_arg(member) for member in members) + "]"
        case op, (arg,):
            return f"{op} {_describe_arg(arg)}"
        case op, _:
            return op


def _describe_arg(arg: object) -> str:
    if isinstance(arg, Attribute):
        table = f" by {arg.table}" if arg.table else ""
        return f"attribute {arg.name}{table}" + ("" if arg.default is None else f" (default {arg.default:g})")
    return show(arg)


def _describe_where(where: Mapping[str, tuple[Compare, ...]]) -> str:
    if not where:
        return ""
    return " where " + ", ".join(f"{field} {_describe_all(tests)}" for field, tests in where.items())
