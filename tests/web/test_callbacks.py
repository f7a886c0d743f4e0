"""What the platform sends in: who may, what is refused by name, and that nothing is done twice or too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.adapters.platform import sign
from gateway.core.model import Community, Incident, Line, OperatorAction, Role, Step
from gateway.runtime.catalog_files import read_catalog
from gateway.runtime.clock import RunningClock
from gateway.runtime.door import DoorClient, DoorServer, Entering
from gateway.runtime.ports import STOPPING, UNFIT
from gateway.web.app import BODY_LIMIT, create_app
from tests.ports.ledger_conformance import Hand, opened
from tests.servers import ROOT

KEYS = (b"the-new-key-of-at-least-32-bytes!!", b"the-old-key-of-at-least-32-bytes!!")
NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z
CASE = opened()
CATALOG = read_catalog(ROOT / "device_profiles", ROOT / "rules")


class Desk:
    """A gateway's door with a ledger beside it; ``answer`` is what the gateway says to what is new."""

    def __init__(self, folder: Path) -> None:
        self.ledger: SqlLedger = open_ledger(f"sqlite:///{folder}/ledger.db")
        self.ledger.migrate()
        self.ledger.add_communities([Community("c001", 1, "一号小区")])
        self.hand = Hand(self.ledger)
        self.put(CASE)
        self.entered: list[Entering] = []
        self.answer = "done"
        self.folder = folder
        self.door = DoorServer(folder / "door.sock", self._submit)
        self.clients: list[DoorClient] = []
        app = create_app(self.ledger, self.open_client(), CATALOG, KEYS, clock=lambda: NOON)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")

    def open_client(self) -> DoorClient:
        """A client of the door that is closed with the desk: without a server, no application does it."""
        self.clients.append(DoorClient(self.folder / "door.sock"))
        return self.clients[-1]

    def put(self, incident: Incident) -> None:
        """This is how the incident stands now."""
        self.hand.step(Step(incidents=(incident,)))

    def move(self, who: str, what: str, at: int, state: str) -> None:
        """Somebody's move, as the gateway writes it."""
        known = self.ledger.incident(CASE.id)
        assert known is not None
        line = Line(len(known.timeline) + 1, at, who, what)
        self.put(replace(known, timeline=(*known.timeline, line), revision=known.revision + 1, state=state))

    async def _submit(self, community: str, event: Entering, event_id: str) -> str:
        assert community == "c001"
        self.entered.append(event)
        return self.answer

    async def send(self, key: bytes = KEYS[0], **changes: Any) -> httpx.Response:
        body = msgspec.json.encode(make_event(**changes))
        return await self.client.post(
            "/platform/callbacks", content=body, headers={"Gateway-Signature": sign(key, body)}
        )


def make_event(**changes: Any) -> dict[str, Any]:
    """An act of somebody over there; ``data`` is laid over what it holds."""
    data = {"incident": CASE.id, "action": "accepted", "user": "li", **changes.pop("data", {})}
    return {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/platform",
        "type": "cn.jimo.platform.action.v1",
        "subject": CASE.id,
        "time": "2026-11-23T12:00:00Z",
        "data": data,
        **changes,
    }


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.door.start()
    yield made
    await made.client.aclose()
    for client in made.clients:
        await client.close()
    await made.door.stop()
    made.ledger.close()


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"]
    return answer.status_code, body["code"]


async def test_an_act_enters_as_the_platforms_with_everything_that_it_says(desk: Desk) -> None:
    data = {
        "action": "parked",
        "user": "李",
        "reason": "等配件",
        "grid": "370215",
        "until": "2026-11-30T18:00:00+08:00",
        "revision": 1,
    }

    answer = await desk.send(data=data)

    assert (answer.status_code, answer.json()) == (200, {"id": "e-1", "answer": "done"})
    until = 1_796_032_800_000  # 2026-11-30T10:00:00Z
    assert desk.entered == [
        OperatorAction(
            "platform/e-1", "platform:李", CASE.id, "park", "等配件", Role.PLATFORM, "370215", until=until, revision=1
        )
    ]


