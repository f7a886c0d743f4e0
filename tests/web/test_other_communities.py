"""Nobody reaches what lies in another community by writing its id into an address, a form or a body (IDOR).

Every route that asks for a permission has a row: how it is asked for the stranger's thing. Asked in the same way for
one's own, it answers; so a refusal is about the scope and not about a request that nobody could make.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import httpx
import pytest

from gateway.core.model import Incident, Role, Silence, SilenceChange
from gateway.runtime.access import Permission
from gateway.runtime.accounts import Deed
from gateway.web.access import Authorise, list_routes
from tests.core.worlds import START
from tests.web.control_room import TOWNS, ControlRoom
from tests.web.house import CLI, Visitor

MINE: Final = "c001"
OTHERS: Final = "c002"
UNTIL: Final = "2026-11-23T22:00:00+08:00"
TABLE: Final = "code,profile,place,source\nS-{n},nb-smoke,b1-u1-101,{agent}\n"


class Ask:
    """How a route is asked, with ``{…}`` for what is filled in. ``form``, ``body`` and ``table`` are what is sent;
    ``own`` are the answers for one's own."""

    def __init__(
        self,
        who: str,
        path: str,
        form: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        table: str = "",
        own: tuple[int, ...] = (200, 201, 202, 303),
    ) -> None:
        self.who, self.path, self.form, self.body, self.table, self.own = who, path, form, body, table, own


SEND: Final = {"verb": "dispatch", "body": "fire-rescue", "reason": "x"}
ACT: Final = {"id": "{key}", "verb": "accept", "revision": "1"}
RENAME: Final = {"id": "{key}", "verb": "rename", "name": "mine"}
NEW: Final = {"code": "S-{key}", "profile": "nb-smoke", "place": "b1-u1-101", "source": "{agent}"}
SAME: Final = {"profile": "nb-smoke", "place": "b1-u1-101"}
BROADCAST: Final = {"command": "broadcast", "reason": "x"}
CONFIRMED: Final = {"id": "{key}", "device": "speaker-1", "arg_text": "x", "confirmed": "1", **BROADCAST}
TRIAL: Final = {"community": "{community}", "day": "2026-11-23"}
DRAFT: Final = Path("rules/fire/smoke-persists.yaml").read_text(encoding="utf-8")
RUN: Final = {"id": "{key}", "community": "{community}", "scenario": "smoke-persists"}
WINDOW: Final = {"community": "{community}", "kind": "silence", "device": "{agent}", "reason": "x"}

