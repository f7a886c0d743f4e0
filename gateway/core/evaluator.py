"""The one evaluator: a condition bound to what it looks at gives a function of the time.

It answers True, False or None: None is *unknown* (no reading yet, a window that is not covered), which neither fires
nor clears a rule. ``explain`` and the rule tests ask the same bound leaves; there is no second interpreter anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.core.cells import NEVER, Cell, ChangeWindow, CountWindow, EventCell, Heard, HeldWindow, Scope
from gateway.core.condition import (
    All,
    Any,
    Attribute,
    Compare,
    Condition,
    Count,
    Has,
    Leaf,
    Listed,
    Missing,
    Not,
    Rate,
    Reads,
    Seen,
    Sum,
    describe,
    show,
)

Truth = bool | None
Test = Callable[[int], Truth]


class Moving(Struct, frozen=True):
    """A limit that goes with the values from which a window counts changes: not more than ``rise`` above the lowest of
    them, not more than ``fall`` (a negative number) below the highest."""

    window: str
    rise: float = math.inf
    fall: float = -math.inf


class Band(Struct, frozen=True):
    """Values of a reading, from ``low`` to ``high`` and within what moves."""

    low: float = -math.inf
    high: float = math.inf
    moving: tuple[Moving, ...] = ()


ANY_VALUE: Final = Band()


class BoundLeaf(Struct, frozen=True):
    """One leaf bound to its cells: how it reads, what it says now, what it looks at, and when it may change by itself.

    ``devices`` are those for which it holds now.
    """

    path: str
    leaf: Leaf
    test: Test
    look: Callable[[int], str]
    wake: Callable[[int], int | None] | None
    holders: Callable[[int], list[str]]

    @property
    def text(self) -> str:
        """The leaf in the words of the rule file."""
        return describe(self.leaf)


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


def find_quiet_band(condition: Condition, name: str, scope: Scope) -> Band | None:
    """The values (low, high) of the reading ``name`` with which the condition cannot become true, though it was not
    before: a rule that is quiet need not be asked about them. None where no such band can be told.

    Leaves on other readings and on attributes do not change by this value, so they stand aside; what time alone can
    make true (silence, events, amounts) has no band."""
    match condition:
        case Reads(read, tests, None):
            return _band_of(tests, scope) if read == name else ANY_VALUE
        case Rate(read, within, test) if read == name:
            limit = _resolve_number(test.args[0], scope, None)
            window = _name_window("rate", within)
            if limit is None:
                return ANY_VALUE
            # A rise of less than nothing is one that a value within the window may have made already.
            if (limit < 0) is (test.op == "above"):
                return None
            return Band(moving=(Moving(window, rise=limit) if test.op == "above" else Moving(window, fall=limit),))
        case Has():
            return ANY_VALUE
        case Any(parts):
            all_of = ANY_VALUE
            for part in parts:
                band = find_quiet_band(part, name, scope)
                if band is None:
                    return None
                moving = all_of.moving + band.moving
                all_of = Band(max(all_of.low, band.low), min(all_of.high, band.high), moving)
            return all_of if all_of.low <= all_of.high else None
        case All(parts):
            bands = [find_quiet_band(part, name, scope) for part in parts]
            narrow = [band for band in bands if band is not None and band != ANY_VALUE]
            return narrow[0] if narrow else (None if None in bands else ANY_VALUE)
        case _:
            return None


def _band_of(tests: Sequence[Compare], scope: Scope) -> Band | None:
    for test in tests:
        match test.op, test.args:
            case "above", (low,):
                limit = _resolve_number(low, scope, None)
                return None if limit is None else Band(high=limit)
            case "below", (high,):
                limit = _resolve_number(high, scope, None)
                return None if limit is None else Band(low=limit)
            case "is", (True,):
                return Band(0.0, 0.0)
            case "is", (False,):
                return Band(1.0, 1.0)
    return None


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:
        one, two = tests

        def both(now: int, one: Test = one, two: Test = two) -> Truth:
            first = one(now)
            if first is False:
                return False
            second = two(now)
            return second if first or second is False else None

        return both

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
    if len(tests) == 2:
        one, two = tests

        def either(now: int, one: Test = one, two: Test = two) -> Truth:
            first = one(now)
            if first:
                return True
            second = two(now)
            return second if first is False or second else None

        return either

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
    return _exists(path, leaf, singles)


def _exists(
    path: str,
    leaf: Leaf,
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
    return BoundLeaf(path, leaf, test, look, wake if wakes else None, holders)


Single = tuple[str, Test, Callable[[int], str], Callable[[int], int | None] | None]


def _bind_reads(leaf: Reads, cell: Cell, scope: Scope) -> Single:
    heard = cell.heard
    passes = _bind_compares(leaf.tests, scope, heard.id)
    compare_changed = any(test.op == "changed" for test in leaf.tests)

    def look(now: int) -> str:
        return "nothing yet" if cell.value is None else f"{show(cell.value)} at {cell.at}"

    if leaf.within is not None:
        span, window = leaf.within, _held(cell, describe(leaf), leaf.within, passes)

        def held(now: int) -> Truth:
            if cell.value is None:
                return None
            return passes(cell.value) or ((until := window.until()) is not None and until > now - span)

        return heard.id, held, look, lambda now: _end_of(window, now)
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
    span, window = leaf.within, _held(cell, describe(leaf), leaf.within, passes)

    def lately(now: int) -> Truth:
        return (until := window.until()) is not None and until > now - span

    return heard.id, lately, look, lambda now: _end_of(window, now)


def _bind_count(leaf: Count, cell: Cell | EventCell, scope: Scope) -> Single:
    heard = cell.heard
    passes = _bind_where(leaf.where, scope, heard.id) if leaf.where else None
    known = cell.windows.get(name := describe(leaf))
    window = known if isinstance(known, CountWindow) else CountWindow(leaf.within, leaf.at_least, passes)
    cell.keep(name, window)

    def wake(now: int) -> int | None:
        return window.points[0][0] + leaf.within if window.has_count(now) else None

    def look(now: int) -> str:
        return f"{sum(1 for at, _ in window.points if at > now - leaf.within)} of {leaf.at_least}"

    return heard.id, window.has_count, look, wake


def _bind_change(leaf: Rate | Sum, cell: Cell, scope: Scope) -> Single:
    heard, span = cell.heard, leaf.within
    how = "rate" if isinstance(leaf, Rate) else scope.accumulates(cell)
    known = cell.windows.get(name := _name_window(how, span))
    window = known if isinstance(known, ChangeWindow) else ChangeWindow(span, how)
    cell.keep(name, window)
    step = window.step
    limit = _resolve_number(leaf.test.args[0], scope, heard.id)

    # An amount only grows, and a rise seen in part of the window is a rise in the window: "above" is believed before
    # the window is covered. "below" is not: half a night without water is not a night.
    def above(
        now: int, window: ChangeWindow = window, span: int = span, slack: int = step - span, limit: float | None = limit
    ) -> Truth:
        # What is fixed stands in the defaults: a closure would be one more object to fetch for each.
        if window.next_at <= now - span:
            window.prune(now)
        at = window.base_at
        if at == NEVER or limit is None:
            return None
        if window.newest - window.base > limit:
            return True
        return False if at <= now + slack else None

    def below(
        now: int, window: ChangeWindow = window, span: int = span, slack: int = step - span, limit: float | None = limit
    ) -> Truth:
        if window.next_at <= now - span:
            window.prune(now)
        at = window.base_at
        if at == NEVER or limit is None or at > now + slack:
            return None
        return window.newest - window.base < limit

    def look(now: int) -> str:
        if not window.points:
            return "nothing yet"
        window.prune(now)
        is_covered = window.points[0][0] <= now - span + step
        return f"{window.newest - window.points[0][1]:g}" + ("" if is_covered else " (window not covered yet)")

    return heard.id, above if leaf.test.op == "above" else below, look, None


def _name_window(how: str, span: int) -> str:
    return f"{how}:{span}"


def _held(cell: Cell | EventCell, name: str, span: int, passes: Callable[[object], bool]) -> HeldWindow:
    known = cell.windows.get(name)
    window = known if isinstance(known, HeldWindow) else HeldWindow(span, passes)
    cell.keep(name, window)
    return window


def _end_of(window: HeldWindow, now: int) -> int | None:
    """When what held leaves the window, if that is still to come."""
    until = window.until()
    return None if until is None or until + window.span <= now else until + window.span


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
