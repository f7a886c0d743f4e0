"""The driver for a local broker, at a real Mosquitto; and its mappers, at whatever devices may send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.drivers.measuring import NotJson
from edge.drivers.mqtt_local import MqttLocalDriver, Settings
from edge.drivers.mqtt_messages import (
    Discovery,
    Entity,
    FaceBook,
    make_signal,
    name_unknown,
    read_discovery,
    read_frigate,
    read_tasmota,
    read_zigbee,
)
from edge.ending import end
from edge.ports import Carried, Lamp, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Measurement, Signal
from tests.conftest import StartMosquitto
from tests.edge.desk import ListDesk, shipped, sound_with
from tests.edge.fuzz import check_fit, random_bytes, random_json
from tests.ports.tcp_line import TcpLine
from tests.servers import Mosquitto, free_port

PROFILES: Final = shipped().profiles


def carry(profile: str, address: str, id: str = "") -> Carried:
    return Carried(id or profile, PROFILES[profile], "local", address, "public-1")


def settings(port: int, **changes: object) -> Settings:
    return Settings.model_validate({"driver": "mqtt_local", "bus": "local", "port": port} | changes)


@asynccontextmanager
async def running(driver: MqttLocalDriver, desk: ListDesk) -> AsyncIterator[None]:
    """The driver, connected and subscribed."""
    task = asyncio.create_task(driver.run(desk))
    try:
        told = len(desk.told)
        await desk.wait_until(lambda: driver.is_listening or task.done() or len(desk.told) > told)
        yield
        assert not task.done(), task
    finally:
        await end([task])


@asynccontextmanager
async def publishing(port: int) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        yield client


async def say(client: aiomqtt.Client, topic: str, payload: object, *, retain: bool = False) -> None:
    body = payload if isinstance(payload, str | bytes) else json.dumps(payload, ensure_ascii=False)
    await client.publish(topic, body, qos=1, retain=retain)


@pytest.fixture
def base(request: pytest.FixtureRequest) -> str:
    """A first topic level of the test's own: the broker is shared."""
    return "z" + str(abs(hash(request.node.name)))[:10]


# --- Zigbee2MQTT ----------------------------------------------------------------------------------------------------


async def test_zigbee_readings_and_presses_are_handed_in_as_the_profile_says(mosquitto: Mosquitto, base: str) -> None:
    button, smoke = f"{base}/楼道/button", f"{base}/smoke 3"
    desk = ListDesk("local", carry("zigbee-button", button), carry("zigbee-smoke", smoke))
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(devices, smoke, {"smoke": True, "battery": 255, "linkquality": 120, "tamper": None})
        await say(devices, button, {"action": "single", "battery": 88})
        await say(devices, button, {"action": "release", "battery": 88})
        await say(devices, button, {"action": "", "battery": 88})
        await say(devices, button, {"action": None, "battery": 88})
        await say(devices, f"{button}/set", {"action": "single"})
        await say(devices, f"{button}/action", "single")
        await say(devices, button, {"action": "hold"})
        await desk.wait_until(lambda: len(desk.signals("zigbee-button")) == 2)
    assert desk.reports[0] == Report(
        "zigbee-smoke",
        (),
        (Measurement("zigbee-smoke:smoke", True), Measurement("zigbee-smoke:battery", 255.0, "%EL")),
    )
    assert desk.signals("zigbee-button") == [Signal("zigbee-button", "pressed")] * 2
    assert desk.told == []