THINGS: Final[dict[str, Ask]] = {
    "GET /incidents/{id}": Ask("li", "/incidents/{incident}"),
    "GET /incidents/{id}/callers": Ask("li", "/incidents/{incident}/callers"),
    "GET /incidents/{id}/pane": Ask("li", "/incidents/{incident}/pane"),
    "GET /incidents/{id}/stream": Ask("li", "/incidents/{incident}/stream"),
    "GET /incidents/{id}/why": Ask("li", "/incidents/{incident}/why"),
    "POST /incidents/{id}/acts": Ask("li", "/incidents/{incident}/acts", ACT),
    "GET /api/v1/incidents/{id}": Ask("li", "/api/v1/incidents/{incident}"),
    "GET /api/v1/incidents/{id}/why": Ask("li", "/api/v1/incidents/{incident}/why"),
    "POST /api/v1/incidents/{id}/acts": Ask("li", "/api/v1/incidents/{incident}/acts", body=SEND),
    "GET /incidents/{id}/cameras": Ask("li", "/incidents/{incident}/cameras"),
    "GET /incidents/{id}/commands": Ask("li", "/incidents/{incident}/commands"),
    "GET /incidents/{id}/commands/given": Ask("li", "/incidents/{incident}/commands/given"),
    "GET /incidents/{id}/points": Ask("li", "/incidents/{incident}/points?name=battery"),
    "POST /incidents/{id}/commands": Ask("li", "/incidents/{incident}/commands", CONFIRMED),
    "GET /api/v1/incidents/{id}/callers": Ask("li", "/api/v1/incidents/{incident}/callers"),
    "GET /api/v1/incidents/{id}/points": Ask("li", "/api/v1/incidents/{incident}/points?name=battery"),
    "GET /api/v1/map/communities/{community}": Ask("li", "/api/v1/map/communities/{community}"),
    "GET /api/v1/map/grids/{code}": Ask("li", "/api/v1/map/grids/{town}"),
    "GET /api/v1/heat/{community}": Ask("li", "/api/v1/heat/{community}"),
    "GET /api/v1/incidents/{id}/cameras": Ask("li", "/api/v1/incidents/{incident}/cameras"),
    "GET /api/v1/incidents/{id}/commands": Ask("li", "/api/v1/incidents/{incident}/commands"),
    "GET /api/v1/incidents/{id}/commands/offers": Ask("li", "/api/v1/incidents/{incident}/commands/offers"),
    "POST /api/v1/incidents/{id}/commands": Ask(
        "li",
        "/api/v1/incidents/{incident}/commands",
        body={"devices": ["speaker-1"], "args": {"text": "x"}, **BROADCAST},
    ),
    "GET /map/communities/{id}": Ask("li", "/map/communities/{community}"),
    "GET /map/grids/{code}": Ask("li", "/map/grids/{town}"),
    "GET /map/heat/{community}": Ask("li", "/map/heat/{community}"),
    "GET /tester/rules/days": Ask("tao", "/tester/rules/days?community={community}"),
    "POST /tester/rules": Ask("tao", "/tester/rules", {"id": "{key}", "text": "{draft}", **TRIAL}),
    "POST /tester/runs": Ask("tao", "/tester/runs", RUN, own=(409, 503)),  # no stand is there
    "POST /api/v1/stand/runs": Ask(
        "tao", "/api/v1/stand/runs", body={"scenarios": ["x"], "communities": ["{community}"]}, own=(409, 503)
    ),
    "POST /api/v1/trials": Ask("tao", "/api/v1/trials", body={"rule": "{draft}", **TRIAL}),
    "GET /devices": Ask("wu", "/devices?community={community}"),
    "GET /devices/new": Ask("wu", "/devices/new?community={community}"),
    "GET /devices/{community}/{id}": Ask("wu", "/devices/{community}/{agent}"),
    "GET /devices/{community}/{id}/past": Ask("wu", "/devices/{community}/{agent}/past"),
    "GET /devices/{community}/{id}/points": Ask("wu", "/devices/{community}/{agent}/points?name=battery"),
    "GET /devices/{community}/{id}/stream": Ask("wu", "/devices/{community}/{agent}/stream"),
    "GET /devices/{community}/{id}/values": Ask("wu", "/devices/{community}/{agent}/values"),
    "POST /devices": Ask("wu", "/devices", {"id": "{key}", "community": "{community}", **NEW}),
    "POST /devices/{community}/{id}/changes": Ask("wu", "/devices/{community}/sos-2/changes", RENAME),
    "GET /bulk": Ask("wu", "/bulk?community={community}"),
    "GET /bulk/places.csv": Ask("wu", "/bulk/places.csv?community={community}"),
    "GET /bulk/places.xlsx": Ask("wu", "/bulk/places.xlsx?community={community}"),
    "POST /bulk": Ask("wu", "/bulk", {"id": "{key}", "community": "{community}"}, table=TABLE),
    "GET /windows": Ask("wu", "/windows?community={community}"),
    "POST /windows": Ask("wu", "/windows", {"id": "{key}", "until": "2026-11-23T22:00", **WINDOW}),
    "POST /windows/{community}/{id}/end": Ask("wu", "/windows/{community}/{window}/end", {"id": "{key}"}),
    "GET /api/v1/devices": Ask("wu", "/api/v1/devices?community={community}"),
    "GET /api/v1/devices/asks": Ask("wu", "/api/v1/devices/asks?community={community}"),
    "GET /api/v1/devices/{community}/{id}/points": Ask("wu", "/api/v1/devices/{community}/{agent}/points?name=battery"),
    "GET /api/v1/devices/{community}/{id}/signals": Ask("wu", "/api/v1/devices/{community}/{agent}/signals"),
    "GET /api/v1/devices/sick": Ask("wu", "/api/v1/devices/sick?community={community}"),
    "GET /api/v1/devices/{community}/{id}": Ask("wu", "/api/v1/devices/{community}/{agent}"),
    "POST /api/v1/devices": Ask("wu", "/api/v1/devices", body={"community": "{community}", **NEW}),
    "POST /api/v1/devices/{community}/{id}/changes": Ask(
        "wu", "/api/v1/devices/{community}/sos-2/changes", body={"verb": "rename", "name": "mine"}
    ),
    "GET /api/v1/devices/{community}/{id}/history": Ask("wu", "/api/v1/devices/{community}/{agent}/history"),
    "GET /api/v1/places": Ask("wu", "/api/v1/places?community={community}"),
    "POST /api/v1/devices/list": Ask(
        "wu", "/api/v1/devices/list", body={"community": "{community}", "devices": [{"code": "S-7", **SAME}]}
    ),
    "GET /api/v1/windows": Ask("wu", "/api/v1/windows?community={community}"),
    "POST /api/v1/windows": Ask("wu", "/api/v1/windows", body={"until": UNTIL, **WINDOW}),
    "POST /api/v1/windows/{community}/{id}/end": Ask("wu", "/api/v1/windows/{community}/{window}-2/end", body={}),
}
"""Routes that name a thing, or a community: the stranger's is not there."""

