"""The pages about devices, on a running gateway: registering, the live test, upkeep with its history, and who may."""

from __future__ import annotations

import io
import re
import secrets
import time
from datetime import date
from typing import Any

import pytest
from openpyxl import load_workbook

from gateway.adapters.passwords import is_password
from gateway.core.model import Device, DeviceState, Role, Sort
from gateway.runtime.accounts import AuditFilter
from gateway.runtime.device_desk import DeviceDesk, make_id
from gateway.runtime.device_history import read_history
from gateway.runtime.signals import read_recent
from tests.core.worlds import DEVICES
from tests.runtime.world import until
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor


@pytest.fixture
async def keeper(room: ControlRoom) -> Visitor:
    """The property manager of c001 alone."""
    room.add("keeper", Role.PROPERTY_MANAGER, (), ("c001",))
    return await room.visitor_as("keeper")


def key() -> str:
    return secrets.token_hex(16)


def form(**fields: str) -> dict[str, str]:
    plain = {
        "id": key(),
        "community": "c001",
        "code": "SN-7",
        "profile": "fixed-sos",
        "place": "b1-u1-102",
        "test": "1",
    }
    return plain | fields


async def register(visitor: Visitor, **fields: str) -> Any:
    await visitor.get("/devices/new?community=c001")
    return await visitor.submit("/devices", form(**fields))


async def change(visitor: Visitor, device: str, verb: str, **fields: str) -> Any:
    await visitor.get(f"/devices/c001/{device}")
    wish = {"id": key(), "verb": verb} | fields
    return await visitor.submit(f"/devices/c001/{device}/changes", wish)


def now_of(room: ControlRoom, device: str) -> Device:
    found = room.ledger.device("c001", device)
    assert found is not None
    return found


def deeds(room: ControlRoom, what: str) -> list[tuple[str, str, str]]:
    rows = room.accounts.find_audit(AuditFilter(what=what), 100)
    return [(row.deed.who, row.deed.about, row.deed.outcome) for row in rows]


async def test_a_device_that_speaks_for_itself_gets_a_password_that_is_shown_once(
    room: ControlRoom, keeper: Visitor
) -> None:
    sent = form(source="")
    await keeper.get("/devices/new?community=c001")
    answer = await keeper.submit("/devices", sent)
    again = await keeper.submit("/devices", sent)
    later = await keeper.get("/devices/c001/sn-7")

    assert answer.status_code == 201
    found = re.search(r'<code id="password">([^<]+)</code>', answer.text)
    assert found is not None
    password = found[1]
    assert is_password(password, room.ledger.credentials()["sn-7"])
    assert "<svg" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert (again.status_code, later.status_code) == (200, 200)
    assert password not in again.text + later.text
    assert "没有重复办理" in again.text
    assert is_password(password, room.ledger.credentials()["sn-7"]), "the same form again changes nothing"
    device = now_of(room, "sn-7")
    assert (device.source, device.place, device.state) == ("sn-7", "b1-u1-102", DeviceState.COMMISSIONING)
    assert device.state_until == room.clock() + 30 * 60_000
    assert deeds(room, "device.register") == [("keeper", "c001/sn-7", "repeat"), ("keeper", "c001/sn-7", "done")]


async def test_a_live_test_lasts_half_an_hour_of_whoever_makes_it(room: ControlRoom, keeper: Visitor) -> None:
    console = room.app.state.console
    console.desk = DeviceDesk(room.ledger, console.door, console.catalog, room.clock, speed=60.0)
    await keeper.get("/devices/new?community=c001")
    await keeper.submit("/devices", form(source=""))
    assert now_of(room, "sn-7").state_until == room.clock() + 60 * 30 * 60_000


async def test_a_press_in_the_live_test_is_seen_within_a_second_and_opens_nothing(
    room: ControlRoom, keeper: Visitor
) -> None:
    page = (await register(keeper, source="")).text
    found = re.search(r'data-after="(\d+)"', page)
    assert found is not None
    async with room.listen(keeper, f"/devices/c001/sn-7/stream?after={found[1]}") as stream:
        pressed = time.monotonic()
        room.press_own("sn-7")
        _, signal = await stream.next("signal")
        waited = time.monotonic() - pressed

    assert signal["name"] == "pressed"
    assert "按键" in signal["html"]
    assert waited < 1.0
    assert [i for i in room.world.incidents() if i.sort is Sort.INCIDENT] == []

    await change(keeper, "sn-7", "end_test")
    assert now_of(room, "sn-7").state is DeviceState.ACTIVE
    await room.world.settle()
    assert room.world.incidents() == []  # what was pressed in the test is over with it


