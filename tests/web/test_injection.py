"""Every text that a person, a device or a file can bring in is text wherever it is shown: never markup in a page, never
a script in an open board, never a formula in a table, never a command to the database."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import httpx
import pytest
from msgspec.structs import replace

from gateway.core.model import Role
from gateway.runtime.access import PERMISSIONS, Permission
from gateway.runtime.accounts import Deed
from gateway.runtime.calls import event_of
from gateway.runtime.district_tables import format_table, unguard
from gateway.runtime.help_pages import PageKeys, issue_pages, plan_pages
from gateway.runtime.ports import Contact
from gateway.runtime.registrar import DistrictFile
from gateway.web.access import Authorise, list_routes
from gateway.wire import Status, encode_status, topic_of
from tests.core.worlds import DEVICES
from tests.web.control_room import CONTACTS, GRIDS, ControlRoom, two_towns
from tests.web.house import Visitor

RUN: Final = "</title></textarea></script><img src=x onerror=alert(1)><script>alert(2)</script>"
"""What leaves whatever element it stands in, and runs."""

ATTRIBUTE: Final = "\" autofocus onfocus='alert(3)' style=\"x"
TEMPLATE: Final = "{{7*7*7}}{%raw%}${7*7*7}"
DROP: Final = "'; DROP TABLE incident; --"
NASTY: Final = f"{RUN}{ATTRIBUTE}{TEMPLATE}{DROP}"
SHORT: Final = "<img src=x onerror=alert(1)>\"'{{7*7*7}}"
FORMULA: Final = '=HYPERLINK("http://evil.test","x")'
FORMULAS: Final = (FORMULA, "+1+1", "-1+1|cmd", "@SUM(1)", "\t=1+1", "\r=1+1", "＝1+1", "＋1", "－1", "＠x")


def nasty_towns() -> DistrictFile:
    """A district whose every name is an attack, as a table could bring it in."""
    devices = tuple(replace(device, name=SHORT, address=SHORT) for device in DEVICES)
    made = two_towns(2, devices)
    files = []
    for file in made.communities:
        places = tuple(replace(place, name=f"{place.name}{NASTY}") for place in file.places)
        files.append(replace(file, community=replace(file.community, name=NASTY), places=places))
    return replace(made, communities=tuple(files))


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("src") or "")
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_harmless(text: str, where: str) -> None:
    """Nothing in it runs, and nothing was computed."""
    found = Tags(text)
    assert "img" not in found.tags, where
    assert all(source.startswith("/static/") for source in found.scripts), where
    assert not {name for name in found.attributes if name.startswith("on") or name == "style"}, where
    assert "343" not in re.sub(r"[0-9a-f]{32,}|\?v=[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d{13}", "", text), where


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """A room in which all that has a name is called by an attack."""
    async with ControlRoom(tmp_path, nasty_towns()) as made:
        grids = [replace(grid, name=f"{grid.name}{SHORT}") for grid in GRIDS]
        contacts = [*CONTACTS, Contact("evil-1", NASTY, "duty", grid="370215001", phone=SHORT)]
        made.ledger.put_district(grids, [], contacts)
        yield made


def titled(room: ControlRoom, name: str, role: Role) -> None:
    """An account whose title is an attack."""
    room.add(name, role)
    account = room.accounts.find_account(name)
    assert account is not None
    room.accounts.change_account(replace(account, title=SHORT), Deed(0, "test", "account.change"))


async def bring_in(room: ControlRoom) -> dict[str, str]:
    """Everything that anybody could say is said. What is needed to look at it."""
    for name, role in {"li": Role.DISPATCHER, "wu": Role.PROPERTY_MANAGER, "ada": Role.ADMINISTRATOR}.items():
        titled(room, name, role)
    titled(room, "sun", Role.AUDITOR)
    titled(room, "qian", Role.SECURITY)
    titled(room, "tao", Role.TESTER)
    li, wu, ada = [await room.visitor_as(name) for name in ("li", "wu", "ada")]
    # From devices, over MQTT: values, names of values, data of events, what an agent says of itself.
    room.world.send({"smoke-1:battery": NASTY, "smoke-1:smoke": SHORT, "room-1:temperature": "=1+1"})
    room.world.send(signals=[("smoke-1", "pressed", {"note": NASTY, SHORT[:20]: NASTY})])
    await room.world.receipted()
    status = Status(True, "k1", version=NASTY, sick={SHORT: NASTY, "smoke-1": NASTY})
    room.world.inbox.send(topic_of("c001", "agent-1", "status"), encode_status(status))
    pressed = room.world.send(signals=[("sos-1", "pressed", {"need": NASTY, "note": NASTY})]) + "/0"
    incident = await room.wait_for_incident(pressed)
    # From people.
    await li.get(f"/incidents/{incident.id}")
    for verb, more in (("accept", {}), ("dispatch", {"body": "fire-rescue"}), ("return", {"body": SHORT[:40]})):
        known = room.ledger.incident(incident.id)
        assert known is not None
        wish = {"id": f"{len(verb):032x}", "verb": verb, "reason": NASTY, "revision": str(known.revision), **more}
        answer = await li.submit(f"/incidents/{incident.id}/acts", wish)
        assert answer.status_code in (303, 409), answer.text[:500]
        assert_harmless(answer.text, f"the answer to {verb}")
    await wu.get("/devices/c001/smoke-2")
    changes: tuple[dict[str, str], ...] = (
        {"verb": "rename", "name": SHORT},
        {"verb": "replace", "code": SHORT, "profile": "nb-smoke", "address": SHORT, "reason": NASTY[:200]},
        {"verb": "end_test", "reason": NASTY[:200]},
    )
    for number, change in enumerate(changes):
        await wu.get("/devices/c001/smoke-2")
        answer = await wu.submit("/devices/c001/smoke-2/changes", {"id": f"{number:032x}", **change})
        assert answer.status_code in (200, 201, 303), answer.text[:500]
        assert_harmless(answer.text, str(change))
    await wu.get("/windows?community=c001")
    window = {"id": "a" * 32, "community": "c001", "kind": "silence", "device": "room-1", "until": "2026-11-23T22:00"}
    assert (await wu.submit("/windows", window | {"reason": NASTY[:200]})).status_code == 303
    await ada.get("/rules/sos.button-pressed")
    ruling = {"id": "b" * 32, "status": "shadow", "reason": NASTY[:200]}
    assert (await ada.submit("/rules/fire.smoke-persists/status", ruling)).status_code == 303
    address = await press_on_a_page(room)
    await room.caught_up()
    return {"incident": incident.id, "address": address, "receipt": "c" * 32}


async def press_on_a_page(room: ControlRoom) -> str:
    """A resident's press with words; the page's path."""
    state = room.world.pipeline.writers["c001"].engine.snapshot()
    pages, change = plan_pages(state, ("b1-u1",), phone="0532-1", actor="cli:x")
    door = room.app.state.console.door
    await issue_pages(door, "c001", change)
    path = f"/r/{PageKeys(room.folder).sign(pages[0].code)}"
    stranger = room.visitor()
    fields = {"id": "c" * 32, "need": "medical", "phone": SHORT, "words": NASTY}
    answer = await stranger.client.post(path, data=fields)
    assert answer.status_code == 303, answer.text
    return path


ELSEWHERE: Final = ("/webhooks/", "/tester/", "/trials/", "/stand")
"""Pages of what nobody has made here: test_webhooks.py, test_trials.py and browser/test_tester.py look at them."""


def list_pages(room: ControlRoom, known: dict[str, str]) -> list[tuple[str, Permission]]:
    """Every page, with something that is there in its address."""
    found = []
    for route in list_routes(room.app.routes):
        permissions = [mark.permission for mark in route.marks if isinstance(mark, Authorise)]
        if route.method != "GET" or not permissions or "stream" in route.path:
            continue
        path = route.path
        if path.removeprefix("/api/v1").startswith(ELSEWHERE) and ("{id}" in path or path.endswith("/stand")):
            continue
        if "incidents/{id}" in path:
            path = path.replace("{id}", known["incident"])
        elif "devices/{community}" not in path and ("{community}" in path or "{code}" in path):
            path = path.format(community="c001", code="370215")
        elif path == "/map/communities/{id}":
            path = "/map/communities/c001"
        elif "devices/{community}" in path:
            path = path.format(community="c001", id="smoke-2")
        elif "rules/{id}" in path:
            path = path.replace("{id}", "fire.smoke-persists")
        elif "accounts/{id}" in path:
            account = room.accounts.find_account("li")
            assert account is not None
            path = path.replace("{id}", account.id)
        query = {
            "/appraisal": "?by=community&from=2026-11-23&to=2026-11-23",
            "/appraisal/export.csv": "?by=community&from=2026-11-23&to=2026-11-23",
            "/api/v1/appraisal": "?by=community&from=2026-11-23&to=2026-11-23&format=csv",
            "/devices": "?community=c001&view=all",
            "/bulk/places.csv": "?community=c001",
            "/api/v1/devices": "?community=c001",
            "/api/v1/devices/sick": "?community=c001",
            "/api/v1/windows": "?community=c001",
            "/devices/{community}/{id}/points": "?name=battery",
            "/incidents/{id}/points": "?name=battery",
            "/api/v1/devices/{community}/{id}/points": "?name=battery",
            "/api/v1/incidents/{id}/points": "?name=battery",
            "/api/v1/devices/asks": "?community=c001",
            "/api/v1/places": "?community=c001",
            "/appraisal/export.xlsx": "?by=community&from=2026-11-23&to=2026-11-23",
            "/bulk/places.xlsx": "?community=c001",
            "/tester/rules/days": "?community=c001",
        }.get(route.path, "")
        found.append((path + query, permissions[0]))
    return found


def read_csv(answer: httpx.Response) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))


async def test_whatever_anybody_says_is_text_on_every_page_in_every_table_and_in_the_ledger(room: ControlRoom) -> None:
    known = await bring_in(room)
    visitors: dict[str, Visitor] = {
        name: await room.visitor_as(name) for name in ("li", "wu", "ada", "sun", "qian", "tao")
    }
    roles = {"li": Role.DISPATCHER, "wu": Role.PROPERTY_MANAGER, "ada": Role.ADMINISTRATOR, "sun": Role.AUDITOR}
    roles |= {"qian": Role.SECURITY, "tao": Role.TESTER}
    shown = 0
    for path, permission in list_pages(room, known):
        name = next(name for name, role in roles.items() if permission in PERMISSIONS[role])
        answer = await visitors[name].get(path)
        assert answer.status_code in (200, 303), (path, answer.text[:300])
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind == "text/html":
            assert_harmless(answer.text, path)
            shown += "&lt;img src=x" in answer.text
            assert "'unsafe-inline'" not in answer.headers["content-security-policy"], path
        elif kind == "text/csv":
            for row in read_csv(answer):
                assert not [cell for cell in row if cell[:1] in set("=+@\t\r＝＋－＠")], (path, row)
            assert "attachment" in answer.headers["content-disposition"]
        elif kind.endswith("sheet"):
            with ZipFile(io.BytesIO(answer.content)) as book:
                sheets = [book.read(part).decode() for part in book.namelist() if "/sheet" in part]
            assert sheets
            assert not [sheet for sheet in sheets if "<f>" in sheet or "<f " in sheet], path
        elif answer.status_code == 200:
            # JSON is shown to no browser as a page: by its type, and because types are not guessed.
            assert kind == "application/json", path
            assert answer.headers["x-content-type-options"] == "nosniff"
            json.loads(answer.text)
    assert shown > 12, "the attacks are on these pages, as text"

    resident = room.visitor()
    for path in (known["address"], f"/r/receipt/{known['receipt']}", f"/r/{SHORT}", f"/r/receipt/{SHORT}"):
        page = await resident.get(path)
        assert_harmless(page.text, path)
    pressed = room.ledger.incident_of(event_of(known["receipt"]))
    assert pressed is not None
    callers = await visitors["li"].get(f"/incidents/{pressed.id}/callers")
    assert "&lt;img src=x" in callers.text, "what the resident said"
    assert_harmless(callers.text, "what the resident said")
    # The tables are all there, and what was said stands in them as it was said.
    incident = room.ledger.incident(known["incident"])
    assert incident is not None
    assert incident.place_name.count(RUN) >= 1
    assert next(line.why for line in incident.timeline if line.who == "li").endswith(DROP)


async def test_a_stream_of_events_carries_text_and_no_line_of_its_own(room: ControlRoom) -> None:
    """A line break in a text would be another event to whoever listens."""
    room.add("li")
    li = await room.visitor_as("li")
    breaks = "x\r\n\r\nevent: row\r\ndata: {}\r\n\r\nid: 99999999\n\n"
    async with room.listen(li, "/board/stream?after=0") as board:
        room.world.send(signals=[("sos-1", "pressed", {"need": breaks + NASTY})])
        name, row = await board.next("row")
        assert name == "row"
        assert_harmless(row["html"], "the row")
        assert "&lt;img src=x" in row["html"]
        _, alarms = await board.next("alarms")
        assert_harmless(alarms["html"], "the alarms")
        assert board.last < 99999999


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(formula: str) -> None:
    for cell in read_csv_text(format_table(("a", "b"), [(formula, f" {formula}")]))[1]:
        assert cell.startswith("'"), cell
        assert unguard(cell).split() == formula.split()


def read_csv_text(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


async def test_an_upload_is_a_table_and_nothing_else(room: ControlRoom, tmp_path: Path) -> None:
    """Its name is a text, its formulas are texts, and what unpacks to more than it weighs is not unpacked."""
    room.add("wu", Role.PROPERTY_MANAGER, (), ("c001",))
    wu = await room.visitor_as("wu")
    before = list_files(tmp_path)
    rows = 'code,profile,place,source,name\nS-1,nb-smoke,b1-u1-101,agent-1,"=1+1"\n<b>S-2</b>,x,y,z,\n'
    bomb = b"PK\x03\x04" + bytes(1000)
    for name, data in (
        ("../../../etc/cron.d/x.csv", rows.encode()),
        ("<img src=x onerror=alert(1)>.csv", rows.encode()),
        ("x.xlsx", bomb),
        ("x.csv", b"\x00" * 4000),
        ("x.csv", b"code\xff\xfe"),
        ("x.csv", b"a," * 100_000),
    ):
        await wu.get("/bulk?community=c001")
        sent = {"csrf": wu.csrf, "id": f"{abs(hash((name, data))):032d}"[:32], "community": "c001"}
        answer = await wu.client.post("/bulk", data=sent, files={"file": (name, data, "text/csv")})
        assert answer.status_code in (200, 413, 422), (name, answer.text[:300])
        assert_harmless(answer.text, name)
    assert list_files(tmp_path) - before <= {"ledger.db-wal", "ledger.db-shm"}
    device = room.ledger.device("c001", "s-1")
    assert device is not None
    assert device.name == "=1+1", "in the ledger it is what was written"


def list_files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}
