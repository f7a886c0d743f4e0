"""What a rule may ask of readings and events: a closed tree, and the one evaluator of it.

A condition is parsed once into a frozen tree (`parse_condition`), and bound once per key to the cells it looks at
(`bind`). Binding gives a function of the time that answers True, False or None: None is *unknown* (no reading yet, a
window that is not covered), which neither fires nor clears a rule. ``explain`` and the rule tests ask the same bound
leaves, so there is no second interpreter anywhere.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from gateway.core.model import Scalar

Truth = bool | None
Test = Callable[[int], Truth]

WINDOW_POINTS: Final = 60
"""Most points that a window of amounts or rates keeps: it is exact to 1/60 of its length, whatever the data rate."""

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


# --- the tree --------------------------------------------------------------------------------------------------------


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
    parts: tuple[Condition, ...]


class Any(Struct, frozen=True, tag="any"):
    parts: tuple[Condition, ...]


class Not(Struct, frozen=True, tag="not"):
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
    """Nothing of the reading (or of the ``device`` at all) for ``after`` ms; None stands for the profile's heartbeat."""

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


# --- parsing -----------------------------------------------------------------------------------------------------------


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


# --- cells: what a bound condition looks at --------------------------------------------------------------------------


class Heard:
    """When a device was last heard of. ``excused`` (ms) is added to its absence deadlines: time in which the gateway
    or the device's source could not have heard it."""

    __slots__ = ("at", "excused", "heartbeat", "id")

    def __init__(self, id: str, at: int, heartbeat: int | None) -> None:
        self.id = id
        self.at = at
        self.heartbeat = heartbeat
        self.excused = 0


class Window:
    """Points of one cell in a sliding window, thinned to `WINDOW_POINTS`. ``how`` is one of

    - ``rate``: (at, value);
    - ``total`` / ``amount``: (at, amount accumulated so far), for a running total or for single amounts;
    - ``count``: times of events, at most as many as are asked for;
    - ``held``: the one time until which the tests held last.
    """

    __slots__ = ("carry", "how", "last", "limit", "passes", "points", "span")

    def __init__(self, how: str, span: int, limit: int = 0, passes: Callable[[object], bool] | None = None) -> None:
        self.how = how
        self.span = span
        self.limit = limit
        self.passes = passes
        self.points: deque[tuple[int, float]] = deque()
        self.last: tuple[int, float] | None = None
        self.carry = 0.0

    def add(self, at: int, value: float) -> None:
        """Takes a sample in; samples come in order of time."""
        if self.how == "count":
            self.points.append((at, 1.0))
            if len(self.points) > self.limit:
                self.points.popleft()
            return
        if self.how == "total":
            # A meter that was exchanged or reset starts again below: its drop is no amount.
            self.carry += max(0.0, value - self.last[1]) if self.last else 0.0
            point = (at, self.carry)
        elif self.how == "amount":
            self.carry += value
            point = (at, self.carry)
        else:
            point = (at, value)
        self.last = (at, value)
        points = self.points
        if not points or at - points[-1][0] >= self.span // WINDOW_POINTS:
            points.append(point)
        start = at - self.span
        while len(points) > 1 and points[1][0] <= start:
            points.popleft()

    def change(self, now: int) -> tuple[float, bool] | None:
        """(what the newest point has over the window's start, whether the window is covered); None without points."""
        if self.last is None or not self.points:
            return None
        start, points = now - self.span, self.points
        while len(points) > 1 and points[1][0] <= start:
            points.popleft()
        newest = self.last[1] if self.how == "rate" else self.carry
        oldest_at, oldest = points[0]
        return newest - oldest, oldest_at <= start + self.span // WINDOW_POINTS

    def has_count(self, now: int) -> bool:
        return len(self.points) >= self.limit and self.points[0][0] > now - self.span

    def dump(self) -> list[object]:
        return [list(map(list, self.points)), None if self.last is None else list(self.last), self.carry]

    def load(self, data: Sequence[object]) -> None:
        points, last, carry = data
        self.points = deque((int(a), float(v)) for a, v in points)  # type: ignore[attr-defined]
        self.last = None if last is None else (int(last[0]), float(last[1]))  # type: ignore[index]
        self.carry = float(carry)  # type: ignore[arg-type]