PERIOD: Final = "from=2026-11-23&to=2026-11-23"
LISTS: Final[dict[str, Ask]] = {
    "GET /board": Ask("li", "/board?community={community}"),
    "GET /board/alarms": Ask("li", "/board/alarms"),
    "GET /board/rows": Ask("li", "/board/rows?community={community}"),
    "GET /board/stream": Ask("li", "/board/stream?after=0"),
    "GET /map": Ask("li", "/map"),
    "GET /map/heat": Ask("li", "/map/heat?days=7"),
    "GET /wall": Ask("li", "/wall"),
    "GET /wall/part": Ask("li", "/wall/part"),
    "GET /wall/stream": Ask("li", "/wall/stream"),
    "GET /tester": Ask("tao", "/tester"),
    "GET /tester/rules": Ask("tao", "/tester/rules"),
    "GET /map/data": Ask("li", "/map/data"),
    "GET /api/v1/map": Ask("li", "/api/v1/map"),
    "GET /api/v1/heat": Ask("li", "/api/v1/heat?days=7"),
    "GET /api/v1/wall": Ask("li", "/api/v1/wall"),
    "GET /map/stream": Ask("li", "/map/stream?after=0"),
    "GET /handover": Ask("li", "/handover"),
    "GET /appraisal": Ask("li", f"/appraisal?by=community&{PERIOD}"),
    "GET /appraisal/export.xlsx": Ask("li", f"/appraisal/export.xlsx?by=community&{PERIOD}"),
    "GET /appraisal/export.csv": Ask("li", f"/appraisal/export.csv?by=community&{PERIOD}"),
    "GET /rules": Ask("li", "/rules"),
    "GET /rules/{id}": Ask("li", "/rules/sos.button-pressed"),
    "GET /api/v1/incidents": Ask("li", "/api/v1/incidents?limit=500"),
    "GET /api/v1/incidents/changes": Ask("li", "/api/v1/incidents/changes?limit=500"),
    "GET /api/v1/incidents/stream": Ask("li", "/api/v1/incidents/stream?after=0"),
    "GET /api/v1/rules": Ask("li", "/api/v1/rules"),
    "GET /api/v1/rules/{id}": Ask("li", "/api/v1/rules/sos.button-pressed"),
    "GET /api/v1/communities": Ask("li", "/api/v1/communities"),
    "GET /api/v1/handover": Ask("li", "/api/v1/handover"),
    "GET /api/v1/appraisal": Ask("li", f"/api/v1/appraisal?by=community&{PERIOD}"),
    "GET /": Ask("li", "/"),
}
"""Routes that show whatever lies in the scope: nothing of the stranger's stands in them."""

