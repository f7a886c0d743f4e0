"""Holds the cases that were opened against the truth: each label takes one case, and every case needs a label.

A case is a label's when it has its community, category, place and sort, and was opened in the label's time. A label
without a case is missed; a second case of one label is doubled; a case of no label is false.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from gateway.core.model import Incident
from simulators.score.corpus import Label

STORM: Final = "ext:21-16"
"""The category of the case that takes in what comes too fast, and lists it."""


class Verdict(Struct):
    """``found`` labels with their case; ``stormed`` are those that stand in the list of a storm instead."""

    found: list[tuple[Label, Incident]]
    stormed: list[Label]
    missed: list[Label]
    doubled: list[Incident]
    false: list[Incident]


class Truth:
    """Labels that wait for their cases."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels: dict[tuple[str, str, str, str], list[Label]] = {}
        self._taken: set[int] = set()
        for label in labels:
            self._labels.setdefault((label.community, label.category, label.place, label.sort), []).append(label)

    def fitting(self, case: Incident) -> list[Label]:
        """The labels that this may be the case of, taken or not."""
        slot = (case.community, case.category, case.place, str(case.sort))
        return [label for label in self._labels.get(slot, ()) if label.since <= case.opened_at <= label.until]

    def take(self, case: Incident) -> Label | None:
        """The first label that this is the case of and that has none yet."""
        for label in self.fitting(case):
            if id(label) not in self._taken:
                self._taken.add(id(label))
                return label
        return None


def judge(labels: Iterable[Label], cases: Iterable[Incident]) -> Verdict:
    """Holds them against each other."""
    labels, cases = list(labels), sorted(cases, key=lambda case: (case.opened_at, case.number))
    truth = Truth(labels)
    verdict = Verdict([], [], [], [], [])
    for case in cases:
        label = truth.take(case)
        if label is not None:
            verdict.found.append((label, case))
        else:
            (verdict.doubled if truth.fitting(case) else verdict.false).append(case)
    found = {id(label) for label, _ in verdict.found}
    storms = [case for case in cases if case.category == STORM]
    for label in labels:
        if id(label) not in found:
            (verdict.stormed if _is_listed(label, storms) else verdict.missed).append(label)
    return verdict


def _is_listed(label: Label, storms: Iterable[Incident]) -> bool:
    return label.in_storm and any(
        storm.community == label.community and member.key in label.devices and label.since <= member.at <= label.until
        for storm in storms
        for member in storm.members
    )
