"""A mutation fuzzer with a seed: `python -m tests.wire.fuzz --n 100000 --seed 1`.

Whatever is done to right messages, `decode` returns a value of the contract within its bounds, gives the same one
again, and what it kept can be written and read back.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from msgspec.structs import replace

from gateway import wire
from gateway.wire import Message, Quarantine, ReplyFrom, StatusFrom, decode, encode_message, topic_of
from tests.wire.worlds import envelope

STRANGE: tuple[bytes, ...] = (
    b"null", b"true", b"[]", b"{}", b'""', b"-0", b"-0.0", b"1e308", b"-1e308", b"1e309", b"1e400", b"5e-324",
    b"NaN", b"Infinity", b"9007199254740992", b"18446744073709551616", b"1" + b"0" * 400, b"1" + b"0" * 5000,
    b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"' + b"x" * 300 + b'"', b"[" * 50,
    b"[" * 3000, b'{"a":' * 100, b'"vd"', b'"bn"', b'"bt":', b'"v":', b'"_":', b"268435456", b"-86401", b"\xff",
    b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"\x00", "烟感".encode(),
)  # fmt: skip
"""Pieces that have broken a JSON reader somewhere."""

MEMBERS = (
    "v", "spool", "lane", "seq", "floor", "sent_at", "taken_at", "events", "pack", "bad", "device", "kind", "data",
    "bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "vb", "vs", "vd", "s", "t", "ut", "x_", "online", "connection",
    "clock", "depth", "version", "command", "outcome", "detail", "name", "reason",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 17, 2**28, 2**31, 2**53, 2**63, 10**30, 0.5, -0.5, 1e308, -1e308, "", "a", "a:b",
    "A:b", "x" * 48, "x" * 49, "x" * 256, "x" * 257, "a\0b", "\ud800", "烟", "alarm", "telemetry", [], {}, [[]], [{}],
    {"a": {"b": 1}}, [1, 2, 3], [0.5] * 200,
)  # fmt: skip


def seeds() -> list[tuple[str, bytes]]:
    """Right messages of every upward topic."""
    press = {"device": "button-0042", "kind": "pressed", "data": {"times": 2, "text": "在", "long": True}}
    pack: list[dict[str, Any]] = [
        {"bn": "smoke-1:", "bt": -5.5, "bu": "%EL", "n": "battery", "v": 88},
        {"n": "smoke", "vb": False, "t": 1},
        {"bn": "", "n": "hydrant-1:pressure", "u": "MPa", "v": 0.31, "t": -2},
        {"n": "door-1:state", "vs": "打开", "bv": 1, "bver": 10},
    ]
    bodies = [
        ("alarm", envelope(events=[press])),
        ("alarm", envelope(events=[press, press], pack=pack)),
        ("telemetry", envelope(lane="telemetry", pack=pack * 4)),
        ("alarm", envelope(pack=pack, bad=[{"name": "a:b", "reason": "bad-value", "detail": "x"}])),
        ("status", {"v": 1, "online": True, "connection": "c-1", "version": "1", "depth": 3, "clock": 1.5}),
        ("reply", {"v": 1, "command": "a/1", "device": "speaker-1", "outcome": "done", "detail": "x"}),
    ]
    written = []
    for leaf, body in bodies:
        topic = topic_of("c001", "agent-1", leaf)
        written.append((topic, json.dumps(body).encode()))
        written.append((topic, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()))
    return written


def mutate_bytes(rng: Random, payload: bytes) -> bytes:
    """The payload with a few of its bytes changed, cut, doubled or replaced by a strange piece."""
    found = bytearray(payload)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(found) + 1)
        end = min(len(found), start + rng.choice((0, 1, 1, 2, 5, 20, 200)))
        match rng.randrange(6):
            case 0:
                found[start:end] = rng.randbytes(end - start)
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:end] = rng.choice(STRANGE)
            case 4 if start < len(found):
                found[start] ^= 1 << rng.randrange(8)
            case _:
                found[start:start] = rng.choice(STRANGE)
    return bytes(found)


def mutate_members(rng: Random, payload: bytes) -> bytes:
    """The payload with members of its objects set, taken out or renamed: well-formed, and wrong inside."""
    body = json.loads(payload)
    for _ in range(rng.choice((1, 1, 2, 4))):
        objects = [body]
        for inner in objects:
            values = inner.values() if isinstance(inner, dict) else inner
            objects.extend(value for value in values if isinstance(value, (dict, list)))
        chosen = rng.choice(objects)
        if isinstance(chosen, list):
            chosen.insert(rng.randrange(len(chosen) + 1), deepcopy(rng.choice(VALUES)))
        elif chosen and rng.random() < 0.3:
            taken = chosen.pop(rng.choice(list(chosen)))
            if rng.random() < 0.5:
                chosen[rng.choice(MEMBERS)] = taken
        else:
            chosen[rng.choice(list(chosen) if chosen and rng.random() < 0.7 else MEMBERS)] = deepcopy(
                rng.choice(VALUES)
            )
    return json.dumps(body).encode()


def check(topic: str, payload: bytes) -> str:
    """Decodes and checks what comes back against the contract's bounds. Returns what it was, or raises."""
    found = decode(topic, payload)
    assert found == decode(topic, payload), "the same bytes gave two different values"
    match found:
        case Quarantine(reason, detail, stamp):
            assert reason in REASONS, reason
            assert detail, "a quarantine must say where"
            assert len(detail.encode()) <= 400, detail
            assert stamp is None or 0 < stamp.seq < wire.SEQ_LIMIT
            return reason
        case Message():
            check_message(topic, found)
            return "message, with bad parts" if found.bad else "message"
        case StatusFrom():
            assert len(found.status.connection) <= 64
            return "status"
        case ReplyFrom():
            assert len(found.reply.detail) <= wire.TEXT_LIMIT
            return "reply"