async def test_a_test_that_nobody_ends_ends_by_itself(room: ControlRoom, keeper: Visitor) -> None:
    await register(keeper, source="agent-1")
    await room.world.pass_time(31 * 60_000, 60_000)
    assert now_of(room, "sn-7").state is DeviceState.ACTIVE
    pressed = await room.press("sn-7")
    assert pressed.sort is Sort.INCIDENT


async def test_what_cannot_be_registered_is_told_with_what_was_typed(room: ControlRoom, keeper: Visitor) -> None:
    taken = await register(keeper, code="SMOKE 1", source="agent-1")
    elsewhere = await register(keeper, code="agent-2", source="")
    nobodys = await register(keeper, code="。。。", source="")
    reserved = await register(keeper, code="gateway", source="")
    no_place = await register(keeper, place="b9", source="agent-1")
    no_agent = await register(keeper, source="agent-2")

    for answer in (taken, elsewhere, nobodys, reserved, no_place, no_agent):
        assert answer.status_code == 422
    assert "已经登记过" in taken.text
    assert 'value="SMOKE 1"' in taken.text
    assert "已经登记过" in elsewhere.text
    assert "请扫描或输入" in nobodys.text
    assert "请选择安装位置" in no_place.text
    assert room.ledger.credentials() == {}
    assert {d.id for d in room.ledger.devices("c001")} == {d.id for d in DEVICES}
    assert "refused: taken" in {outcome for _, _, outcome in deeds(room, "device.register")}


async def test_moved_renamed_replaced_and_retired_it_keeps_its_history(room: ControlRoom, keeper: Visitor) -> None:
    first = re.search(r'id="password">([^<]+)<', (await register(keeper, source="", test="")).text)
    assert (await change(keeper, "sn-7", "move", place="b2-u1-101")).status_code == 303
    assert (await change(keeper, "sn-7", "rename", name="<b>王家</b>")).status_code == 303
    replaced = await change(keeper, "sn-7", "replace", code="SN-8", profile="fixed-sos", reason="受潮")
    assert replaced.status_code == 201
    second = re.search(r'id="password">([^<]+)<', replaced.text)
    assert first is not None
    assert second is not None
    hashed = room.ledger.credentials()["sn-7"]
    assert is_password(second[1], hashed)
    assert not is_password(first[1], hashed)
    device = now_of(room, "sn-7")
    assert (device.place, device.state, device.attributes["serial"]) == ("b2-u1-101", DeviceState.COMMISSIONING, "SN-8")
    assert "<b>王家" not in replaced.text

    other = await change(keeper, "sn-7", "replace", code="SN-9", profile="nb-smoke")
    assert other.status_code == 422
    assert (await change(keeper, "sn-7", "retire", reason="拆迁")).status_code == 303
    gone = await keeper.get("/devices/c001/sn-7")
    assert gone.status_code == 200
    assert "停用" in gone.text
    assert 'name="verb"' not in gone.text
    assert "sn-7" not in room.ledger.credentials()

    chapters = [(c.what, c.before, c.after) for c in read_history(room.ledger, "c001", "sn-7")]
    assert chapters == [
        ("retire", "", ""),
        ("test", "", ""),
        ("replace", "SN-7", "SN-8"),
        ("rename", "", "<b>王家</b>"),
        ("move", "b1-u1-102", "b2-u1-101"),
        ("register", "", "SN-7"),
    ]
    past = (await keeper.get("/devices/c001/sn-7/past")).text
    assert "1号楼 1单元 102室 → 2号楼 1单元 101室" in past
    assert "&lt;b&gt;王家" in past
    back = await register(keeper, source="", code="SN-7")
    assert back.status_code == 201, "what was retired here may come back"


async def test_an_agent_that_carries_others_is_not_retired(room: ControlRoom, keeper: Visitor) -> None:
    answer = await change(keeper, "agent-1", "retire", reason="拆")
    assert answer.status_code == 422
    assert "还承载着别的设备" in answer.text
    assert now_of(room, "agent-1").state is DeviceState.ACTIVE