async def test_each_word_of_the_mapping_enters_as_its_move(desk: Desk) -> None:
    for number, word in enumerate(CATALOG.mapping.actions):
        assert (await desk.send(id=f"e-{number}", data={"action": word})).status_code == 200

    verbs = [event.verb for event in desk.entered if isinstance(event, OperatorAction)]
    assert verbs == list(CATALOG.mapping.actions.values())


async def test_keys_change_with_an_overlap(desk: Desk) -> None:
    assert (await desk.send(KEYS[0], id="a")).status_code == 200
    assert (await desk.send(KEYS[1], id="b")).status_code == 200
    assert code_of(await desk.send(b"a-stranger's-key-of-at-least-32-by", id="c")) == (401, "wrong-signature")
    assert len(desk.entered) == 2


async def test_without_keys_nothing_is_signed_rightly(desk: Desk, tmp_path: Path) -> None:
    app = create_app(desk.ledger, desk.open_client(), CATALOG)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web") as client:
        answer = await client.post(
            "/platform/callbacks", content=b"{}", headers={"Gateway-Signature": sign(b"", b"{}")}
        )

    assert code_of(answer) == (401, "wrong-signature")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"specversion": "0.3"}, "not-a-callback", "specversion"),
        ({"type": "cn.jimo.gateway.incident.v1"}, "not-a-callback", "type"),
        ({"id": ""}, "not-a-callback", "id"),
        ({"id": "a\x00b"}, "not-a-callback", "id"),
        ({"time": "yesterday"}, "not-a-callback", "time"),
        ({"time": "2026-11-23T12:00:00"}, "not-a-callback", "time"),
        ({"time": "2026-11-16T11:59:59Z"}, "wrong-time", "7 days"),
        ({"time": "2026-11-23T12:10:01Z"}, "wrong-time", "10 minutes"),
        ({"subject": "another"}, "wrong-subject", "data.incident"),
        ({"data": {"user": ""}}, "not-a-callback", "data.user"),
        ({"data": {"user": "a\nb"}}, "not-a-callback", "data.user"),
        ({"data": {"score": 6}}, "not-a-callback", "data.score"),
        ({"data": {"until": "2026-11-30T18:00:00"}}, "not-a-callback", "data.until"),
        ({"data": {"phone": "1"}}, "not-a-callback", "data.phone"),
        ({"data": {"action": "danced"}}, "unknown-action", "rules/platform.yaml"),
    ],
)
async def test_what_will_never_be_right_is_refused_with_the_field(
    desk: Desk, changes: dict[str, Any], code: str, words: str
) -> None:
    answer = await desk.send(**changes)

    assert code_of(answer) == (422, code)
    assert words in answer.json()["detail"]
    assert desk.entered == []


@pytest.mark.parametrize("time", ["2026-11-16T12:00:00Z", "2026-11-23T20:10:00+08:00"])
async def test_a_week_ago_and_ten_minutes_ahead_are_still_good(desk: Desk, time: str) -> None:
    assert (await desk.send(time=time)).status_code == 200


async def test_extension_attributes_are_allowed(desk: Desk) -> None:
    assert (await desk.send(traceparent="00-1", datacontenttype="application/json")).status_code == 200


async def test_an_incident_that_was_never_here_is_not_found(desk: Desk) -> None:
    assert code_of(await desk.send(subject="other", data={"incident": "other"})) == (404, "unknown-incident")


async def test_a_refusal_says_why_and_how_it_stands_here(desk: Desk) -> None:
    desk.move("wang", "accept", NOON - 5000, "filed")
    desk.answer = "accept is not allowed while the incident is filed"

    answer = await desk.send()

    assert code_of(answer) == (409, "conflict")
    body = answer.json()
    assert (body["id"], body["state"], body["revision"], body["detail"]) == ("e-1", "filed", 2, desk.answer)


