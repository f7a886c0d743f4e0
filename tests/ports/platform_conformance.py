"""What every central platform adapter does, whatever stands behind it."""

from __future__ import annotations

from typing import Protocol

import pytest
from msgspec import structs

from gateway.adapters.memory_platform import Fault
from gateway.core.model import Incident
from gateway.runtime.callbacks import read_callback
from gateway.runtime.ports import Held, Platform, PlatformList, Verdict
from tests.ports.incidents import FIRE, effect_id, revise


class Subject(Protocol):
    """An adapter under test, what its platform holds, and a way to make it fail."""

    @property
    def platform(self) -> Platform: ...
    @property
    def holdings(self) -> PlatformList: ...
    def act(self, incident: str, action: str, user: str) -> None:
        """Somebody there acts, and nobody tells the gateway."""

    def lose(self, incident: str) -> None: ...
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

    async def test_what_it_holds_is_listed_with_its_content(self, subject: Subject) -> None:
        other = structs.replace(FIRE, id="0b6f2b9e-94c5-5c1c-8a4e-6f0b5a5d7c22", number="JM20261123-042-0008")
        for incident in (FIRE, other, revise(FIRE, 2)):
            await _deliver(subject, incident)

        listed = await _list(subject)

        assert [(held.incident, held.revision, held.content) for held in listed] == [
            (other.id, 1, other),
            (FIRE.id, 2, revise(FIRE, 2)),
        ]
        assert all((held.state, held.acts) == ("reported", ()) for held in listed)
        assert await subject.holdings.find_held(FIRE.id) == listed[1]

    async def test_only_what_changed_there_since_is_listed(self, subject: Subject) -> None:
        await _deliver(subject, FIRE)
        [held] = await _list(subject)

        assert await _list(subject, held.updated_at) == [held]
        assert await _list(subject, held.updated_at + 1) == []

    async def test_what_never_arrived_or_was_lost_is_not_held(self, subject: Subject) -> None:
        assert await subject.holdings.find_held(FIRE.id) is None
        await _deliver(subject, FIRE)
        subject.lose(FIRE.id)

        assert await subject.holdings.find_held(FIRE.id) is None
        assert await _list(subject) == []

    async def test_what_people_did_there_is_listed_in_order(self, subject: Subject) -> None:
        await _deliver(subject, FIRE)
        [before] = await _list(subject)

        subject.act(FIRE.id, "accepted", "li")
        subject.act(FIRE.id, "dispatched", "wang")

        [held] = await _list(subject)
        acts = [read_callback(act).data for act in held.acts]
        assert [(act.incident, act.action, act.user) for act in acts] == [
            (FIRE.id, "accepted", "li"),
            (FIRE.id, "dispatched", "wang"),
        ]
        assert (held.state, held.revision, held.content) == ("dispatched", 1, FIRE)
        assert held.updated_at >= before.updated_at


async def _list(subject: Subject, since: int = 0) -> list[Held]:
    return [held async for held in subject.holdings.list_held(since)]


async def _deliver(subject: Subject, incident: Incident) -> Verdict:
    return await subject.platform.deliver(effect_id(incident), incident)
