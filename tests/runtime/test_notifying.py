"""Whom a notification concerns, in which order, and what the timeline says of it."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from msgspec.structs import replace

from gateway.core.model import Grid, GridLevel, Notify
from gateway.runtime.notifying import NOBODY, Teller, find, is_on_duty
from gateway.runtime.outbox import Outbox
from gateway.runtime.ports import Contact, Duty, Verdict
from tests.runtime.world import World, until

GRIDS = [
    Grid("370215", GridLevel.DISTRICT, "即墨区"),
    Grid("370215001", GridLevel.TOWN, "环秀街道", "370215"),
    Grid("370215001001001", GridLevel.BASE, "网格一", "370215001"),
]
FAMILY = Contact("family-1", "家属", "family", "c001", "b1-u1-101", phone="000-0000-0001")
KEEPER = Contact("property-1", "物业值班", "property", "c001", phone="000-0000-0002")
BASE = Contact("base-1", "网格员", "duty", grid="370215001001001", phone="000-0000-0003")
TOWN = Contact("town-1", "镇街值班", "duty", grid="370215001", phone="000-0000-0004")
BODY = Contact("street-1", "街道", "body", grid="370215001", body="street", phone="000-0000-0005")
DISTRICT = Contact("district-1", "区值班", "duty", grid="370215", phone="000-0000-0006")
EVERYBODY = [FAMILY, KEEPER, BASE, TOWN, BODY, DISTRICT]
RING = Notify("n", "c001", "i", "ring", "b1-u1-101", "370215001001001", {"zh": "…"}, 2**50)


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}:00+08:00").timestamp() * 1000)


NOW = at("2026-11-23 20:00")  # a Monday


def names(notify: Notify, contacts: list[Contact] = EVERYBODY) -> list[str]:
    return [contact.id for contact in find(notify, contacts, GRIDS, NOW)]


def test_each_ring_begins_with_the_next_number_up_to_the_district_and_again() -> None:
    firsts = [names(replace(RING, round=n))[0] for n in range(5)]
    assert firsts == ["property-1", "base-1", "town-1", "district-1", "property-1"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "contact"}, ["family-1", "property-1"]),
        ({"kind": "contact", "place": "b1-u1-102"}, ["property-1"]),
        ({"kind": "warn", "body": "property"}, ["property-1", "base-1", "town-1", "district-1"]),
        ({"kind": "overdue", "body": "street"}, ["street-1", "base-1", "town-1", "district-1"]),
        ({"kind": "escalate", "grid": "370215"}, ["district-1"]),
        ({"kind": "whistle", "grid": "370215001"}, ["town-1", "district-1"]),
        ({"kind": "ring", "grid": "", "community": "c002"}, []),
    ],
)
def test_whom_a_notification_concerns(change: dict[str, str], expected: list[str]) -> None:
    assert names(replace(RING, **change)) == expected


@pytest.mark.parametrize(
    ("duty", "when", "expected"),
    [
        (Duty((0,), 1080, 480), "2026-11-23 20:00", True),  # Monday 18:00 to 08:00
        (Duty((0,), 1080, 480), "2026-11-24 07:59", True),  # its night belongs to Monday
        (Duty((0,), 1080, 480), "2026-11-24 20:00", False),
        (Duty((0, 1, 2, 3, 4), 540, 1020), "2026-11-23 17:00", False),
        (Duty((0, 1, 2, 3, 4), 540, 1020), "2026-11-23 16:59", True),
        (Duty(since=at("2026-11-24 00:00")), "2026-11-23 20:00", False),
        (Duty(until=at("2026-11-23 20:00")), "2026-11-23 20:00", False),
    ],
)
def test_when_somebody_is_on_duty(duty: Duty, when: str, expected: bool) -> None:
    assert is_on_duty(replace(BASE, duty=(duty,)), at(when)) is expected


class Line:
    """A way that reaches some, and fails others as told; it writes down whom it called."""

    name = "sms"

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.called: list[str] = []

    def reaches(self, contact: Contact) -> bool:
        return bool(contact.phone)

    async def send(self, contact: Contact, notify: Notify) -> Verdict:
        self.called.append(contact.id)
        is_good = contact.id not in self.broken
        return Verdict(accepted=is_good, refused=False, detail="200" if is_good else "503")

    async def close(self) -> None: ...


def tells(world: World) -> int:
    """How many people the timeline says were told, or not reached."""
    return [line.what for line in world.incidents()[0].timeline].count("told")


async def play(world: World, line: Line, contacts: list[Contact]) -> list[str]:
    """A press; the timeline's words of who was told, after some time."""
    world.ledger.put_district(GRIDS, [], contacts)
    await world.start()
    teller = Teller(world.ledger, world.pipeline.on_ledger, [line], world.pipeline.submit, world.clock)
    pipeline = world.pipeline
    outbox = Outbox(world.ledger, pipeline.on_ledger, pipeline.submit, None, world.inbox, world.clock, teller=teller)
    world.pipeline._on_effects = outbox.kick
    running = asyncio.create_task(outbox.run())
    try:
        world.press()
        await world.receipted()
        await until(lambda: tells(world) >= 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    [incident] = world.incidents()
    return [entry.why for entry in incident.timeline if entry.what == "told"]


async def test_who_was_told_stands_in_the_timeline_and_no_number(world: World) -> None:
    line = Line()
    told = await play(world, line, [KEEPER])
    assert sorted(told[:2]) == ["contact: sms to 物业值班 (property-1)", "ring: sms to 物业值班 (property-1)"]
    assert "000-0000" not in str(world.incidents())


async def test_nobody_on_duty_is_said_too(world: World) -> None:
    told = await play(world, Line(), [])
    assert f"ring: {NOBODY}" in told


async def test_the_next_one_is_told_when_the_first_cannot_be(world: World) -> None:
    line = Line("family-1")
    told = await play(world, line, [replace(FAMILY, place="b1-u1-101"), KEEPER])
    assert "contact: sms to 物业值班 (property-1)" in told
    assert "family-1" in line.called