async def test_the_same_again_is_a_repeat_only_if_it_was_done(desk: Desk) -> None:
    desk.answer = "repeat"
    refused = await desk.send()
    desk.move("platform:li", "accept", NOON, "filed")
    done = await desk.send()

    assert code_of(refused) == (409, "conflict")
    assert "refused when it came first" in refused.json()["detail"]
    assert (done.status_code, done.json()["answer"]) == (200, "repeat")


async def test_what_was_decided_before_the_case_was_opened_again_here_is_a_conflict(desk: Desk) -> None:
    desk.move("wang", "reopen", NOON - 60_000, "filed")

    before = await desk.send(time="2026-11-23T11:58:00Z", data={"action": "closed", "reason": "done"})
    after = await desk.send(id="e-2", time="2026-11-23T11:59:30Z")

    assert code_of(before) == (409, "conflict")
    assert (before.json()["state"], before.json()["revision"]) == ("filed", 2)
    assert "wang has opened it again" in before.json()["detail"]
    assert after.status_code == 200
    assert [event.id for event in desk.entered if isinstance(event, OperatorAction)] == ["platform/e-2"]


async def test_what_they_opened_again_themselves_overtakes_nothing(desk: Desk) -> None:
    desk.move("platform:zhao", "reopen", NOON, "filed")

    assert (await desk.send(time="2026-11-23T11:59:58Z")).status_code == 200


async def test_a_gateway_that_is_away_is_asked_again_later(desk: Desk) -> None:
    desk.answer = STOPPING
    app = create_app(desk.ledger, _Impatient(desk.door._path), CATALOG, KEYS, clock=lambda: NOON)
    desk.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")
    stopping = await desk.send()
    await desk.door.stop()
    gone = await desk.send()

    for answer in (stopping, gone):
        assert code_of(answer) == (503, "gateway-away")
        assert answer.headers["retry-after"] == "5"


class _Impatient(DoorClient):
    async def submit(self, community: str, event: Entering, event_id: str, timeout_s: float = 0.5) -> str:
        return await super().submit(community, event, event_id, timeout_s)


async def test_what_the_gateway_cannot_take_in_is_refused_and_a_community_elsewhere_is_not(desk: Desk) -> None:
    desk.answer = f"{UNFIT}: a text that no database holds"
    unfit = await desk.send()
    desk.answer = "unknown-community"
    elsewhere = await desk.send()

    assert code_of(unfit) == (422, "unfit")
    assert code_of(elsewhere) == (503, "unknown-community")
    assert elsewhere.headers["retry-after"] == "5"


async def test_a_request_has_a_limit_whether_it_says_its_length_or_not(desk: Desk) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(BODY_LIMIT // 1024 + 1):
            yield b" " * 1024

    told = await desk.client.post("/platform/callbacks", content=b" " * (BODY_LIMIT + 1))
    untold = await desk.client.post("/platform/callbacks", content=drip())
    lied = await desk.client.post("/platform/callbacks", content=b" ", headers={"Content-Length": "-1"})

    assert [code_of(answer) for answer in (told, untold, lied)] == [(413, "too-large")] * 3


async def test_the_mapping_is_that_of_the_catalog(desk: Desk) -> None:
    words = replace(CATALOG.mapping, actions={"已受理": "accept"})
    catalog = replace(CATALOG, mapping=words)
    app = create_app(desk.ledger, desk.open_client(), catalog, KEYS, clock=lambda: NOON)
    desk.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")

    assert (await desk.send(data={"action": "已受理"})).status_code == 200
    assert code_of(await desk.send()) == (422, "unknown-action")


async def test_time_from_outside_is_judged_by_the_real_clock(desk: Desk) -> None:
    app = create_app(desk.ledger, desk.open_client(), CATALOG, KEYS)
    desk.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")
    now = msgspec.json.decode(msgspec.json.encode(_moment(RunningClock()())))

    assert (await desk.send(time=now)).status_code == 200


def _moment(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1000, UTC).isoformat()