async def test_a_press_of_a_device_that_nobody_registered_is_passed_on_and_told(
    mosquitto: Mosquitto, base: str
) -> None:
    known, strange, mute = f"{base}/known", f"{base}/楼道/Strange", f"{base}/plug"
    desk = ListDesk("local", carry("zigbee-button", known))
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(devices, strange, {"action": "single", "battery": 50})
        await say(devices, strange, {"action": "release"})
        await say(devices, strange, {"smoke": True, "water_leak": False, "tamper": True})
        await say(devices, strange, {"action": "single"}, retain=True)
        await say(devices, f"{strange}/set", {"action": "single"})
        await say(devices, mute, {"state": "ON"})
        await say(devices, f"{base}/bridge/event", {"action": "single"})
        await say(devices, known, {"action": "single"})
        await desk.wait_until(lambda: desk.signals("zigbee-button"))
        assert [report for report in desk.reports if report.device != "zigbee-button"] == [
            Report(name_unknown(strange), (Signal(name_unknown(strange), "single"),)),
            Report(name_unknown(strange), (), (Measurement(f"{name_unknown(strange)}:smoke", True),)),
            Report(name_unknown(strange), (Signal(name_unknown(strange), "single"),)),
        ]
        told = "it speaks, and no device is registered under this address"
        assert desk.troubles == {strange: told, mute: told}
        desk.devices.append(carry("zigbee-button", strange, "new-1"))
        await say(devices, strange, {"action": "double"})
        await desk.wait_until(lambda: desk.signals("new-1") and strange not in desk.troubles)


