"""Wire v1: what crosses MQTT between sources and the gateway, as values and as bytes. `docs/wire.md` is its manual.

`decode` is the gateway's door: it returns the message, or a `Quarantine` with a stable reason, and never raises. The
first try is one typed decode and one tight loop. Only what fails there is read again, slowly and by hand, to find out
what can be kept: a message survives with a `BadRecord` for exactly what is wrong in it, or is quarantined as a whole.

Times are seconds since 1970-01-01T00:00:00Z as numbers on the wire, and ``int`` milliseconds in the values here.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any, Final, NoReturn, TypeGuard, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

VERSION: Final = 1
TOPIC_ROOT: Final = "sc/v1"
GATEWAY_STATUS: Final = f"{TOPIC_ROOT}/gateway/status"
"""The retained topic on which the gateway says whether it listens; its payload is a `Status`."""

PAYLOAD_LIMIT: Final = 256 * 1024
"""Bytes. A pack of 50 has some 3,000; what is larger is no message of a source."""

TEXT_LIMIT: Final = 256
"""Characters of any one string. A longer one could carry a picture, and the wire has no field for pictures."""

FOREIGN_LIMIT: Final = 1024
"""Bytes of JSON in one message that the contract does not know; more could carry a picture or a vector in slices."""

DEPTH_LIMIT: Final = 16
DATA_LIMIT: Final = 32
"""Members of one event's data."""

ENTRIES_LIMIT: Final = 4096
"""Records of one pack, and events of one message: each that is bad becomes a row of its own."""

SICK_LIMIT: Final = 50
"""Devices that a status names as sick at most: what ails more than these is the bus, or the agent."""

SEQ_LIMIT: Final = 2**53
"""Above it, programs whose only number is the double cannot count."""

CLOCK_LIMIT: Final = 2**33
"""Seconds. A source's clock may be years off, and even stand at 1970; in 2242 it is no clock any more."""

ABSOLUTE_TIME: Final = 2**28
"""RFC 8428 section 4.5.3: a time below counts from now, any other from 1970."""

OLDEST_S: Final = 86_400
"""How far before ``taken_at`` a record may lie."""

_OLDEST: Final = -OLDEST_S

SENML_VERSION: Final = 10
"""The version of RFC 8428."""

_CACHE_LIMIT: Final = 262_144
_HEAD_MOST: Final = 1024
_ENTRY_MOST: Final = 512
"""Bytes of JSON, around the entries and per entry, above which a message is looked at slowly: of a member that stands
twice a typed decode sees only the last."""


# --- values -------------------------------------------------------------------------------------------------------


class Lane(StrEnum):
    """Presses, sightings and device alarms must never wait behind telemetry: two lanes, two topics, two sessions."""

    ALARM = "alarm"
    TELEMETRY = "telemetry"


class Measurement(Struct, frozen=True, gc=False):
    """One reading. ``name`` is ``{device}:{reading}``; ``offset`` is milliseconds from ``taken_at``, never positive;
    ``time`` is the device's own absolute time in seconds, for display only."""

    name: str
    value: float | bool | str
    unit: str | None = None
    offset: int = 0
    time: float | None = None


