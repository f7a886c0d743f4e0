"""The reference platform by itself: what it refuses, what it keeps, what it shows."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from typer.testing import CliRunner

from gateway.adapters.platform import HttpPlatform, encode_event
from simulators.__main__ import app as command_line
from simulators.platform import (
    BODY_LIMIT,
    KeyFileError,
    Received,
    Recorded,
    Store,
    create_app,
    is_signed,
    read_keys,
)
from tests.ports.incidents import FIRE, effect_id, revise
from tests.simulators.platform_process import KEY, PlatformProcess, running_platform


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    with running_platform(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture
def process(_process: PlatformProcess) -> PlatformProcess:
    _process.clear()
    return _process


def _event(**changes: object) -> dict[str, Any]:
    return {**msgspec.json.decode(encode_event(effect_id(FIRE), FIRE)), **changes}


def _headers(body: bytes, id: str = effect_id(FIRE), **changes: str) -> dict[str, str]:
    # The signature is made here by hand, so that the document's words are tested and not the adapter's function.
    return {
        "Content-Type": "application/cloudevents+json",
        "Idempotency-Key": id,
        "Gateway-Signature": "v1=" + hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest(),
        **changes,
    }


def _send(process: PlatformProcess, body: bytes, **changes: str) -> httpx.Response:
    return process.post("/events", body, _headers(body, **changes))


def test_a_new_event_is_answered_with_its_id(process: PlatformProcess) -> None:
    answer = _send(process, msgspec.json.encode(_event()))

    assert answer.status_code == 201
    assert answer.json() == {"id": effect_id(FIRE), "revision": 1, "recorded": "new"}


def test_a_repetition_is_answered_409_with_the_id(process: PlatformProcess) -> None:
    body = msgspec.json.encode(_event())
    _send(process, body)

    answer = _send(process, body)

    assert answer.status_code == 409
    assert answer.json() == {"id": effect_id(FIRE), "revision": 1, "recorded": "again"}
    assert process.get("/stats")["answers"] == {"new": 1, "again": 1}


def test_the_same_id_with_other_content_keeps_the_first_and_is_counted(process: PlatformProcess) -> None:
    _send(process, msgspec.json.encode(_event()))
    other = structs.replace(FIRE, signals=99)

    answer = _send(process, encode_event(effect_id(other), other))

    assert answer.status_code == 409
    assert process.get(f"/incidents/{FIRE.id}")["incident"]["signals"] == 1
    assert process.get("/stats")["answers"]["differing"] == 1


def test_a_lower_revision_is_answered_200_and_not_kept(process: PlatformProcess) -> None:
    third, second = revise(FIRE, 3), revise(FIRE, 2)
    _send(process, encode_event(effect_id(third), third), id=effect_id(third))

    answer = _send(process, encode_event(effect_id(second), second), id=effect_id(second))

    assert (answer.status_code, answer.json()["recorded"]) == (200, "lower")
    assert [receipt["revision"] for receipt in process.get(f"/incidents/{FIRE.id}")["receipts"]] == [3]


def test_the_newest_revision_is_shown_with_its_timeline_and_receipts(process: PlatformProcess) -> None:
    before = time.time_ns() // 1_000_000
    for revision in (1, 2, 3):
        incident = revise(FIRE, revision)
        _send(process, encode_event(effect_id(incident), incident), id=effect_id(incident))

    [shown] = process.get("/incidents")
    one = process.get(f"/incidents/{FIRE.id}")

    assert msgspec.convert(shown["incident"], type(FIRE)) == revise(FIRE, 3)
    assert [line["what"] for line in shown["incident"]["timeline"]] == ["opened", "accepted", "accepted"]
    assert (shown["revision"], shown["revisions"]) == (3, 3)
    assert before <= shown["first_received_at"] <= shown["last_received_at"] <= time.time_ns() // 1_000_000
    assert {name: one[name] for name in shown} == shown
    assert [receipt["revision"] for receipt in one["receipts"]] == [1, 2, 3]


def test_incidents_come_in_the_order_of_first_receipt_and_by_community(process: PlatformProcess) -> None:
    elsewhere = structs.replace(FIRE, id="elsewhere", community="c007")
    for incident in (revise(FIRE, 1), elsewhere, revise(FIRE, 2)):
        _send(process, encode_event(effect_id(incident), incident), id=effect_id(incident))

    assert [held["incident"]["id"] for held in process.get("/incidents")] == [FIRE.id, "elsewhere"]
    assert [held["incident"]["id"] for held in process.get("/incidents?community=c007")] == ["elsewhere"]
    assert process.get("/stats") | {"first_received_at": 0, "last_received_at": 0} == {
        "incidents": 2,
        "revisions": 3,
        "first_received_at": 0,
        "last_received_at": 0,
        "answers": {"new": 3},
        "faults": {},
    }


def test_an_incident_that_never_arrived_is_not_found(process: PlatformProcess) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        process.get("/incidents/nothing")


_SUBJECT = _event()["subject"]


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (_event(specversion="0.3"), 400, "wrong-specversion"),
        *((_event(**{name: None}), 400, "missing-attribute") for name in ("id", "source", "type", "subject", "time")),
        (_event(id=""), 400, "missing-attribute"),
        (_event(id=17), 400, "missing-attribute"),
        (_event(time="yesterday"), 400, "wrong-time"),
        (_event(time="2026-11-23T12:00:00"), 400, "wrong-time"),
        (_event(id="another/1"), 400, "wrong-key"),
        ([_event()], 400, "not-json"),
        ("text", 400, "not-json"),
        (_event(type="cn.jimo.gateway.incident.v2"), 422, "unknown-type"),
        (_event(subject="another"), 422, "wrong-subject"),
        (_event(source="/gateway/c001"), 422, "wrong-source"),
        (_event(data=None), 422, "not-an-incident"),
        (_event(data={**_event()["data"], "level": "dreadful"}), 422, "not-an-incident"),
        (_event(data={**_event()["data"], "revision": "1"}), 422, "not-an-incident"),
        (_event(data={**_event()["data"], "revision": 2}), 422, "wrong-id"),
    ],
)
def test_a_bad_event_is_refused_with_a_reason(
    process: PlatformProcess, event: object, status: int, reason: str
) -> None:
    answer = _send(process, msgspec.json.encode(event))

    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.json()["detail"]
    assert process.get("/incidents") == []
    assert process.get("/stats")["answers"] == {str(status): 1}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"id": NaN}'])
def test_bytes_that_are_no_json_are_refused(process: PlatformProcess, body: bytes) -> None:
    answer = _send(process, body)

    assert (answer.status_code, answer.json()["reason"]) == (400, "not-json")


def test_binary_mode_is_refused(process: PlatformProcess) -> None:
    answer = _send(process, msgspec.json.encode(_event()), **{"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["reason"]) == (400, "wrong-content-type")


def test_what_is_too_large_is_refused_before_it_is_read_to_its_end(process: PlatformProcess) -> None:
    answer = _send(process, b" " * (BODY_LIMIT + 1))

    assert (answer.status_code, answer.json()["reason"]) == (413, "too-large")


@pytest.mark.parametrize("signature", ["", "v1=", "v1=00", "v2=" + "0" * 64, "签名", "v1=签名", ",,,"])
def test_what_is_not_signed_is_unauthorised_whatever_it_says(process: PlatformProcess, signature: str) -> None:
    answer = process.post(
        "/events",
        b"not even JSON",
        httpx.Headers({"Gateway-Signature": signature}, encoding="utf-8"),
    )

    assert (answer.status_code, answer.json()["reason"]) == (401, "wrong-signature")


def test_a_changed_byte_spoils_the_signature(process: PlatformProcess) -> None:
    body = msgspec.json.encode(_event())

    answer = process.post("/events", body.replace(b"critical", b"critiCal"), _headers(body))

    assert answer.status_code == 401


def test_two_keys_are_accepted_while_they_change() -> None:
    old, new = b"o" * 32, b"n" * 32
    made = {key: "v1=" + hmac.new(key, b"body", hashlib.sha256).hexdigest() for key in (old, new)}

    assert is_signed(made[old], b"body", [old, new])
    assert is_signed(f"v1=00, {made[new]}", b"body", [new])
    assert not is_signed(made[old], b"body", [new])


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"mode": "explode"},
        {"mode": "status"},
        {"mode": "status", "status": 200},
        {"mode": "hang", "status": 503},
        {"mode": "hang", "count": 0},
        {"mode": "hang", "probability": 1.5},
        {"mode": "hang", "often": True},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(process: PlatformProcess, fault: dict[str, object]) -> None:
    body = msgspec.json.encode(fault)

    answer = process.post("/faults", body, {"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert _send(process, msgspec.json.encode(_event())).status_code == 201


def test_a_counted_fault_ends_by_itself(process: PlatformProcess) -> None:
    process.fail(mode="status", status=500, count=2)

    answers = [_send(process, msgspec.json.encode(_event())).status_code for _ in range(4)]

    assert answers == [500, 500, 201, 409]
    assert process.get("/stats")["faults"] == {"status": 2}


def test_a_fault_without_count_lasts_until_it_is_ended(process: PlatformProcess) -> None:
    process.fail(mode="status", status=500)
    before = [_send(process, msgspec.json.encode(_event())).status_code for _ in range(5)]
    process.heal()

    assert before == [500] * 5
    assert _send(process, msgspec.json.encode(_event())).status_code == 201


def test_faults_by_chance_are_the_same_for_the_same_seed(process: PlatformProcess) -> None:
    def play(seed: int) -> list[int]:
        process.fail(mode="status", status=500, probability=0.5, seed=seed)
        return [_send(process, b"").status_code for _ in range(30)]

    first, again, other = play(7), play(7), play(8)

    assert first == again
    assert first != other
    assert 5 < first.count(500) < 25


# --- the process, its store and its keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "status"), [(PlatformProcess.interrupt, 0), (PlatformProcess.terminate, -15)], ids=["Ctrl-C", "SIGTERM"]
)
def test_it_ends_at_once_even_while_a_delivery_hangs(
    tmp_path: Path, end: Callable[[PlatformProcess], int], status: int
) -> None:
    with running_platform(tmp_path) as process:
        process.fail(mode="hang", count=1)
        body = msgspec.json.encode(_event())
        with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False, timeout=0.5) as impatient:
            impatient.post(process.events_url, content=body, headers=_headers(body))
        began = time.monotonic()
        assert end(process) == status
        assert time.monotonic() - began < 5
        assert "Traceback" not in process.output()


def test_the_store_outlives_a_kill(tmp_path: Path) -> None:
    with running_platform(tmp_path) as process:
        for revision in range(1, 21):
            incident = revise(FIRE, revision)
            _send(process, encode_event(effect_id(incident), incident), id=effect_id(incident))
        held = process.get(f"/incidents/{FIRE.id}")
        process.kill()
        process.start()

        assert process.get(f"/incidents/{FIRE.id}") == held
        assert len(held["receipts"]) == 20


def test_the_store_writes_through_to_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")

    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_store_says_what_became_of_each_event() -> None:
    store = Store(":memory:")
    events = [Received(f"i/{revision}", "i", revision, "c001", {"n": revision}) for revision in (1, 2, 3)]

    became = [store.record(events[index], 1000) for index in (0, 2, 1, 2, 0)]

    assert became == [Recorded.NEW, Recorded.NEW, Recorded.LOWER, Recorded.AGAIN, Recorded.AGAIN]
    assert store.counts() == {"incidents": 1, "revisions": 2, "first_received_at": 1000, "last_received_at": 1000}
    store.close()


async def test_it_works_inside_another_process_too() -> None:
    store = Store(":memory:")
    platform = HttpPlatform(
        "http://platform/events",
        KEY.encode(),
        transport=httpx.ASGITransport(create_app(store, [KEY.encode()], clock=lambda: 1234)),
    )

    verdict = await platform.deliver(effect_id(FIRE), FIRE)
    await platform.close()

    assert verdict.accepted
    assert store.counts()["first_received_at"] == 1234
    store.close()


def test_keys_are_read_one_per_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"\n  {'a' * 32}  \n{'b' * 40}\n")

    assert read_keys(tmp_path / "keys") == (b"a" * 32, b"b" * 40)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ("", "holds no key"), ("short", "key 1 has 5 characters; it needs at least 32")],
)
def test_a_key_file_that_cannot_be_used_says_why(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "keys").write_text(text)

    with pytest.raises(KeyFileError, match=words):
        read_keys(tmp_path / "keys")
    result = CliRunner().invoke(
        command_line, ["platform", "--store", str(tmp_path / "s"), "--key-file", str(tmp_path / "keys")]
    )
    assert result.exit_code == 2