class Cell:
    """The last believed value of one reading of one device, with the windows that conditions keep on it."""

    __slots__ = ("at", "heard", "prev", "value", "windows")

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.at = 0
        self.value: float | bool | str | None = None
        self.prev: float | bool | str | None = None
        self.windows: dict[str, Window] = {}

    def put(self, at: int, value: float | bool | str) -> None:
        """Takes a believed value in, not older than the last one."""
        if self.windows:
            self._slide(at, value)
        self.prev = self.value
        self.value = value
        self.at = at

    def _slide(self, at: int, value: float | bool | str) -> None:
        before = self.value
        heartbeat = self.heard.heartbeat
        is_gap = before is not None and heartbeat is not None and at - self.at > heartbeat
        for window in self.windows.values():
            if is_gap and window.how in ("rate", "total", "amount"):
                # What changed while the device was silent did not change in this window: it begins anew.
                window.points.clear()
            match window.how:
                case "held":
                    passes = window.passes
                    if passes is not None and (passes(value) or (before is not None and passes(before))):
                        window.last = (at, 0.0)
                case "count":
                    if value is True and before is not True:
                        window.add(at, 1.0)
                case _:
                    if not isinstance(value, str):
                        window.add(at, float(value))


class EventCell:
    """The events of one kind of one device: the newest one while it is judged, and the windows kept on them."""

    __slots__ = ("at", "data", "heard", "windows")

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.at = 0
        self.data: Mapping[str, Scalar] | None = None
        self.windows: dict[str, Window] = {}

    def put(self, at: int, data: Mapping[str, Scalar]) -> None:
        self.data = data
        self.at = max(self.at, at)
        for window in self.windows.values():
            if window.passes is None or window.passes(data):
                if window.how == "count":
                    window.add(at, 1.0)
                else:
                    window.last = (at, 0.0)

    def forget(self) -> None:
        """The event has been judged: nothing is "this very event" any more."""
        self.data = None


class Scope:
    """The devices that one key of a rule looks at. Implemented by the engine.

    ``attribute`` looks a name up on the device and its places upward; ``listed`` is the watch list's current set.
    """

    def cells(self, name: str) -> Sequence[Cell]:
        raise NotImplementedError

    def events(self, name: str) -> Sequence[EventCell]:
        raise NotImplementedError

    def devices(self) -> Sequence[Heard]:
        raise NotImplementedError

    def attribute(self, name: str, device: str | None) -> Scalar | None:
        raise NotImplementedError

    def listed(self, name: str) -> frozenset[str]:
        raise NotImplementedError

    def accumulates(self, cell: Cell) -> str:
        raise NotImplementedError


# --- binding -------------------------------------------------------------------------------------------------------------


class BoundLeaf(Struct, frozen=True):
    """One leaf bound to its cells: how it reads, what it says now, what it looks at, and when it may change by itself.

    ``devices`` are those for which it holds now.
    """

    path: str
    text: str
    test: Test
    look: Callable[[int], str]
    wake: Callable[[int], int | None] | None
    holders: Callable[[int], list[str]]


class Bound(Struct, frozen=True):
    """A condition bound to a key. ``wake`` gives the next time (ms) at which it may change without a new reading."""

    test: Test
    leaves: tuple[BoundLeaf, ...]
    wake: Callable[[int], int | None] | None


def bind(condition: Condition, scope: Scope) -> Bound:
    """Binds a condition to what ``scope`` offers. Windows that it needs are made on the cells, or shared."""
    leaves: list[BoundLeaf] = []
    test = _bind(condition, scope, "", leaves)
    wakes = [leaf.wake for leaf in leaves if leaf.wake is not None]

    def wake(now: int) -> int | None:
        times = [time for w in wakes if (time := w(now)) is not None]
        return min(times) if times else None

    return Bound(test, tuple(leaves), wake if wakes else None)