async def test_a_message_that_is_too_large_is_told(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(devices, address, {"action": "single", "more": "x" * 300_000})
        await desk.wait_until(lambda: "is too large" in desk.troubles.get(address, ""))
        await say(devices, address, {"action": "", "battery": 88})
        await desk.wait_until(lambda: not desk.troubles)
    assert desk.signals("zigbee-button") == []


@given(st.text(min_size=1, max_size=200))
def test_a_name_made_of_a_topic_is_a_devices_name(topic: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,48}", name_unknown(topic))
    assert name_unknown(topic) != name_unknown(f"{topic}/x")


async def test_a_retained_message_is_a_state_and_no_press(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with publishing(mosquitto.port) as devices:
        await say(devices, address, {"action": "single", "battery": 12}, retain=True)
        async with running(driver, desk):
            await desk.wait_until(lambda: desk.values("zigbee-button") == {"battery": 12.0})
            assert desk.signals("zigbee-button") == []
            # It is a press when it is said while we listen, retained or not.
            await say(devices, address, {"action": "single", "battery": 12}, retain=True)
            await desk.wait_until(lambda: desk.signals("zigbee-button"))


async def test_who_is_offline_or_talks_nonsense_is_told(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/smoke"
    desk = ListDesk("local", carry("zigbee-smoke", address))
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        for payload in (b"{", b"\xff\xfe", b"[" * 5000, b'{"smoke": tru}', b""):
            await say(devices, address, payload)
        await desk.wait_until(lambda: "is no JSON" in desk.troubles.get(address, ""))
        await say(devices, address, "[1]")
        await desk.wait_until(lambda: "no JSON object" in desk.troubles.get(address, ""))
        await say(devices, address, {"smoke": False})
        await desk.wait_until(lambda: not desk.troubles)
        await say(devices, f"{address}/availability", {"state": "offline"}, retain=True)
        await desk.wait_until(lambda: desk.troubles == {address: "Zigbee2MQTT cannot reach it"})
        await say(devices, f"{address}/availability", "online", retain=True)
        await desk.wait_until(lambda: not desk.troubles)
        await say(devices, f"{base}/bridge/state", {"state": "offline"})
        await desk.wait_until(lambda: desk.troubles == {f"{base}/bridge": "Zigbee2MQTT is not running"})


# --- Tasmota --------------------------------------------------------------------------------------------------------


async def test_tasmota_telemetry_and_buttons_are_understood(mosquitto: Mosquitto, base: str) -> None:
    desk = ListDesk(
        "local",
        carry("temperature-humidity-am2301", f"tasmota/{base}"),
        carry("fixed-sos", f"tasmota/{base}-sos"),
    )
    driver = MqttLocalDriver(settings(mosquitto.port, tasmota=True))
    sensor = {"Time": "2026-11-23T20:00:00", "AM2301": {"Temperature": 21.6, "Humidity": 48}, "TempUnit": "C"}
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(devices, f"tele/{base}/SENSOR", sensor)
        await say(devices, f"tele/{base}/STATE", {"Uptime": "1T", "POWER": "ON"})
        await say(devices, f"tele/{base}/INFO1", {"Info1": {"Module": "x"}})
        await say(devices, f"stat/{base}-sos/RESULT", {"Button1": {"Action": "DOUBLE"}})
        await say(devices, f"stat/{base}/STATUS10", {"StatusSNS": sensor | {"TempUnit": "F"}})
        await desk.wait_until(lambda: len(desk.reports) == 3)
        await say(devices, f"tele/{base}/LWT", "Offline", retain=True)
        await desk.wait_until(lambda: f"tasmota/{base}" in desk.troubles)
        await say(devices, f"tele/{base}/LWT", "Online", retain=True)
        await desk.wait_until(lambda: not desk.troubles)
        strange = f"tasmota/{base}-strange"
        await say(devices, f"stat/{base}-strange/RESULT", {"Button2": {"Action": "HOLD"}})
        await desk.wait_until(lambda: len(desk.reports) == 4)
        assert "no device is registered" in desk.troubles[strange]
        assert desk.reports[3] == Report(name_unknown(strange), (Signal(name_unknown(strange), "hold"),))
        await say(devices, f"tele/{base}/SENSOR", "{")
        await desk.wait_until(lambda: "no JSON" in desk.troubles.get(f"tasmota/{base}", ""))
    name = "temperature-humidity-am2301"
    assert desk.reports[0].measurements == (
        Measurement(f"{name}:temperature", 21.6, "Cel"),
        Measurement(f"{name}:humidity", 48.0, "%RH"),
    )
    assert desk.reports[1] == Report("fixed-sos", (Signal("fixed-sos", "pressed"),))
    assert desk.reports[2].measurements[0] == Measurement(f"{name}:temperature", 21.6, "degF")


def test_a_plain_text_is_the_field_of_its_topic() -> None:
    device = Carried("s", sound_with("device_profiles/heat/switch.yaml", SWITCH).profiles["switch"], "b", "a", "p")
    report = read_tasmota(device, "POWER", b"ON", is_retained=False)
    assert report == Report("s", (), (Measurement("s:power", "ON"),))
    assert read_tasmota(device, "LWT", b"Online", is_retained=True) is None


SWITCH: Final = """\
id: switch
kind: heat
title: {zh: 开关}
status: draft
readings:
  power: {from: POWER, type: text, values: ["ON", "OFF"]}
heartbeat: none
"""


# --- Home Assistant discovery ---------------------------------------------------------------------------------------


async def test_discovered_entities_are_read_from_their_own_topics(mosquitto: Mosquitto, base: str) -> None:
    desk = ListDesk("local", carry("zigbee-smoke", f"{base}/0x01"), carry("temperature-humidity", f"{base}/node7"))
    driver = MqttLocalDriver(settings(mosquitto.port, homeassistant=base))
    state = f"{base}-state"
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(
            devices,
            f"{base}/binary_sensor/0x01/smoke/config",
            {
                "state_topic": f"{state}/smoke",
                "value_template": "{{ value_json['smoke'] }}",
                "payload_on": True,
                "payload_off": False,
                "device": {"identifiers": ["0x01"], "name": "烟感"},
            },
            retain=True,
        )
        await say(
            devices,
            f"{base}/sensor/node7/temperature/config",
            {"~": state, "stat_t": "~/t", "unit_of_meas": "°F", "dev": {"ids": "abc"}},
            retain=True,
        )
        await say(devices, f"{base}/light/0x01/light/config", {"state_topic": f"{state}/light"}, retain=True)
        await desk.wait_until(lambda: len(driver.state_topics) == 2)
        await say(devices, f"{state}/smoke", {"smoke": True, "battery": 5})
        await say(devices, f"{state}/t", "70.7")
        await desk.wait_until(lambda: len(desk.reports) == 2)
        await say(devices, f"{state}/smoke", "{")
        await desk.wait_until(lambda: f"{state}/smoke" in desk.troubles)
        await say(devices, f"{base}/binary_sensor/0x01/smoke/config", b"", retain=True)
        await desk.wait_until(lambda: len(driver.state_topics) == 1)
    assert desk.reports == [
        Report("zigbee-smoke", (), (Measurement("zigbee-smoke:smoke", True),)),
        Report("temperature-humidity", (), (Measurement("temperature-humidity:temperature", 70.7, "degF"),)),
    ]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"state_topic": "t", "value_template": "{{value_json.AM2301.Temperature}}"}, "AM2301.Temperature"),
        ({"state_topic": "t", "value_template": '{{ value_json["a b"].c }}'}, "a b.c"),
        ({"state_topic": "t"}, "object"),
        ({"state_topic": "t", "value_template": "{{ value }}"}, "object"),
        ({"state_topic": "t", "value_template": "{{ value_json.x | float }}"}, None),
        ({"state_topic": "t", "value_template": "{% if value %}1{% endif %}"}, None),
        ({"state_topic": "t", "value_template": 5}, None),
        ({"state_topic": "a/#"}, None),
        ({"state_topic": "a" * 70_000}, None),
        ({}, None),
        ([], None),
    ],
)
def test_only_the_simplest_templates_are_understood_and_others_are_named(config: object, found: str | None) -> None:
    entity = read_discovery("ha", "ha/sensor/node/object/config", json.dumps(config).encode())
    assert (entity.field if isinstance(entity, Entity) else None) == found
    assert isinstance(entity, Entity) or entity