async def test_the_page_shows_values_signals_commands_and_what_was_not_believed(
    room: ControlRoom, keeper: Visitor
) -> None:
    room.world.send({"smoke-1:battery": 88.0, "smoke-1:smoke": False})
    room.world.send({"smoke-1:battery": 240.0, "smoke-1:colour": 3.0})
    await room.world.receipted()
    page = (await keeper.get("/devices/c001/smoke-1")).text
    past = (await keeper.get("/devices/c001/smoke-1/past")).text
    points = (await keeper.get("/devices/c001/smoke-1/points?name=battery")).json()["points"]

    assert "独立式感烟探测器" in page
    assert "1号楼 1单元 101室" in page
    assert '<b class="digits">88</b> %' in page
    assert "未采信：超出量程" in page
    assert "未采信：型号没有这个读数" in page
    assert "超出量程" in past
    assert points == [[room.clock(), 88.0]]
    heard = read_recent(room.ledger, room.world.catalog, "c001", now_of(room, "smoke-1"))
    assert [(h.name, h.reason) for h in heard] == [
        ("battery", ""),
        ("smoke", ""),
        ("battery", "out-of-range"),
        ("colour", "unknown-reading"),
    ]


async def test_the_sick_come_first_by_whom_it_hurts(room: ControlRoom, keeper: Visitor) -> None:
    room.world.send({"smoke-1:battery": 12.0, "room-1:battery": 12.0})
    await room.world.receipted()
    room.world.clock.advance(13 * 3_600_000)  # 09:00: batteries are told by day
    room.world.send({"smoke-1:battery": 11.0, "room-1:battery": 11.0, "sos-1:battery": 240.0})
    await until(lambda: len([i for i in room.world.incidents() if i.cause == "battery"]) == 2)
    await room.caught_up()
    page = (await keeper.get("/devices?community=c001")).text
    order = re.findall(r'<a href="/devices/c001/([^"]+)">', page)

    assert order[:2] == ["smoke-1", "sos-1"]
    assert "room-1" in order
    assert order.index("room-1") > order.index("sos-1")
    assert "电量低" in page
    assert "数值不可信" in page


async def test_another_communitys_devices_are_not_there(room: ControlRoom, keeper: Visitor) -> None:
    assert (await keeper.get("/devices?community=c002")).status_code == 404
    assert (await keeper.get("/devices/c002/sos-1")).status_code == 404
    assert (await keeper.get("/devices/c002/sos-1/points?name=battery")).status_code == 404
    assert (await keeper.get("/devices/c002/sos-1/stream")).status_code == 404
    assert (await register(keeper, community="c002", source="")).status_code == 404
    await keeper.get("/devices/new?community=c001")
    wish = {"id": key(), "verb": "retire", "reason": "x"}
    assert (await keeper.submit("/devices/c002/sos-1/changes", wish)).status_code == 404
    silence = {"id": key(), "community": "c002", "kind": "silence", "device": "sos-1", "until": "2026-11-23T22:00"}
    assert (await keeper.submit("/windows", silence)).status_code == 404
    assert (await keeper.get("/windows?community=c002")).status_code == 404


