"""Laws of the wire: nothing raises, both ways agree, what is kept comes back, packs resolve as SenML."""

from __future__ import annotations

import json
from collections import defaultdict
from random import Random
from typing import Any

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway import senml, wire
from gateway.wire import Lane, Measurement, Message, Quarantine, Signal, Topic, decode, encode_message, topic_of
from tests.wire.fuzz import MEMBERS, MUTATIONS, VALUES, check, fuzz, seeds
from tests.wire.worlds import TOPIC, envelope

ids = st.from_regex(r"[a-z0-9-]{1,48}", fullmatch=True)
words = st.from_regex(r"[a-z0-9_-]{1,48}", fullmatch=True)
tokens = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
names = st.builds("{}:{}".format, ids, words)
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=wire.TEXT_LIMIT)
units = st.sampled_from(["Cel", "%RH", "%EL", "V", "°", "µg/m3"])
stamps_ms = st.integers(0, wire.CLOCK_LIMIT * 1000 - 1000)

scalars = st.one_of(finite, st.integers(-(2**63), 2**63 - 1), st.booleans(), texts)
signals = st.builds(Signal, ids, words, st.dictionaries(words, scalars, max_size=wire.DATA_LIMIT))


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    value = draw(st.one_of(finite, st.booleans(), texts))
    unit = draw(st.none() | units)
    if draw(st.booleans()):
        return Measurement(draw(names), value, unit, draw(st.integers(-wire.OLDEST_S * 1000, 0)))
    time = draw(st.floats(wire.ABSOLUTE_TIME, wire.CLOCK_LIMIT, exclude_max=True))
    return Measurement(draw(names), value, unit, 0, time)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    seq = draw(st.integers(1, wire.SEQ_LIMIT - 1))
    return Message(
        draw(ids),
        draw(ids),
        draw(st.sampled_from(Lane)),
        draw(tokens),
        seq,
        draw(st.integers(0, seq)),
        draw(stamps_ms),
        draw(stamps_ms),
        tuple(draw(st.lists(signals, max_size=3))),
        sorted(draw(st.lists(measurements(), max_size=5)), key=lambda measured: measured.offset),
        (),
        0,
    )


@given(messages())
def test_what_is_written_is_read_back(message: Message) -> None:
    payload = encode_message(message)
    found = decode(topic_of(message.community, message.source, message.lane), payload)
    assert isinstance(found, Message), found
    assert replace(found, digest=0) == message
    assert replace(decode_slowly(found, payload), digest=0) == message


def decode_slowly(found: Message, payload: bytes) -> Message:
    slow = wire._decode_slowly(Topic(found.community, found.source, found.lane), payload)
    assert isinstance(slow, Message), slow
    return slow


@given(messages(), stamps_ms, st.data())
def test_a_resend_changes_neither_the_digest_nor_the_content(message: Message, later: int, data: st.DataObject) -> None:
    topic = topic_of(message.community, message.source, message.lane)
    floor = data.draw(st.integers(0, message.seq))
    first, again = (
        decode(topic, encode_message(one)) for one in (message, replace(message, sent_at=later, floor=floor))
    )
    assert isinstance(first, Message)
    assert replace(first, sent_at=later, floor=floor) == again


# --- nothing raises -----------------------------------------------------------------------------------------------

leaves = st.sampled_from(["alarm", "telemetry", "status", "reply"])


@given(leaves, st.binary(max_size=200))
def test_any_bytes(leaf: str, payload: bytes) -> None:
    event(check(topic_of("c001", "agent-1", leaf), payload))


@given(st.text(max_size=60), st.binary(max_size=20))
def test_any_topic(topic: str, payload: bytes) -> None:
    found = decode(topic, payload)
    assert isinstance(found, Quarantine) or wire.parse_topic(topic) is not None


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.sampled_from(VALUES)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)
sound = {
    "v": st.just(1),
    "spool": tokens,
    "lane": st.sampled_from(["alarm", "telemetry"]),
    "seq": st.integers(1, 99),
    "floor": st.just(1),
    "sent_at": st.just(1.7e9),
    "taken_at": st.just(1.7e9),
}


@given(leaves, st.fixed_dictionaries({name: kind | anything for name, kind in sound.items()}), anything, anything)
def test_structured_garbage(leaf: str, head: dict[str, Any], events: Any, pack: Any) -> None:
    payload = json.dumps({**head, "events": events, "pack": pack}).encode()
    event(check(topic_of("c001", "agent-1", leaf), payload))


