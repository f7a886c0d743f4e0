"""The closed loop through real processes: gateway, web process, and the reference platform where people act."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.adapters.platform import sign
from gateway.core.model import Incident
from tests.acceptance.stage import Stage, events_of, wait_for
from tests.servers import Process, free_port
from tests.simulators.platform_process import KEY, PlatformProcess

BASE, TOWN, DISTRICT = "370215001001001", "370215001", "370215"


class Desk:
    """The platform with people in front of it, and the web process that hears them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.port = free_port()
        folder = stage.folder / "platform"
        folder.mkdir()
        self.platform = PlatformProcess(folder, f"{self.url}/platform/callbacks")
        stage.use_platform(self.platform)
        stage.settings["SCG_WEB__PORT"] = str(self.port)
        stage.settings["SCG_WEB__PLATFORM_KEYS"] = str(self.platform._key_file)
        self.web: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_web(self) -> None:
        self.web = Process.module("gateway", "web", log=self.stage.folder / "web.log", env=self.stage.settings)
        self.web.wait_for_line(r'"event": "ready"')

    def wait_incident(self) -> str:
        """The id of the one incident that the platform has."""
        return str(wait_for(lambda: self.platform.get("/incidents"))[0]["incident"]["id"])

    def wait_state(self, incident: str, state: str) -> dict[str, Any]:
        """The incident as the platform has it, once it is in that state."""

        def find() -> dict[str, Any] | None:
            found = self.platform.get(f"/incidents/{incident}")["incident"]
            return found if found["state"] == state else None

        return dict(wait_for(find))

    def close(self) -> None:
        if self.web is not None:
            self.web.close()
        self.platform.close()


@pytest.fixture
def desk(stage: Stage) -> Iterator[Desk]:
    desk = Desk(stage)
    yield desk
    desk.close()


def in_ledger(stage: Stage, id: str) -> Incident:
    [found] = [incident for incident in stage.incidents() if incident.id == id]
    return found


def test_a_case_is_whistled_from_a_base_grid_to_the_district_and_back(
    stage: Stage, desk: Desk, start_agent: Any
) -> None:
    stage.start()
    desk.start_web()
    press = start_agent(stage).press()
    id = desk.wait_incident()

    def act(action: str, user: str, grid: str = "", **more: object) -> None:
        answer = desk.platform.act(id, action, user, grid=grid, **more)
        assert (answer["status"], answer["answer"]["answer"]) == (200, "done"), (action, answer)

    act("accepted", "desk-li")
    act("dispatched", "desk-li", body="property")
    act("arrived", "worker-zhao", BASE)
    act("whistled", "worker-zhao", BASE, reason="门打不开，需要镇街协助")
    refused = desk.platform.act(id, "reported_in", "worker-zhao", grid=BASE)
    assert (refused["status"], refused["answer"]["code"]) == (409, "conflict")
    assert "lies below it" in refused["answer"]["detail"]
    act("reported_in", "town-sun", TOWN)
    act("whistled", "town-sun", TOWN, reason="需要消防破拆")
    shown = wait_for(
        lambda: [w for w in desk.platform.get(f"/incidents/{id}")["incident"]["whistles"] if w["grid"] == DISTRICT]
    )
    assert shown[0]["reported_at"] is None
    act("reported_in", "district-wu", DISTRICT)
    owned = desk.wait_state(id, "handling")
    assert wait_for(lambda: desk.platform.get(f"/incidents/{id}")["incident"]["due"]["grid"] == DISTRICT)
    assert owned["chain"] == [DISTRICT, TOWN, BASE]
    act("resolved", "district-wu", DISTRICT, reason="已破拆，老人送医")
    back = desk.wait_state(id, "fed_back")
    assert (back["due"]["step"], back["due"]["grid"], back["due"]["role"]) == ("verify", BASE, "grid_worker")
    act("verified", "worker-zhao", BASE)
    act("closed", "desk-li", reason="已核实")
    act("rated", "desk-li", score=5)
    final = desk.wait_state(id, "rated")
    assert [(whistle["grid"], whistle["reported_at"] is not None) for whistle in final["whistles"]] == [
        (TOWN, True),
        (DISTRICT, True),
    ]
    kept = in_ledger(stage, id)
    assert kept.state == "rated"
    assert [line.who for line in kept.timeline if line.what == "whistle"] == [
        "platform:worker-zhao",
        "platform:town-sun",
    ]
    assert events_of(stage.incidents())[press] == [id]
    told = stage.run("explain", "--incident", id).stdout
    assert f"[{press}]" in told
    assert "call_back by" in told
    assert "1min from" in told
    assert "platform:town-sun whistle" in told
    assert "no incident nobody" in stage.run("explain", "--incident", "nobody").stderr