class Signal(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One event that is no reading: pressed, plate_seen, face_matched, door_forced …"""

    device: str
    kind: str
    data: dict[str, float | int | bool | str] = {}


class BadRecord(Struct, frozen=True, gc=False):
    """A record or an event that could not be taken in: ``name`` as far as it is legible, a stable reason, and where."""

    name: str
    reason: str
    detail: str


class Message(Struct, frozen=True, gc=False):
    """One message of a lane. ``measurements`` are in the order of their offsets. ``digest`` (63 bits, not negative) is
    over all that a resend does not change; ``floor`` is the lowest seq that the source still holds, 0 for none."""

    community: str
    source: str
    lane: Lane
    spool: str
    seq: int
    floor: int
    sent_at: int
    taken_at: int
    signals: tuple[Signal, ...]
    measurements: list[Measurement]
    bad: tuple[BadRecord, ...]
    digest: int


class Status(Struct, frozen=True, gc=False, omit_defaults=True):
    """A birth, a regular status or (``online`` false) a death, of the connection with this id. ``depth`` is how many
    messages wait in the source's spool, ``clock`` its time; a last will, written before, has neither. ``dropped`` are
    the readings that it let go for want of room, ever; ``sick`` are devices and buses and what is wrong with them;
    ``parked`` of the waiting messages were put aside, because the gateway did not receipt them."""

    online: bool
    connection: str
    version: str = ""
    depth: int = 0
    clock: int | None = None
    dropped: int = 0
    sick: dict[str, str] = {}
    parked: int = 0


class Reply(Struct, frozen=True, gc=False):
    """What became of a command: ``done``, ``refused``, ``failed``, ``expired`` or another short code of the driver.
    ``incident`` names the incident for which the source acted by itself, while nobody at the gateway heard."""

    command: str
    device: str
    outcome: str
    detail: str = ""
    incident: str = ""


class StatusFrom(Struct, frozen=True, gc=False):
    """A status and whose it is."""

    community: str
    source: str
    status: Status


class ReplyFrom(Struct, frozen=True, gc=False):
    """A reply and whose it is."""

    community: str
    source: str
    reply: Reply


class Stamp(Struct, frozen=True, gc=False):
    """The place of a message in its lane."""

    community: str
    source: str
    lane: Lane
    spool: str
    seq: int


class Quarantine(Struct, frozen=True, gc=False):
    """Bytes that are no message: a stable reason, and a detail that says where and what to do. Where the place in the
    lane is legible nevertheless, ``stamp`` has it, so that the message can be receipted as rejected."""

    reason: str
    detail: str
    stamp: Stamp | None = None


class Receipt(Struct, frozen=True, gc=False):
    """What of a lane is committed: all up to ``seq``, the set ``above`` it, and ``rejected`` (seq, reason), which are
    settled too and not to be sent again. ``clock`` is the gateway's time when it was committed, in ms."""

    lane: str
    spool: str
    seq: int
    above: tuple[int, ...] = ()
    rejected: tuple[tuple[int, str], ...] = ()
    clock: int | None = None


class CommandMessage(Struct, frozen=True, gc=False):
    """What a device is asked to do, at the latest at ``expires_at``. The same id again is the same command."""

    id: str
    device: str
    name: str
    args: dict[str, object]
    expires_at: int


class DeviceConfig(Struct, frozen=True, gc=False, omit_defaults=True):
    """A device that the source carries: ``address`` is its bus and the address there, ``bus/address``. ``state`` and
    ``attributes`` are for a source that judges by itself while it cannot reach the gateway."""

    id: str
    profile: str
    address: str
    place: str
    name: str = ""
    state: str = "active"
    attributes: dict[str, float | int | bool | str] = {}


class PlaceConfig(Struct, frozen=True, gc=False, omit_defaults=True):
    """A place of the community: where devices are, and what that lies in."""

    id: str
    kind: str
    name: str
    parent: str | None = None
    attributes: dict[str, float | int | bool | str] = {}


class SourceConfig(Struct, frozen=True, gc=False, omit_defaults=True):
    """All devices that a source carries, and their places up to the community. Another ``version`` means another list,
    not a newer one."""

    version: int
    devices: tuple[DeviceConfig, ...]
    places: tuple[PlaceConfig, ...] = ()


class Topic(Struct, frozen=True, gc=False):
    """A topic below ``sc/v1/{community}/{source}/``; ``leaf`` is its last level."""

    community: str
    source: str
    leaf: str


Upward = Message | StatusFrom | ReplyFrom | Quarantine


# --- topics -------------------------------------------------------------------------------------------------------

NOT_AN_EVENT: Final = "not-an-event"
"""The reason of a bad record that stands for an event which could not be made out: it may have been a press."""

UP: Final = ("alarm", "telemetry", "status", "reply")
"""What a source writes."""

DOWN: Final = ("command", "receipt", "config")
"""What a source reads."""

_ID: Final = re.compile(r"[a-z0-9-]{1,48}")
_WORD: Final = re.compile(r"[a-z0-9_-]{1,48}")
_NAME: Final = re.compile(r"[a-z0-9-]{1,48}:[a-z0-9_-]{1,48}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CODE: Final = re.compile(r"[a-z0-9-]{1,32}")
_TOPIC: Final = re.compile(rf"{TOPIC_ROOT}/([a-z0-9-]{{1,48}})/([a-z0-9-]{{1,48}})/({'|'.join(UP + DOWN)})")
_UNFIT: Final = re.compile("[\0\ud800-\udfff]")
"""A database has no room for the one, and UTF-8 none for the others."""

_topics: Final[dict[str, Topic]] = {}


def topic_of(community: str, source: str, leaf: str) -> str:
    """The topic of a community's source, for example ``sc/v1/c001/agent-1/alarm``."""
    return f"{TOPIC_ROOT}/{community}/{source}/{leaf}"


def parse_topic(topic: str) -> Topic | None:
    """The parts of a topic of wire v1; None for any other."""
    found = _topics.get(topic)
    if found is None:
        match = _TOPIC.fullmatch(topic)
        if match is None:
            return None
        found = Topic(*map(sys.intern, match.groups()))
        if len(_topics) >= _CACHE_LIMIT:
            _topics.clear()
        _topics[topic] = found
    return found


# --- the fast way -------------------------------------------------------------------------------------------------

_Unit = Annotated[str, Meta(max_length=32)]
_Text = Annotated[str, Meta(max_length=TEXT_LIMIT)]


class _Record(Struct, gc=False, forbid_unknown_fields=True):
    """The members of a SenML record that packs really use, in the order in which they are usually written."""

    bn: str | None = None
    bt: float | None = None
    bu: _Unit | None = None
    n: str = ""
    u: _Unit | None = None
    v: float | None = None
    vb: bool | None = None
    vs: _Text | None = None
    t: float = 0.0


class _PlainRecord(Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A SenML record of a number taken now, with nothing but its name and unit: what nearly all records are."""

    n: str
    u: _Unit | None = None
    v: float


_ABSENT: Final = Raw(b"")


class _Envelope(Struct, gc=False, forbid_unknown_fields=True):
    v: int
    spool: str
    lane: Lane
    seq: int
    floor: int
    sent_at: float
    taken_at: float
    # The digest is over the bytes as they came, so they are cut out here and decoded afterwards.
    events: Raw = _ABSENT
    pack: Raw = _ABSENT
    bad: tuple[BadRecord, ...] = ()


class _Names(dict[str, str]):
    """Names that were found right, under one base name. The same string object each time makes every later look-up
    by name cheaper, and the check is paid once."""

    __slots__ = ("base",)

    def __init__(self, base: str) -> None:
        self.base = base

    def __missing__(self, name: str) -> str:
        whole = self.base + name
        if _NAME.fullmatch(whole) is None:
            raise _Odd
        _known.count += 1
        # Interned, as the registry's names are: what is the same object need not be compared.
        whole = self[name] = sys.intern(whole)
        return whole


class _Known(dict[str, _Names]):
    """All names that were found right, by base name; forgotten together when there are too many."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __missing__(self, base: str) -> _Names:
        if self.count >= _CACHE_LIMIT:
            self.clear()
            self.count = 0
        if len(base) > 97:
            raise _Odd
        self.count += 1
        names = self[base] = _Names(base)
        return names


class _Odd(Exception):
    """Not what the fast way takes."""


_known: Final = _Known()
_spools: Final[set[str]] = set()
_devices: Final[set[str]] = set()
_kinds: Final[set[str]] = set()
_envelopes: Final = msgspec.json.Decoder(_Envelope)
_packs: Final = msgspec.json.Decoder(list[_Record])
_plain_packs: Final = msgspec.json.Decoder(list[_PlainRecord])
_signals: Final = msgspec.json.Decoder(tuple[Signal, ...])


def decode(topic: str, payload: bytes) -> Upward:
    """The message that a source published. Never raises: what is no message comes back as a `Quarantine`."""
    address = _topics.get(topic) or parse_topic(topic)
    if address is None or address.leaf in DOWN:
        return Quarantine(
            "bad-topic", f"{_echo(topic)} is no topic of a source; use {TOPIC_ROOT}/community/source/{'|'.join(UP)}"
        )
    if len(payload) > PAYLOAD_LIMIT:
        return Quarantine("too-large", f"{len(payload)} bytes; split it into messages of at most {PAYLOAD_LIMIT}")
    leaf = address.leaf
    if leaf == "status":
        return _decode_status(address, payload)
    if leaf == "reply":
        return _decode_reply(address, payload)
    try:
        return _decode_fast(address, payload)
    except (_Odd, msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return _decode_slowly(address, payload)


def _decode_fast(address: Topic, payload: bytes) -> Message:
    """The message, or any of the exceptions that `decode` catches."""
    envelope = _envelopes.decode(payload)
    spool, seq, sent_at, taken_at = envelope.spool, envelope.seq, envelope.sent_at, envelope.taken_at
    if (
        envelope.v != VERSION
        or envelope.lane != address.leaf
        or not 0 < seq < SEQ_LIMIT
        or not 0 <= envelope.floor <= seq
        or not 0 <= taken_at < CLOCK_LIMIT
        or not 0 <= sent_at < CLOCK_LIMIT
        or envelope.bad
    ):
        raise _Odd
    if spool not in _spools:
        _remember(spool, _TOKEN, _spools)
    events = b"" if envelope.events is _ABSENT else bytes(envelope.events)
    pack = b"" if envelope.pack is _ABSENT else bytes(envelope.pack)
    if not (events or pack) or len(payload) - len(events) - len(pack) > _HEAD_MOST:
        raise _Odd
    taken_ms = int(taken_at * 1000 + 0.5)
    return Message(
        address.community,
        address.source,
        envelope.lane,
        spool,
        seq,
        envelope.floor,
        int(sent_at * 1000 + 0.5),
        taken_ms,
        _read_events(events) if events else (),
        _read_pack(pack) if pack else [],
        (),
        _digest(seq, taken_ms, events, pack),
    )


def _digest(seq: int, taken_ms: int, events: bytes, pack: bytes) -> int:
    """63 bits over what a resend does not change. It is only ever compared within one source, spool and lane."""
    content = hashlib.blake2b(b"%b\n%b" % (events, pack), digest_size=8).digest()
    # Odd multipliers spread the two numbers over all bits, far cheaper than printing them to be hashed.
    return (int.from_bytes(content, "big") ^ seq * 0x9E3779B97F4A7C15 ^ taken_ms * 0xC2B2AE3D27D4EB4F) & (2**63 - 1)


def _remember(text: str, pattern: re.Pattern[str], seen: set[str]) -> None:
    """Checks a text once, and not again. What is seen is forgotten together when there is too much."""
    if pattern.fullmatch(text) is None:
        raise _Odd
    if len(seen) >= _CACHE_LIMIT:
        seen.clear()
    seen.add(text)


def _read_events(raw: bytes) -> tuple[Signal, ...]:
    signals = _signals.decode(raw)
    if len(raw) > _ENTRY_MOST * (len(signals) + 1) or len(signals) > ENTRIES_LIMIT:
        raise _Odd
    for signal in signals:
        if signal.device not in _devices:
            _remember(signal.device, _ID, _devices)
        if signal.kind not in _kinds:
            _remember(signal.kind, _WORD, _kinds)
        if signal.data and _faults_of(signal.data):
            raise _Odd
    return signals


def _read_pack(raw: bytes) -> list[Measurement]:
    """Resolves a pack as RFC 8428 section 4.6 says; times stay relative to ``taken_at``."""
    try:
        plain = _plain_packs.decode(raw)
    except msgspec.ValidationError:
        return _resolve_pack(raw)
    if len(raw) > _ENTRY_MOST * (len(plain) + 1) or len(plain) > ENTRIES_LIMIT:
        raise _Odd
    names = _known[""]
    return [Measurement(names[record.n], record.v, record.u) for record in plain]


def _resolve_pack(raw: bytes) -> list[Measurement]:
    """The same, for records that use more of RFC 8428."""
    records = _packs.decode(raw)
    if len(raw) > _ENTRY_MOST * (len(records) + 1) or len(records) > ENTRIES_LIMIT:
        raise _Odd
    measurements: list[Measurement] = []
    add = measurements.append
    names = _known[""]
    base_unit: str | None = None
    base_time, last, is_sorted = 0.0, _OLDEST * 1000, True
    for record in records:
        if record.bn is not None:
            names = _known[record.bn]
        if record.bu is not None:
            base_unit = record.bu or None
        if record.bt is not None:
            base_time = record.bt
        value: float | bool | str | None = record.v
        if value is None:
            value = record.vb
            if value is None:
                value = record.vs
                if value is None:
                    if _is_header(record):
                        continue
                    raise _Odd
                if _UNFIT.search(value):
                    raise _Odd
            elif record.vs is not None:
                raise _Odd
        elif record.vb is not None or record.vs is not None:
            raise _Odd
        when = base_time + record.t
        if when < 0:
            if when < _OLDEST:
                raise _Odd
            offset = int(when * 1000 - 0.5)
            add(Measurement(names[record.n], value, record.u or base_unit, offset))
            if offset < last:
                is_sorted = False
            last = offset
            continue
        last = 0
        if when < ABSOLUTE_TIME:
            add(Measurement(names[record.n], value, record.u or base_unit))
        elif when < CLOCK_LIMIT:
            add(Measurement(names[record.n], value, record.u or base_unit, 0, when))
        else:
            raise _Odd
    if not is_sorted:
        measurements.sort(key=_offset_of)
    return measurements


def _is_header(record: _Record) -> bool:
    """Whether it only says what holds for the records after it, as in RFC 8428 section 5.1.7."""
    has_base = record.bn is not None or record.bt is not None or record.bu is not None
    return has_base and not record.n and record.u is None and not record.t


def _offset_of(measurement: Measurement) -> int:
    return measurement.offset


def _faults_of(data: Mapping[str, object]) -> dict[str, str]:
    """What is wrong in an event's data: reason by member. Empty when all is well."""
    faults = {key: fault for key, value in data.items() if (fault := _fault_of(key, value))}
    for key in list(data)[DATA_LIMIT:]:
        faults[key] = f"there are more than {DATA_LIMIT} members"
    return faults


def _fault_of(key: str, value: object) -> str:
    if _WORD.fullmatch(key) is None:
        return "its name is not [a-z0-9_-]{1,48}"
    match value:
        case str():
            if len(value) > TEXT_LIMIT:
                return f"it is longer than {TEXT_LIMIT} characters"
            return "it has a character that is no text" if _UNFIT.search(value) else ""
        case bool():
            return ""
        case int():
            return "" if -(2**63) <= value < 2**63 else "it is beyond 64 bits"
        case float():
            return "" if _is_finite(value) else "it is not finite"
        case None:
            return "it is null"
        case _:
            return "it is no number, boolean or string"


def _is_finite(number: float) -> bool:
    return number - number == 0


# --- the slow way -------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The whole message cannot be kept."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class _Raws(Struct, gc=False):
    """The bytes over which the digest is made."""

    events: Raw = Raw(b"")
    pack: Raw = Raw(b"")


_raws: Final = msgspec.json.Decoder(_Raws)

_ENVELOPE: Final = frozenset(_Envelope.__struct_fields__)
_EVENT: Final = frozenset(Signal.__struct_fields__)
_BASES: Final = ("bn", "bt", "bu", "bv", "bs", "bver")
_OWN: Final = ("n", "u", "v", "vb", "vs", "s", "t", "ut")
_RECORD: Final = frozenset(_BASES + _OWN)


def _decode_slowly(address: Topic, payload: bytes) -> Message | Quarantine:
    """As the fast way, member by member. It accepts all that the fast way accepts, with the same result."""
    stamp: Stamp | None = None
    try:
        envelope, shadowed = _read_object(payload)
        _check_version(envelope)
        stamp = _find_stamp(address, envelope)
        _check_nothing_hidden(envelope, _ENVELOPE, shadowed)
        return _read_envelope(address, envelope, payload)
    except _Refused as refused:
        return Quarantine(refused.reason, refused.detail, stamp)


def _read_object(payload: bytes) -> tuple[dict[str, Any], list[object]]:
    """The payload as one JSON object that is not nested too deep, and the values that are in its bytes but not in the
    object: of a member that stands twice, the last counts."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Refused("not-utf8", f"byte {error.start} is no UTF-8; encode the payload as UTF-8") from None
    shadowed: list[object] = []

    def take_last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen = set()
            for name, value in reversed(pairs):
                if name in seen:
                    shadowed.append(value)
                seen.add(name)
        return members

    decoder = json.JSONDecoder(object_pairs_hook=take_last, parse_constant=_refuse_constant, parse_int=_read_int)
    try:
        found = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise _Refused("not-json", f"character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise _Refused("too-deep", f"nested deeper than {DEPTH_LIMIT} levels; the contract needs 5") from None
    if not isinstance(found, dict):
        raise _Refused("bad-envelope", "the payload is no JSON object")
    _check_depth([found, shadowed])
    return found, shadowed


def _check_depth(found: object) -> None:
    level: list[object] = [found]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _Refused("too-deep", f"nested deeper than {DEPTH_LIMIT} levels; the contract needs 5")


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused("not-json", f"{name} is no JSON number; leave the member out when there is no value")


def _read_int(digits: str) -> int | float:
    # Python refuses to read integers of more than 4,300 digits; a double reads them as infinite, which is refused.
    return int(digits) if len(digits) < 100 else float(digits)


def _check_version(found: Mapping[str, Any]) -> None:
    version = found.get("v")
    if isinstance(version, bool) or not isinstance(version, int):
        raise _Refused("bad-envelope", f"v is missing or no integer; send v: {VERSION}")
    if version != VERSION:
        raise _Refused("unknown-version", f"v is {_echo(version)}; this gateway reads v: {VERSION}")


def _find_stamp(address: Topic, envelope: Mapping[str, Any]) -> Stamp | None:
    """The message's place in its lane, when all that makes it is right."""
    spool, seq = envelope.get("spool"), envelope.get("seq")
    if (
        envelope.get("lane") == address.leaf
        and isinstance(spool, str)
        and _TOKEN.fullmatch(spool) is not None
        and _is_count(seq)
        and 0 < seq < SEQ_LIMIT
    ):
        return Stamp(address.community, address.source, Lane(address.leaf), spool, seq)
    return None


def _check_nothing_hidden(found: dict[str, Any], known: frozenset[str], shadowed: list[object]) -> None:
    """Refuses a message that could carry a picture or a face vector where the contract has no field for it. A long
    string is refused wherever it stands, known member or not: the body of a message that is kept is kept whole."""
    foreign = sum(_size_of(value) for value in shadowed)
    for member, value in found.items():
        if member not in known:
            if isinstance(value, (dict, list)):
                raise _Refused("binary-member", f"{_echo(member)} is no member of the contract; leave it out")
            foreign += _size_of(value)
    for name, member_known in (("events", _EVENT), ("pack", _RECORD)):
        entries = found.get(name)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            foreign += _foreign_in(entry, member_known, f"{name}[{index}]")
    _check_texts(found)
    if foreign > FOREIGN_LIMIT:
        raise _Refused(
            "binary-member",
            f"{foreign} bytes are outside the contract, more than {FOREIGN_LIMIT}; send only its members",
        )


def _foreign_in(entry: object, known: frozenset[str], where: str) -> int:
    """Bytes of one entry that the contract does not know."""
    if not isinstance(entry, dict):
        return _size_of(entry)
    if known is _RECORD and "vd" in entry:
        raise _Refused("binary-member", f"{where} has a vd; binary values never leave the edge")
    foreign = 0
    for member, value in entry.items():
        if member == "data" and known is _EVENT and isinstance(value, dict):
            foreign += sum(_size_of(inner) for inner in value.values() if isinstance(inner, (dict, list)))
            foreign += sum(_size_of(inner) for inner in list(value.values())[DATA_LIMIT:])
        elif member not in known or isinstance(value, (dict, list)):
            foreign += _size_of(value)
    return foreign


def _size_of(value: object) -> int:
    return len(json.dumps(value))


def _check_texts(found: dict[str, Any]) -> None:
    """Refuses any string, member name or value, that is too long."""
    waiting: list[dict[str, Any] | list[Any]] = [found]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, dict):
            for member in outer:
                if len(member) > TEXT_LIMIT:
                    raise _Refused("binary-member", f"a member's name has {len(member)} characters, over {TEXT_LIMIT}")
            members: Iterable[tuple[object, Any]] = outer.items()
        else:
            members = enumerate(outer)
        for name, value in members:
            if isinstance(value, str):
                if len(value) > TEXT_LIMIT:
                    where = f"the string at {_echo(name)} has {len(value)} characters"
                    raise _Refused("binary-member", f"{where}; at most {TEXT_LIMIT} may be")
            elif isinstance(value, (dict, list)):
                waiting.append(value)


def _read_envelope(address: Topic, envelope: Mapping[str, Any], payload: bytes) -> Message:
    lane = envelope.get("lane")
    if lane != address.leaf:
        raise _Refused(
            "lane-mismatch", f"lane {_echo(lane)} came on the topic {address.leaf}; publish each lane on its own"
        )
    spool = envelope.get("spool")
    if not isinstance(spool, str) or _TOKEN.fullmatch(spool) is None:
        raise _Refused("bad-envelope", f"spool {_echo(spool)} is not [A-Za-z0-9_-]{{1,64}}")
    seq, floor = envelope.get("seq"), envelope.get("floor")
    if not _is_count(seq) or not 0 < seq < SEQ_LIMIT:
        raise _Refused("bad-seq", f"seq {_echo(seq)} is no integer from 1 to 2**53 - 1")
    if not _is_count(floor) or not 0 <= floor <= seq:
        raise _Refused("bad-seq", f"floor {_echo(floor)} is no integer from 0 to seq ({seq})")
    times = {}
    for name in ("sent_at", "taken_at"):
        second = _number_in(envelope.get(name))
        if second is None or not 0 <= second < CLOCK_LIMIT:
            raise _Refused("bad-time", f"{name} {_echo(envelope.get(name))} is no number of seconds from 0 to 2**33")
        times[name] = int(second * 1000 + 0.5)
    events, pack, told = (envelope.get(name) for name in ("events", "pack", "bad"))
    if events is None and pack is None and told is None:
        raise _Refused("bad-envelope", "neither events nor pack; send at least one of them, if only empty")
    for name, entries in (("events", events), ("pack", pack), ("bad", told)):
        if entries is not None and not isinstance(entries, list):
            raise _Refused("bad-envelope", f"{name} is no array")
        if entries is not None and len(entries) > ENTRIES_LIMIT:
            raise _Refused("bad-envelope", f"{name} has {len(entries)} entries; split it by {ENTRIES_LIMIT}")
    bad = _read_bad(told or [])
    signals = _read_events_slowly(events or [], bad)
    measurements = _PackReader(bad).read(pack or [])
    raw_events, raw_pack = _find_raws(payload, events, pack)
    digest = _digest(seq, times["taken_at"], raw_events, raw_pack)
    return Message(
        address.community,
        address.source,
        Lane(address.leaf),
        spool,
        seq,
        floor,
        times["sent_at"],
        times["taken_at"],
        tuple(signals),
        measurements,
        tuple(bad),
        digest,
    )


def _find_raws(payload: bytes, events: object, pack: object) -> tuple[bytes, bytes]:
    try:
        raws = _raws.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Half a surrogate pair, for instance: one parser takes it, the other does not.
        return json.dumps(events).encode(), json.dumps(pack).encode()
    return bytes(raws.events), bytes(raws.pack)


def _read_bad(told: Sequence[Any]) -> list[BadRecord]:
    """What the sender itself found bad; the journal keeps a message whose body was sealed in this form."""
    bad = []
    for index, entry in enumerate(told):
        match entry:
            case {"name": str(name), "reason": str(reason), "detail": str(detail)} if _CODE.fullmatch(reason):
                bad.append(BadRecord(_fit(name), reason, _fit(detail)))
            case _:
                raise _Refused("bad-envelope", f"bad[{index}] is no object with name, reason and detail")
    return bad


def _read_events_slowly(events: Sequence[Any], bad: list[BadRecord]) -> list[Signal]:
    signals = []
    for index, event in enumerate(events):
        where = f"events[{index}]"
        if not isinstance(event, dict):
            bad.append(BadRecord("", NOT_AN_EVENT, f"{where} is no object; send device, kind and data"))
            continue
        device, kind, data = event.get("device"), event.get("kind"), event.get("data")
        name = f"{_echo(device)}:{_echo(kind)}"
        if not isinstance(device, str) or _ID.fullmatch(device) is None:
            bad.append(BadRecord(name, NOT_AN_EVENT, f"{where}.device {_echo(device)} is not [a-z0-9-]{{1,48}}"))
            continue
        if not isinstance(kind, str) or _WORD.fullmatch(kind) is None:
            bad.append(BadRecord(name, NOT_AN_EVENT, f"{where}.kind {_echo(kind)} is not [a-z0-9_-]{{1,48}}"))
            continue
        if data is None:
            data = {}
        if not isinstance(data, dict):
            bad.append(BadRecord(name, "bad-data", f"{where}.data is no object; the event counts without it"))
            data = {}
        faults = _faults_of(data)
        if faults:
            # Somebody pressed: a member that cannot be read takes nothing else with it.
            member, fault = next(iter(faults.items()))
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            bad.append(
                BadRecord(name, "bad-data", f"{where}.data.{_echo(member)}: {fault}{more}; the event counts without")
            )
        signals.append(Signal(device, kind, {key: value for key, value in data.items() if key not in faults}))
    return signals


class _BadRecord(Exception):
    """One record cannot be taken in."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class _PackReader:
    """Resolves a pack record by record, and notes what is bad."""

    def __init__(self, bad: list[BadRecord]) -> None:
        self._bad = bad
        # The base fields in force; a name that stands in `_broken` was set to what is no such field.
        self._bases: dict[str, Any] = {}
        self._broken: set[str] = set()

    def read(self, records: Sequence[Any]) -> list[Measurement]:
        newer = [
            record["bver"]
            for record in records
            if isinstance(record, dict) and _is_count(record.get("bver")) and record["bver"] > SENML_VERSION
        ]
        measurements = []
        for index, record in enumerate(records):
            try:
                if not isinstance(record, dict):
                    raise _BadRecord("not-a-record", "it is no object")
                if newer:
                    raise _BadRecord("senml-version", f"bver {_echo(newer[0])} in its pack is above {SENML_VERSION}")
                measured = self._read_record(record)
            except _BadRecord as fault:
                detail = f"pack[{index}]: {fault.detail}"
                self._bad.append(BadRecord(self._name_of(record), fault.reason, detail))
                continue
            if measured is not None:
                measurements.append(measured)
        measurements.sort(key=_offset_of)
        return measurements

    def _name_of(self, record: object) -> str:
        """The record's name as far as it is legible."""
        own = record.get("n") if isinstance(record, dict) else None
        base = self._bases.get("bn", "")
        return _echo(base + own, 97) if isinstance(own, str) else _echo(base, 97)

    def _read_record(self, record: Mapping[str, Any]) -> Measurement | None:
        """A measurement; None for a record that only sets base fields."""
        self._take_bases(record)
        for label in record:
            if label.endswith("_"):
                raise _BadRecord(
                    "must-understand", f"the label {_echo(label)} is unknown and must be understood; leave it out"
                )
        if not any(record.get(label) is not None for label in _OWN):
            if any(record.get(label) is not None for label in _BASES):
                return None
            raise _BadRecord("no-value", "it is empty")
        name = self._find_name(record)
        value = self._find_value(record)
        unit = self._find_unit(record)
        when = self._find_time(record)
        if when >= ABSOLUTE_TIME:
            return Measurement(name, value, unit, 0, when)
        return Measurement(name, value, unit, int(when * 1000 - 0.5) if when < 0 else 0)

    def _take_bases(self, record: Mapping[str, Any]) -> None:
        """Sets what the record sets. A base field that is none spoils every record after it that would use it."""
        broken = []
        for label in _BASES:
            value = record.get(label)
            if value is None:
                continue
            self._bases.pop(label, None)
            if label in ("bn", "bu"):
                found: object = value if isinstance(value, str) else None
            elif label == "bver":
                found = value if _is_count(value) and value > 0 else None
            else:
                found = _number_in(value)
            if found is None:
                self._broken.add(label)
                broken.append(label)
            else:
                self._broken.discard(label)
                self._bases[label] = found
        if broken:
            label = broken[0]
            raise _BadRecord(
                "bad-base", f"{label} {_echo(record[label])} is no such field; mend it and send the pack anew"
            )

    def _base(self, label: str, default: Any) -> Any:
        if label in self._broken:
            raise _BadRecord("bad-base", f"the last {label} before it is no such field; mend it there")
        return self._bases.get(label, default)

    def _find_name(self, record: Mapping[str, Any]) -> str:
        own = record.get("n", "")
        own = "" if own is None else own
        if not isinstance(own, str):
            raise _BadRecord("bad-name", f"n {_echo(own)} is no string")
        name: str = self._base("bn", "") + own
        if _NAME.fullmatch(name) is None:
            raise _BadRecord("bad-name", f"{_echo(name)} is not device:reading, [a-z0-9-]{{1,48}}:[a-z0-9_-]{{1,48}}")
        return name

    def _find_value(self, record: Mapping[str, Any]) -> float | bool | str:
        given = [label for label in ("v", "vb", "vs") if record.get(label) is not None]
        if len(given) > 1:
            raise _BadRecord("many-values", f"it has {' and '.join(given)}; a record has one value")
        if not given:
            if "bv" in self._bases or "bv" in self._broken:
                return self._add_base_value(0.0)
            raise _BadRecord("no-value", "it has neither v, vb nor vs; leave the record out when there is no value")
        value = record[given[0]]
        match given[0]:
            case "v":
                number = _number_in(value)
                if number is None:
                    raise _BadRecord("bad-value", f"v {_echo_type(value)} is no finite number")
                return self._add_base_value(number)
            case "vb":
                if not isinstance(value, bool):
                    raise _BadRecord("bad-value", f"vb {_echo_type(value)} is neither true nor false")
                return value
            case _:
                if not isinstance(value, str) or _UNFIT.search(value):
                    raise _BadRecord("bad-value", "vs is no text")
                return value

    def _add_base_value(self, number: float) -> float:
        total: float = number + self._base("bv", 0.0)
        if not _is_finite(total):
            raise _BadRecord("bad-value", "v with its base value is not finite")
        return total

    def _find_unit(self, record: Mapping[str, Any]) -> str | None:
        own = record.get("u")
        if own is not None and not isinstance(own, str):
            raise _BadRecord("bad-unit", f"u {_echo(own)} is no string")
        unit: str = own or self._base("bu", "")
        if len(unit) > 32 or _UNFIT.search(unit):
            raise _BadRecord("bad-unit", f"unit {_echo(unit)} is no text of at most 32 characters")
        return unit or None

    def _find_time(self, record: Mapping[str, Any]) -> float:
        own = record.get("t")
        number = 0.0 if own is None else _number_in(own)
        if number is None:
            raise _BadRecord("bad-time", f"t {_echo(own)} is no finite number")
        when: float = self._base("bt", 0.0) + number
        if not when < CLOCK_LIMIT:
            raise _BadRecord("bad-time", f"its time {_echo(when)} is no time in seconds")
        if when < _OLDEST:
            raise _BadRecord(
                "too-old",
                f"it lies {_echo(-when)} s before taken_at, more than {OLDEST_S}; give it a message of its own",
            )
        return when


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number_in(value: object) -> float | None:
    """The value as a finite double; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if _is_finite(number) else None


def _fit(text: str) -> str:
    """The text with what no database takes made visible."""
    return _UNFIT.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _echo(value: object, most: int = 64) -> str:
    """What was sent, so that its sender finds it: at most ``most`` bytes, printable."""
    if value is None:
        return "(missing)"
    if isinstance(value, (dict, list)):
        return _echo_type(value)
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)[:most])
    return shown.encode()[:most].decode("utf-8", "ignore")


def _echo_type(value: object) -> str:
    """A number as it is; of anything else only what it is, because it may be a plate."""
    match value:
        case bool():
            return "(a boolean)"
        case int() | float():
            return _echo(value)
        case str():
            return "(a string)"
        case dict():
            return "(an object)"
        case list():
            return "(an array)"
        case _:
            return "(missing)"


# --- status and replies -------------------------------------------------------------------------------------------


class _StatusBody(Struct, gc=False, kw_only=True, omit_defaults=True):
    v: Annotated[int, Meta(ge=1)]
    online: bool
    connection: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    version: Annotated[str, Meta(max_length=64)] = ""
    depth: Annotated[int, Meta(ge=0, lt=SEQ_LIMIT)] = 0
    clock: Annotated[float, Meta(ge=0, lt=CLOCK_LIMIT)] | None = None
    dropped: Annotated[int, Meta(ge=0, lt=SEQ_LIMIT)] = 0
    sick: Annotated[dict[Annotated[str, Meta(max_length=64)], _Text], Meta(max_length=SICK_LIMIT)] = {}
    parked: Annotated[int, Meta(ge=0, lt=SEQ_LIMIT)] = 0


class _ReplyBody(Struct, gc=False, kw_only=True, omit_defaults=True):
    v: Annotated[int, Meta(ge=1)]
    command: Annotated[str, Meta(min_length=1, max_length=TEXT_LIMIT)]
    device: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,48}\Z")]
    outcome: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    detail: _Text = ""
    incident: Annotated[str, Meta(max_length=64)] = ""


_B = TypeVar("_B", bound=Struct)


def _read_body(payload: bytes, body: type[_B]) -> _B:
    """A flat body. Unknown members are passed over, as long as they could hide nothing. Raises _Refused."""
    found, shadowed = _read_object(payload)
    _check_version(found)
    known = body.__struct_fields__
    _check_nothing_hidden(found, frozenset(known), shadowed)
    members = {member: found[member] for member in known if member in found}
    for member, value in members.items():
        texts = [value] if isinstance(value, str) else chain(*value.items()) if isinstance(value, dict) else ()
        if any(isinstance(text, str) and _UNFIT.search(text) for text in texts):
            raise _Refused("bad-envelope", f"{member} has a character that is no text")
    try:
        return msgspec.convert(members, body)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise _Refused("bad-envelope", _echo(str(error), 200)) from None


def _read_status(payload: bytes) -> Status:
    body = _read_body(payload, _StatusBody)
    clock = None if body.clock is None else round(body.clock * 1000)
    return Status(body.online, body.connection, body.version, body.depth, clock, body.dropped, body.sick, body.parked)


def _decode_status(address: Topic, payload: bytes) -> StatusFrom | Quarantine:
    try:
        return StatusFrom(address.community, address.source, _read_status(payload))
    except _Refused as refused:
        return Quarantine(refused.reason, refused.detail)


def _decode_reply(address: Topic, payload: bytes) -> ReplyFrom | Quarantine:
    try:
        body = _read_body(payload, _ReplyBody)
    except _Refused as refused:
        return Quarantine(refused.reason, refused.detail)
    reply = Reply(body.command, body.device, body.outcome, body.detail, body.incident)
    return ReplyFrom(address.community, address.source, reply)


def decode_gateway_status(payload: bytes) -> Status | Quarantine:
    """What stands retained on `GATEWAY_STATUS`: whether a gateway listens."""
    try:
        return _read_status(payload)
    except _Refused as refused:
        return Quarantine(refused.reason, refused.detail)


# --- writing what goes up -----------------------------------------------------------------------------------------


class _RecordOut(Struct, gc=False, omit_defaults=True):
    n: str
    u: str | None = None
    v: float | None = None
    vb: bool | None = None
    vs: str | None = None
    t: float | None = None


class _EnvelopeOut(Struct, gc=False, omit_defaults=True):
    v: int
    spool: str
    lane: str
    seq: int
    floor: int
    sent_at: float
    taken_at: float
    events: Sequence[Signal] | None = None
    pack: Sequence[_RecordOut] | None = None
    bad: Sequence[BadRecord] | None = None


_encoder: Final = msgspec.json.Encoder()


def encode_message(message: Message) -> bytes:
    """The message as a source publishes it. `decode` gives it back, but for the digest."""
    return _encoder.encode(
        _EnvelopeOut(
            VERSION,
            message.spool,
            message.lane,
            message.seq,
            message.floor,
            message.sent_at / 1000,
            message.taken_at / 1000,
            message.signals or None,
            [_write_record(measurement) for measurement in message.measurements] or (None if message.signals else []),
            message.bad or None,
        )
    )


def _write_record(measurement: Measurement) -> _RecordOut:
    value, time = measurement.value, measurement.time
    seconds = time if time is not None else measurement.offset / 1000 if measurement.offset else None
    if isinstance(value, bool):
        return _RecordOut(measurement.name, measurement.unit, vb=value, t=seconds)
    if isinstance(value, str):
        return _RecordOut(measurement.name, measurement.unit, vs=value, t=seconds)
    return _RecordOut(measurement.name, measurement.unit, value, t=seconds)


def encode_status(status: Status) -> bytes:
    """A status for a source's ``status`` topic, its last will, or `GATEWAY_STATUS`."""
    clock = None if status.clock is None else status.clock / 1000
    return _encoder.encode(
        _StatusBody(
            v=VERSION,
            online=status.online,
            connection=status.connection,
            version=status.version,
            depth=status.depth,
            clock=clock,
            dropped=status.dropped,
            sick=dict(list(status.sick.items())[:SICK_LIMIT]),
            parked=status.parked,
        )
    )


def encode_reply(reply: Reply) -> bytes:
    """The outcome of a command, for a source's ``reply`` topic."""
    return _encoder.encode(
        _ReplyBody(
            v=VERSION,
            command=reply.command,
            device=reply.device,
            outcome=reply.outcome,
            detail=reply.detail[:TEXT_LIMIT],
            incident=reply.incident,
        )
    )


# --- what goes down -----------------------------------------------------------------------------------------------


class _Rejection(Struct, gc=False):
    seq: int
    reason: str


class _ReceiptBody(Struct, gc=False, kw_only=True, omit_defaults=True):
    v: int
    lane: str
    spool: str
    seq: int
    above: tuple[int, ...] = ()
    rejected: tuple[_Rejection, ...] = ()
    clock: Annotated[float, Meta(ge=0, lt=CLOCK_LIMIT)] | None = None


class _CommandBody(Struct, gc=False, kw_only=True):
    v: int
    id: str
    device: str
    name: str
    args: dict[str, object] = {}
    expires_at: Annotated[float, Meta(ge=0, lt=CLOCK_LIMIT)]


class _ConfigBody(Struct, gc=False, kw_only=True):
    v: int
    version: int
    devices: tuple[DeviceConfig, ...] = ()
    places: tuple[PlaceConfig, ...] = ()


def _read_down(payload: bytes, body: type[_B]) -> _B | Quarantine:
    """A body from the gateway: unknown members are passed over, so that a newer gateway can say more."""
    try:
        found = msgspec.json.decode(payload, type=body)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        return Quarantine("bad-envelope", _echo(str(error), 200))
    version = getattr(found, "v", None)
    if version != VERSION:
        return Quarantine("unknown-version", f"v is {_echo(version)}; this source reads v: {VERSION}")
    return found


def encode_receipt(receipt: Receipt) -> bytes:
    """A receipt for a source's ``receipt`` topic."""
    rejected = tuple(_Rejection(seq, reason) for seq, reason in receipt.rejected)
    return _encoder.encode(
        _ReceiptBody(
            v=VERSION,
            lane=receipt.lane,
            spool=receipt.spool,
            seq=receipt.seq,
            above=receipt.above,
            rejected=rejected,
            clock=None if receipt.clock is None else receipt.clock / 1000,
        )
    )


def decode_receipt(payload: bytes) -> Receipt | Quarantine:
    """The receipt that a source got. Never raises."""
    body = _read_down(payload, _ReceiptBody)
    if isinstance(body, Quarantine):
        return body
    rejected = tuple((one.seq, one.reason) for one in body.rejected)
    clock = None if body.clock is None else round(body.clock * 1000)
    return Receipt(body.lane, body.spool, body.seq, body.above, rejected, clock)


def encode_command(command: CommandMessage) -> bytes:
    """A command for a source's ``command`` topic."""
    return _encoder.encode(
        _CommandBody(
            v=VERSION,
            id=command.id,
            device=command.device,
            name=command.name,
            args=command.args,
            expires_at=command.expires_at / 1000,
        )
    )


def decode_command(payload: bytes) -> CommandMessage | Quarantine:
    """The command that a source got. Never raises."""
    body = _read_down(payload, _CommandBody)
    if isinstance(body, Quarantine):
        return body
    return CommandMessage(body.id, body.device, body.name, body.args, round(body.expires_at * 1000))


def encode_config(config: SourceConfig) -> bytes:
    """A source's devices for its ``config`` topic. The same list gives the same bytes."""
    return _encoder.encode(_ConfigBody(v=VERSION, version=config.version, devices=config.devices, places=config.places))


def decode_config(payload: bytes) -> SourceConfig | Quarantine:
    """The devices that a source carries. Never raises."""
    body = _read_down(payload, _ConfigBody)
    if isinstance(body, Quarantine):
        return body
    return SourceConfig(body.version, body.devices, body.places)
