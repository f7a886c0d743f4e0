"""What devices say on a local MQTT broker, by dialect: Zigbee2MQTT, Tasmota, Home Assistant discovery, Frigate. Pure.

Every function takes what JSON can hold and gives what it understood; nothing here raises for what a device says. Of an
event's data only what its profile declares goes on: no picture, no vector, and no name of a person.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from edge.drivers.measuring import NotJson, read_fields, read_json, select_data, to_float
from edge.ports import Carried, Report
from gateway.core.profile import ABSENT, Profile, find_raw
from gateway.wire import Measurement, Signal

QUIET_ACTIONS: Final = frozenset(
    {"", "release", "released", "single_release", "double_release", "hold_release", "long_release", "none", "clear"}
)
"""What a button says when it is let go: the press was said before."""

ENTITIES_MOST: Final = 2000
"""Entities of discovery that are kept; a community's own broker has fewer."""

NESTING_MOST: Final = 8

Find = Callable[[str], Carried | None]


# --- Zigbee2MQTT ----------------------------------------------------------------------------------------------------


def read_zigbee(device: Carried, raw: Mapping[str, object], *, is_retained: bool) -> Report:
    """A message of a Zigbee2MQTT device. A retained one is a state: its ``action`` was said to somebody else before."""
    measurements = tuple(read_fields(device.id, device.profile, raw))
    action = raw.get("action")
    signals = () if is_retained or not isinstance(action, str) else _read_action(device, action)
    return Report(device.id, signals, measurements)


def _read_action(device: Carried, action: str) -> tuple[Signal, ...]:
    """An action is the event of that name, and at a help button the press whatever it is called: once, twice or long,
    somebody wants help."""
    events = device.profile.events
    kind = re.sub(r"\W+", "_", action.strip().lower())
    if kind in events:
        return (Signal(device.id, kind),)
    press = next((event.id for event in events.values() if event.press), None)
    return () if press is None or kind in QUIET_ACTIONS else (Signal(device.id, press),)


# --- whom nobody registered -------------------------------------------------------------------------------------------

GRAVE: Final = frozenset({"smoke", "gas", "carbon_monoxide", "water_leak", "sos"})
"""Fields of Zigbee2MQTT that are an alarm when they are true, whosever they are."""


def name_unknown(topic: str) -> str:
    """A device's name, made of its topic; two topics have two names."""
    name = re.sub(r"[^a-z0-9]+", "-", topic.lower())[:39].strip("-")
    return f"{name}-{hashlib.blake2b(topic.encode(), digest_size=4).hexdigest()}".lstrip("-")


def read_unknown(name: str, raw: Mapping[str, object]) -> Report | None:
    """What an unregistered device says that may be a call for help: an action, or a grave state. None for the rest."""
    action = raw.get("action")
    signals = _name_action(name, action) if isinstance(action, str) else ()
    grave = tuple(Measurement(f"{name}:{field}", True) for field in sorted(GRAVE & raw.keys()) if raw[field] is True)
    return Report(name, signals, grave) if signals or grave else None


def read_unknown_tasmota(name: str, payload: bytes) -> Report | None:
    """Likewise, for a Tasmota device: the buttons at it. Raises NotJson."""
    raw = read_json(payload)
    actions = list(_find_actions(raw)) if isinstance(raw, dict) else []
    signals = tuple(signal for action in actions for signal in _name_action(name, action))
    return Report(name, signals) if signals else None


def _name_action(name: str, action: str) -> tuple[Signal, ...]:
    """Without a profile an action is an event of its own name."""
    kind = re.sub(r"[^a-z0-9]+", "_", action.lower()).strip("_")[:48]
    return () if kind in QUIET_ACTIONS and action.isascii() else (Signal(name, kind or "pressed"),)


# --- Tasmota --------------------------------------------------------------------------------------------------------

_TASMOTA_UNITS: Final = {"C": "Cel", "F": "degF"}
_BUTTON: Final = re.compile(r"Button\d{0,2}")


