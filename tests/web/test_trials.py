"""Draft rules on pages and by programs: checked, read again on a recorded day, and shown to their author alone."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx

from gateway.core.model import Role
from gateway.runtime.access import Permission
from gateway.runtime.accounts import AuditFilter
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor
from tests.web.test_api import KEY, client_of, code_of

DAY = "2026-11-23"
SMOKE = Path("rules/fire/smoke-persists.yaml").read_text(encoding="utf-8")
DRAFT = SMOKE.replace("id: fire.smoke-persists", "id: fire.smoke-brief").replace("hold: 10s", "hold: 3s")
DRAFT = DRAFT.replace("cause: fire", "cause: brief-smoke")


async def smoke(room: ControlRoom) -> None:
    """Smoke of a quarter of a minute."""
    room.world.send({"smoke-1:smoke": True})
    await room.world.receipted()
    await room.world.pass_time(14_000, 2_000)
    await room.press()


async def tester_in(room: ControlRoom, *grids: str) -> Visitor:
    room.add("tao", Role.TESTER, grids or ("370215",))
    return await room.visitor_as("tao")


async def ask(visitor: Visitor, text: str, community: str = "c001", day: str = DAY) -> httpx.Response:
    await visitor.get("/tester/rules")
    fields = {"id": visitor.hidden("id"), "text": text, "community": community, "day": day}
    return await visitor.submit("/tester/rules", fields)


async def read(visitor: Visitor, path: str) -> str:
    """The trial's page, once it is over."""
    async with asyncio.timeout(20):
        while "hx-trigger" in (page := (await visitor.get(f"{path}/part")).text):  # noqa: ASYNC110 - a page is asked
            await asyncio.sleep(0.05)
    return page


async def test_a_draft_is_tried_and_stands_beside_what_was_opened(room: ControlRoom) -> None:
    await smoke(room)
    tao = await tester_in(room)

    answer = await ask(tao, DRAFT)

    assert answer.status_code == 303
    page = await read(tao, answer.headers["location"])
    real = {incident.id for incident in room.world.incidents()}
    assert "草稿会立的案" in page
    assert set(re.findall(r'href="/incidents/([^"]+)"', page)) == real
    assert page.count("草稿没有发现") == len(real), "it has a cause of its own"
    assert "当天此处没有立案" in page
    assert {incident.id for incident in room.world.incidents()} == real, "nothing is written"
    listed = (await tao.get("/tester/rules")).text
    assert "会立案 1 件" in listed
    [deed] = [row.deed for row in room.accounts.find_audit(AuditFilter(what="rule.try"), 10)]
    assert (deed.who, deed.about, deed.detail) == ("tao", "fire.smoke-brief", f"c001 {DAY}")


async def test_the_form_begins_with_a_rule_and_goes_on_from_a_trial(room: ControlRoom) -> None:
    await smoke(room)
    tao = await tester_in(room)

    page = (await tao.get("/tester/rules?rule=fire.smoke-persists")).text
    assert "烟感持续报警" in page
    assert 'href="/tester/rules?rule=fire.smoke-persists"' in (await tao.get("/rules/fire.smoke-persists")).text
    path = (await ask(tao, DRAFT)).headers["location"]
    assert "fire.smoke-brief" in (await tao.get(f"/tester/rules?again={path.rpartition('/')[2]}")).text
    assert "2026-11-23 至 2026-11-23" in (await tao.get("/tester/rules/days?community=c001")).text


async def test_what_is_wrong_is_told_with_its_line_and_the_draft_is_kept(room: ControlRoom) -> None:
    await smoke(room)
    tao = await tester_in(room)

    wrong = await ask(tao, DRAFT.replace("when: {smoke:", "when: {smoak:"))
    empty = await ask(tao, "  ")
    other_day = await ask(tao, DRAFT, day="2026-11-20")
    no_day = await ask(tao, DRAFT, day="soon")

    assert (wrong.status_code, empty.status_code, other_day.status_code, no_day.status_code) == (422, 422, 409, 422)
    assert "第 6 行" in wrong.text
    assert "smoak" in wrong.text
    assert "请粘贴规则" in empty.text
    assert "这一天没有日志" in other_day.text


async def test_it_is_its_authors_and_in_its_scope_alone(room: ControlRoom) -> None:
    await smoke(room)
    tao = await tester_in(room, "370215001")
    room.add("mei", Role.TESTER)
    mei, li = await room.visitor_as("mei"), await room.visitor_as("li")

    path = (await ask(tao, DRAFT)).headers["location"]

    assert (await mei.get(path)).status_code == 404
    assert (await mei.get(f"{path}/part")).status_code == 404
    assert (await ask(tao, DRAFT, "c002")).status_code == 404
    assert (await tao.get("/tester/rules/days?community=c002")).status_code == 404
    assert "c002" not in (await tao.get("/tester/rules")).text
    assert (await li.get("/tester/rules")).status_code == 403


async def test_without_a_stand_the_page_says_so(room: ControlRoom) -> None:
    tao = await tester_in(room)

    assert "没有配置试验台" in (await tao.get("/tester")).text
    assert (await tao.get(f"/tester/runs/{KEY}")).status_code == 503


# --- by programs --------------------------------------------------------------------------------------------------


async def test_a_program_tries_a_draft_and_reads_what_came_of_it(room: ControlRoom) -> None:
    await smoke(room)
    program = client_of(room, "prober", Role.TESTER, wanted=(Permission.SCENARIOS_PLAY,))
    body = {"community": "c001", "day": DAY, "rule": DRAFT}
    key = {"Idempotency-Key": KEY}

    asked = await program.post("/trials", json=body, headers=key)
    again = await program.post("/trials", json=body, headers=key)
    other = await program.post("/trials", json=body | {"rule": SMOKE}, headers=key)
    wrong = await program.post(
        "/trials", json=body | {"rule": DRAFT.replace("hold:", "holt:")}, headers={"Idempotency-Key": f"{KEY}-2"}
    )
    foreign = await program.post("/trials", json=body | {"community": "c009"}, headers=key)

    assert (asked.status_code, asked.headers["location"]) == (202, f"/api/v1/trials/{KEY}")
    assert (again.status_code, again.json()["id"]) == (202, KEY)
    assert code_of(other) == (409, "key-used")
    assert code_of(wrong) == (422, "bad-rule")
    assert wrong.json()["problems"][0]["line"] == 7
    assert code_of(foreign) == (404, "unknown")
    async with asyncio.timeout(20):
        while (trial := (await program.get(f"/trials/{KEY}")).json())["state"] not in ("done", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [one["key"] for one in trial["result"]["opened"]] == ["smoke-1"]
    assert code_of(await program.get(f"/trials/{KEY}-3")) == (404, "unknown")