@given(st.lists(anything, max_size=5), st.lists(anything, max_size=5))
def test_garbage_in_a_right_envelope_spoils_only_itself(events: list[Any], pack: list[Any]) -> None:
    press = {"device": "button-0042", "kind": "pressed"}
    smoke = {"bn": "smoke-1:", "bt": 0, "bu": "", "bv": 0, "n": "smoke", "vb": True}
    payload = json.dumps(envelope(events=[*events, press], pack=[*pack, smoke])).encode()
    event(check(TOPIC, payload))
    found = decode(TOPIC, payload)
    if isinstance(found, Quarantine):
        assert found.reason in ("binary-member", "not-json", "too-deep"), found
        assert found.stamp is not None or found.reason != "binary-member"
    else:
        assert isinstance(found, Message)
        assert Signal("button-0042", "pressed") in found.signals
        is_newer = any(bad.reason == "senml-version" for bad in found.bad)
        assert is_newer or Measurement("smoke-1:smoke", True) in found.measurements


@given(st.sampled_from(seeds()), st.sampled_from(MUTATIONS), st.integers(0, 2**64))
@settings(max_examples=300)
def test_mutations_of_right_messages(start: tuple[str, bytes], mutate: Any, seed: int) -> None:
    topic, payload = start
    event(check(topic, mutate(Random(seed), payload)))


def test_the_fuzzer_finds_nothing_and_reaches_everything() -> None:
    outcomes = fuzz(5_000, 7)
    assert outcomes.total() == 5_000
    reached = {"message", "message, with bad parts", "status", "reply", "not-json", "not-utf8", "bad-envelope"}
    assert reached | {"binary-member", "bad-seq", "bad-time", "lane-mismatch", "unknown-version"} <= set(outcomes)


# --- the two ways, and SenML --------------------------------------------------------------------------------------

parts = st.fixed_dictionaries(
    {"n": words, "v": finite},
    optional={
        "u": units,
        "t": st.integers(-1000, 0),
        # The wire allows a first hyphen, SenML does not.
        "bn": st.builds("a{}:".format, st.from_regex(r"[a-z0-9-]{0,47}", fullmatch=True)),
        "bu": units,
        "bt": st.integers(-1000, 0),
        "bv": st.floats(-1e6, 1e6),
        "bver": st.just(10),
        "ut": st.just(60),
        "foo": st.integers(),
    },
)
others = st.builds(
    lambda record, value: {**{label: record[label] for label in record if label not in ("v", "bv")}, **value},
    parts,
    st.one_of(st.builds(lambda v: {"vb": v}, st.booleans()), st.builds(lambda v: {"vs": v}, texts)),
)


@given(st.lists(parts | others, min_size=1, max_size=8))
def test_a_pack_resolves_as_senml_does(pack: list[dict[str, Any]]) -> None:
    pack[0].setdefault("bn", "a:")
    taken_at = 1_700_000_000
    try:
        expected = senml.resolve(pack, taken_at)
    except senml.SenmlFault:
        expected = None
    found = decode(TOPIC, json.dumps(envelope(taken_at=taken_at, pack=pack)).encode())
    assert isinstance(found, Message)
    if expected is None or found.bad:
        # A sum beyond the double is refused by both.
        assert expected is None
        assert found.bad
        return
    assert found.measurements, "records alone, with values, are measurements"
    ours, theirs = defaultdict(list), defaultdict(list)
    for measured in found.measurements:
        ours[measured.name].append((measured.unit, measured.value, taken_at + measured.offset / 1000))
    for record in expected:
        value = next(record[label] for label in ("v", "vb", "vs") if label in record)
        theirs[record["n"]].append((record.get("u"), value, record["t"]))
    assert ours == theirs


QUICK = ("n", "v", "vb", "vs", "u", "t", "bn", "bu", "bt")
"""The labels that the fast way knows."""

quick = (parts | others).map(lambda record: {label: record[label] for label in record if label in QUICK})
times = st.floats(-90_000, 1) | st.floats(2**28, 2**33)
timed = st.builds(lambda record, t: {"bn": "a:", **record, "bt": 0, "t": t}, quick, times)


events_sent = st.builds(lambda signal: msgspec.to_builtins(signal), signals)


@given(
    st.lists(quick | timed, max_size=6) | st.lists(quick | others | anything, max_size=4),
    st.lists(events_sent, max_size=2) | st.lists(anything, max_size=2),
)
def test_what_the_fast_way_takes_the_slow_way_takes_alike(pack: list[Any], events: list[Any]) -> None:
    payload = json.dumps(envelope(pack=pack, events=events)).encode()
    address = Topic("c001", "agent-1", "alarm")
    try:
        fast = wire._decode_fast(address, payload)
    except (wire._Odd, msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        event("slow only")
        return
    event("both")
    assert wire._decode_slowly(address, payload) == fast
