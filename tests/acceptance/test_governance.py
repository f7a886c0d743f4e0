"""The closed loop through real processes: gateway, web process, and the reference platform where people act."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters.platform import sign
from gateway.core.model import Incident
from tests.acceptance.stage import Stage, events_of, wait_for
from tests.acceptance.test_crash import wait_delivered
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
    assert [(line.who, line.what) for line in kept.timeline if line.who.startswith("platform:")] == [
        ("platform:desk-li", "accept"),
        ("platform:desk-li", "dispatch"),
        ("platform:worker-zhao", "arrive"),
        ("platform:worker-zhao", "whistle"),
        ("platform:town-sun", "report_in"),
        ("platform:town-sun", "whistle"),
        ("platform:district-wu", "report_in"),
        ("platform:district-wu", "resolve"),
        ("platform:worker-zhao", "verify"),
        ("platform:desk-li", "close"),
        ("platform:desk-li", "rate"),
    ]
    times = [receipt["received_at"] for receipt in desk.platform.get(f"/incidents/{id}")["receipts"]]
    assert times == sorted(times), "a revision has come before an older one"
    assert events_of(stage.incidents())[press] == [id]
    told = stage.run("explain", "--incident", id).stdout
    assert f"[{press}]" in told
    assert "call_back by" in told
    assert re.search(r"judged by catalog [0-9a-f]{16} \(row \d+ of the journal\); the rule is the same today", told)
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


def test_both_sides_are_compared_and_made_the_same(stage: Stage, desk: Desk, start_agent: Any) -> None:
    """Callbacks are dropped, and the platform loses an incident that it had answered for."""

    def reconcile(*options: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        """The exit status, each difference's line by its incident, and the summary."""
        done = stage.run("reconcile", *options)
        *lines, summary = done.stdout.splitlines()
        return done.returncode, {line.split(" ")[1]: line for line in lines}, json.loads(summary)

    stage.start()
    desk.start_web()
    agent = start_agent(stage)
    agent.press("sos-1")
    agent.press("sos-2")
    wait_for(lambda: len(desk.platform.get("/incidents")) == 2)
    told, lost = [
        entry["incident"]["id"]
        for entry in sorted(desk.platform.get("/incidents"), key=lambda entry: entry["incident"]["key"])
    ]
    for id in (told, lost):  # Whoever is on the way has a quarter of an hour: no deadline speaks in between.
        assert desk.platform.act(id, "dispatched", "desk-li", body="property")["status"] == 200
    wait_delivered(stage, desk.platform)
    assert reconcile() == (0, {}, EQUAL)

    desk.platform.fail_callbacks("dropped", 2)
    for action, reason in (("arrived", ""), ("resolved", "已处理")):
        answer = desk.platform.act(told, action, "worker-zhao", grid=BASE, reason=reason)
        assert (answer["status"], answer["answer"]) == (0, {})
    desk.platform.lose(lost)
    assert in_ledger(stage, told).state == "dispatched"

    status, found, summary = reconcile("--dry-run")
    assert (status, summary["dry_run"], summary["left"]) == (1, True, 2)
    assert found[told].startswith(f"state-differs {told} JM")
    assert found[told].endswith("2 of its acts were never told here; dispatched here, fed_back there: not repaired")
    assert found[lost].startswith(f"answered-not-held {lost} JM")
    assert found[lost].endswith("theirs 0: it has answered for the newest revision: not repaired")
    assert in_ledger(stage, told).state == "dispatched"

    status, found, summary = reconcile()
    assert (status, summary["repaired"], summary["left"]) == (0, 2, 0)
    assert summary["differences"] == {"answered-not-held": 1, "state-differs": 1}
    assert "arrived by worker-zhao is done here, too; resolved by worker-zhao is done here, too" in found[told]
    assert found[lost].endswith("the newest revision is delivered again")
    wait_delivered(stage, desk.platform)

    assert reconcile() == (0, {}, EQUAL)
    kept = in_ledger(stage, told)
    assert kept.state == "fed_back"
    assert [line.what for line in kept.timeline if line.who == "platform:worker-zhao"] == ["arrive", "resolve"]
    assert desk.platform.get(f"/incidents/{lost}")["incident"]["state"] == "dispatched"


EQUAL = {"ours": 2, "theirs": 2, "on_the_way": 0, "differences": {}, "repaired": 0, "left": 0, "dry_run": False}


def test_what_cannot_be_compared_is_said_in_one_line(stage: Stage, tmp_path: Path) -> None:
    key = tmp_path / "platform.key"
    key.write_text(KEY)
    nowhere = stage.run("reconcile")
    stage.settings |= {"SCG_PLATFORM__URL": "http://127.0.0.1:1/events", "SCG_PLATFORM__KEY_FILE": str(key)}
    no_list = stage.run("reconcile")
    stage.settings["SCG_PLATFORM__LIST_URL"] = "http://127.0.0.1:1/held"
    away = stage.run("reconcile")

    for done, words in ((nowhere, "platform.url"), (no_list, "platform.list_url"), (away, "run it again")):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("gateway: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


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