EVERYWHERE: Final[dict[str, Ask]] = {
    "POST /rules/{id}/status": Ask(
        "ada", "/rules/fire.smoke-persists/status", {"id": "{key}", "status": "shadow", "reason": "x"}
    ),
    "POST /api/v1/rules/{id}/override": Ask(
        "ada", "/api/v1/rules/sos.button-pressed/override", body={"status": "shadow", "reason": "x"}
    ),
}
"""Routes that act in the whole scope: they do nothing in another one."""

OWN_TRIAL: Final = "test_trials.test_it_is_its_authors_and_in_its_scope_alone"
OWN_RUN: Final = "a run is shown to whoever has its communities: tests/browser/test_tester.py"
HOOK: Final = "test_webhooks.test_nobody_tells_more_than_their_own_scope_or_sees_what_is_told_beyond_it"
MODEL: Final = "a model's secret belongs to no community"
NO_PLACE: Final = {
    "POST /account/stay": "one's own account alone",
    "GET /bulk/template.xlsx": "an empty table",
    "GET /tester/rules/{id}": OWN_TRIAL,
    "GET /tester/rules/{id}/part": OWN_TRIAL,
    "GET /api/v1/trials/{id}": OWN_TRIAL,
    "GET /tester/runs/{id}": OWN_RUN,
    "GET /tester/runs/{id}/part": OWN_RUN,
    "POST /tester/runs/{id}/stop": OWN_RUN,
    "GET /api/v1/stand": OWN_RUN,
    "GET /api/v1/stand/runs/{id}": OWN_RUN,
    "GET /api/v1/stand/runs/{id}/signals": OWN_RUN,
    "POST /api/v1/stand/runs/{id}/stop": OWN_RUN,
    "GET /webhooks": HOOK,
    "GET /webhooks/{id}": HOOK,
    "GET /webhooks/{id}/deliveries": HOOK,
    "POST /webhooks": HOOK,
    "POST /webhooks/{id}/again": HOOK,
    "POST /webhooks/{id}/changes": HOOK,
    "GET /api/v1/webhooks": HOOK,
    "GET /api/v1/webhooks/{id}": HOOK,
    "GET /api/v1/webhooks/{id}/deliveries": HOOK,
    "POST /api/v1/webhooks": HOOK,
    "POST /api/v1/webhooks/{id}/changes": HOOK,
    "POST /api/v1/webhooks/{id}/deliveries/again": HOOK,
    "GET /products": MODEL,
    "POST /products": MODEL,
    "GET /api/v1/products": MODEL,
    "POST /api/v1/products/{profile}/changes": MODEL,
    "GET /account": "one's own account alone",
    "GET /account/totp": "one's own account alone",
    "POST /account/password": "one's own account alone",
    "POST /account/totp": "one's own account alone",
    "POST /account/tokens": "one's own account alone",
    "POST /account/sessions/end": "one's own account alone",
    "POST /account/sessions/{id}/end": "test_nobody_ends_a_session_or_token_of_somebody_else",
    "POST /account/tokens/{id}/drop": "test_nobody_ends_a_session_or_token_of_somebody_else",
    "GET /accounts": "officers answer for all accounts",
    "POST /accounts": "officers answer for all accounts",
    "GET /accounts/{id}": "officers answer for all accounts",
    "POST /accounts/{id}/disable": "officers answer for all accounts",
    "POST /accounts/{id}/enable": "officers answer for all accounts",
    "POST /accounts/{id}/reset": "officers answer for all accounts",
    "POST /accounts/{id}/factor": "officers answer for all accounts",
    "POST /accounts/{id}/grant": "officers answer for all accounts",
    "POST /accounts/{id}/tokens": "officers answer for all accounts",
    "POST /accounts/{id}/tokens/{token}/drop": "officers answer for all accounts",
    "GET /api/v1/accounts": "officers answer for all accounts",
    "GET /api/v1/audit": "the auditor reads the whole log",
    "GET /api/v1/audit/verdict": "the auditor reads the whole log",
    "GET /audit": "the auditor reads the whole log",
    "GET /audit/export.csv": "the auditor reads the whole log",
    "POST /audit/verify": "the auditor reads the whole log",
}
"""Routes that are about no place, and why."""

