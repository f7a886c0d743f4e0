"""Devices on a local MQTT broker: Zigbee2MQTT, Tasmota, Home Assistant discovery, and Frigate's plates and faces.

A device's address on the bus is its own topic, without what its dialect puts around it:

- Zigbee2MQTT ``zigbee2mqtt/FRIENDLY NAME``
- Tasmota ``tasmota/TOPIC``
- Home Assistant discovery ``homeassistant/ID``: an identifier of the device, the node or object of its discovery
  topics, or its unique id
- Frigate ``frigate/CAMERA``

What they say is mapped by the profile (`from` is the field in the device's own JSON). A retained message that is there
when we subscribe is a state, never a press. The subscriptions have QoS 1 and the session persists, so that the broker
keeps for us what devices publish at QoS 1 while the agent is down.

**What this hop can lose.** A message at QoS 1 is acknowledged to the broker when it is on our disk
(`edge.drivers.acknowledging`); a press that the disk refuses is tried again until it is taken, and what comes behind it
waits at the broker. What a device publishes at QoS 0 is lost when the agent is down, or killed before it was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import aiomqtt
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.drivers.acknowledging import Client
from edge.drivers.measuring import NotJson, read_json
from edge.drivers.mqtt_messages import (
    Discovery,
    FaceBook,
    fill,
    is_answer,
    make_signal,
    name_unknown,
    read_frigate,
    read_tasmota,
    read_unknown,
    read_unknown_tasmota,
    read_zigbee,
)
from edge.ports import Carried, Desk, Lamp, NotTaken, Order, Outcome, Report
from gateway.core.profile import MqttWrite
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

PAUSE_MOST_S: Final = 30.0
WAITING_MOST: Final = 10_000
"""Messages that wait in memory while the disk is slow; then the newest are dropped and the bus is told to be sick."""

SEEN_MOST: Final = 4096
"""Sightings that are remembered, so that one passing car is one event and not one per picture."""

REFUSED: Final = 128
"""Codes of a broker's answer to a subscription from which on it is refused (MQTT 3.1.1, section 3.9.3)."""

PAYLOAD_MOST: Final = 256 * 1024

NO_DEVICES: Final = frozenset({"set", "get", "action"})
"""Last levels below a Zigbee device's own topic: what is asked of it, and what it says a second time."""

NOT_REGISTERED: Final = "no device is registered under this address"

_Topic = Annotated[str, Field(pattern=r"^[^+#\x00]{1,200}$")]


class Settings(BaseModel):
    """The broker, and which dialects are spoken there, each with its first topic level as it is configured there
    (``zigbee2mqtt = "zigbee2mqtt"``, ``homeassistant = "homeassistant"``, ``frigate = "frigate"``; ``tasmota = true``
    for ``tele/…`` and ``stat/…``).

    ``faces`` says on which list a name that Frigate knows is: a face that is not in it goes nowhere. With
    ``pseudonym_key_file`` the event has a pseudonym of this community, made with the file's content as key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["mqtt_local"]
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    zigbee2mqtt: _Topic | None = None
    tasmota: bool = False
    homeassistant: _Topic | None = None
    frigate: _Topic | None = None
    faces: dict[str, Literal["resident", "staff", "visitor", "care"]] = {}
    face_score: Annotated[float, Field(ge=0, le=1)] = 0.9
    pseudonym_key_file: Path | None = None
    answer_s: Annotated[float, Field(ge=0.05, le=6)] = 6
    """How long a command waits for its device: most answer within a second, a sleeping one may need some."""

    @model_validator(mode="after")
    def _check_dialects(self) -> Self:
        if not (self.zigbee2mqtt or self.tasmota or self.homeassistant or self.frigate):
            raise ValueError("write at least one of zigbee2mqtt, tasmota, homeassistant and frigate")
        prefixes = [one for one in (self.zigbee2mqtt, self.homeassistant, self.frigate) if one]
        prefixes += ["tele", "stat", "tasmota"] if self.tasmota else []
        if len(set(prefixes)) < len(prefixes):
            raise ValueError("two dialects have the same first topic level")
        return self


class _Waiter(Struct, eq=False):
    """A command that waits for its device's answer."""

    address: str
    sent: object
    topic: str
    answer: asyncio.Future[None]