def read_tasmota(device: Carried, leaf: str, payload: bytes, *, is_retained: bool) -> Report | None:
    """A ``tele/…/LEAF`` or ``stat/…/LEAF`` message of a Tasmota device; None for what is no reading of it. A message
    that is a plain text (``stat/…/POWER`` ``ON``) is the field LEAF. Raises NotJson."""
    if leaf == "LWT" or (leaf.startswith(("INFO", "STATUS")) and leaf != "STATUS10"):
        return None
    if payload[:1] in (b"{", b"["):
        found = read_json(payload)
        raw = found.get("StatusSNS") if leaf == "STATUS10" and isinstance(found, dict) else found
    else:
        raw = {leaf: payload[:300].decode("utf-8", "replace")}
    if not isinstance(raw, dict):
        raise NotJson("it is no JSON object")
    units = _tasmota_units(device.profile, raw)
    signals: list[Signal] = []
    if not is_retained:
        for action in _find_actions(raw):
            signals += _read_action(device, action)
    return Report(device.id, tuple(signals), tuple(read_fields(device.id, device.profile, raw, units)))


def _find_actions(raw: Mapping[str, object]) -> Iterator[str]:
    """What the buttons at a device say that they were: ``{"Button1": {"Action": "SINGLE"}}``."""
    for name, value in raw.items():
        if _BUTTON.fullmatch(name) and isinstance(value, dict) and isinstance(action := value.get("Action"), str):
            yield action


def _tasmota_units(profile: Profile, raw: Mapping[str, object]) -> dict[str, str]:
    """Tasmota says beside its temperatures in what unit they are."""
    told = raw.get("TempUnit")
    unit = _TASMOTA_UNITS.get(told) if isinstance(told, str) else None
    if unit is None:
        return {}
    return {spec.raw: unit for spec in profile.readings.values() if spec.quantity == "temperature"}


# --- Home Assistant discovery ---------------------------------------------------------------------------------------

_SHORT: Final = {
    "stat_t": "state_topic",
    "val_tpl": "value_template",
    "uniq_id": "unique_id",
    "pl_on": "payload_on",
    "pl_off": "payload_off",
    "unit_of_meas": "unit_of_measurement",
    "dev": "device",
    "ids": "identifiers",
}
"""The abbreviations of Home Assistant's MQTT discovery, as far as these members have one."""

_HOME_UNITS: Final = {
    "°C": "Cel",
    "°F": "degF",
    "m³": "m3",
    "L": "l",
    "L/s": "l/s",
    "L/min": "l/min",
    "m³/h": "m3/h",
    "µg/m³": "ug/m3",
    "μg/m³": "ug/m3",
    "°": "deg",
}
"""Home Assistant's way to write a unit → SenML's. Any other goes on as it is: the gateway knows it, or rejects it."""

_TEMPLATE: Final = re.compile(r"\{\{\s*value_json((?:\.\w+|\[\s*(?:'[^'\]]*'|\"[^\"\]]*\")\s*\])+)\s*\}\}")
_STEP: Final = re.compile(r"\.(\w+)|\[\s*(?:'([^'\]]*)'|\"([^\"\]]*)\")\s*\]")
_PLAIN: Final = re.compile(r"\{\{\s*value\s*\}\}")
_STATE_TOPIC: Final = re.compile("[^+#\0\ud800-\udfff]{1,300}")
_NUMBER: Final = re.compile(r"[+-]?\d{1,15}(\.\d{0,15})?")


class Entity(Struct, frozen=True):
    """One entity that was discovered. ``field`` is what a profile calls it in ``from``: the path in its template
    (``AM2301.Temperature``), or without a template the last level but one of its discovery topic. ``names`` are what
    its device may be registered as."""

    component: str
    topic: str
    field: str
    path: tuple[str, ...]
    names: tuple[str, ...]
    unit: str | None = None
    on: str = "ON"
    off: str = "OFF"

    def read(self, payload: bytes) -> object:
        """The entity's value in a message on its topic; ABSENT when it is not in it. Raises NotJson."""
        value: object
        if self.path:
            value = read_json(payload)
            for step in self.path:
                if not isinstance(value, dict) or step not in value:
                    return ABSENT
                value = value[step]
        else:
            text = payload[:300].decode("utf-8", "replace")
            value = float(text) if self.component == "sensor" and _NUMBER.fullmatch(text) else text
        if self.component == "binary_sensor" and value is not None:
            shown = str(value)
            return True if shown == self.on else False if shown == self.off else value
        return value