async def test_whoever_only_looks_is_offered_no_change(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    page = await li.get("/devices/c001/sos-1")
    assert page.status_code == 200
    assert 'name="verb"' not in page.text
    assert (await li.submit("/devices/c001/sos-1/changes", {"id": key(), "verb": "retire"})).status_code == 403


async def test_without_the_gateway_what_is_known_is_shown_and_a_form_keeps_its_id(
    room: ControlRoom, keeper: Visitor
) -> None:
    await keeper.get("/devices/c001/sos-1")
    await room.close_gateway()
    listed = await keeper.get("/devices?community=c001&view=all")
    page = await keeper.get("/devices/c001/sos-1")
    await room.open_gateway()
    assert "网关没有应答" in listed.text
    assert "sos-1" in listed.text
    assert page.status_code == 200
    assert 'name="verb"' not in page.text


# --- windows and absences ---------------------------------------------------------------------------------------------


async def test_a_window_opens_nothing_and_ends_early_or_by_itself(room: ControlRoom, keeper: Visitor) -> None:
    await keeper.get("/windows?community=c001")
    wish = {
        "id": key(),
        "community": "c001",
        "kind": "maintenance",
        "device": "smoke-1",
        "until": "2026-11-23T22:00",
        "reason": "换电池",
    }
    assert (await keeper.submit("/windows", wish)).status_code == 303
    assert (await keeper.submit("/windows", wish)).status_code == 303
    page = (await keeper.get("/windows?community=c001")).text
    assert page.count("换电池") == 1
    assert "提前结束" in page
    assert deeds(room, "silence.maintenance")[-1] == ("keeper", "c001/smoke-1", "done")
    [silence] = room.world.pipeline.writers["c001"].engine.silences()
    assert (await keeper.submit(f"/windows/c001/{silence.id}/end", {"id": key()})).status_code == 303
    assert room.world.pipeline.writers["c001"].engine.silences() == []


async def test_a_window_that_must_not_be_is_refused_in_words(room: ControlRoom, keeper: Visitor) -> None:
    await keeper.get("/windows?community=c001")
    wish = {"community": "c001", "kind": "silence", "reason": "装修", "until": "2026-11-25T22:00"}
    whole = await keeper.submit("/windows", wish | {"id": key()})
    long = await keeper.submit("/windows", wish | {"id": key(), "device": "smoke-1"})
    past = await keeper.submit("/windows", wish | {"id": key(), "device": "smoke-1", "until": "2026-11-23T10:00"})
    keeper.client.cookies.set("language", "en")
    english = await keeper.submit("/windows", wish | {"id": key(), "device": "smoke-1"})

    assert [a.status_code for a in (whole, long, past, english)] == [409] * 4
    assert "不能对整个小区" in whole.text
    assert "最长 8 小时" in long.text
    assert "结束时间须晚于" in past.text
    assert "8 hours at most" in english.text
    assert room.world.pipeline.writers["c001"].engine.silences() == []


async def test_who_is_away_is_so_from_a_home(room: ControlRoom, keeper: Visitor) -> None:
    await keeper.get("/windows?community=c001")
    wish = {"id": key(), "community": "c001", "kind": "away", "place": "b1-u1-101", "until": "2026-11-30T12:00"}
    assert (await keeper.submit("/windows", wish)).status_code == 303
    [silence] = room.world.pipeline.writers["c001"].engine.silences()
    assert (silence.kind, silence.place, silence.reason) == ("away", "b1-u1-101", "外出报备")
    assert "101室" in (await keeper.get("/windows?community=c001")).text
    pressed = await room.press("sos-1")
    assert pressed.sort is Sort.INCIDENT, "a help button counts as always"


@pytest.mark.parametrize(
    ("code", "id"),
    [
        ("SN-2026/0042", "sn-2026-0042"),
        ("  869 951 040 000 001 ", "869-951-040-000-001"),
        ("即墨A7", "a7"),
        ("--", ""),
        ("X" * 70, "x" * 48),
    ],
)
def test_a_code_makes_an_id(code: str, id: str) -> None:
    assert make_id(code) == id


# --- claiming, and many at once ---------------------------------------------------------------------------------------

SECRET = "printed-on-the-box-0001"


async def test_what_was_listed_beforehand_is_claimed_by_whoever_holds_its_secret(
    room: ControlRoom, keeper: Visitor
) -> None:
    assert room.ledger.list_beforehand({"sn-7": SECRET, "agent-1": SECRET}, room.clock()) == ["agent-1"]
    guessed = await register(keeper, source="", secret="printed-on-the-box-0002")
    bare = await register(keeper, source="")
    wrong = await register(keeper, source="", code="SN-8", secret=SECRET)
    claimed = await register(keeper, source="", secret=SECRET)
    room.add("other", Role.PROPERTY_MANAGER, (), ("c002",))
    other = await room.visitor_as("other")
    again = await register(other, source="", secret=SECRET, community="c002")

    assert [a.status_code for a in (guessed, bare, wrong, again)] == [422] * 4
    assert "编码或机身密钥不对" in guessed.text
    assert "已经登记过" in bare.text, "nobody takes it without its secret"
    assert SECRET not in wrong.text + again.text
    assert claimed.status_code == 303, "it has its password, and no new one is shown"
    assert is_password(SECRET, room.ledger.credentials()["sn-7"])
    assert now_of(room, "sn-7").source == "sn-7"
    assert SECRET not in str(deeds(room, "device.register"))


async def send_table(visitor: Visitor, text: str, **fields: str) -> Any:
    await visitor.get("/bulk?community=c001")
    sent = {"csrf": visitor.csrf, "id": key(), "community": "c001"} | fields
    return await visitor.client.post("/bulk", data=sent, files={"file": ("devices.csv", text.encode(), "text/csv")})


async def test_of_a_table_what_is_good_is_in_and_each_row_is_told(room: ControlRoom, keeper: Visitor) -> None:
    rows = [
        "code,profile,place,source,name",
        "S-1,nb-smoke,b1-u1-101,agent-1,甲",
        "S-2,nb-smoke,1号楼 1单元 102室,,乙",
        "S-1,nb-smoke,b1-u1-102,agent-1,",
        "S-4,no-such-model,b1-u1-101,agent-1,",
        "S-5,nb-smoke,9号楼,agent-1,",
        'S-6,"nb-smoke,b1-u1-101,agent-1,',
        "smoke-1,nb-smoke,b1-u1-101,agent-1,",
        "=1+1,nb-smoke,gate,agent-2,",
    ]
    once = key()
    answer = await send_table(keeper, "\n".join(rows), id=once)
    again = await send_table(keeper, "\n".join(rows), id=once)

    assert answer.status_code == 200
    assert "2 台已登记，6 行没有" in answer.text
    found = re.search(r"<code>([\w-]{24})</code>", answer.text)
    assert found is not None
    assert is_password(found[1], room.ledger.credentials()["s-2"])
    assert list(room.ledger.credentials()) == ["s-2"]
    assert (now_of(room, "s-1").name, now_of(room, "s-1").source) == ("甲", "agent-1")
    assert (now_of(room, "s-2").place, now_of(room, "s-2").state) == ("b1-u1-102", DeviceState.ACTIVE)
    for words in ("已经登记过", "请选择型号", "请选择安装位置", "引号没有成对", "没有所选的边缘代理"):
        assert words in answer.text
    for cell in ("profile: no-such-model", "place: 9号楼", "source: agent-2", "code: S-1"):
        assert cell in answer.text
    assert "&#39;=1+1" in answer.text, "no spreadsheet takes a cell of the report for a formula"
    assert found[1] not in again.text
    assert "没有重复办理" in again.text
    assert [outcome for _, _, outcome in deeds(room, "device.bulk")] == ["done", "done"]


async def test_a_workbook_is_taken_as_a_table_is_and_numbers_are_told(room: ControlRoom, keeper: Visitor) -> None:
    template = await keeper.get("/bulk/template.xlsx")
    book = load_workbook(io.BytesIO(template.content))
    sheet = book.worksheets[0]
    assert [cell.value for cell in sheet[1]][:3] == ["code", "profile", "place"]
    # Whoever types into the template types texts; whoever pastes may paste a number, a formula or a date.
    rows = [
        ("00123", "nb-smoke", "b1-u1-101", "agent-1"),
        (456, "nb-smoke", "b1-u1-102", "agent-1"),
        ("=1+1", "nb-smoke", "b1-u1-102", "agent-1"),
        (date(2026, 11, 23), "nb-smoke", "b1-u1-102", "agent-1"),
        (860_000_000_000_000_001, "nb-smoke", "b1-u1-102", "agent-1"),
    ]
    for y, row in enumerate(rows, 2):
        for x, value in enumerate(row, 1):
            sheet.cell(y, x).value = value
    out = io.BytesIO()
    book.save(out)
    await keeper.get("/bulk?community=c001")
    sent = {"csrf": keeper.csrf, "id": key(), "community": "c001"}
    answer = await keeper.client.post("/bulk", data=sent, files={"file": ("devices.xlsx", out.getvalue())})
    assert "2 台已登记，3 行没有" in answer.text
    assert now_of(room, "00123").place == "b1-u1-101"
    assert now_of(room, "456").place == "b1-u1-102"
    assert "resident-page" not in str([list(sheet.values) for sheet in book.worksheets])
    for words in ("第 1 列", "开头的 0 可能已丢失", "单元格是公式", "被表格软件改成了日期", "科学计数"):
        assert words in answer.text
    places = load_workbook(io.BytesIO((await keeper.get("/bulk/places.xlsx?community=c001")).content))
    assert ("b1-u1-101", "1号楼 1单元 101室", "household") in places.worksheets[0].values


async def test_a_table_of_another_community_or_no_table_changes_nothing(room: ControlRoom, keeper: Visitor) -> None:
    before = room.ledger.devices()
    row = "code,profile,place\nS-1,nb-smoke,b1-u1-101\n"
    assert (await send_table(keeper, row, community="c002")).status_code == 404
    assert "缺少必需的列" in (await send_table(keeper, "code,place\nS-1,b1-u1-101\n")).text
    assert "不是完整的 Excel" in (await send_table(keeper, "PK\x03\x04")).text
    assert room.ledger.devices() == before
    places = await keeper.get("/bulk/places.csv?community=c001")
    assert "b1-u1-101,1号楼 1单元 101室,household" in places.text
    assert (await keeper.get("/bulk/places.csv?community=c002")).status_code == 404