def test_an_entity_is_known_by_any_of_its_names_and_forgotten_when_it_ends() -> None:
    discovery = Discovery("ha")
    config = b'{"state_topic": "t", "uniq_id": "u", "dev": {"ids": ["i", 5]}}'
    assert discovery.take("ha/sensor/node/temperature/config", config) == ""
    for name in ("node", "i", "u", "temperature"):
        device = carry("temperature-humidity", f"ha/{name}")
        found = discovery.read("t", b"21.5", ListDesk("local", device).find)
        assert [report.measurements[0].value for _, report in found] == [21.5], name
    assert discovery.read("t", b"21.5", lambda address: None) == []
    assert discovery.take("ha/sensor/node/temperature/config", b"") == ""
    assert discovery.topics() == []


# --- Frigate --------------------------------------------------------------------------------------------------------


def plate_update(plate: str, score: float = 0.94, **more: object) -> dict[str, object]:
    return {
        "type": "lpr", "id": "1607123955.475377-mxklsc", "camera": "gate", "name": "老李的车", "plate": plate,
        "score": score, "timestamp": 1607123958.7, **more,
    }  # fmt: skip


def face_update(name: str | None, score: float) -> dict[str, object]:
    return {
        "type": "face", "id": "1607123955.475377-abc", "camera": "door", "name": name, "score": score,
        "timestamp": 1607123958.7, "embedding": [0.1] * 128, "thumbnail": "/9j/4AAQSkZJRg",
    }  # fmt: skip