def read_discovery(prefix: str, topic: str, payload: bytes) -> Entity | str:
    """The entity in a discovery message, or why it is skipped. ``topic`` is
    ``PREFIX/component/[node/]object/config``."""
    levels = topic[len(prefix) + 1 :].split("/")
    if len(levels) not in (3, 4) or levels[-1] != "config":
        return "it is no discovery topic"
    component, object_id = levels[0], levels[-2]
    if component not in ("sensor", "binary_sensor"):
        return f"{component} is no sensor"
    try:
        found = read_json(payload)
    except NotJson as error:
        return f"it is no JSON: {error}"
    if not isinstance(found, dict):
        return "it is no JSON object"
    config = _expand(found)
    state_topic = config.get("state_topic")
    if not isinstance(state_topic, str) or _STATE_TOPIC.fullmatch(state_topic) is None:
        return "it has no state_topic"
    path: tuple[str, ...] = ()
    template = config.get("value_template", "{{ value }}")
    if not isinstance(template, str) or not _PLAIN.fullmatch(template.strip()):
        steps = _TEMPLATE.fullmatch(template.strip()) if isinstance(template, str) else None
        if steps is None:
            return "its value_template is not understood; {{ value_json.x }} and {{ value }} are"
        path = tuple(a or b or c for a, b, c in _STEP.findall(steps[1]))[:NESTING_MOST]
    unit = config.get("unit_of_measurement")
    return Entity(
        component,
        state_topic,
        ".".join(path) or object_id,
        path,
        tuple(dict.fromkeys(_names(config, levels[1:-1]))),
        # Of what a percentage is, only the profile knows.
        _HOME_UNITS.get(unit, unit[:32]) if isinstance(unit, str) and unit and unit != "%" else None,
        str(config.get("payload_on", "ON")),
        str(config.get("payload_off", "OFF")),
    )


def _expand(found: Mapping[str, object]) -> dict[str, object]:
    config = {_SHORT.get(key, key): value for key, value in found.items()}
    base, topic = config.get("~"), config.get("state_topic")
    if isinstance(base, str) and isinstance(topic, str):
        config["state_topic"] = re.sub(r"^~|~$", lambda _: base, topic)
    return config


def _names(config: Mapping[str, object], ids: list[str]) -> Iterable[str]:
    device = config.get("device")
    if isinstance(device, dict):
        told = _expand(device).get("identifiers")
        yield from (one for one in (told if isinstance(told, list) else [told]) if isinstance(one, str))
    yield from ids
    unique = config.get("unique_id")
    if isinstance(unique, str):
        yield unique


class Discovery:
    """All entities that were discovered, by their state topics."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._by_config: dict[str, Entity] = {}
        self._by_topic: dict[str, dict[str, Entity]] = {}

    def topics(self) -> list[str]:
        return list(self._by_topic)

    def take(self, topic: str, payload: bytes) -> str:
        """Takes up a discovery message, an empty one being the entity's end. In words why it is skipped, or nothing."""
        self._forget(topic)
        if not payload:
            return ""
        entity = read_discovery(self.prefix, topic, payload)
        if isinstance(entity, str):
            return entity
        if len(self._by_config) >= ENTITIES_MOST:
            return f"there are more than {ENTITIES_MOST} entities"
        self._by_config[topic] = entity
        self._by_topic.setdefault(entity.topic, {})[topic] = entity
        return ""

    def _forget(self, topic: str) -> None:
        entity = self._by_config.pop(topic, None)
        if entity is not None:
            beside = self._by_topic[entity.topic]
            del beside[topic]
            if not beside:
                del self._by_topic[entity.topic]

    def read(self, topic: str, payload: bytes, find: Find) -> list[tuple[Carried, Report]]:
        """What a message on a state topic says of which devices. Raises NotJson."""
        fields: dict[str, tuple[Carried, dict[str, object], dict[str, str]]] = {}
        for entity in self._by_topic.get(topic, {}).values():
            device = next((one for name in entity.names if (one := find(f"{self.prefix}/{name}"))), None)
            if device is None:
                continue
            value = entity.read(payload)
            if value is ABSENT:
                continue
            _, raw, units = fields.setdefault(device.id, (device, {}, {}))
            raw[entity.field] = value
            if entity.unit is not None:
                units[entity.field] = entity.unit
        return [
            (device, Report(device.id, (), tuple(read_fields(device.id, device.profile, raw, units))))
            for device, raw, units in fields.values()
        ]


# --- Frigate --------------------------------------------------------------------------------------------------------


