"""The residents' pages on a real gateway: a press is one case whatever happens, and a receipt tells how it stands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.model import Device, DeviceState, Press, RegistryChange
from gateway.errors import GatewayError
from gateway.runtime.calls import Call, event_of
from gateway.runtime.help_pages import PageKeys, issue_pages, name_device
from gateway.web.help_desk import (
    AT_A_PLACE,
    ATTEMPTS,
    DAY_MS,
    FLOOD,
    FROM_AN_ADDRESS,
    HOUR_MS,
    OF_A_PHONE,
    REQUESTS,
    SAID_MS,
    STRANGERS,
)
from tests.runtime.world import World
from tests.servers import ROOT
from tests.web.wall import JSON, PHONE, Wall, secret

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Wall]:
    made = Wall(World(tmp_path), tmp_path)
    await made.open()
    [made.page] = await made.issue("b1-u1")
    yield made
    await made.close()


# --- pressing ---------------------------------------------------------------------------------------------------------


async def test_a_press_is_one_case_at_the_place_with_a_receipt_at_once(house: Wall) -> None:
    answer = await house.press(need="medical")

    [case] = house.cases()
    assert (case.place, case.place_name, case.level) == ("b1-u1", "示例一期1号楼1单元", "critical")
    assert case.timeline[0].event == event_of(secret(1))
    assert case.timeline[0].why.endswith("; need medical")
    assert answer.status_code == 200
    assert answer.json()["number"] == case.number
    assert answer.json()["stage"] == "recorded"
    assert answer.json()["receipt"] == f"/r/receipt/{secret(1)}?lang=zh"
    assert secret(1) not in event_of(secret(1))


async def test_sent_again_with_the_same_id_it_is_the_same_press(house: Wall) -> None:
    first = await house.press(need="fire")
    again = await house.press(need="fire", waited="4000")

    assert again.json() == first.json()
    assert [case.signals for case in house.cases()] == [1]
    assert len(house.audit()) == 1


async def test_another_press_joins_the_open_case_and_says_so(house: Wall) -> None:
    await house.press()
    other = await house.press(secret(2))

    [case] = house.cases()
    assert case.signals == 2
    assert (other.json()["number"], other.json()["joined"]) == (case.number, True)


async def test_whatever_a_form_says_somebody_pressed(house: Wall) -> None:
    odd: list[dict[str, Any]] = [
        {"content": b"", "headers": JSON},
        {"content": b"\xff\xfe=%zz&id", "headers": {**JSON, "Content-Type": FORM}},
        {"content": b"--x", "headers": {**JSON, "Content-Type": "multipart/form-data; boundary=x"}},
        {"data": {"id": "short", "need": "gold", "waited": "-3", "phone": "\x00\u200b" * 90}, "headers": JSON},
        {"content": b"words=%ED%A0%BD" + b"%F0%9F" * 999, "headers": {**JSON, "Content-Type": FORM}},
        {"data": {"id": "<b>" + "x" * 30, "waited": "9" * 40, "words": "🚑 " * 300}, "headers": JSON},
    ]
    for form in odd:
        assert (await house.client.post(house.path, **form)).status_code == 200, form
    assert [case.signals for case in house.cases()] == [len(odd)]


async def test_what_the_caller_says_is_in_no_event_no_incident_and_no_delivery(house: Wall) -> None:
    await house.press(phone="139 0000 1111", words="三楼老人摔倒，门没锁")
    [case] = house.cases()
    await house.act("accept")

    [call] = house.calls.calls_of(case.id)
    assert (call.phone, call.words, call.need) == ("139 0000 1111", "三楼老人摔倒，门没锁", "")
    await house.stop_gateway()
    for needle in ("139 0000 1111", "13900001111", "三楼老人"):
        for path in house.world.path.parent.glob("ledger.db*"):
            assert needle.encode() not in path.read_bytes(), needle


async def test_what_is_said_after_the_press_is_added_and_an_empty_retry_takes_nothing_away(house: Wall) -> None:
    await house.press(words="一楼")
    added = await house.client.post(f"/r/receipt/{secret(1)}/said", data={"phone": "139"})
    await house.press()

    assert added.status_code == 303
    [call] = house.calls.calls_of(house.cases()[0].id)
    assert (call.phone, call.words) == ("139", "一楼")
    assert "已发给处理人员" in (await house.client.get(added.headers["location"])).text


# --- without a script -------------------------------------------------------------------------------------------------


async def test_without_a_script_the_form_has_its_id_and_sent_twice_it_is_one_press(house: Wall) -> None:
    page = await house.client.get(house.path)
    [id] = re.findall(r'name="id" value="([^"]+)"', page.text)
    form = {"id": id, "need": "trapped", "phone": "", "words": ""}

    sent = [await house.client.post(house.path, data=form) for _ in range(2)]

    assert [(one.status_code, one.headers["location"]) for one in sent] == [(303, f"/r/receipt/{id}?lang=zh")] * 2
    [case] = house.cases()
    assert case.signals == 1
    receipt = await house.client.get(sent[0].headers["location"])
    assert case.number in receipt.text
    assert 'http-equiv="refresh"' in receipt.text


async def test_a_plain_form_that_is_sent_again_much_later_is_another_press(house: Wall) -> None:
    first = await house.client.post(house.path, data={"id": secret(1)})
    await house.act("false_alarm", "误按")
    house.now += 9 * 60_000
    again = await house.client.post(house.path, data={"id": secret(1)})
    house.now += 2 * 60_000
    later = await house.client.post(house.path, data={"id": secret(1)})
    assert again.headers["location"] == first.headers["location"]
    assert later.headers["location"] != first.headers["location"]
    assert [case.state for case in house.cases()] == ["false_alarm", "reported"]


async def test_each_load_of_the_page_has_another_id(house: Wall) -> None:
    pages = [(await house.client.get(house.path)).text for _ in range(2)]
    assert len({re.findall(r'name="id" value="([^"]+)"', page)[0] for page in pages}) == 2


async def test_both_languages_and_the_numbers_to_dial(house: Wall) -> None:
    chinese, english = [(await house.client.get(house.path, params=q)).text for q in ({}, {"lang": "en"})]
    assert 'lang="zh-CN"' in chinese
    assert "示例一期1号楼1单元" in chinese
    assert '<html lang="en">' in english
    assert not re.findall(r"[\u4e00-\u9fff]", english.replace("示例一期1号楼1单元", "").replace("中文", ""))
    for page in (chinese, english):
        assert [number for number in ("120", "119", "110", PHONE) if f'href="tel:{number}"' in page] == [
            "120", "119", "110", PHONE,
        ]  # fmt: skip


async def test_a_page_is_small_and_waits_for_nothing(house: Wall) -> None:
    page = await house.client.get(house.path)
    [script] = re.findall(r'<script src="([^"?]+)[^"]*" async>', page.text)
    assert re.findall(r"<link [^>]*href=\"([^\"]+)\"", page.text) == ["data:,"]
    assert not re.findall(r"\sstyle=|\son\w+=|url\(|@font-face|@import", page.text)
    source = (ROOT / "gateway" / "web" / script.lstrip("/")).read_text(encoding="utf-8")
    assert len(page.content) + len(source.encode()) < 30_000
    # Browsers of 2014 read ES5 and no custom properties.
    assert not re.findall(
        r"=>|`|\b(let|const|class|async|await)\b|\bfetch\(|\.\.\.|\?\.",
        re.sub(r"//.*|'[^']*'|/\*[\s\S]*?\*/", "", source),
    )
    assert "var(" not in page.text


async def test_its_policy_lets_nothing_of_others_in(house: Wall) -> None:
    policy = (await house.client.get(house.path)).headers["content-security-policy"]
    told = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert told["default-src"] == "'none'"
    assert told["script-src"] == "'self'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]+' 'unsafe-inline'", told["style-src"])
    assert "set-cookie" not in (await house.client.get(house.path)).headers


async def test_what_a_place_and_a_caller_are_called_is_shown_and_never_run(house: Wall) -> None:
    state = '<script>alert(1)</script>"&'
    change = RegistryChange("test", devices=(replace(await find_device(house), name=state),))
    assert await house.door.submit("c001", change, "rename") == "done"
    await house.stop_gateway()
    page = await house.client.post(house.path, data={"id": secret(3), "words": state, "phone": state})
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text


async def find_device(house: Wall) -> Any:
    found = house.ledger.device("c001", name_device("c001", "b1-u1"))
    assert found is not None
    return found


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_while_the_gateway_is_away_the_page_says_so_and_the_same_press_arrives_when_it_is_back(
    house: Wall,
) -> None:
    await house.stop_gateway()

    page = await house.client.get(house.path)
    refused = await house.press(need="medical", phone="139")
    form = await house.client.post(house.path, data={"id": secret(1), "need": "medical", "phone": "139", "lang": "zh"})

    assert "系统暂时收不到求助。请直接打电话" in page.text
    assert (refused.status_code, refused.json()["code"]) == (503, "gateway-away")
    assert refused.headers["retry-after"] == "5"
    assert form.status_code == 503
    assert "还没有送达" in form.text
    # The same form, ready to be sent again.
    assert f'name="id" value="{secret(1)}"' in form.text
    assert 'value="medical" checked' in form.text
    assert 'value="139"' in form.text
    assert not house.audit()

    await house.open()
    assert (await house.press(need="medical", phone="139")).status_code == 200
    [case] = house.cases()
    assert [call.phone for call in house.calls.calls_of(case.id)] == ["139"]
    assert [(about, outcome) for about, outcome, _, _ in house.audit()] == [("c001/b1-u1", "done")]


async def test_pages_are_registered_by_the_gateway_alone_and_it_says_when_it_will_not(house: Wall) -> None:
    with pytest.raises(GatewayError) as refused:
        await issue_pages(house.door, "c001", RegistryChange("test", devices=(Device("p", "no-such", "a", "b"),)))
    assert (refused.value.code, "no-such" in str(refused.value)) == ("refused", True)
    await house.stop_gateway()
    with pytest.raises(GatewayError) as refused:
        await issue_pages(house.door, "c001", RegistryChange("test"), timeout_s=0.1)
    assert refused.value.code == "gateway-away"


async def test_what_was_committed_is_told_though_the_gateway_has_gone_since(house: Wall) -> None:
    first = await house.press()
    await house.stop_gateway()
    assert (await house.press()).json() == first.json()
    assert (await house.look())["number"] == first.json()["number"]


async def test_a_press_whose_answer_was_lost_is_settled_later_and_one_that_never_came_is_dropped(house: Wall) -> None:
    await house.press()
    lost, never = secret(2), secret(3)
    device = name_device("c001", "b1-u1")
    for id in (lost, never):
        house.calls.keep(Call(event_of(id), "c001", "b1-u1", device, house.now))
    assert await house.door.submit("c001", Press(event_of(lost), device), event_of(lost)) == "done"

    house.now += 2 * HOUR_MS
    house.desk.sweep()

    assert house.calls.find(event_of(never)) is None
    settled = house.calls.find(event_of(lost))
    assert settled is not None
    assert settled.entered_at == house.now
    assert len(house.audit()) == 2
    house.desk.sweep()
    assert len(house.audit()) == 2


# --- whose page it is -------------------------------------------------------------------------------------------------


async def test_an_address_that_was_not_made_here_is_refused_with_the_numbers_to_dial(
    house: Wall, tmp_path: Path
) -> None:
    good = house.path
    other = tmp_path / "other"
    other.mkdir()
    forged = [
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace("b1-u1", "b1"),
        "/r/" + PageKeys(other).sign(house.page.code),
        good.replace(".1-", ".2-"),
        "/r/x",
    ]
    for path in forged:
        page = await house.client.get(path)
        assert (page.status_code, "二维码无效" in page.text, "tel:120" in page.text) == (404, True, True), path
        pressed = await house.press(path=path)
        assert (pressed.status_code, pressed.json()["code"]) == (404, "wrong-code"), path
    assert not house.cases()


async def test_guessing_addresses_and_receipts_ends_soon(house: Wall) -> None:
    codes = [(await house.client.get(f"/r/c001.b1.123456.1-{n:022d}")).status_code for n in range(70)]
    assert codes.count(404) == 60
    assert codes[-1] == 429
    assert (await house.client.get(f"/r/receipt/{secret(99)}")).status_code == 429
    # A true press from the same address is not held up by that.
    assert (await house.press()).status_code == 200


async def test_a_new_sheet_makes_the_old_one_void_and_keys_change_with_an_overlap(house: Wall) -> None:
    old = house.path
    [house.page] = await house.issue("b1-u1", renew=True)
    assert (await house.client.get(old)).status_code == 410
    assert (await house.press(path=old)).json()["code"] == "code-replaced"

    before = house.path
    assert house.keys.rotate() == 2
    assert house.path != before
    assert [(await house.client.get(path)).status_code for path in (before, house.path)] == [200, 200]
    assert house.keys.end_overlap() == [1]
    assert [(await house.client.get(path)).status_code for path in (before, house.path)] == [404, 200]


async def test_a_page_that_was_taken_down_and_comes_again_has_another_address(house: Wall) -> None:
    old = house.path
    gone = RegistryChange("test", retired=(name_device("c001", "b1-u1"),))
    assert await house.door.submit("c001", gone, "gone") == "done"
    assert (await house.client.get(old)).status_code == 410
    [house.page] = await house.issue("b1-u1")
    assert [(await house.client.get(path)).status_code for path in (old, house.path)] == [410, 200]


async def test_a_page_that_is_being_tried_says_so_and_opens_nothing(house: Wall) -> None:
    device = replace(
        await find_device(house), state=DeviceState.COMMISSIONING, state_until=house.world.clock() + HOUR_MS
    )
    assert await house.door.submit("c001", RegistryChange("test", devices=(device,)), "try") == "done"

    page, answer = await house.client.get(house.path), await house.press()

    assert "本页正在调试" in page.text
    assert (answer.status_code, answer.json()["number"], answer.json()["over"]) == (200, "", True)
    assert "没有立案" in answer.json()["note"]
    assert not house.cases()
    assert "测试成功" in (await house.client.get(f"/r/receipt/{secret(1)}")).text


async def test_an_id_of_another_place_is_not_told_as_this_places(house: Wall) -> None:
    [other] = await house.issue("b2")
    await house.press(path=f"/r/{house.keys.sign(other.code)}")
    answer = await house.press()
    assert (answer.status_code, answer.json()["code"]) == (409, "id-spent")
    assert (await house.press(secret(2))).status_code == 200


async def test_an_id_that_came_to_nothing_before_its_page_was_there_is_not_told_as_recorded(house: Wall) -> None:
    early = event_of(secret(1))
    assert await house.door.submit("c001", Press(early, "nobody"), early) == "unknown-device"
    assert (await house.press()).json()["code"] == "id-spent"
    assert not house.cases()


# --- how often --------------------------------------------------------------------------------------------------------


async def test_over_its_limit_a_press_joins_the_case_that_is_at_work_and_opens_one_where_none_is(house: Wall) -> None:
    for number in range(1, 9):
        assert (await house.press(secret(number))).status_code == 200
        house.world.clock.advance(11 * 60_000)  # beyond the ten minutes in which presses join
        house.now += 60_000
    # Four open cases of their own; what the same caller presses within the hour beyond that joins the last.
    assert [case.signals for case in house.cases()] == [1, 1, 1, 5]
    assert [detail.endswith("over the limit") for _, _, detail, _ in house.audit()] == [False] * 4 + [True] * 4

    await house.act("resolve", "已处理")
    assert (await house.press(secret(9))).status_code == 200
    assert [case.signals for case in house.cases()] == [1, 1, 1, 5, 1]


async def test_a_phone_is_limited_wherever_it_presses_and_never_written_into_the_audit_log(house: Wall) -> None:
    pages = [*await house.issue("b1", "b2", "gate", "b2-u1"), house.page]
    for number, page in enumerate(pages, 1):
        answer = await house.press(secret(number), path=f"/r/{house.keys.sign(page.code)}", phone="139-0000-1111")
        assert answer.status_code == 200
    lines = house.audit()
    assert [detail.endswith("over the limit") for _, _, detail, _ in lines] == [False] * 4 + [True]
    assert "1111" not in repr(lines)
    # Over the limit, and nobody at work there: it is a case all the same.
    assert len(house.cases()) == 5


async def test_a_flood_is_told_the_number_of_the_case_that_stands_for_all_and_whom_to_dial(house: Wall) -> None:
    answers = [await house.press(secret(number)) for number in range(1, FLOOD.burst + 3)]
    [case] = house.cases()
    assert case.signals == FLOOD.burst
    assert [answer.status_code for answer in answers[-3:]] == [200, 429, 429]
    assert (answers[-1].json()["code"], answers[-1].json()["number"]) == ("too-often", case.number)
    page = await house.client.post(house.path, data={"id": secret(999)})
    assert case.number in page.text
    assert "tel:120" in page.text
    # Told once a minute in the audit log, not once for each.
    assert [outcome for _, outcome, _, _ in house.audit()].count("refused: too-often") == 1
    # What has arrived before is told as ever.
    assert (await house.press(secret(1))).json()["number"] == case.number

    await house.act("accept")
    await house.act("resolve", "已处理")
    assert (await house.press(secret(1000))).status_code == 200


def test_the_manual_has_the_limits_that_hold() -> None:
    manual = (ROOT / "docs" / "resident.md").read_text(encoding="utf-8")
    for limit in (
        f"{AT_A_PLACE.burst} presses at one place, {FROM_AN_ADDRESS.burst} of one network address at one place,",
        f"{OF_A_PHONE.burst} of one telephone number",
        f"{FLOOD.burst} presses at one place",
        f"{STRANGERS.burst} wrong addresses from one network address in ten minutes, {REQUESTS.burst} looks a minute",
        f"{SAID_MS // DAY_MS} days, and until the case is over",
    ):
        assert limit in manual, limit
    assert f"{ATTEMPTS.burst} presses from one network address in a minute" in manual
    assert {AT_A_PLACE.refill_ms, FROM_AN_ADDRESS.refill_ms, OF_A_PHONE.refill_ms, FLOOD.refill_ms} == {HOUR_MS}


# --- the receipt ------------------------------------------------------------------------------------------------------


async def test_progress_goes_from_recorded_to_closed_and_one_question_ends_it(house: Wall) -> None:
    await house.press()
    stages = []

    async def note() -> None:
        stages.append((await house.look())["stage"])

    await note()
    for verb, reason in (("accept", ""), ("dispatch", ""), ("arrive", ""), ("resolve", "已送医"), ("verify", "")):
        await house.act(verb, reason)
        await note()
    await house.act("close", "结案")
    await note()
    assert stages == ["recorded", "seen", "coming", "coming", "coming", "coming", "closed"]
    page = await house.client.get(f"/r/receipt/{secret(1)}")
    assert "您满意吗" in page.text

    rated = await house.client.post(f"/r/receipt/{secret(1)}/rating", data={"score": "4"})
    again = await house.client.post(f"/r/receipt/{secret(1)}/rating", data={"score": "1"}, headers=JSON)

    [case] = house.cases()
    assert (rated.status_code, case.state, case.score) == (303, "rated", 4)
    assert case.timeline[-1].who == "resident"
    assert (again.status_code, again.json()["code"]) == (409, "not-to-rate")
    assert "感谢" in (await house.client.get(f"/r/receipt/{secret(1)}")).text


async def test_a_score_is_one_of_five_and_only_when_the_case_is_closed(house: Wall) -> None:
    await house.press()
    rating = f"/r/receipt/{secret(1)}/rating"
    for score in ("0", "6", "", "5; drop", "５"):
        assert (await house.client.post(rating, data={"score": score}, headers=JSON)).status_code == 422, score
    assert (await house.client.post(rating, data={"score": "5"}, headers=JSON)).status_code == 409
    broken = await house.client.post(
        rating, content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code == 422
    assert "需要帮助请直接打电话" in broken.text, "a resident's page, and not the console's"


async def test_a_receipt_tells_number_times_and_state_and_nothing_else(house: Wall) -> None:
    await house.press(need="medical", phone="13900001111", words="三楼")
    await house.act("accept", "李调度已联系家属")
    receipt = await house.look()
    assert set(receipt) == {"number", "stage", "steps", "note", "over", "rate", "joined", "receipt"}
    page = (await house.client.get(f"/r/receipt/{secret(1)}")).text
    for hidden in ("示例一期", "b1-u1", "13900001111", "三楼", "李调度", "medical", "c001"):
        assert hidden not in page, hidden
    assert 'name="robots" content="noindex"' in page


async def test_a_case_that_the_gateway_sent_on_by_itself_is_not_called_seen(house: Wall) -> None:
    await house.press()
    await house.world.pass_time(90_000)
    [case] = house.cases()
    assert (case.state, case.accepted_at) == ("dispatched", None)
    receipt = await house.look()
    assert receipt["stage"] == "recorded"
    assert "还没有人应答" in receipt["note"]


async def test_nobody_has_a_receipt_that_was_not_given(house: Wall) -> None:
    await house.press()
    event = event_of(secret(1))
    for guess in (secret(2), event, event.partition("/")[2]):
        assert (await house.client.get(f"/r/receipt/{guess}", headers=JSON)).status_code == 404


# --- afterwards -------------------------------------------------------------------------------------------------------


async def test_what_was_said_is_forgotten_after_a_month_but_not_while_the_case_is_open(house: Wall) -> None:
    await house.press(phone="13900001111")
    [case] = house.cases()
    house.now += 31 * DAY_MS
    house.desk.sweep()
    assert [call.phone for call in house.calls.calls_of(case.id)] == ["13900001111"]

    await house.act("false_alarm", "误按")
    house.desk.sweep()

    assert [(call.phone, call.need) for call in house.calls.calls_of(case.id)] == [("", "")]
    assert (await house.look())["number"] == case.number
    house.now += 366 * DAY_MS
    house.desk.sweep()
    assert house.calls.calls_of(case.id) == []