async def test_plates_and_faces_are_sightings_with_nothing_but_what_the_profile_allows(
    mosquitto: Mosquitto, base: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("a key of this community\n", encoding="utf-8")
    desk = ListDesk("local", carry("plate-camera", f"{base}/gate"), carry("face-camera", f"{base}/door"))
    driver = MqttLocalDriver(
        settings(mosquitto.port, frigate=base, faces={"王奶奶": "care"}, pseudonym_key_file=str(key))
    )
    event = {
        "type": "update",
        "before": {"id": "x", "camera": "gate", "label": "car"},
        "after": {
            "id": "1607123955.475377-mxklsc", "camera": "gate", "label": "car", "sub_label": "老李的车",
            "recognized_license_plate": "鲁B12345", "recognized_license_plate_score": 0.97, "snapshot": {"box": [1, 2]},
            "thumbnail": "/9j/4AAQSkZJRg",
        },
    }  # fmt: skip
    async with running(driver, desk), publishing(mosquitto.port) as frigate:
        await say(frigate, f"{base}/tracked_object_update", plate_update("鲁B12345"))
        await say(frigate, f"{base}/tracked_object_update", plate_update("鲁B12345", 0.95))
        await say(frigate, f"{base}/events", event)
        await say(frigate, f"{base}/tracked_object_update", {"type": "description", "description": "a man", "id": "x"})
        await say(frigate, f"{base}/tracked_object_update", face_update("王奶奶", 0.96))
        await say(frigate, f"{base}/tracked_object_update", face_update("stranger", 0.99))
        await say(frigate, f"{base}/tracked_object_update", face_update(None, 0.2))
        await say(frigate, f"{base}/events", "{")
        await desk.wait_until(lambda: f"{base}/events" in desk.troubles)
        await say(frigate, f"{base}/available", "offline", retain=True)
        await desk.wait_until(lambda: desk.troubles.get(base) == "Frigate is not running")
        await say(frigate, f"{base}/tracked_object_update", plate_update("鲁B99999", camera="attic"))
        await desk.wait_until(lambda: "no device is registered" in desk.troubles.get(f"{base}/attic", ""))
    assert {report.device for report in desk.reports} == {"plate-camera", "face-camera"}
    (face,) = desk.signals("face-camera")
    assert desk.signals("plate-camera") == [Signal("plate-camera", "plate_seen", {"score": 0.94, "plate": "鲁B12345"})]
    assert face.data.pop("pseudonym") not in ("", "王奶奶")
    assert face == Signal("face-camera", "face_matched", {"score": 0.96, "list": "care", "verdict": "matched"})


def test_a_weak_match_is_unsure_and_without_a_key_there_is_no_pseudonym() -> None:
    sighting = read_frigate("tracked_object_update", face_update("王奶奶", 0.7))
    assert sighting is not None
    signal = make_signal(carry("face-camera", "frigate/door"), sighting, FaceBook({"王奶奶": "care"}))
    assert signal == Signal("face-camera", "face_matched", {"score": 0.7, "list": "care", "verdict": "unsure"})
    assert make_signal(carry("plate-camera", "frigate/door"), sighting, FaceBook({"王奶奶": "care"})) is None


def test_older_events_write_text_and_score_together() -> None:
    after = {"id": "1", "camera": "gate", "label": "car", "recognized_license_plate": ["鲁B12345", 0.9]}
    sighting = read_frigate("events", {"type": "end", "after": after})
    assert sighting is not None
    assert (sighting.text, sighting.score) == ("鲁B12345", 0.9)
    person = {"id": "1", "camera": "door", "label": "person", "sub_label": ["王奶奶", 0.95]}
    sighting = read_frigate("events", {"after": person})
    assert sighting is not None
    assert (sighting.kind, sighting.score) == ("face_matched", 0.95)
    assert read_frigate("events", {"after": person | {"false_positive": True}}) is None


# --- the disk and the broker ----------------------------------------------------------------------------------------


async def test_a_press_that_the_disk_refuses_is_tried_until_it_is_taken(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    desk.full = True
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base))
    async with running(driver, desk), publishing(mosquitto.port) as devices:
        await say(devices, address, {"battery": 50})
        await say(devices, address, {"action": "single"})
        await desk.wait_until(lambda: len(desk.refused) >= 3)
        assert desk.troubles == {"": "what devices say cannot be stored: the disk is full"}
        desk.full = False
        await desk.wait_until(lambda: desk.signals("zigbee-button"))
        await desk.wait_until(lambda: not desk.troubles)
    assert len(desk.signals("zigbee-button")) == 1


async def test_a_press_said_while_the_agent_is_down_waits_at_the_broker(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    chosen = settings(mosquitto.port, zigbee2mqtt=base, client_id=base)
    async with running(MqttLocalDriver(chosen), desk), publishing(mosquitto.port) as devices:
        await say(devices, address, {"action": "single"})
        await desk.wait_until(lambda: desk.signals("zigbee-button"))
    async with publishing(mosquitto.port) as devices:
        await say(devices, address, {"action": "double"})
    async with running(MqttLocalDriver(chosen), desk):
        await desk.wait_until(lambda: len(desk.signals("zigbee-button")) == 2)


def count_presses(desk: ListDesk) -> int:
    return len(desk.signals("zigbee-button"))


async def test_a_press_that_was_not_on_the_disk_yet_comes_again_after_a_kill(mosquitto: Mosquitto, base: str) -> None:
    address = f"{base}/button"
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.edge.mqtt_child", str(mosquitto.port), base, stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await agent.stdout.readline() == b"listening\n"
            async with publishing(mosquitto.port) as devices:
                await say(devices, address, {"action": "single"})
            assert await agent.wait() == -signal.SIGKILL
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
    desk = ListDesk("local", carry("zigbee-button", address))
    for _ in range(2):
        async with running(MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base, client_id=base)), desk):
            await desk.wait_until(lambda: count_presses(desk) == 1)