def _bind(condition: Condition, scope: Scope, path: str, leaves: list[BoundLeaf]) -> Test:
    match condition:
        case All(parts):
            return _all([_bind(part, scope, f"{path}all[{i}].", leaves) for i, part in enumerate(parts)])
        case Any(parts):
            return _any([_bind(part, scope, f"{path}any[{i}].", leaves) for i, part in enumerate(parts)])
        case Not(part):
            return _not(_bind(part, scope, f"{path}not.", leaves))
        case _:
            leaf = _bind_leaf(condition, scope, path + condition.name)
            leaves.append(leaf)
            return leaf.test


def _all(tests: Sequence[Test]) -> Test:
    def test(now: int) -> Truth:
        known = True
        for one in tests:
            truth = one(now)
            if truth is False:
                return False
            if truth is None:
                known = False
        return True if known else None

    return test


def _any(tests: Sequence[Test]) -> Test:
    def test(now: int) -> Truth:
        known = True
        for one in tests:
            truth = one(now)
            if truth:
                return True
            if truth is None:
                known = False
        return False if known else None

    return test


def _not(inner: Test) -> Test:
    def test(now: int) -> Truth:
        truth = inner(now)
        return None if truth is None else not truth

    return test


def _bind_leaf(leaf: Leaf, scope: Scope, path: str) -> BoundLeaf:
    singles: list[tuple[str, Test, Callable[[int], str], Callable[[int], int | None] | None]]
    match leaf:
        case Has():
            singles = [_bind_has(leaf, scope)]
        case Missing(name="device"):
            singles = [_bind_silence(leaf, heard, None) for heard in scope.devices()]
        case Missing():
            singles = [_bind_silence(leaf, cell.heard, cell) for cell in scope.cells(leaf.name)]
        case Seen():
            singles = [_bind_seen(leaf, cell, scope) for cell in scope.events(leaf.name)]
        case Count():
            counted: list[Cell | EventCell] = [*scope.events(leaf.name), *scope.cells(leaf.name)]
            singles = [_bind_count(leaf, cell, scope) for cell in counted]
        case Rate() | Sum():
            singles = [_bind_change(leaf, cell, scope) for cell in scope.cells(leaf.name)]
        case Reads():
            singles = [_bind_reads(leaf, cell, scope) for cell in scope.cells(leaf.name)]
    return _exists(path, describe(leaf), singles)


def _exists(
    path: str,
    text: str,
    singles: Sequence[tuple[str, Test, Callable[[int], str], Callable[[int], int | None] | None]],
) -> BoundLeaf:
    """One leaf over all devices of the scope: it holds if it holds for at least one of them."""
    tests = [test for _, test, _, _ in singles]
    wakes = [wake for _, _, _, wake in singles if wake is not None]

    def nothing(now: int) -> Truth:
        return None

    def some(now: int) -> Truth:
        found: Truth = None
        for one in tests:
            truth = one(now)
            if truth:
                return True
            if truth is False:
                found = False
        return found

    def look(now: int) -> str:
        shown = [f"{who}: {show(now)}" if len(singles) > 1 else show(now) for who, _, show, _ in singles[:20]]
        more = len(singles) - 20
        return ", ".join(shown) + (f", and {more} more" if more > 0 else "") if singles else "no such reading here"

    def wake(now: int) -> int | None:
        times = [time for w in wakes if (time := w(now)) is not None]
        return min(times) if times else None

    def holders(now: int) -> list[str]:
        return [who for who, test, _, _ in singles if who and test(now)]

    test = nothing if not tests else tests[0] if len(tests) == 1 else some
    return BoundLeaf(path, text, test, look, wake if wakes else None, holders)


Single = tuple[str, Test, Callable[[int], str], Callable[[int], int | None] | None]