class MqttLocalDriver:
    """One broker. `edge.ports.Driver`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: aiomqtt.Client | None = None
        self._discovery = Discovery(settings.homeassistant) if settings.homeassistant else None
        self._subscribed: set[str] = set()
        self._skipped: dict[str, str] = {}
        self._too_large: set[str] = set()
        self._seen: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._waiters: list[_Waiter] = []
        self._is_refused = False
        self.is_listening = False
        """Whether it is connected and subscribed."""

    @property
    def state_topics(self) -> list[str]:
        """The topics on which discovered entities say their states."""
        return self._discovery.topics() if self._discovery is not None else []

    # --- the connection ----------------------------------------------------------------------------------------------

    async def run(self, desk: Desk) -> None:
        """Listens until cancelled. Raises GatewayError for a secret's file that cannot be read."""
        password = _read_secret(self._settings.password_file)
        faces = FaceBook(
            self._settings.faces,
            (_read_secret(self._settings.pseudonym_key_file) or "").encode() or None,
            self._settings.face_score,
        )
        tls = _make_tls(self._settings.ca_file)
        # One client for all connections: what waits in its memory outlives each of them.
        client = self._make_client(desk, password, tls)
        pause_s = 1.0
        while True:
            try:
                async with client:
                    self._client = client
                    refused = await self._subscribe(client)
                    self.is_listening = True
                    denied = f"the broker does not let us listen on {', '.join(refused)}; mend its access list"
                    desk.tell("", denied if refused else "")
                    pause_s = 1.0
                    async for message in client.messages:
                        payload = message.payload
                        if isinstance(payload, bytes | bytearray):
                            await self._hear(
                                desk, faces, str(message.topic), bytes(payload), is_retained=message.retain
                            )
                        client.acknowledge(message)
            except aiomqtt.MqttError as error:
                broker = f"{self._settings.host}:{self._settings.port}"
                desk.tell("", f"the broker {broker} cannot be reached: {error}")
            finally:
                self._client, self.is_listening = None, False
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MOST_S)

    def _make_client(self, desk: Desk, password: str | None, tls: ssl.SSLContext | None) -> Client:
        settings = self._settings
        return Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=password,
            identifier=settings.client_id or f"edge-{desk.bus}",
            clean_session=False,
            keepalive=20,
            timeout=8,
            max_queued_incoming_messages=WAITING_MOST,
            tls_context=tls,
        )

    async def _subscribe(self, client: aiomqtt.Client) -> list[str]:
        """Listens on the topics of all dialects; those that the broker refuses."""
        settings = self._settings
        topics: list[str] = []
        if settings.zigbee2mqtt:
            topics.append(f"{settings.zigbee2mqtt}/#")
        if settings.tasmota:
            topics += ["tele/+/+", "stat/+/+"]
        if settings.homeassistant:
            topics += [f"{settings.homeassistant}/+/+/config", f"{settings.homeassistant}/+/+/+/config"]
        if settings.frigate:
            leaves = ("events", "tracked_object_update", "available")
            topics += [f"{settings.frigate}/{leaf}" for leaf in leaves]
        self._subscribed = set(topics)
        codes = await client.subscribe([(topic, 1) for topic in topics])
        await self._subscribe_states()
        granted = [code if isinstance(code, int) else code.value for code in codes]
        return [topic for topic, code in zip(topics, granted, strict=True) if code >= REFUSED]

    async def _subscribe_states(self) -> None:
        """Listens on the state topics that were discovered, unless another subscription has them already: a broker may
        bring a message once for each that fits."""
        client, discovery = self._client, self._discovery
        if client is None or discovery is None:
            return
        new = [
            topic
            for topic in discovery.topics()
            if topic not in self._subscribed
            and not any(aiomqtt.Topic(topic).matches(one) for one in self._subscribed if "+" in one or "#" in one)
        ]
        if new:
            self._subscribed.update(new)
            await client.subscribe([(topic, 1) for topic in new])

    # --- what is heard -----------------------------------------------------------------------------------------------

    async def _hear(self, desk: Desk, faces: FaceBook, topic: str, payload: bytes, *, is_retained: bool) -> None:
        settings = self._settings
        if len(payload) > PAYLOAD_MOST:
            self._too_large.add(topic)
            desk.tell(topic, f"a message of {len(payload)} bytes is too large and was passed over")
            return
        if topic in self._too_large:
            self._too_large.discard(topic)
            desk.tell(topic, "")
        first, _, rest = topic.partition("/")
        if settings.zigbee2mqtt and topic.startswith(f"{settings.zigbee2mqtt}/"):
            await self._hear_zigbee(desk, topic, payload, is_retained=is_retained)
        elif settings.tasmota and first in ("tele", "stat"):
            await self._hear_tasmota(desk, rest, payload, is_retained=is_retained)
        elif settings.frigate and topic.startswith(f"{settings.frigate}/"):
            await self._hear_frigate(desk, faces, topic, payload, is_retained=is_retained)
        if self._discovery is not None:
            if topic.startswith(f"{self._discovery.prefix}/") and topic.endswith("/config"):
                await self._discover(self._discovery, topic, payload)
            else:
                await self._hear_discovered(desk, self._discovery, topic, payload)

    async def _hear_zigbee(self, desk: Desk, topic: str, payload: bytes, *, is_retained: bool) -> None:
        name = topic.removeprefix(f"{self._settings.zigbee2mqtt}/")
        if name == "bridge/state":
            self._tell_presence(desk, f"{self._settings.zigbee2mqtt}/bridge", payload, "Zigbee2MQTT is not running")
        if name.startswith("bridge/"):
            return
        if name.endswith("/availability"):
            address = topic.removesuffix("/availability")
            if desk.find(address) is not None:
                self._tell_presence(desk, address, payload, "Zigbee2MQTT cannot reach it")
            return
        device = desk.find(topic)
        if device is None:
            if topic.rpartition("/")[2] not in NO_DEVICES and not is_retained:
                await self._hear_unknown(desk, topic, payload)
            return
        raw = self._read_object(desk, device, topic, payload)
        if raw is None:
            return
        if not is_retained:
            self._match_answers(device.address, raw)
        await self._hand_in(desk, device, read_zigbee(device, raw, is_retained=is_retained))

    async def _hear_tasmota(self, desk: Desk, rest: str, payload: bytes, *, is_retained: bool) -> None:
        name, _, leaf = rest.partition("/")
        address = f"tasmota/{name}"
        device = desk.find(address)
        if device is None:
            if leaf != "LWT" and not is_retained:
                with contextlib.suppress(NotJson):
                    await self._pass_on(desk, address, read_unknown_tasmota(name_unknown(address), payload))
            return
        if leaf == "LWT":
            self._tell_presence(desk, device.address, payload, "it is offline, its broker session says")
            return
        try:
            report = read_tasmota(device, leaf, payload, is_retained=is_retained)
        except NotJson as error:
            desk.tell(device.address, f"what it said on …/{leaf} is no JSON object: {error}")
            return
        if not is_retained and leaf == "RESULT":
            with contextlib.suppress(NotJson):
                raw = read_json(payload)
                self._match_answers(device.address, raw if isinstance(raw, dict) else {})
        if report is not None:
            await self._hand_in(desk, device, report)

    async def _hear_frigate(
        self, desk: Desk, faces: FaceBook, topic: str, payload: bytes, *, is_retained: bool
    ) -> None:
        prefix = self._settings.frigate
        leaf = topic.rpartition("/")[2]
        if leaf == "available":
            self._tell_presence(desk, str(prefix), payload, "Frigate is not running")
            return
        if is_retained:
            return
        try:
            raw = read_json(payload)
        except NotJson as error:
            desk.tell(topic, f"it is no JSON: {error}")
            return
        desk.tell(topic, "")
        sighting = read_frigate(leaf, raw) if isinstance(raw, dict) else None
        if sighting is None:
            return
        address = f"{prefix}/{sighting.camera}"
        device = desk.find(address)
        if device is None:
            # What it saw goes nowhere: a plate is nobody's call for help.
            desk.tell(address, f"it sees something, and {NOT_REGISTERED}")
            return
        signal = make_signal(device, sighting, faces)
        key = (sighting.tracked, sighting.kind, sighting.text)
        if signal is None or (sighting.tracked and key in self._seen):
            return
        await self._hand_in(desk, device, Report(device.id, (signal,)))
        self._seen[key] = None
        while len(self._seen) > SEEN_MOST:
            self._seen.popitem(last=False)

    async def _discover(self, discovery: Discovery, topic: str, payload: bytes) -> None:
        why = discovery.take(topic, payload)
        if why and self._skipped.get(topic) != why:
            log.info("%s is skipped: %s", topic, why)
        if why and len(self._skipped) < SEEN_MOST:
            self._skipped[topic] = why
        else:
            self._skipped.pop(topic, None)
        await self._subscribe_states()

    async def _hear_discovered(self, desk: Desk, discovery: Discovery, topic: str, payload: bytes) -> None:
        try:
            found = discovery.read(topic, payload, desk.find)
        except NotJson as error:
            desk.tell(topic, f"it is no JSON: {error}")
            return
        for device, report in found:
            desk.tell(topic, "")
            await self._hand_in(desk, device, report)

    def _read_object(self, desk: Desk, device: Carried, topic: str, payload: bytes) -> Mapping[str, object] | None:
        try:
            raw = read_json(payload)
        except NotJson as error:
            desk.tell(device.address, f"what it said on {topic} is no JSON: {error}")
            return None
        if not isinstance(raw, dict):
            desk.tell(device.address, f"what it said on {topic} is no JSON object")
            return None
        return raw

    def _tell_presence(self, desk: Desk, address: str, payload: bytes, trouble: str) -> None:
        """``online`` or ``offline``, plain or as ``{"state": …}``; in whatever case."""
        text = payload[:100].decode("utf-8", "replace")
        is_offline = "offline" in text.lower()
        if is_offline or "online" in text.lower():
            desk.tell(address, trouble if is_offline else "")

    async def _hear_unknown(self, desk: Desk, topic: str, payload: bytes) -> None:
        """A Zigbee device that nobody registered."""
        with contextlib.suppress(NotJson):
            raw = read_json(payload)
            if isinstance(raw, dict):
                await self._pass_on(desk, topic, read_unknown(name_unknown(topic), raw))

    async def _pass_on(self, desk: Desk, address: str, report: Report | None) -> None:
        """Somebody may have pressed at a device that nobody registered: the gateway opens a case at the agent's
        place."""
        desk.tell(address, f"it speaks, and {NOT_REGISTERED}")
        if report is not None:
            await self._store(desk, report, is_grave=True)

    async def _hand_in(self, desk: Desk, device: Carried, report: Report) -> None:
        """Makes a registered device's report durable. Readings that the disk refuses are let go, and come again."""
        if await self._store(desk, report, is_grave=bool(report.signals)):
            desk.tell(device.address, "")

    async def _store(self, desk: Desk, report: Report, *, is_grave: bool) -> bool:
        """Whether it is on the disk. What is grave, a press or a sighting, is tried again until it is taken, and what
        comes behind it waits."""
        if not report.signals and not report.measurements:
            return False
        pause_s = 0.2
        while True:
            try:
                await desk.take(report)
                break
            except NotTaken as refused:
                self._is_refused = True
                desk.tell("", f"what devices say cannot be stored: {refused}")
                if not is_grave:
                    return False
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)
        if self._is_refused:
            self._is_refused = False
            desk.tell("", "")
        return True

    # --- what is asked of devices ------------------------------------------------------------------------------------

    async def perform(self, order: Order) -> Outcome:
        spec = order.device.profile.commands.get(order.name)
        write = spec.mqtt if spec is not None else None
        if write is None:
            return Outcome("refused", f"{order.device.profile.id} has no mqtt: for {order.name}")
        topic = self._command_topic(order.device.address, write)
        if topic is None:
            return Outcome("refused", f"nobody knows how {order.device.address} is given a command")
        return await self._send(order.device.address, topic, write, order.args)

    def _command_topic(self, address: str, write: MqttWrite) -> str | None:
        first, _, name = address.partition("/")
        if self._settings.zigbee2mqtt and address.startswith(f"{self._settings.zigbee2mqtt}/"):
            return f"{address}/{write.topic or 'set'}"
        if self._settings.tasmota and first == "tasmota" and write.topic:
            return f"cmnd/{name}/{write.topic}"
        return None

    async def _send(self, address: str, topic: str, write: MqttWrite, args: Mapping[str, object]) -> Outcome:
        client, answer_s = self._client, self._settings.answer_s
        if client is None:
            return Outcome("failed", "the broker cannot be reached")
        sent = fill(write.payload, args)
        payload = sent if isinstance(sent, str) else json.dumps(sent, ensure_ascii=False)
        waiter = _Waiter(address, sent, "" if topic.endswith("/set") else write.topic, asyncio.Future())
        self._waiters.append(waiter)
        try:
            await client.publish(topic, payload, qos=1, timeout=3)
            if not write.answered:
                return Outcome("done", f"published on {topic}; the device answers nothing")
            async with asyncio.timeout(answer_s):
                await waiter.answer
        except aiomqtt.MqttError as error:
            return Outcome("failed", f"the broker does not take it: {error}")
        except TimeoutError:
            return Outcome("failed", f"published on {topic}, and no answer in {answer_s:g} s")
        finally:
            self._waiters.remove(waiter)
        return Outcome("done", f"published on {topic}, and the device says so")

    def _match_answers(self, address: str, raw: Mapping[str, object]) -> None:
        for waiter in self._waiters:
            if waiter.address == address and not waiter.answer.done() and is_answer(raw, waiter.sent, waiter.topic):
                waiter.answer.set_result(None)

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """Shows a lamp at a button whose profile has a command ``lamp`` with ``mqtt:``."""
        spec = device.profile.commands.get("lamp")
        topic = self._command_topic(device.address, spec.mqtt) if spec is not None and spec.mqtt is not None else None
        if spec is not None and spec.mqtt is not None and topic is not None and self._client is not None:
            write = MqttWrite(spec.mqtt.payload, spec.mqtt.topic, answered=False)
            await self._send(device.address, topic, write, {"show": lamp.value})


def _read_secret(file: Path | None) -> str | None:
    """What stands in the file, without the line's end. Raises GatewayError."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(
            "secret-unreadable", f"cannot read it: {error}", str(file), "give a readable file"
        ) from error


def _make_tls(ca_file: Path | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise GatewayError("ca-unreadable", f"cannot use it: {error}", str(ca_file), "give a PEM file") from error
