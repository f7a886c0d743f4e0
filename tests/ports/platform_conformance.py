"""What every central platform adapter does, whatever stands behind it."""

from __future__ import annotations

from typing import Protocol

import pytest
from msgspec import structs

from gateway.adapters.memory_platform import Fault
from gateway.core.model import Incident
from gateway.runtime.ports import Platform, Verdict
from tests.ports.incidents import FIRE, effect_id, revise


class Subject(Protocol):
    """An adapter under test, what its platform holds, and a way to make it fail."""

    @property
    def platform(self) -> Platform: ...
    def incidents(self) -> list[Incident]: ...
    def revisions(self, incident: str) -> tuple[int, ...]: ...
    def fail_next(self, fault: Fault, count: int = 1) -> None: ...


class PlatformConformance:
    """Subclass it with a fixture ``subject``."""

    async def test_an_accepted_incident_is_held_as_it_was_sent(self, subject: Subject) -> None:
        verdict = await _deliver(subject, FIRE)

        assert (verdict.accepted, verdict.refused) == (True, False)
        assert subject.incidents() == [FIRE]

    async def test_a_repetition_is_accepted_and_held_once(self, subject: Subject) -> None:
        verdicts = [await _deliver(subject, FIRE) for _ in range(3)]

        assert all(verdict.accepted for verdict in verdicts)
        assert subject.revisions(FIRE.id) == (1,)

    async def test_the_newest_revision_counts(self, subject: Subject) -> None:
        for revision in (1, 2, 3):
            assert (await _deliver(subject, revise(FIRE, revision))).accepted

        assert subject.incidents() == [revise(FIRE, 3)]
        assert subject.revisions(FIRE.id) == (1, 2, 3)

    async def test_a_lower_revision_is_accepted_and_ignored(self, subject: Subject) -> None:
        await _deliver(subject, revise(FIRE, 5))

        verdict = await _deliver(subject, revise(FIRE, 2))

        assert verdict.accepted
        assert subject.incidents() == [revise(FIRE, 5)]
        assert subject.revisions(FIRE.id) == (5,)

    async def test_incidents_are_told_apart(self, subject: Subject) -> None:
        other = structs.replace(FIRE, id="0b6f2b9e-94c5-5c1c-8a4e-6f0b5a5d7c22", number="JM20261123-042-0008")

        await _deliver(subject, FIRE)
        await _deliver(subject, other)

        assert {incident.id for incident in subject.incidents()} == {FIRE.id, other.id}

    async def test_a_refusal_is_final_and_says_why(self, subject: Subject) -> None:
        subject.fail_next(Fault.REFUSED)

        verdict = await _deliver(subject, FIRE)

        assert (verdict.accepted, verdict.refused) == (False, True)
        assert verdict.detail
        assert subject.incidents() == []

    @pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.GARBAGE, Fault.SILENCE])
    async def test_a_failure_leaves_it_undecided_and_the_next_attempt_succeeds(
        self, subject: Subject, fault: Fault
    ) -> None:
        subject.fail_next(fault, 2)

        failed = [await _deliver(subject, FIRE) for _ in range(2)]
        mended = await _deliver(subject, FIRE)

        assert [(verdict.accepted, verdict.refused) for verdict in failed] == [(False, False)] * 2
        assert all(verdict.detail for verdict in failed)
        assert mended.accepted
        assert subject.revisions(FIRE.id) == (1,)

    async def test_recorded_but_not_answered_and_sent_again_is_still_one(self, subject: Subject) -> None:
        subject.fail_next(Fault.LOST_ANSWER)

        unanswered = await _deliver(subject, FIRE)
        again = await _deliver(subject, FIRE)

        assert (unanswered.accepted, unanswered.refused) == (False, False)
        assert again.accepted
        assert subject.incidents() == [FIRE]
        assert subject.revisions(FIRE.id) == (1,)


async def _deliver(subject: Subject, incident: Incident) -> Verdict:
    return await subject.platform.deliver(effect_id(incident), incident)