def _bind_reads(leaf: Reads, cell: Cell, scope: Scope) -> Single:
    heard = cell.heard
    passes = _bind_compares(leaf.tests, scope, heard.id)
    compare_changed = any(test.op == "changed" for test in leaf.tests)

    def look(now: int) -> str:
        return "nothing yet" if cell.value is None else f"{show(cell.value)} at {cell.at}"

    if leaf.within is not None:
        span, window = leaf.within, _window(cell.windows, describe(leaf), "held", leaf.within, passes=passes)

        def held(now: int) -> Truth:
            if cell.value is None:
                return None
            return passes(cell.value) or (window.last is not None and window.last[0] > now - span)

        def wake(now: int) -> int | None:
            return None if window.last is None or window.last[0] + span <= now else window.last[0] + span

        return heard.id, held, look, wake
    if compare_changed:

        def changed(now: int) -> Truth:
            if cell.prev is None or cell.value is None:
                return None
            return cell.prev != cell.value and passes(cell.value)

        return heard.id, changed, look, None
    [first, *rest] = leaf.tests
    if not rest and (fast := _bind_fast(first, cell, scope)) is not None:
        return heard.id, fast, look, None

    def test(now: int) -> Truth:
        value = cell.value
        return None if value is None else passes(value)

    return heard.id, test, look, None


def _bind_fast(test: Compare, cell: Cell, scope: Scope) -> Test | None:
    """The commonest leaves by far, without a second call: one comparison of the last value with a fixed one."""
    if test.op == "is" and not isinstance(test.args[0], str):
        wanted = test.args[0]

        def same(now: int) -> Truth:
            value = cell.value
            return None if value is None else value == wanted

        return same
    if test.op not in ("above", "below"):
        return None
    limit = _resolve_number(test.args[0], scope, cell.heard.id)
    if limit is None:
        return None
    if test.op == "above":

        def above(now: int) -> Truth:
            value = cell.value
            return None if value is None else value > limit  # type: ignore[operator]

        return above

    def below(now: int) -> Truth:
        value = cell.value
        return None if value is None else value < limit  # type: ignore[operator]

    return below


def _bind_has(leaf: Has, scope: Scope) -> Single:
    passes = _bind_compares(leaf.tests, scope, None)

    found = scope.attribute(leaf.name, None)
    value = leaf.default if found is None else found
    truth = None if value is None else passes(value)
    return "", lambda now: truth, lambda now: f"{leaf.name} = {show(value)}", None


def _bind_silence(leaf: Missing, heard: Heard, cell: Cell | None) -> Single:
    after = heard.heartbeat if leaf.after is None else leaf.after

    def deadline() -> int | None:
        if after is None:
            return None
        since = heard.at if cell is None or cell.value is None else cell.at
        return since + after + heard.excused

    def test(now: int) -> Truth:
        due = deadline()
        return None if due is None else now >= due

    def wake(now: int) -> int | None:
        due = deadline()
        return due if due is not None and due > now else None

    def look(now: int) -> str:
        due = deadline()
        return "reports only on its own account" if due is None else f"last heard at {heard.at}, missing from {due}"

    return heard.id, test, look, wake


def _bind_seen(leaf: Seen, cell: EventCell, scope: Scope) -> Single:
    heard = cell.heard
    passes = _bind_where(leaf.where, scope, heard.id)

    def look(now: int) -> str:
        return "never" if not cell.at else f"last at {cell.at}"

    if leaf.within is None:

        def this(now: int) -> Truth:
            return False if cell.data is None else passes(cell.data)

        return heard.id, this, look, None
    span, window = leaf.within, _window(cell.windows, describe(leaf), "held", leaf.within, passes=passes)

    def lately(now: int) -> Truth:
        return window.last is not None and window.last[0] > now - span

    def wake(now: int) -> int | None:
        return None if window.last is None or window.last[0] + span <= now else window.last[0] + span

    return heard.id, lately, look, wake


