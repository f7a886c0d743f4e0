"""What the rules read of the attributes of devices and places, and which values mean something to them.

A rule that finds nothing it understands goes on with its default, in silence: so a value that no rule would understand
is told where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from msgspec import Struct

from gateway.core.condition import Attribute, Compare, Count, Has, Leaf, Listed, Rate, Reads, Seen, Sum, iter_leaves
from gateway.core.model import Scalar
from gateway.core.rule import Rule


class Use(Struct, frozen=True):
    """How a rule reads an attribute: ``sort`` is ``a number``, ``a text`` or ``true or false``; with ``words``, it must
    be one of these, and may be written as a number too."""

    rule: str
    sort: str
    words: tuple[str, ...] = ()

    def understands(self, value: Scalar) -> bool:
        """Whether the rule makes anything of the value."""
        return str(value) in self.words if self.words else self.sort == _sort_of(value)


def find_uses(rules: Iterable[Rule]) -> dict[str, tuple[Use, ...]]:
    """Attribute → how rules read it, each way once, in the order of the rules."""
    found: dict[str, dict[tuple[str, tuple[str, ...]], Use]] = {}
    for rule in rules:
        for condition in (rule.when, rule.clear):
            for _, leaf in iter_leaves(condition) if condition is not None else ():
                for name, sort, words in _read(leaf):
                    found.setdefault(name, {}).setdefault((sort, words), Use(rule.id, sort, words))
    return {name: tuple(uses.values()) for name, uses in found.items()}


def refuse(name: str, value: Scalar, uses: Mapping[str, tuple[Use, ...]]) -> str | None:
    """What a rule would rather have, where one makes nothing of the value; None when each one does."""
    for use in uses.get(name, ()):
        if not use.understands(value):
            wanted = f"one of {', '.join(use.words)}" if use.words else use.sort
            return f"{use.rule} reads {name} as {wanted}"
    return None


def _read(leaf: Leaf) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(attribute, sort, words) of each that the leaf reads."""
    for test in tests_of(leaf):
        for arg in test.args:
            if isinstance(arg, Attribute):
                yield arg.name, "a number", tuple(arg.table or ())
            if isinstance(leaf, Has):
                yield leaf.name, "a text" if isinstance(arg, Listed) else _sort_of(arg), ()


def tests_of(leaf: Leaf) -> Iterable[Compare]:
    """All comparisons of a leaf."""
    match leaf:
        case Reads(tests=tests) | Has(tests=tests):
            return tests
        case Rate(test=test) | Sum(test=test):
            return (test,)
        case Count(where=where) | Seen(where=where):
            return chain.from_iterable(where.values())
    return ()


def _sort_of(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a text" if isinstance(value, str) else "a number"