PEOPLE: Final = {"li": Role.DISPATCHER, "wu": Role.PROPERTY_MANAGER, "ada": Role.ADMINISTRATOR, "tao": Role.TESTER}


class Street:
    """A room in which each of `PEOPLE` has the first community, and the second is somebody else's."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self.visitors: dict[str, Visitor] = {}
        self.programs: dict[str, httpx.AsyncClient] = {}
        self.incidents: dict[str, Incident] = {}
        self.asked = 0

    async def settle(self) -> None:
        for name, role in PEOPLE.items():
            self.room.add(name + "-1", role, (), (MINE,))
            self.visitors[name] = await self.room.visitor_as(name + "-1")
            await self.visitors[name].get("/account")
            self.programs[name] = self.program(name + "-1", role)
        for community in (MINE, OTHERS):
            self.incidents[community] = await self.room.press("sos-1", community)
            for id in (f"window-of-{community}", f"window-of-{community}-2"):
                silence = Silence(id, START + 3_600_000, "x", "x", 0, "sos-2", None, None, "silence")
                change = SilenceChange(id, "x", silence)
                assert await self.room.world.pipeline.submit(community, change, id) == "done"

    def program(self, name: str, role: Role) -> httpx.AsyncClient:
        account = self.room.accounts.find_account(name)
        assert account is not None
        secret, _ = self.room.sign_in.issue_token(account, "x", tuple(Permission), 9, Deed(0, name, "token.add", name))
        headers = {"Authorization": f"Bearer {secret}"}
        client = httpx.AsyncClient(base_url=self.room.url, headers=headers, trust_env=False, timeout=60)
        self.room.clients.append(client)
        return client

    async def ask(self, method: str, how: Ask, community: str) -> tuple[int, str]:
        """The status, and what was said; of a stream, its first part."""
        self.asked += 1
        known = {
            "community": community,
            "incident": self.incidents[community].id,
            "agent": f"agent-{int(community[1:])}",
            "window": f"window-of-{community}",
            "key": f"{self.asked:032x}",
            "n": str(self.asked),
            "draft": DRAFT,
            "town": TOWNS[(int(community[1:]) + 1) % 2],
        }

        def fill(fields: Mapping[str, Any]) -> dict[str, Any]:
            return {name: fill_one(value) for name, value in fields.items()}

        def fill_one(value: Any) -> Any:
            if isinstance(value, list):
                return [fill_one(one) for one in value]
            return value.format_map(known) if isinstance(value, str) else value

        path = how.path.format_map(known)
        if path.startswith("/api/"):
            client, headers = self.programs[how.who], {"Idempotency-Key": known["key"]}
            more: dict[str, Any] = {"json": fill(how.body)} if how.body is not None else {}
        else:
            visitor = self.visitors[how.who]
            client, headers, more = visitor.client, {}, {}
            if how.form is not None:
                more["data"] = {"csrf": visitor.csrf, **fill(how.form)}
            if how.table:
                more["files"] = {"file": ("t.csv", how.table.format_map(known).encode(), "text/csv")}
        async with client.stream(method, path, headers=headers, **more) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                text = ""
                async for part in answer.aiter_text():
                    text += part
                    if "event: pulse" in text or "event: resync" in text:
                        break
                return answer.status_code, text
            return answer.status_code, read_text(await answer.aread())


def read_text(content: bytes) -> str:
    """What an answer says; of a workbook, all of its parts."""
    if not content.startswith(b"PK"):
        return content.decode()
    with ZipFile(BytesIO(content)) as book:
        return "".join(book.read(name).decode() for name in book.namelist())


@pytest.fixture
async def street(room: ControlRoom) -> Street:
    made = Street(room)
    await made.settle()
    return made


def test_every_route_has_a_row(room: ControlRoom) -> None:
    routes = list_routes(room.app.routes)
    asked = {f"{r.method} {r.path}" for r in routes if any(isinstance(mark, Authorise) for mark in r.marks)}
    tables = [set(THINGS), set(LISTS), set(EVERYWHERE), set(NO_PLACE)]

    assert asked == set().union(*tables), "a new route says here how it is asked for what lies elsewhere"
    assert sum(map(len, tables)) == len(asked)


async def test_what_lies_in_another_community_is_not_there(street: Street) -> None:
    before = street.room.world.state(OTHERS)
    for where, how in THINGS.items():
        status, said = await street.ask(where.split()[0], how, OTHERS)
        assert status == 404, (where, status, said[:300])
        assert street.incidents[OTHERS].number not in said, where
    await street.room.world.settle()

    assert street.room.world.state(OTHERS) == before


async def test_the_same_requests_are_answered_for_ones_own(street: Street) -> None:
    for where, how in THINGS.items():
        status, said = await street.ask(where.split()[0], how, MINE)
        assert status in how.own, (where, status, said[:300])


async def test_a_thing_is_not_reached_by_the_address_of_ones_own_community(street: Street) -> None:
    """The community of the address is one's own, and the thing lies elsewhere."""
    before = street.room.world.state(OTHERS)
    wu, program = street.visitors["wu"], street.programs["wu"]
    await wu.get("/account")
    for path in ("", "/points?name=x", "/values", "/stream"):
        assert (await wu.get(f"/devices/{MINE}/agent-2{path}")).status_code == 404, path
    assert "示例2期" not in (await wu.get(f"/devices/{MINE}/agent-2/past")).text
    assert (await program.get(f"/api/v1/devices/{MINE}/agent-2")).status_code == 404
    await wu.get("/account")
    key = {"id": "0" * 32}
    assert (await wu.submit(f"/devices/{MINE}/agent-2/changes", {**key, "verb": "retire"})).status_code == 404
    ended = await wu.submit(f"/windows/{MINE}/window-of-{OTHERS}/end", key)
    assert ended.status_code == 409
    await street.room.world.settle()
    assert street.room.world.state(OTHERS) == before


