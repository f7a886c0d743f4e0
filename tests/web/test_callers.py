"""Whoever calls back sees what callers said, nobody else does, and who looked stands in the audit log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from gateway.adapters.calls import SqlCalls
from gateway.core.model import Incident, Line, Member, Role, Step
from gateway.runtime.calls import Call, event_of
from tests.ports.ledger_conformance import Hand, opened
from tests.web.house import DISTRICT, NOON, House

EVENT = event_of("0" * 32)
CALL = Call(EVENT, "c001", "b1", "page-c001-b1", NOON, 65_000, "medical", "139 0000 1111", "<b>三楼</b>")


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    made.add_all()
    yield made
    made.close()


@pytest.fixture
def case(house: House) -> Incident:
    """A case with two presses from a page; one of them said something."""
    lines = [
        Line(n, NOON + n, "gateway", what, event=e) for n, what, e in ((1, "opened", EVENT), (2, "joined", "page/2"))
    ]
    incident = opened(chain=(DISTRICT,), grid=DISTRICT, key="page-c001-b1", timeline=tuple(lines))
    Hand(house.ledger).step(Step(incidents=(incident,)))
    calls = SqlCalls(house.ledger.database, bytes(32))
    calls.keep(CALL)
    calls.keep(replace(CALL, id="page/2", phone="", words="", need="", waited=0))
    return incident


async def test_a_dispatcher_sees_how_to_call_back_and_is_noted_once(house: House, case: Incident) -> None:
    visitor = await house.visitor_as("dispatcher")
    path = f"/incidents/{case.id}/callers"
    page, part = await visitor.get(f"/incidents/{case.id}"), await visitor.get(path)
    await visitor.get(path)

    assert f'hx-get="{path}"' in page.text
    assert "139 0000 1111" not in page.text
    assert 'href="tel:13900001111"' in part.text
    assert "&lt;b&gt;三楼&lt;/b&gt;" in part.text
    assert "急病、受伤" in part.text
    assert "按下 1分05秒 后才送达" in part.text
    assert "未留电话" in part.text
    assert [(deed.who, deed.about) for deed in house.deeds("callers.see")] == [("dispatcher", case.number)]


async def test_a_program_reads_them_too_and_is_noted(house: House, case: Incident) -> None:
    visitor = await house.visitor_as("dispatcher")
    answer = await visitor.get(f"/api/v1/incidents/{case.id}/callers")

    assert [(one["need"], one["phone"], one["words"], one["waited"]) for one in answer.json()["items"]] == [
        (None, "", "", 0),
        ("medical", "139 0000 1111", "<b>三楼</b>", 65_000),
    ]
    assert [(deed.who, deed.about) for deed in house.deeds("callers.see")] == [("dispatcher", case.number)]


async def test_who_may_see_no_contacts_sees_no_callers(house: House, case: Incident) -> None:
    visitor = await house.visitor_as("tester")
    page, part = await visitor.get(f"/incidents/{case.id}"), await visitor.get(f"/incidents/{case.id}/callers")
    assert page.status_code == 200
    assert "/callers" not in page.text
    assert part.status_code == 403
    assert "139" not in part.text


async def test_outside_ones_scope_there_is_no_such_case(house: House, case: Incident) -> None:
    house.add("elsewhere", Role.PROPERTY_MANAGER, grids=(), communities=("c002",))
    visitor = await house.visitor_as("elsewhere")
    assert (await visitor.get(f"/incidents/{case.id}/callers")).status_code == 404
    assert not house.deeds("callers.see")


async def test_what_another_key_sealed_is_told_as_unreadable(house: House, case: Incident) -> None:
    SqlCalls(house.ledger.database, b"k" * 32).keep(replace(CALL, id="page/2", words="另一把钥匙"))
    visitor = await house.visitor_as("dispatcher")
    assert "留言无法解密" in (await visitor.get(f"/incidents/{case.id}/callers")).text


async def test_callers_of_what_was_merged_are_told_with_the_case_that_took_it_in(house: House, case: Incident) -> None:
    member = Member(NOON, case.id, "merge", "JM: 同一件事")
    other = opened(2, chain=(DISTRICT,), grid=DISTRICT, key="page-c001-gate", members=(member,))
    Hand(house.ledger).step(Step(incidents=(other,)))
    visitor = await house.visitor_as("dispatcher")
    page, part = await visitor.get(f"/incidents/{other.id}"), await visitor.get(f"/incidents/{other.id}/callers")
    assert f"/incidents/{other.id}/callers" in page.text
    assert "139 0000 1111" in part.text
