"""What a source sends is understood, or refused with a reason; what is wrong in it takes nothing else with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway import wire
from gateway.wire import (
    NOT_AN_EVENT,
    BadRecord,
    CommandMessage,
    DeviceConfig,
    Lane,
    Measurement,
    Message,
    Quarantine,
    Receipt,
    Reply,
    ReplyFrom,
    Signal,
    SourceConfig,
    Stamp,
    Status,
    StatusFrom,
    Topic,
    decode,
    encode_message,
    parse_topic,
    topic_of,
)
from tests.wire.worlds import TAKEN, TOPIC, envelope

PRESS = {"device": "button-0042", "kind": "pressed", "data": {}}
BATTERY = {"bn": "button-0042:", "n": "battery", "u": "%EL", "v": 88}


def body(**members: Any) -> bytes:
    return json.dumps(envelope(**members)).encode()


def message(**members: Any) -> Message:
    found = decode(TOPIC, body(**members))
    assert isinstance(found, Message), found
    return found


def refused(payload: bytes, topic: str = TOPIC) -> Quarantine:
    found = decode(topic, payload)
    assert isinstance(found, Quarantine), found
    return found


# --- what is right ------------------------------------------------------------------------------------------------


def test_events_and_a_pack_in_one_message() -> None:
    found = message(events=[PRESS], pack=[BATTERY])
    assert found == Message(
        "c001",
        "agent-1",
        Lane.ALARM,
        "k3f9a2b1c4d5",
        17,
        15,
        1_763_888_888_123,
        1_763_888_887_900,
        (Signal("button-0042", "pressed"),),
        [Measurement("button-0042:battery", 88.0, "%EL")],
        (),
        found.digest,
    )
    assert 0 <= found.digest < 2**63


def test_the_three_kinds_of_value() -> None:
    pack = [{"bn": "a:", "n": "x", "v": 1}, {"n": "y", "vb": False}, {"n": "z", "vs": "开"}]
    values = [measured.value for measured in message(pack=pack).measurements]
    assert values == [1.0, False, "开"]
    assert [type(value) for value in values] == [float, bool, str]


def test_base_fields_hold_until_they_are_set_again() -> None:
    pack = [
        {"bn": "a:", "bu": "Cel", "bt": -10, "n": "x", "v": 1},
        {"n": "y", "u": "V", "v": 2, "t": 1},
        {"bn": "b:", "bu": "", "n": "x", "v": 3, "t": 2},
    ]
    assert message(pack=pack).measurements == [
        Measurement("a:x", 1.0, "Cel", -10_000),
        Measurement("a:y", 2.0, "V", -9_000),
        Measurement("b:x", 3.0, None, -8_000),
    ]


def test_a_base_value_is_added() -> None:
    assert message(pack=[{"bn": "a:", "bv": 20, "n": "x", "v": 1.5}, {"n": "y"}]).measurements == [
        Measurement("a:x", 21.5),
        Measurement("a:y", 20.0),
    ]


@pytest.mark.parametrize(
    ("t", "offset", "time"),
    [
        (0, 0, None),
        (-0.0, 0, None),
        (-0.1, -100, None),
        (-86_400, -86_400_000, None),
        (5, 0, None),
        (2**28 - 1, 0, None),
        (2**28, 0, 2.0**28),
        (TAKEN - 5, 0, TAKEN - 5),
    ],
)
def test_relative_times_count_from_taken_at_and_absolute_ones_are_for_display(
    t: float, offset: int, time: float | None
) -> None:
    assert message(pack=[{"n": "a:x", "v": 1, "t": t}]).measurements == [Measurement("a:x", 1.0, None, offset, time)]


def test_records_come_in_the_order_of_their_times() -> None:
    pack = [{"bn": "a:", "n": "x", "v": 3}, {"n": "x", "v": 1, "t": -2}, {"n": "x", "v": 2, "t": -1}]
    assert [measured.value for measured in message(pack=pack).measurements] == [1, 2, 3]


def test_a_record_of_base_fields_alone_is_no_measurement() -> None:
    assert message(pack=[{"bn": "a:", "bu": "Cel"}, {"n": "x", "v": 1}]).measurements == [
        Measurement("a:x", 1.0, "Cel")
    ]


def test_an_empty_message_only_takes_its_place_in_the_lane() -> None:
    found = message(pack=[])
    assert (found.seq, found.signals, found.measurements, found.bad) == (17, (), [], ())


def test_unknown_members_are_passed_over() -> None:
    found = message(build=7, events=[{**PRESS, "colour": "red"}], pack=[{**BATTERY, "foo": [1, 2]}])
    assert found.signals == (Signal("button-0042", "pressed"),)
    assert found.measurements == [Measurement("button-0042:battery", 88.0, "%EL")]
    assert found.bad == ()


def test_a_clock_at_1970_and_one_in_the_future_are_taken() -> None:
    assert message(taken_at=0, sent_at=0.5, pack=[]).taken_at == 0
    assert message(taken_at=2**32 - 1, pack=[]).taken_at == (2**32 - 1) * 1000


# --- the digest ---------------------------------------------------------------------------------------------------


def test_a_resend_has_the_same_digest() -> None:
    first = message(events=[PRESS], pack=[BATTERY])
    again = message(events=[PRESS], pack=[BATTERY], sent_at=TAKEN + 3600, floor=17)
    assert first.digest == again.digest
    spaced = json.dumps(envelope(sent_at=TAKEN + 7200)).encode()[:-1]
    parts = json.dumps([PRESS]).encode(), json.dumps([BATTERY]).encode()
    built = spaced + b', "pack": %b, "events": %b}' % (parts[1], parts[0])
    found = decode(TOPIC, built)
    assert isinstance(found, Message)
    assert found.digest == first.digest, "the envelope may be built anew around the same events and pack"


def test_the_digest_is_the_same_on_both_ways() -> None:
    payload = body(events=[PRESS], pack=[BATTERY])
    address = Topic("c001", "agent-1", "alarm")
    assert wire._decode_slowly(address, payload) == wire._decode_fast(address, payload)


@pytest.mark.parametrize(
    "changed", [{"seq": 16}, {"taken_at": TAKEN + 0.001}, {"pack": [{**BATTERY, "v": 89}]}, {"events": [PRESS, PRESS]}]
)
def test_other_content_has_another_digest(changed: dict[str, Any]) -> None:
    whole = {"events": [PRESS], "pack": [BATTERY], "floor": 0}
    assert message(**whole).digest != message(**{**whole, **changed}).digest


def test_the_digest_is_the_same_in_another_process() -> None:
    payload = body(events=[PRESS], pack=[BATTERY])
    program = f"from gateway.wire import decode; print(decode({TOPIC!r}, {payload!r}).digest)"
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {str(message(events=[PRESS], pack=[BATTERY]).digest)}


# --- single records and events that are bad -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        (5, "not-a-record", "no object"),
        ({}, "no-value", "empty"),
        ({"n": "x"}, "no-value", "neither"),
        ({"n": "x", "v": None}, "no-value", "neither"),
        ({"n": "x", "s": 5}, "no-value", "neither"),
        ({"n": "x", "v": 1, "vb": True}, "many-values", "v and vb"),
        ({"n": "x", "v": "wet"}, "bad-value", "v (a string)"),
        ({"n": "x", "v": True}, "bad-value", "v (a boolean)"),
        ({"n": "x", "v": [1]}, "bad-value", "v (an array)"),
        ({"n": "x", "v": 10**400}, "bad-value", "no finite number"),
        ({"n": "x", "vb": 1}, "bad-value", "vb 1"),
        ({"n": "x", "vs": 1}, "bad-value", "vs"),
        ({"n": "x", "vs": "a\0"}, "bad-value", "vs"),
        ({"n": "x", "vs": "\ud800"}, "bad-value", "vs"),
        ({"n": "X", "v": 1}, "bad-name", "a:X"),
        ({"n": "x:y", "v": 1}, "bad-name", "a:x:y"),
        ({"n": "x" * 49, "v": 1}, "bad-name", "device:reading"),
        ({"n": 5, "v": 1}, "bad-name", "no string"),
        ({"n": "x", "v": 1, "u": "m" * 33}, "bad-unit", "32"),
        ({"n": "x", "v": 1, "u": 5}, "bad-unit", "no string"),
        ({"n": "x", "v": 1, "t": "now"}, "bad-time", "t now"),
        ({"n": "x", "v": 1, "t": 2**33}, "bad-time", "no time"),
        ({"n": "x", "v": 1, "t": -86_401}, "too-old", "86401"),
        ({"n": "x", "v": 1, "foo_": 1}, "must-understand", "foo_"),
    ],
)
def test_a_bad_record_takes_nothing_else_with_it(record: Any, reason: str, words: str) -> None:
    good = [{"bn": "a:", "n": "first", "v": 1}, {"n": "last", "v": 2}]
    found = message(events=[PRESS], pack=[good[0], record, good[1]])
    assert [bad.reason for bad in found.bad] == [reason]
    assert found.bad[0].detail.startswith("pack[1]: ")
    assert words in found.bad[0].detail
    assert found.measurements == [Measurement("a:first", 1.0), Measurement("a:last", 2.0)]
    assert found.signals == (Signal("button-0042", "pressed"),)


def test_a_number_beyond_the_double_spoils_its_record_alone() -> None:
    payload = body(pack=[{"n": "a:x", "v": 1}, {"n": "a:y", "v": 2}]).replace(b'"v": 2', b'"v": 1e400')
    found = decode(TOPIC, payload)
    assert isinstance(found, Message)
    assert [measured.name for measured in found.measurements] == ["a:x"]
    assert [(bad.name, bad.reason) for bad in found.bad] == [("a:y", "bad-value")]


def test_a_bad_base_field_spoils_what_stands_on_it_and_no_more() -> None:
    pack: list[dict[str, Any]] = [
        {"n": "a:x", "v": 1},
        {"bn": 5, "n": "x", "v": 2},
        {"n": "a:y", "v": 3},
        {"bn": "b:", "n": "x", "v": 4},
    ]
    found = message(pack=pack)
    assert [measured.value for measured in found.measurements] == [1, 4]
    assert [bad.reason for bad in found.bad] == ["bad-base", "bad-base"]


def test_a_pack_of_a_newer_senml_is_bad_record_by_record() -> None:
    found = message(events=[PRESS], pack=[{"n": "a:x", "v": 1}, {"bver": 11, "n": "a:y", "v": 1}])
    assert [(bad.name, bad.reason) for bad in found.bad] == [("a:x", "senml-version"), ("a:y", "senml-version")]
    assert (found.measurements, len(found.signals)) == ([], 1)


@pytest.mark.parametrize(
    "event",
    [
        5,
        {},
        {"device": "Button", "kind": "pressed"},
        {"device": "b", "kind": ""},
        {"device": "b" * 49, "kind": "pressed"},
        {"device": 1, "kind": "pressed"},
    ],
)
def test_a_bad_event_takes_nothing_else_with_it(event: Any) -> None:
    found = message(events=[event, PRESS], pack=[BATTERY])
    assert [bad.reason for bad in found.bad] == [NOT_AN_EVENT]
    assert found.signals == (Signal("button-0042", "pressed"),)
    assert len(found.measurements) == 1


@pytest.mark.parametrize(
    "data",
    [
        {"good": 1, "x": None},
        {"good": 1, "x": {"y": 1}},
        {"good": 1, "x": [1]},
        {"good": 1, "X": 1},
        {"good": 1, "x": 2**63},
        {"good": 1, "x": "\0"},
        {"good": 1, "x": "\udfff"},
    ],
)
def test_a_press_counts_without_the_member_that_cannot_be_read(data: dict[str, Any]) -> None:
    found = message(events=[{**PRESS, "data": data}])
    assert found.signals == (Signal("button-0042", "pressed", {"good": 1}),)
    assert [(bad.name, bad.reason) for bad in found.bad] == [("button-0042:pressed", "bad-data")]


def test_a_press_counts_without_data_that_is_none_and_with_the_first_32_members() -> None:
    found = message(events=[{**PRESS, "data": 5}, {**PRESS, "data": {f"m{i}": i for i in range(33)}}])
    assert [len(signal.data) for signal in found.signals] == [0, 32]
    assert [bad.reason for bad in found.bad] == ["bad-data", "bad-data"]


def test_no_text_of_a_value_is_echoed() -> None:
    found = message(pack=[{"n": "a:x", "v": "鲁B12345"}], events=[{**PRESS, "data": {"plate": ["鲁B12345"]}}])
    assert len(found.bad) == 2
    assert not any("鲁B" in bad.detail for bad in found.bad)


# --- whole messages that are refused ------------------------------------------------------------------------------

LONG = "x" * 257
SEALED = Stamp("c001", "agent-1", Lane.ALARM, "k3f9a2b1c4d5", 17)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not-json"),
        (b"\0", "not-json"),
        (b"{", "not-json"),
        (b"{} {}", "not-json"),
        (b"\xef\xbb\xbf{}", "not-json"),
        (b'{"v": NaN}', "not-json"),
        (b"\xff\xfe", "not-utf8"),
        (b"[" * 200_000, "too-deep"),
        (b'{"a":' * 40_000, "too-deep"),
        (b'{"v":1,"a":' + b"[" * 17 + b"]" * 17 + b"}", "too-deep"),
        (b" " * (256 * 1024 + 1), "too-large"),
        (b"[]", "bad-envelope"),
        (b"5", "bad-envelope"),
        (b"{}", "bad-envelope"),
        (b'{"v": true}', "bad-envelope"),
        (b'{"v": 2}', "unknown-version"),
        (b'{"v": 1}', "lane-mismatch"),
    ],
)
def test_what_is_no_envelope_is_quarantined(payload: bytes, reason: str) -> None:
    found = refused(payload)
    assert found.reason == reason
    assert found.detail
    assert found.stamp is None


@pytest.mark.parametrize(
    ("members", "reason", "stamp"),
    [
        ({"lane": "telemetry"}, "lane-mismatch", None),
        ({"lane": "ALARM"}, "lane-mismatch", None),
        ({"spool": "a/b"}, "bad-envelope", None),
        ({"spool": ""}, "bad-envelope", None),
        ({"spool": "s" * 65}, "bad-envelope", None),
        ({"seq": 0}, "bad-seq", None),
        ({"seq": 2**53}, "bad-seq", None),
        ({"seq": 17.0}, "bad-seq", None),
        ({"seq": True}, "bad-seq", None),
        ({"seq": "17"}, "bad-seq", None),
        ({"seq": 10**500}, "bad-seq", None),
        ({"floor": 18}, "bad-seq", SEALED),
        ({"floor": -1}, "bad-seq", SEALED),
        ({"floor": None}, "bad-seq", SEALED),
        ({"sent_at": -1}, "bad-time", SEALED),
        ({"sent_at": 1_763_888_888_123}, "bad-time", SEALED),
        ({"taken_at": "now"}, "bad-time", SEALED),
        ({"taken_at": None}, "bad-time", SEALED),
        ({"pack": {}}, "bad-envelope", SEALED),
        ({"events": 5}, "bad-envelope", SEALED),
        ({"pack": None}, "bad-envelope", SEALED),
        ({"pack": [{}] * 4097}, "bad-envelope", SEALED),
        ({"pack": [{"n": "a:x", "v": 1}] * 4097}, "bad-envelope", SEALED),
        ({"events": [{"device": "a", "kind": "b"}] * 4097}, "bad-envelope", SEALED),
        ({"packs": []}, "binary-member", SEALED),
        ({"picture": LONG}, "binary-member", SEALED),
        ({LONG: 1}, "binary-member", SEALED),
        ({"pack": [{"n": "a:x", "vd": "aGkgCg"}]}, "binary-member", SEALED),
        ({"pack": [{"n": "a:x", "vs": LONG}]}, "binary-member", SEALED),
        ({"pack": [{"n": "a:x", "v": 1, "foo": LONG}]}, "binary-member", SEALED),
        ({"pack": [{"n": "a:x", "v": [0.1234567] * 128}]}, "binary-member", SEALED),
        ({"pack": [[0.1234567] * 128]}, "binary-member", SEALED),
        ({"pack": [{"n": "a:x", "v": 1, f"f{i}": "x" * 250} for i in range(5)]}, "binary-member", SEALED),
        ({"events": [{**PRESS, "data": {"face": LONG}}]}, "binary-member", SEALED),
        ({"events": [{**PRESS, "data": {"vector": [0.1234567] * 128}}]}, "binary-member", SEALED),
        ({"events": [{**PRESS, "data": {f"v{i}": 0.123456 for i in range(200)}}]}, "binary-member", SEALED),
        ({"events": [{**PRESS, "vector": [0.1234567] * 128}]}, "binary-member", SEALED),
    ],
)
def test_a_bad_envelope_is_quarantined_with_its_place_when_that_is_legible(
    members: dict[str, Any], reason: str, stamp: Stamp | None
) -> None:
    found = refused(body(**{"pack": [], **members}))
    assert (found.reason, found.stamp) == (reason, stamp)
    assert len(found.detail) < 250


def test_what_stands_twice_cannot_hide_a_picture() -> None:
    picture = b'"pack": [{"n": "a:x", "vs": "%b"}], ' % (b"x" * 5000)
    payload = body(pack=[]).replace(b'"pack"', picture + b'"pack"')
    assert refused(payload).reason == "binary-member"
    payload = body(pack=[]).replace(b"[]", b'[{"n":"a:x","vs":"%b","vs":"y"}]' % (b"x" * 5000))
    assert refused(payload).reason == "binary-member"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "sc/v1",
        "sc/v2/c001/agent-1/alarm",
        "sc/v1/c001/agent-1/alarms",
        "sc/v1/c001/agent-1/command",
        "sc/v1/C001/agent-1/alarm",
        f"sc/v1/{'c' * 49}/agent-1/alarm",
        "sc/v1/c001//alarm",
        "sc/v1/c001/agent-1/alarm/",
        "sc/v1/c001/agent-1/alarm\n",
        "sc/v1/gateway/status",
    ],
)
def test_a_foreign_topic_is_quarantined(topic: str) -> None:
    assert refused(body(pack=[]), topic).reason == "bad-topic"


def test_a_detail_echoes_at_most_64_bytes() -> None:
    found = refused(body(spool="烟" * 200, pack=[]))
    assert found.detail.count("烟") == 64 // 3
    assert "\n" not in refused(body(spool="a\nb", pack=[])).detail


def test_a_deep_stack_leaves_no_trace() -> None:
    """Decoding from deep inside a program refuses the bomb just the same."""

    def dive(depth: int) -> str:
        return dive(depth - 1) if depth else refused(b"[" * 200_000).reason

    assert dive(500) == "too-deep"


# --- status, replies and what goes down ---------------------------------------------------------------------------


def test_a_status_comes_back() -> None:
    birth = Status(True, "c-17", "0.1.0", 3, 1_763_888_888_123)
    assert decode(topic_of("c001", "agent-1", "status"), wire.encode_status(birth)) == StatusFrom(
        "c001", "agent-1", birth
    )
    death = Status(False, "c-17")
    assert decode(topic_of("c001", "agent-1", "status"), wire.encode_status(death)) == StatusFrom(
        "c001", "agent-1", death
    )
    assert wire.decode_gateway_status(wire.encode_status(death)) == death


def test_a_reply_comes_back() -> None:
    reply = Reply("5d0c/3", "speaker-1", "failed", "扬声器无应答")
    assert decode(topic_of("c001", "agent-1", "reply"), wire.encode_reply(reply)) == ReplyFrom("c001", "agent-1", reply)


@pytest.mark.parametrize(
    ("leaf", "payload", "reason"),
    [
        ("status", b"", "not-json"),
        ("status", b"{}", "bad-envelope"),
        ("status", b'{"v":1,"online":1,"connection":"a"}', "bad-envelope"),
        ("status", b'{"v":1,"online":true,"connection":"a b"}', "bad-envelope"),
        ("status", b'{"v":1,"online":true,"connection":"a","clock":1e99}', "bad-envelope"),
        ("status", b'{"v":2,"online":true,"connection":"a"}', "unknown-version"),
        ("status", b'{"v":1,"online":true,"connection":"a","picture":"%b"}' % (b"x" * 300), "binary-member"),
        ("reply", b'{"v":1,"command":"a","device":"b"}', "bad-envelope"),
        ("reply", b'{"v":1,"command":"a","device":"b","outcome":"done","detail":"\\u0000"}', "bad-envelope"),
    ],
)
def test_a_bad_status_or_reply_is_quarantined(leaf: str, payload: bytes, reason: str) -> None:
    assert refused(payload, topic_of("c001", "agent-1", leaf)).reason == reason


def test_what_goes_down_comes_back() -> None:
    receipt = Receipt("alarm", "k3f9", 17, (19, 21), ((16, "seq-conflict"),))
    assert wire.decode_receipt(wire.encode_receipt(receipt)) == receipt
    command = CommandMessage("5d0c/3", "speaker-1", "speak", {"text": "请撤离", "zones": [1, 2]}, 1_763_888_888_123)
    assert wire.decode_command(wire.encode_command(command)) == command
    config = SourceConfig(7, (DeviceConfig("smoke-1", "nb-smoke", "can:17", "b1-u1-101"),))
    assert wire.decode_config(wire.encode_config(config)) == config


@pytest.mark.parametrize("decoder", [wire.decode_receipt, wire.decode_command, wire.decode_config])
@pytest.mark.parametrize(
    "payload", [b"", b"[", b"[" * 200_000, b"{}", b"\xff", b'{"v": 1}', b"null", b'{"v":"\\ud800"}']
)
def test_a_source_refuses_what_it_cannot_read(decoder: Any, payload: bytes) -> None:
    assert isinstance(decoder(payload), Quarantine)


def test_a_source_refuses_a_newer_version() -> None:
    newer = wire.encode_receipt(Receipt("alarm", "k", 1)).replace(b'"v":1', b'"v":2')
    found = wire.decode_receipt(newer)
    assert isinstance(found, Quarantine)
    assert found.reason == "unknown-version"


# --- topics, and what the journal keeps ---------------------------------------------------------------------------


def test_topics() -> None:
    assert parse_topic(topic_of("c001", "agent-1", "receipt")) == Topic("c001", "agent-1", "receipt")
    assert parse_topic(wire.GATEWAY_STATUS) is None


def test_what_was_bad_stays_bad_in_a_body_that_is_written_anew() -> None:
    found = message(events=[PRESS], pack=[BATTERY, {"n": "x", "v": "wet"}])
    again = decode(TOPIC, encode_message(found))
    assert isinstance(again, Message)
    assert again.bad == (BadRecord("button-0042:x", "bad-value", "pack[1]: v (a string) is no finite number"),)
    assert replace(again, digest=found.digest) == found


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_CACHE_LIMIT", 50)
    for remembered in (wire._topics, wire._spools, wire._devices, wire._kinds, wire._known):
        remembered.clear()
    wire._known.count = 0
    for i in range(300):
        payload = msgspec.json.encode(
            envelope(
                spool=f"s{i}",
                events=[{"device": f"b{i}", "kind": f"k{i}"}],
                pack=[{"bn": f"d{i}:", "n": f"x{i}", "v": i}],
            )
        )
        found = decode(f"sc/v1/c{i}/agent/alarm", payload)
        assert isinstance(found, Message)
        assert found.measurements == [Measurement(f"d{i}:x{i}", float(i))]
    assert max(len(wire._topics), len(wire._spools), len(wire._devices), len(wire._kinds), len(wire._known)) <= 50
    assert sum(map(len, wire._known.values())) <= 50


def test_the_worst_message_is_read_in_bounded_time() -> None:
    """A source that sends nonsense as fast as it can must not stop the others."""
    nonsense = [
        body(pack=[{}] * 4096),
        body(pack=[{"n": "a:x", "v": None}] * 4096),
        body(pack=[]).replace(b'"v": 1', b'"v": 1, ' + b'"x": 1, ' * 25_000 + b'"y": 1'),
        body(pack=[]).replace(b"[]", b"[" + b"0," * 120_000 + b"0]"),
        body(pack=[{f"m{i}": 0 for i in range(20_000)}]),
        b"[" * 262_144,
        b'{"a":' * 50_000,
        b'"' + b"\\u0000" * 40_000 + b'"',
        b"1" * 262_144,
    ]
    for payload in nonsense:
        started = time.process_time()
        assert decode(TOPIC, payload) is not None
        assert time.process_time() - started < 1, payload[:100]