def test_what_people_did_while_the_gateway_was_dead_counts_once(stage: Stage, desk: Desk, start_agent: Any) -> None:
    stage.settings["FAULT_POINT"] = "before-answering:1"
    stage.start()
    desk.start_web()
    start_agent(stage).press()
    id = desk.wait_incident()
    # The gateway has committed the act and dies before it answers; the web process asks again by the same id.
    with_answer: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: with_answer.append(desk.platform.act(id, "accepted", "desk-li", id="act-1"))
    )
    thread.start()
    assert stage.gateway is not None
    gateway = stage.gateway
    wait_for(lambda: not gateway.is_running())
    del stage.settings["FAULT_POINT"]
    stage.start()
    thread.join(60)
    [answer] = with_answer
    assert (answer["status"], answer["answer"]["answer"]) == (200, "repeat")
    again = desk.platform.act(id, "accepted", "desk-li", id="act-1")
    assert again["answer"]["answer"] == "repeat"
    assert [line.what for line in in_ledger(stage, id).timeline].count("accept") == 1


def test_a_callback_that_is_wrong_is_refused_by_name(stage: Stage, desk: Desk, start_agent: Any) -> None:
    stage.start()
    desk.start_web()
    start_agent(stage).press()
    id = desk.wait_incident()

    def post(body: bytes, key: bytes = KEY.encode()) -> httpx.Response:
        headers = {"Gateway-Signature": sign(key, body)}
        return httpx.post(f"{desk.url}/platform/callbacks", content=body, headers=headers, trust_env=False)

    data = {"incident": id, "action": "accepted", "user": "li"}
    event = {
        "specversion": "1.0",
        "id": "e1",
        "source": "/platform",
        "type": "cn.jimo.platform.action.v1",
        "subject": id,
        "time": datetime.now(UTC).isoformat(),
        "data": data,
    }
    good = json.dumps(event, separators=(",", ":"))
    answers = {
        "forged": post(good.encode(), b"another-key-of-at-least-32-bytes!"),
        "no JSON": post(b"hello"),
        "no such word": post(good.replace('"accepted"', '"danced"').encode()),
        "another subject": post(good.replace(f'"subject":"{id}"', '"subject":"other"').encode()),
        "no such incident": post(good.replace(id, "no-such").encode()),
        "a field too many": post(good.replace('"user":"li"', '"user":"li","phone":"1"').encode()),
        "too large": post(b" " * 300_000),
    }
    assert {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()} == {
        "forged": (401, "wrong-signature"),
        "no JSON": (422, "not-a-callback"),
        "no such word": (422, "unknown-action"),
        "another subject": (422, "wrong-subject"),
        "no such incident": (404, "unknown-incident"),
        "a field too many": (422, "not-a-callback"),
        "too large": (413, "too-large"),
    }
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers.values())
    assert httpx.get(f"{desk.url}/healthz", trust_env=False).json() == {"status": "alive"}
    assert httpx.get(f"{desk.url}/readyz", trust_env=False).status_code == 200
    assert in_ledger(stage, id).state in ("reported", "dispatched")
    stage.kill()
    away = httpx.get(f"{desk.url}/readyz", trust_env=False)
    assert (away.status_code, away.headers["retry-after"], away.json()["gateway"]) == (503, "5", "not there")