class Sighting(Struct, frozen=True):
    """A plate or a face that a camera saw. ``tracked`` is Frigate's id of the object, or empty."""

    camera: str
    tracked: str
    kind: str
    """``plate_seen`` or ``face_matched``"""

    text: str
    """The plate, or the name under which the face is known there. A name goes no further than this."""

    score: float | None


def read_frigate(leaf: str, raw: Mapping[str, object]) -> Sighting | None:
    """The plate or face in a message of ``frigate/events`` or ``frigate/tracked_object_update``; None when there is
    none in it."""
    if leaf == "tracked_object_update":
        match raw.get("type"):
            case "lpr":
                return _make_sighting(raw, "plate_seen", raw.get("plate"), raw.get("score"))
            case "face":
                return _make_sighting(raw, "face_matched", raw.get("name"), raw.get("score"))
            case _:
                return None
    after = raw.get("after")
    if not isinstance(after, dict) or after.get("false_positive") is True:
        return None
    plate, score = _part(after.get("recognized_license_plate"))
    if plate is not None:
        told = after.get("recognized_license_plate_score")
        return _make_sighting(after, "plate_seen", plate, score if told is None else told)
    if after.get("label") == "person":
        name, score = _part(after.get("sub_label"))
        return _make_sighting(after, "face_matched", name, score)
    return None


def _part(value: object) -> tuple[object, object]:
    """Some versions write ``[text, score]``, others the text alone."""
    if isinstance(value, list) and len(value) == 2:
        return value[0], value[1]
    return value, None


def _make_sighting(raw: Mapping[str, object], kind: str, text: object, score: object) -> Sighting | None:
    camera, tracked = raw.get("camera"), raw.get("id")
    if not isinstance(camera, str) or not isinstance(text, str) or not text.strip():
        return None
    is_score = isinstance(score, int | float) and not isinstance(score, bool)
    number = to_float(score) if isinstance(score, int | float) and is_score else math.nan
    tracked = tracked if isinstance(tracked, str) else ""
    return Sighting(camera, tracked, kind, text.strip(), number if math.isfinite(number) else None)


class FaceBook(Struct, frozen=True):
    """Who is on which list: name at Frigate → resident, staff, visitor or care. ``key`` makes a name a pseudonym of
    this community; without one no pseudonym goes on. From ``sure`` on a match is one, below it is unsure."""

    lists: Mapping[str, str] = {}
    key: bytes | None = None
    sure: float = 0.9


def make_signal(device: Carried, sighting: Sighting, faces: FaceBook) -> Signal | None:
    """The event of a sighting, as far as the camera's profile has it. A face on no list is nobody's business."""
    spec = device.profile.events.get(sighting.kind)
    if spec is None:
        return None
    raw: dict[str, object] = {}
    if sighting.score is not None:
        raw["score"] = sighting.score
    if sighting.kind == "plate_seen":
        raw["plate"] = sighting.text
        if spec.data.get("plate") is None or spec.data["plate"].refuse(sighting.text) is not None:
            return None
    else:
        on_list = faces.lists.get(sighting.text)
        if on_list is None:
            return None
        raw["list"] = on_list
        raw["verdict"] = "matched" if sighting.score is None or sighting.score >= faces.sure else "unsure"
        if faces.key is not None:
            raw["pseudonym"] = hmac.digest(faces.key, sighting.text.encode("utf-8", "replace"), "sha256").hex()[:16]
    data, _ = select_data(spec, raw)
    if sighting.kind == "plate_seen" and "plate" not in data:
        return None
    return Signal(device.id, sighting.kind, data)


# --- commands -------------------------------------------------------------------------------------------------------


def fill(payload: object, args: Mapping[str, object]) -> object:
    """A command's payload with its arguments in their places."""
    match payload:
        case str():
            named = re.fullmatch(r"\{(\w+)\}", payload)
            return args.get(named[1]) if named else payload
        case list():
            return [fill(part, args) for part in payload]
        case dict():
            return {key: fill(part, args) for key, part in payload.items()}
        case _:
            return payload


def is_answer(raw: Mapping[str, object], sent: object, topic: str) -> bool:
    """Whether a device's message says that what was sent is so now: its state holds every plain value of it, or (where
    each command has a topic) it names the command."""
    if topic:
        return any(key.upper() == topic.upper() for key in raw)
    if not isinstance(sent, dict):
        return bool(raw)
    return all(find_raw(raw, key) == value for key, value in sent.items())
