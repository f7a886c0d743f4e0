"""The webhook at real HTTP clients, on a real port; and its mapper, at whatever may be posted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
from pydantic import ValidationError

from edge.drivers.webhook import Settings, Unfit, WebhookDriver, read_post
from edge.ports import Carried, Lamp, Order, Report
from gateway.errors import GatewayError
from gateway.wire import Measurement, Signal
from tests.edge.desk import ListDesk, shipped
from tests.edge.fuzz import check_fit, random_json
from tests.servers import free_port

PROFILES: Final = shipped().profiles
TOKEN: Final = "a token of sixteen characters or more"


def carry(profile: str, address: str, id: str = "") -> Carried:
    return Carried(id or profile, PROFILES[profile], "boxes", address, "public-1")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n", encoding="utf-8")
    return file


def settings(token: Path, **changes: object) -> Settings:
    return Settings.model_validate(
        {"driver": "http", "bus": "boxes", "port": free_port(), "token_file": str(token)} | changes
    )


@asynccontextmanager
async def running(chosen: Settings, desk: ListDesk) -> AsyncIterator[httpx.AsyncClient]:
    """The driver, and a client that knows the token."""
    task = asyncio.create_task(WebhookDriver(chosen).run(desk))
    try:
        await _wait_for_port(chosen.port, task)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{chosen.port}", headers=headers, timeout=30) as client:
            yield client
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _wait_for_port(port: int, task: asyncio.Task[None]) -> None:
    for _ in range(200):
        if task.done():
            await task
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not listen")


async def test_a_message_is_answered_when_it_is_on_the_disk(token: Path) -> None:
    desk = ListDesk("boxes", carry("lift", "lift/3"), carry("fixed-sos", "panel"))
    async with running(settings(token), desk) as box:
        answer = await box.post("/lift/3", json={"trapped": 1, "floor": 7, "fault": None, "camera": "x"})
        assert (answer.status_code, answer.json()) == (202, {"events": [], "readings": 2, "left_out": []})
        answer = await box.post("/lift/3", json={"event": "ebike_seen", "data": {"score": 0.8, "image": "/9j/4AAQ"}})
        assert (answer.status_code, answer.json()) == (
            202,
            {"events": ["event-0"], "readings": 0, "left_out": ["image"]},
        )
        answer = await box.post("/panel", json={"event": "pressed", "battery": 300})
        assert (answer.status_code, answer.json()) == (202, {"events": ["event-1"], "readings": 1, "left_out": []})
    assert desk.reports == [
        Report("lift", (), (Measurement("lift:people_trapped", 1.0), Measurement("lift:floor", 7.0))),
        Report("lift", (Signal("lift", "ebike_seen", {"score": 0.8}),)),
        Report("fixed-sos", (Signal("fixed-sos", "pressed"),), (Measurement("fixed-sos:battery", 300.0, "%EL"),)),
    ]


async def test_a_panel_posts_for_many(token: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("another token, of one panel\n", encoding="utf-8")
    desk = ListDesk("boxes", carry("lift", "3"), carry("fixed-sos", "panel"), carry("lift", "own", "lift-own"))
    bodies = [
        {"address": "3", "trapped": 1},
        {"address": "panel", "event": "pressed"},
        {"address": "own", "trapped": 1},
        {"address": "9", "trapped": 1},
        {"address": "3", "nothing": 1},
        "x",
    ]
    async with running(settings(token, token_files={"own": str(own)}), desk) as panel:
        answer = await panel.post("/", json=bodies)
        assert answer.status_code == 202
        found = answer.json()
        assert (found["events"], found["readings"]) == (["event-0"], 1)
        assert set(found["refused"]) == {"own", "9", "3", "None"}
        assert (await panel.post("/", json={"address": "3"})).status_code == 422
        assert (await panel.post("/", json=bodies, headers={"Authorization": "Bearer x"})).status_code == 401
        desk.full = True
        assert (await panel.post("/", json=bodies)).status_code == 503
    assert [report.device for report in desk.reports] == ["lift", "fixed-sos"]


async def test_a_senders_own_names_are_translated(token: Path) -> None:
    desk = ListDesk("boxes", carry("plate-camera", "gate"))
    chosen = settings(token, events={"ANPR": "plate_seen"}, fields={"plateNo": "plate", "confidence": "score"})
    async with running(chosen, desk) as box:
        body = {"event": "ANPR", "data": {"plateNo": "鲁B12345", "confidence": 0.93, "picture": "x" * 5000}}
        assert (await box.post("/gate", json=body)).status_code == 202
    assert desk.signals("plate-camera") == [Signal("plate-camera", "plate_seen", {"plate": "鲁B12345", "score": 0.93})]


async def test_only_who_knows_the_token_is_heard(token: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("another token, of one panel\n", encoding="utf-8")
    desk = ListDesk("boxes", carry("fixed-sos", "panel"), carry("fixed-sos", "own", "own"))
    async with running(settings(token, token_files={"own": str(own)}), desk) as box:
        press = {"event": "pressed"}
        for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
            answer = await box.post("/panel", json=press, headers={"Authorization": header})
            assert answer.status_code == 401, header
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json() == {"error": "the token is missing or wrong"}
        # Without a token nobody learns which devices there are.
        assert (await box.post("/nobody", json=press, headers={"Authorization": "x"})).status_code == 401
        assert desk.troubles == {"panel": "somebody posts for it with a wrong token"}
        assert (await box.post("/own", json=press)).status_code == 401
        with_own = {"Authorization": "bearer another token, of one panel"}
        assert (await box.post("/own", json=press, headers=with_own)).status_code == 202
        assert (await box.post("/panel", json=press, headers=with_own)).status_code == 401
        assert (await box.post("/panel", json=press)).status_code == 202
    assert desk.troubles == {}
    assert [report.device for report in desk.reports] == ["own", "fixed-sos"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b'{"floor": NaN}', "the body is no JSON"),
        (b"[" * 9000, "the body is no JSON"),
        (b"[]", "the body is no JSON object"),
        (b"{}", 'nothing in it is known of a lift; known: trapped, fault, floor, "event": "ebike_seen"'),
        (b'{"Floor": 3}', "nothing in it is known of a lift"),
        (b'{"event": "ebike"}', "a lift has no event 'ebike'; known: ebike_seen"),
        (b'{"event": 5}', "a lift has no event that is no text"),
        (b'{"event": "ebike_seen", "data": [1]}', "data is no JSON object"),
        (b'{"event": "ebike_seen", "data": {"score": 7}}', "data.score is out of range, says the profile lift"),
        (b'{"event": "ebike_seen", "data": {"score": "7"}}', "data.score is of the wrong type"),
    ],
)
async def test_what_cannot_be_taken_is_refused_in_one_line(token: Path, body: bytes, error: str) -> None:
    desk = ListDesk("boxes", carry("lift", "lift"))
    async with running(settings(token), desk) as box:
        answer = await box.post("/lift", content=body)
        assert answer.status_code == 422
        assert error in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
        assert error in desk.troubles["lift"]
        assert (await box.post("/lift", json={"floor": 1})).status_code == 202
    assert desk.troubles == {}
    assert len(desk.reports) == 1


async def test_a_press_is_taken_whatever_is_beside_it(token: Path) -> None:
    desk = ListDesk("boxes", carry("sos-wristband", "band"))
    async with running(settings(token), desk) as box:
        said: tuple[object, ...] = (None, [], "x", {"image": "x"}, {"score": 99})
        for data in said:
            assert (await box.post("/band", json={"event": "pressed", "data": data})).status_code == 202
    assert desk.signals("sos-wristband") == [Signal("sos-wristband", "pressed")] * 5


async def test_unknown_devices_other_methods_and_large_bodies_are_refused(token: Path) -> None:
    desk = ListDesk("boxes", carry("lift", "lift"))
    async with running(settings(token, body_kib=8), desk) as box:
        answer = await box.post("/lift2", json={"floor": 1})
        assert (answer.status_code, answer.json()) == (404, {"error": "no device is registered as boxes/lift2"})
        assert (await box.get("/lift")).status_code == 405
        assert (await box.post("/", json={})).status_code == 422
        answer = await box.post("/lift", content=b"x" * 9000)
        assert (answer.status_code, answer.json()) == (413, {"error": "the body is larger than 8192 bytes"})

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 1000

        assert (await box.post("/lift", content=endless())).status_code == 413
        assert (await box.post("/lift", content=b"x" * 5_000_000)).status_code == 413
        assert (await box.post("/lift", json={"floor": 1})).status_code == 202


async def test_what_cannot_be_stored_is_to_be_sent_again(token: Path) -> None:
    desk = ListDesk("boxes", carry("fixed-sos", "panel"))
    desk.full = True
    async with running(settings(token), desk) as box:
        answer = await box.post("/panel", json={"event": "pressed"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json() == {"error": "it cannot be stored now: the disk is full"}
        assert desk.troubles == {"": "what devices say cannot be stored: the disk is full"}
        desk.full = False
        assert (await box.post("/panel", json={"event": "pressed"})).status_code == 202
    assert desk.troubles == {}
    assert desk.signals("fixed-sos") == [Signal("fixed-sos", "pressed")]


async def test_many_senders_at_once_are_all_heard_and_a_stuck_one_holds_nobody_up(token: Path) -> None:
    desk = ListDesk("boxes", *(carry("fixed-sos", f"panel-{n}", f"panel-{n}") for n in range(20)))
    chosen = settings(token)
    async with running(chosen, desk) as box:
        stuck = socket.create_connection(("127.0.0.1", chosen.port))
        head = f"POST /panel-1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
        stuck.sendall(head.encode())
        answers = await asyncio.gather(*(box.post(f"/panel-{n}", json={"event": "pressed"}) for n in range(20)))
        assert {answer.status_code for answer in answers} == {202}
        stuck.close()
    assert len(desk.reports) == 20


async def test_a_body_that_does_not_come_is_given_up(token: Path) -> None:
    chosen = settings(token, body_s=0.2)
    async with running(chosen, ListDesk("boxes", carry("lift", "lift"))):
        reader, writer = await asyncio.open_connection("127.0.0.1", chosen.port)
        head = f"POST /lift HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"floor"')
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()


async def test_signals_stay_the_agents_and_the_port_is_free_again(token: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    chosen = settings(token)
    for _ in range(2):
        async with running(chosen, ListDesk("boxes")):
            assert signal.getsignal(signal.SIGTERM) is before


async def test_a_port_that_is_taken_and_a_token_that_is_none_are_said(token: Path, tmp_path: Path) -> None:
    chosen = settings(token)
    with socket.create_server(("127.0.0.1", chosen.port)), pytest.raises(GatewayError, match="choose a free port"):
        await WebhookDriver(chosen).run(ListDesk("boxes"))
    short = tmp_path / "short"
    short.write_text("1234\n", encoding="utf-8")
    for file, mend in ((tmp_path / "missing", "give a readable file"), (short, "write a longer one")):
        with pytest.raises(GatewayError, match=mend):
            await WebhookDriver(settings(file)).run(ListDesk("boxes"))


async def test_who_posts_takes_no_commands(token: Path) -> None:
    driver, lift = WebhookDriver(settings(token)), carry("lift", "lift")
    assert (await driver.perform(Order("c", lift, "speak", {"text": "x"}))).outcome == "refused"
    await driver.show(lift, Lamp.COMING)


KEYS: Final = ("event", "data", "trapped", "floor", "fault", "battery", "score", "plate", "image", "list", "pseudonym")


def test_a_hundred_thousand_posts() -> None:
    chance = random.Random(6)
    devices = [carry(profile, "x") for profile in ("lift", "plate-camera", "face-camera", "fixed-sos", "sos-wristband")]
    kinds: list[object] = ["ebike_seen", "plate_seen", "face_matched", "pressed", "fall_suspected", "?", None, 5, []]
    taken = 0
    for count in range(100_000):
        body = random_json(chance, KEYS)
        if isinstance(body, dict) and chance.random() < 0.7:
            body = {**body, "event": chance.choice(kinds), "data": random_json(chance, KEYS, 1)}
        try:
            report, left_out = read_post(devices[count % 5], body, {"?": "pressed"}, {"list": "plate"})
        except Unfit:
            continue
        taken += 1
        assert report.signals or report.measurements
        assert json.dumps(left_out)
        assert "image" not in [key for signal in report.signals for key in signal.data]
        check_fit([report])
    assert taken > 10_000


@pytest.mark.parametrize("wrong", [{}, {"token_file": "t", "port": 0}, {"token": "x"}, {"token_file": "t", "bus": "/"}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"driver": "http", "bus": "boxes", "port": 8080, **wrong})