REASONS = frozenset(
    {
        "bad-topic", "too-large", "not-json", "not-utf8", "too-deep", "bad-envelope", "unknown-version",
        "lane-mismatch", "bad-seq", "bad-time", "binary-member",
    }
)  # fmt: skip
"""Every reason for which a message is quarantined."""

BAD_REASONS = frozenset(
    {
        "not-a-record", "not-an-event", "bad-name", "no-value", "many-values", "bad-value", "bad-unit", "bad-time",
        "too-old", "must-understand", "bad-base", "senml-version", "bad-data",
    }
)  # fmt: skip
"""Every reason for which a record or an event is bad."""


def check_message(topic: str, found: Message) -> None:
    assert topic == topic_of(found.community, found.source, found.lane)
    assert 0 < found.seq < wire.SEQ_LIMIT
    assert 0 <= found.floor <= found.seq
    assert 0 <= found.digest < 2**63
    last = -wire.OLDEST_S * 1000
    for measured in found.measurements:
        assert wire._NAME.fullmatch(measured.name), measured
        assert last <= measured.offset <= 0, "offsets ascend to zero"
        last = measured.offset
        assert measured.unit is None or 0 < len(measured.unit) <= 32
        assert type(measured.value) in (float, bool, str)
        assert not isinstance(measured.value, float) or measured.value - measured.value == 0
        assert not isinstance(measured.value, str) or len(measured.value) <= wire.TEXT_LIMIT
    for signal in found.signals:
        assert wire._ID.fullmatch(signal.device), signal
        assert wire._WORD.fullmatch(signal.kind), signal
        assert len(signal.data) <= wire.DATA_LIMIT
        assert all(isinstance(value, (float, int, str)) for value in signal.data.values())
    for bad in found.bad:
        assert len(bad.detail.encode()) <= 400
        assert bad.reason in BAD_REASONS or wire._CODE.fullmatch(bad.reason)
    again = decode(topic, encode_message(found))
    assert isinstance(again, Message), again
    assert replace(again, digest=found.digest) == found, "what was kept does not come back"


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (mutate_bytes, mutate_members)


def fuzz(count: int, seed: int) -> Counter[str]:
    """Checks ``count`` mutations. Returns how many came out as what; raises with the payload that broke something."""
    rng = Random(seed)
    outcomes: Counter[str] = Counter()
    starts = seeds()
    for _ in range(count):
        topic, payload = rng.choice(starts)
        mutated = rng.choice(MUTATIONS)(rng, payload)
        try:
            outcomes[check(topic, mutated)] += 1
        except BaseException as error:
            error.add_note(f"topic {topic}, payload {mutated[:5000]!r}")
            raise
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description="fuzzes the wire")
    parser.add_argument("--n", type=int, default=100_000, help="how many mutations")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    started = time.perf_counter()
    outcomes = fuzz(asked.n, asked.seed)
    print(f"{asked.n} mutations of seed {asked.seed} in {time.perf_counter() - started:.0f} s: none raised")
    for what, count in outcomes.most_common():
        print(f"{count:8} {what}")


if __name__ == "__main__":
    main()