def _bind_count(leaf: Count, cell: Cell | EventCell, scope: Scope) -> Single:
    heard = cell.heard
    passes = _bind_where(leaf.where, scope, heard.id) if leaf.where else None
    window = _window(cell.windows, describe(leaf), "count", leaf.within, leaf.at_least, passes)

    def test(now: int) -> Truth:
        return window.has_count(now)

    def wake(now: int) -> int | None:
        return window.points[0][0] + leaf.within if window.has_count(now) else None

    def look(now: int) -> str:
        return f"{sum(1 for at, _ in window.points if at > now - leaf.within)} of {leaf.at_least}"

    return heard.id, test, look, wake


def _bind_change(leaf: Rate | Sum, cell: Cell, scope: Scope) -> Single:
    heard = cell.heard
    how = "rate" if isinstance(leaf, Rate) else scope.accumulates(cell)
    window = _window(cell.windows, f"{how}:{leaf.within}", how, leaf.within)
    passes = _bind_compares((leaf.test,), scope, heard.id)
    # An amount only grows, and a rise seen in part of the window is a rise in the window: "above" may be believed
    # before the window is covered. "below" may not: half a night without water is not a night.
    is_early = leaf.test.op == "above"

    def test(now: int) -> Truth:
        found = window.change(now)
        if found is None:
            return None
        change, is_covered = found
        if is_covered:
            return passes(change)
        return True if is_early and passes(change) else None

    def look(now: int) -> str:
        found = window.change(now)
        return "nothing yet" if found is None else f"{found[0]:g}" + ("" if found[1] else " (window not covered yet)")

    return heard.id, test, look, None


def _window(
    windows: dict[str, Window],
    name: str,
    how: str,
    span: int,
    limit: int = 0,
    passes: Callable[[object], bool] | None = None,
) -> Window:
    window = windows.get(name)
    if window is None:
        window = windows[name] = Window(how, span, limit, passes)
    elif passes is not None:
        window.passes = passes
    return window


def _bind_where(where: Mapping[str, tuple[Compare, ...]], scope: Scope, device: str) -> Callable[[object], bool]:
    fields = [(field, _bind_compares(tests, scope, device)) for field, tests in where.items()]

    def passes(data: object) -> bool:
        if not isinstance(data, Mapping):
            return False
        return all((value := data.get(field)) is not None and test(value) for field, test in fields)

    return passes


def _bind_compares(tests: Iterable[Compare], scope: Scope, device: str | None) -> Callable[[object], bool]:
    bound = [_bind_compare(test, scope, device) for test in tests]
    if len(bound) == 1:
        return bound[0]
    return lambda value: all(test(value) for test in bound)


def _bind_compare(test: Compare, scope: Scope, device: str | None) -> Callable[[object], bool]:
    match test.op, test.args:
        case "is", (wanted,):
            return lambda value: value == wanted
        case "above", (low,):
            floor = _resolve_number(low, scope, device)
            return lambda value: floor is not None and _is_number(value) and value > floor  # type: ignore[operator]
        case "below", (high,):
            roof = _resolve_number(high, scope, device)
            return lambda value: roof is not None and _is_number(value) and value < roof  # type: ignore[operator]
        case "between", (low, high):
            lower, upper = _resolve_number(low, scope, device), _resolve_number(high, scope, device)
            if lower is None or upper is None:
                return lambda value: False
            return lambda value: _is_number(value) and lower <= value <= upper  # type: ignore[operator]
        case "in", (Listed(name),):
            return lambda value: value in scope.listed(name)
        case "in", members:
            return lambda value: value in members
        case _:
            return lambda value: True


def _resolve_number(number: object, scope: Scope, device: str | None) -> float | None:
    """The number, or what the attribute says now: a changed registry binds everything anew. None where nothing does."""
    if not isinstance(number, Attribute):
        return float(number)  # type: ignore[arg-type]
    value = scope.attribute(number.name, device)
    if value is None:
        return number.default
    if number.table is not None:
        return number.table.get(str(value), number.default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else number.default


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- in words ----------------------------------------------------------------------------------------------------------


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