@pytest.mark.parametrize("is_kept", [True, False], ids=["the broker keeps its session", "and loses it"])
async def test_what_waits_for_the_disk_while_the_connection_ends_is_taken_once(
    start_mosquitto: StartMosquitto, base: str, is_kept: bool
) -> None:
    broker = start_mosquitto()
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    async with TcpLine(broker.port) as line:
        driver = MqttLocalDriver(settings(line.port, zigbee2mqtt=base))
        async with running(driver, desk):
            desk.disk.clear()
            async with publishing(broker.port) as devices:
                for _ in range(3):
                    await say(devices, address, {"action": "single"})
            await desk.wait_until(lambda: desk.waiting == 1)
            await line.cut()
            if not is_kept:
                broker.kill()
                await asyncio.to_thread(broker.start)
            desk.disk.set()
            await desk.wait_until(lambda: not driver.is_listening)
            await line.mend()
            await desk.wait_until(lambda: driver.is_listening and count_presses(desk) == 3)
            async with publishing(broker.port) as devices:
                await say(devices, address, {"action": "single"})
            await desk.wait_until(lambda: count_presses(desk) == 4)
        # Nothing is left at the broker.
        async with running(driver, desk), publishing(broker.port) as devices:
            await say(devices, address, {"action": "single"})
            await desk.wait_until(lambda: count_presses(desk) == 5)


async def test_a_broker_that_goes_and_comes_is_found_again(start_mosquitto: StartMosquitto, base: str) -> None:
    broker = start_mosquitto()
    address = f"{base}/button"
    desk = ListDesk("local", carry("zigbee-button", address))
    driver = MqttLocalDriver(settings(broker.port, zigbee2mqtt=base))
    async with running(driver, desk):
        await asyncio.to_thread(broker.kill)
        await desk.wait_until(
            lambda: f"the broker 127.0.0.1:{broker.port} cannot be reached" in desk.troubles.get("", "")
        )
        await asyncio.to_thread(broker.start)
        await desk.wait_until(lambda: not desk.troubles)
        async with publishing(broker.port) as devices:
            await say(devices, address, {"action": "single"})
            await desk.wait_until(lambda: desk.signals("zigbee-button"))


async def test_a_broker_that_is_not_there_is_told(base: str) -> None:
    desk = ListDesk("local")
    driver = MqttLocalDriver(settings(free_port(), zigbee2mqtt=base))
    async with running(driver, desk):
        await desk.wait_until(lambda: "cannot be reached" in desk.troubles.get("", ""))
        outcome = await driver.perform(Order("c", carry("zigbee-valve", f"{base}/v"), "close_water_valve", {}))
        assert outcome == Outcome("failed", "the broker cannot be reached")


async def test_a_password_comes_from_its_file(start_mosquitto: StartMosquitto, tmp_path: Path, base: str) -> None:
    driver = MqttLocalDriver(settings(1, zigbee2mqtt=base, password_file=str(tmp_path / "missing")))
    with pytest.raises(GatewayError, match="give a readable file"):
        await driver.run(ListDesk("local"))
    users = tmp_path / "users"
    users.write_text("edge:secret\n", encoding="utf-8")
    await (await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(users))).wait()
    broker = start_mosquitto(f"password_file {users}")
    password = tmp_path / "password"
    password.write_text("wrong\n", encoding="utf-8")
    chosen = settings(broker.port, zigbee2mqtt=base, username="edge", password_file=str(password))
    desk = ListDesk("local")
    async with running(MqttLocalDriver(chosen), desk):
        await desk.wait_until(lambda: "Not authorized" in desk.troubles.get("", ""))
    password.write_text("secret\n", encoding="utf-8")
    driver = MqttLocalDriver(chosen)
    async with running(driver, desk):
        await desk.wait_until(lambda: driver.is_listening)


