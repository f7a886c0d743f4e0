"""Interim wire."""
from __future__ import annotations
import re
from enum import StrEnum
from typing import Any
import msgspec, hashlib
from msgspec import Struct

class Lane(StrEnum):
    ALARM = "alarm"
    TELEMETRY = "telemetry"
class Measurement(Struct, frozen=True, gc=False):
    name: str
    value: float | bool | str
    unit: str | None = None
    offset: int = 0
    time: float | None = None
class Signal(Struct, frozen=True):
    device: str
    kind: str
    data: dict[str, float | int | bool | str] = {}
class BadRecord(Struct, frozen=True):
    name: str
    reason: str
    detail: str
class Message(Struct, frozen=True):
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
class Status(Struct, frozen=True):
    online: bool
    connection: str
class Reply(Struct, frozen=True):
    command: str
    device: str
    outcome: str
    detail: str = ""
class StatusFrom(Struct, frozen=True):
    community: str
    source: str
    status: Status
class ReplyFrom(Struct, frozen=True):
    community: str
    source: str
    reply: Reply
class Quarantine(Struct, frozen=True):
    reason: str
    detail: str
class Receipt(Struct, frozen=True):
    lane: str
    spool: str
    seq: int
    above: tuple[int, ...] = ()
    rejected: tuple[tuple[int, str], ...] = ()
class CommandMessage(Struct, frozen=True):
    id: str
    device: str
    name: str
    args: dict[str, object]
    expires_at: int
class DeviceConfig(Struct, frozen=True):
    id: str
    profile: str
    address: str
    place: str
class SourceConfig(Struct, frozen=True):
    version: int
    devices: tuple[DeviceConfig, ...]
class Topic(Struct, frozen=True):
    community: str
    source: str
    leaf: str
class _Record(Struct, gc=False):
    bn: str = ""
    n: str = ""
    u: str | None = None
    v: float | None = None
    vb: bool | None = None
    vs: str | None = None
    t: float = 0
class _Envelope(Struct):
    v: int
    spool: str
    lane: str
    seq: int
    floor: int
    sent_at: float
    taken_at: float
    events: tuple[Signal, ...] = ()
    pack: list[_Record] = []
_dec = msgspec.json.Decoder(_Envelope)
def topic_of(community: str, source: str, leaf: str) -> str:
    return f"sc/v1/{community}/{source}/{leaf}"
def parse_topic(topic: str) -> Topic | None:
    parts = topic.split("/")
    return Topic(*parts[2:]) if len(parts) == 5 else None
def decode(topic: str, payload: bytes) -> Message | StatusFrom | ReplyFrom | Quarantine:
    t = parse_topic(topic)
    if t is None:
        return Quarantine("bad-topic", topic[:64])
    try:
        if t.leaf == "status":
            return StatusFrom(t.community, t.source, msgspec.json.decode(payload, type=Status))
        if t.leaf == "reply":
            return ReplyFrom(t.community, t.source, msgspec.json.decode(payload, type=Reply))
        e = _dec.decode(payload)
    except Exception as x:
        return Quarantine("bad-envelope", str(x)[:100])
    ms, bn = [], ""
    for r in e.pack:
        bn = r.bn or bn
        value = r.v if r.v is not None else r.vb if r.vb is not None else r.vs
        if value is not None:
            ms.append(Measurement(bn + r.n, value, r.u, round(r.t * 1000) if r.t < 0 else 0))
    i = payload.find(b'"taken_at"')
    return Message(t.community, t.source, Lane(e.lane), e.spool, e.seq, e.floor, round(e.sent_at * 1000), round(e.taken_at * 1000), e.events, ms, (), int.from_bytes(hashlib.blake2b(payload[i:], digest_size=7).digest(), "big"))
def encode_message(m: Message) -> bytes:
    return msgspec.json.encode({"v": 1, "spool": m.spool, "lane": m.lane, "seq": m.seq, "floor": m.floor, "sent_at": m.sent_at / 1000, "taken_at": m.taken_at / 1000, "events": m.signals, "pack": [{"n": x.name, ("vb" if isinstance(x.value, bool) else "vs" if isinstance(x.value, str) else "v"): x.value} for x in m.measurements]})
encode_receipt = encode_config = encode_command = msgspec.json.encode
