"""Rules on pages and by programs: how they stand, what they found, and a status that is lowered and taken back."""

from __future__ import annotations

import re

import httpx

from gateway.core.model import Role
from gateway.runtime.access import Permission
from gateway.runtime.accounts import AuditFilter
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor
from tests.web.test_api import KEY, client_of, code_of

RULE = "fire.smoke-persists"


async def lower(visitor: Visitor, status: str, reason: str = "误报太多，先试运行", **more: str) -> httpx.Response:
    await visitor.get(f"/rules/{RULE}")
    fields = {"id": visitor.hidden("id"), "status": status, "reason": reason, **more}
    return await visitor.submit(f"/rules/{RULE}/status", fields)


async def smoke(room: ControlRoom, *communities: str) -> set[str]:
    """Smoke that persists in these; the communities in which incidents are open then."""
    for community in communities:
        room.world.send({"smoke-1:smoke": True}, community=community)
        await room.world.receipted(community)
    await room.world.pass_time(12_000, 2_000)
    return {incident.community for incident in room.world.incidents()}


async def test_every_rule_stands_there_with_its_tests_and_figures(room: ControlRoom) -> None:
    pressed = await room.press("sos-1", "c001")
    li = await room.visitor_as("li")

    page = (await li.get("/rules")).text
    one = (await li.get(f"/rules/{pressed.rule}")).text
    li.client.cookies.set("language", "en")
    english = (await li.get("/rules")).text

    assert set(re.findall(r'href="/rules/([^"]+)"', page)) == {rule.id for rule in room.world.catalog.rules}
    assert "被人工调低" not in page
    assert f'href="/incidents/{pressed.id}"' in one
    assert all(trial.name in one for trial in room.world.catalog.tests[pressed.rule].trials)
    assert "Calls for help" in english
    assert (await li.get("/rules/fire.no-such-rule")).status_code == 404


async def test_a_rule_is_lowered_with_a_reason_and_taken_back(room: ControlRoom) -> None:
    room.add("adm", Role.ADMINISTRATOR)
    adm = await room.visitor_as("adm")

    answer = await lower(adm, "shadow")

    assert (answer.status_code, answer.headers.get("location")) == (303, f"/rules/{RULE}")
    shown = (await adm.get(f"/rules/{RULE}")).text
    assert "误报太多，先试运行" in shown
    assert "2 个小区" in shown
    assert await smoke(room, "c001") == set(), "in shadow it opens nothing"
    assert [finding.note for finding in room.ledger.findings(RULE)] == ["shadow"]
    [deed] = [row.deed for row in room.accounts.find_audit(AuditFilter(what="rule.override"), 10)]
    assert (deed.who, deed.about, deed.outcome) == ("adm", RULE, "done")

    assert (await lower(adm, "file", "换了烟感")).status_code == 303
    assert await smoke(room, "c002") >= {"c002"}


async def test_the_same_form_twice_decides_once(room: ControlRoom) -> None:
    room.add("adm", Role.ADMINISTRATOR)
    adm = await room.visitor_as("adm")
    await adm.get(f"/rules/{RULE}")
    fields = {"id": adm.hidden("id"), "status": "shadow", "reason": "试"}

    first = await adm.submit(f"/rules/{RULE}/status", fields)
    again = await adm.submit(f"/rules/{RULE}/status", fields)
    other = await adm.submit(f"/rules/{RULE}/status", {**fields, "status": "retired"})

    assert (first.status_code, again.status_code, other.status_code) == (303, 303, 409)
    assert sorted(row.community for row in room.ledger.override_rows(RULE)) == ["c001", "c002"]


async def test_what_is_above_the_file_or_without_a_reason_is_refused(room: ControlRoom) -> None:
    room.add("adm", Role.ADMINISTRATOR)
    adm = await room.visitor_as("adm")

    above = await lower(adm, "active")
    silent = await lower(adm, "shadow", "  ")
    nonsense = await lower(adm, "loud")

    assert (above.status_code, silent.status_code, nonsense.status_code) == (409, 409, 422)
    assert "只能调到文件状态以下" in above.text
    assert "请用一行写明原因" in silent.text
    assert room.ledger.override_rows() == []


async def test_it_holds_in_ones_scope_alone_and_who_only_looks_sees_no_form(room: ControlRoom) -> None:
    room.add("adm", Role.ADMINISTRATOR, grids=("370215001",))
    adm, li = await room.visitor_as("adm"), await room.visitor_as("li")

    await lower(adm, "retired")

    assert await smoke(room, "c001", "c002") == {"c002"}
    page = (await li.get("/rules?status=lowered")).text
    assert re.findall(r'href="/rules/([^"]+)"', page) == [RULE]
    one = (await li.get(f"/rules/{RULE}")).text
    assert re.findall(r'status-(\w+)">\S+ 1<', one) == ["active", "retired"], "the communities differ"
    assert f'action="/rules/{RULE}/status"' not in one
    refused = await li.submit(f"/rules/{RULE}/status", {"id": KEY, "status": "shadow", "reason": "x"})
    assert refused.status_code == 403
    # Who answers for rules sees no incidents: the officers share no duty.
    assert "/incidents/" not in (await adm.get(f"/rules/{RULE}")).text


async def test_while_the_gateway_is_away_the_form_keeps_its_key(room: ControlRoom) -> None:
    room.add("adm", Role.ADMINISTRATOR)
    adm = await room.visitor_as("adm")
    await adm.get(f"/rules/{RULE}")
    key = adm.hidden("id")
    await room.close_gateway()

    answer = await adm.submit(f"/rules/{RULE}/status", {"id": key, "status": "shadow", "reason": "试"})

    assert (answer.status_code, adm.hidden("id")) == (503, key)
    assert "网关没有应答" in answer.text


# --- by programs --------------------------------------------------------------------------------------------------


async def test_a_program_reads_rules_and_sets_a_status_once(room: ControlRoom) -> None:
    wanted = (Permission.RULES_SEE, Permission.RULES_OVERRIDE)
    program = client_of(room, "ruler", Role.ADMINISTRATOR, wanted=wanted)
    body = {"status": "shadow", "reason": "误报太多"}

    items = (await program.get("/rules")).json()["items"]
    first = await program.post(f"/rules/{RULE}/override", json=body, headers={"Idempotency-Key": KEY})
    again = await program.post(f"/rules/{RULE}/override", json=body, headers={"Idempotency-Key": KEY})
    other = await program.post(
        f"/rules/{RULE}/override", json=body | {"status": "retired"}, headers={"Idempotency-Key": KEY}
    )
    above = await program.post(
        f"/rules/{RULE}/override", json=body | {"status": "active"}, headers={"Idempotency-Key": f"{KEY}-2"}
    )
    keyless = await program.post(f"/rules/{RULE}/override", json=body)
    account = (await program.get(f"/rules/{RULE}")).json()

    assert [item["id"] for item in items] == [rule.id for rule in room.world.catalog.rules]
    assert first.json() == again.json()
    assert (first.json()["communities"], first.json()["missed"]) == (2, [])
    assert first.json()["standing"]["in_force"] == {"shadow": 2}
    assert code_of(other) == (409, "key-used")
    assert code_of(above) == (409, "above-ceiling")
    assert code_of(keyless) == (422, "not-valid")
    [decision] = account["decisions"]
    assert (decision["actor"], decision["status"], decision["communities"]) == ("ruler", "shadow", 2)
    assert account["file"] == room.world.catalog.files[account["path"]]
    assert code_of(await program.get("/rules/fire.none")) == (404, "unknown")