# --- commands -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(
    port: int, listen: str, answers: dict[str, object]
) -> AsyncIterator[asyncio.Queue[tuple[str, str]]]:
    """A device's software: remembers what is published on ``listen`` and answers each with all of ``answers``."""
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(listen, qos=1)

        async def answer() -> None:
            async for message in client.messages:
                heard.put_nowait((str(message.topic), bytes(message.payload).decode()))
                for topic, payload in answers.items():
                    await say(client, topic, payload)

        task = asyncio.create_task(answer())
        try:
            yield heard
        finally:
            await end([task])


async def test_a_command_is_done_when_the_device_says_its_new_state(mosquitto: Mosquitto, base: str) -> None:
    valve, siren = carry("zigbee-valve", f"{base}/valve"), carry("zigbee-siren", f"{base}/siren")
    desk = ListDesk("local", valve, siren)
    driver = MqttLocalDriver(settings(mosquitto.port, zigbee2mqtt=base, answer_s=0.3))
    close = Order("c1", valve, "close_water_valve", {})
    async with running(driver, desk):
        async with answering(
            mosquitto.port, f"{base}/+/set", {f"{base}/valve": {"state": "OFF", "battery": 3}}
        ) as heard:
            assert await driver.perform(close) == Outcome(
                "done", f"published on {base}/valve/set, and the device says so"
            )
            opened = await driver.perform(Order("c2", valve, "open_water_valve", {}))
            assert opened == Outcome("failed", f"published on {base}/valve/set, and no answer in 0.3 s")
            done = await driver.perform(Order("c3", siren, "sound", {"seconds": 30}))
            assert done.outcome == "done"
        opened = await driver.perform(Order("c2", valve, "open_water_valve", {}))
        assert opened.outcome == "failed"
        assert (await driver.perform(Order("c4", valve, "dance", {}))).outcome == "refused"
        elsewhere = carry("zigbee-valve", "homeassistant/valve")
        assert (await driver.perform(Order("c5", elsewhere, "close_water_valve", {}))).outcome == "refused"
    warning = {"mode": "emergency", "level": "very_high", "strobe": True, "duration": 30}
    assert [(topic, json.loads(body)) for topic, body in [heard.get_nowait() for _ in range(heard.qsize())]] == [
        (f"{base}/valve/set", {"state": "OFF"}),
        (f"{base}/valve/set", {"state": "ON"}),
        (f"{base}/siren/set", {"warning": warning}),
    ]


RELAY: Final = """\
id: relay
kind: sos
title: {zh: 继电器}
status: draft
commands:
  close_valve: {mqtt: {topic: POWER, payload: "OFF"}}
  lamp: {args: {show: {type: text}}, mqtt: {topic: LED, payload: "{show}"}}
heartbeat: none
"""


async def test_tasmota_is_commanded_by_its_topics_and_its_lamp_is_lit(mosquitto: Mosquitto, base: str) -> None:
    profile = sound_with("device_profiles/sos/relay.yaml", RELAY).profiles["relay"]
    device = Carried("relay", profile, "local", f"tasmota/{base}", "public-1")
    driver = MqttLocalDriver(settings(mosquitto.port, tasmota=True, client_id=base))
    desk = ListDesk("local", device)
    answers: dict[str, object] = {f"stat/{base}/RESULT": {"POWER": "OFF"}}
    async with running(driver, desk), answering(mosquitto.port, f"cmnd/{base}/+", answers) as heard:
        done = await driver.perform(Order("c1", device, "close_valve", {}))
        assert done.outcome == "done"
        await driver.show(carry("zigbee-button", f"{base}/x"), Lamp.COMING)
        await driver.show(device, Lamp.COMING)
        assert await heard.get() == (f"cmnd/{base}/POWER", "OFF")
        assert await heard.get() == (f"cmnd/{base}/LED", "coming")


# --- what nobody should send ----------------------------------------------------------------------------------------

KEYS: Final = (
    "action", "battery", "smoke", "temperature", "AM2301", "Temperature", "Humidity", "TempUnit", "Button1", "Action",
    "StatusSNS", "POWER", "state_topic", "value_template", "stat_t", "val_tpl", "device", "dev", "identifiers", "ids",
    "unique_id", "unit_of_measurement", "payload_on", "~", "type", "after", "camera", "id", "plate", "name", "score",
    "label", "sub_label", "recognized_license_plate", "recognized_license_plate_score", "image", "embedding",
)  # fmt: skip