async def test_a_case_is_not_merged_into_one_of_another_community(street: Street) -> None:
    body = {"verb": "merge", "reason": "x", "into": street.incidents[OTHERS].id}
    path = f"/api/v1/incidents/{street.incidents[MINE].id}/acts"
    answer = await street.programs["li"].post(path, json=body, headers={"Idempotency-Key": "1" * 32})

    assert answer.status_code == 409
    assert street.incidents[OTHERS].number not in answer.text


async def test_lists_and_streams_hold_nothing_of_others(street: Street) -> None:
    strange = street.incidents[OTHERS]
    marks = (strange.id, strange.number, "示例2期", '"c002"')
    for where, how in LISTS.items():
        status, said = await street.ask("GET", how, OTHERS)
        assert status in (200, 303), (where, status)
        assert not [mark for mark in marks if mark in said], where
    status, said = await street.ask("GET", LISTS["GET /board"], MINE)
    assert street.incidents[MINE].number in said


async def test_what_acts_everywhere_acts_in_ones_own_scope(street: Street) -> None:
    before, mine = street.room.world.state(OTHERS), street.room.world.state(MINE)
    for where, how in EVERYWHERE.items():
        status, said = await street.ask("POST", how, MINE)
        assert status in (200, 303), (where, said[:300])
    await street.room.world.settle()

    assert street.room.world.state(OTHERS) == before
    assert street.room.world.state(MINE) != mine


async def test_a_token_reaches_no_farther_than_its_account(street: Street) -> None:
    """Granted to another place after it was made, it goes along."""
    account = street.room.accounts.find_account("li-1")
    assert account is not None
    street.room.officers.grant(CLI, account.id, Role.DISPATCHER, (), (OTHERS,))
    li = street.programs["li"]

    assert (await li.get(f"/api/v1/incidents/{street.incidents[MINE].id}")).status_code == 404
    assert (await li.get(f"/api/v1/incidents/{street.incidents[OTHERS].id}")).status_code == 200