def test_a_hundred_thousand_zigbee_messages() -> None:
    chance = random.Random(1)
    devices = [carry("zigbee-button", "b"), carry("zigbee-smoke", "s"), carry("fixed-sos", "f"), carry("lift", "l")]
    reports = []
    for count in range(100_000):
        raw = random_json(chance, KEYS)
        if isinstance(raw, dict):
            reports.append(read_zigbee(devices[count % 4], raw, is_retained=count % 5 == 0))
        if len(reports) >= 200:
            check_fit(reports)
            reports.clear()


def test_a_hundred_thousand_tasmota_messages() -> None:
    chance = random.Random(2)
    devices = [carry("temperature-humidity-am2301", "b"), carry("fixed-sos", "f"), carry("zigbee-smoke", "s")]
    leaves = ("SENSOR", "STATE", "RESULT", "STATUS10", "POWER", "STATUS2", "smoke")
    reports = []
    for count in range(100_000):
        payload = random_bytes(chance, KEYS)
        with contextlib.suppress(NotJson):
            found = read_tasmota(devices[count % 3], chance.choice(leaves), payload, is_retained=False)
            reports += [found] if found is not None else []
        if len(reports) >= 200:
            check_fit(reports)
            reports.clear()


def test_a_hundred_thousand_discovery_messages_and_states() -> None:
    chance = random.Random(3)
    desk = ListDesk("local", carry("temperature-humidity", "ha/node"), carry("zigbee-smoke", "ha/0x01"))
    discovery = Discovery("ha")
    discovery.take(
        "ha/sensor/node/temperature/config", b'{"state_topic": "t", "value_template": "{{ value_json.a.b }}"}'
    )
    discovery.take("ha/sensor/node/humidity/config", b'{"state_topic": "t", "unit_of_measurement": "furlong"}')
    discovery.take("ha/binary_sensor/0x01/smoke/config", b'{"state_topic": "u"}')
    kept = discovery.topics()
    for count in range(100_000):
        payload = random_bytes(chance, KEYS)
        if count % 2:
            assert discovery.take(f"ha/sensor/x{count % 7}/y/config", payload) is not None
        else:
            with contextlib.suppress(NotJson):
                check_fit([report for _, report in discovery.read(kept[count % 4 // 2], payload, desk.find)])


def test_a_hundred_thousand_frigate_messages_pass_on_nothing_that_is_not_allowed() -> None:
    chance = random.Random(4)
    cameras = [carry("plate-camera", "p"), carry("face-camera", "f")]
    faces = FaceBook({"鲁B12345": "care", "on": "staff"}, b"key")
    seen = 0
    for count in range(100_000):
        raw = random_json(chance, KEYS)
        raw = {**raw, "camera": "gate"} if isinstance(raw, dict) else {"after": raw}
        kind = chance.choice(("lpr", "face", "end"))
        known = {"name": "鲁B12345", "plate": "鲁B12345", "recognized_license_plate": "鲁B12345"}
        raw = {**raw, "type": kind} if chance.random() < 0.5 else {"after": {**raw, **known}, "type": kind}
        sighting = read_frigate(chance.choice(("events", "tracked_object_update")), raw)
        signal = make_signal(cameras[count % 2], sighting, faces) if sighting is not None else None
        if signal is not None:
            seen += 1
            assert set(signal.data) <= {"plate", "score", "list", "verdict", "pseudonym"}
            assert "plate" not in signal.data or signal.kind == "plate_seen"
            assert signal.kind == "plate_seen" or "鲁B12345" not in signal.data.values()
            check_fit([Report("x", (signal,))])
    assert seen > 5000


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"zigbee2mqtt": "a/#"},
        {"zigbee2mqtt": "x", "frigate": "x"},
        {"zigbee2mqtt": "tele", "tasmota": True},
        {"tasmota": True, "faces": {"a": "vip"}},
        {"tasmota": True, "password": "secret"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"driver": "mqtt_local", "bus": "local", **wrong})
