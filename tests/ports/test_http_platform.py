from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.adapters.memory_platform import Fault
from gateway.adapters.platform import HttpPlatform, encode_event, judge, sign
from gateway.core.model import Incident
from gateway.runtime.ports import Held, PlatformAway
from tests.ports.incidents import FIRE, effect_id, revise
from tests.ports.platform_conformance import PlatformConformance
from tests.ports.platform_example import DOCUMENT, render, replace_example
from tests.simulators.platform_process import KEY, PlatformProcess, running_platform

# Long enough for a busy machine to answer, short enough to wait for a platform that never does.
_PATIENCE_S = 1.5


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    # Nobody hears what people do there: every callback is dropped, and behind port 9 there is nothing.
    with running_platform(tmp_path_factory.mktemp("platform"), "http://127.0.0.1:9/platform/callbacks") as running:
        yield running


@pytest.fixture
def process(_process: PlatformProcess) -> PlatformProcess:
    _process.clear()
    return _process


@pytest.fixture
async def platform(process: PlatformProcess) -> AsyncIterator[HttpPlatform]:
    made = HttpPlatform(process.events_url, KEY.encode(), timeout_s=_PATIENCE_S, list_url=process.list_url)
    yield made
    await made.close()


_MODES: dict[Fault, dict[str, object]] = {
    Fault.REFUSED: {"mode": "status", "status": 400},
    Fault.UNAVAILABLE: {"mode": "status", "status": 503},
    Fault.GARBAGE: {"mode": "garbage"},
    Fault.SILENCE: {"mode": "hang"},
    Fault.LOST_ANSWER: {"mode": "recorded-but-not-answered"},
}


class _Subject:
    def __init__(self, platform: HttpPlatform, process: PlatformProcess) -> None:
        self.platform = self.holdings = platform
        self._process = process

    def act(self, incident: str, action: str, user: str) -> None:
        self._process.fail_callbacks("dropped")
        self._process.act(incident, action, user)

    def lose(self, incident: str) -> None:
        self._process.lose(incident)

    def incidents(self) -> list[Incident]:
        return [msgspec.convert(held["incident"], Incident) for held in self._process.get("/incidents")]

    def revisions(self, incident: str) -> tuple[int, ...]:
        held = self._process.get(f"/incidents/{incident}")
        return tuple(receipt["revision"] for receipt in held["receipts"])

    def fail_next(self, fault: Fault, count: int = 1) -> None:
        self._process.fail(**_MODES[fault], count=count)


class TestHttpPlatform(PlatformConformance):
    @pytest.fixture
    def subject(self, platform: HttpPlatform, process: PlatformProcess) -> _Subject:
        return _Subject(platform, process)


# --- each fault by its name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_these_statuses_are_refusals(platform: HttpPlatform, process: PlatformProcess, status: int) -> None:
    process.fail(mode="status", status=status, count=1)

    verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert verdict.refused
    assert verdict.detail == f"{status}: fault: on request"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 409, 429, 500, 502, 503, 504])
async def test_these_statuses_are_tried_again(platform: HttpPlatform, process: PlatformProcess, status: int) -> None:
    process.fail(mode="status", status=status, count=1)

    verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert str(status) in verdict.detail
    assert process.get("/incidents") == []


async def test_a_page_with_status_200_is_no_acceptance(platform: HttpPlatform, process: PlatformProcess) -> None:
    process.fail(mode="garbage", count=1)

    verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert verdict.detail.startswith("200 without the event's id: <!DOCTYPE html>")


async def test_nothing_is_waited_for_no_longer_than_the_time_out(
    platform: HttpPlatform, process: PlatformProcess
) -> None:
    process.fail(mode="hang", count=1)
    loop = asyncio.get_running_loop()
    began = loop.time()

    verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert verdict.detail == "no answer within 1.5 s"
    assert loop.time() - began < _PATIENCE_S + 1


async def test_a_cut_connection_is_undecided(platform: HttpPlatform, process: PlatformProcess) -> None:
    process.fail(mode="close", count=1)

    verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert process.get("/incidents") == []


async def test_a_slow_answer_in_time_is_an_answer(platform: HttpPlatform, process: PlatformProcess) -> None:
    process.fail(mode="slow", delay_s=0.3, count=1)

    assert (await platform.deliver(effect_id(FIRE), FIRE)).accepted


async def test_recorded_but_not_answered_is_recorded(platform: HttpPlatform, process: PlatformProcess) -> None:
    process.fail(mode="recorded-but-not-answered", count=1)

    unanswered = await platform.deliver(effect_id(FIRE), FIRE)
    held = process.get("/stats")
    again = await platform.deliver(effect_id(FIRE), FIRE)

    assert (unanswered.accepted, unanswered.refused) == (False, False)
    assert held["incidents"] == 1
    assert (again.accepted, again.detail) == (True, "409")
    assert process.get("/stats")["revisions"] == 1


async def test_a_platform_that_is_away_is_undecided_and_what_it_answered_for_outlives_a_kill(
    tmp_path: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        process = stack.enter_context(running_platform(tmp_path))
        before = HttpPlatform(process.events_url, KEY.encode(), timeout_s=_PATIENCE_S)
        stack.push_async_callback(before.close)
        assert (await before.deliver(effect_id(FIRE), FIRE)).accepted
        process.kill()
        away = await before.deliver(effect_id(FIRE), revise(FIRE, 2))
        process.start()
        after = HttpPlatform(process.events_url, KEY.encode(), timeout_s=_PATIENCE_S)
        stack.push_async_callback(after.close)
        again = await after.deliver(effect_id(FIRE), FIRE)

    assert (away.accepted, away.refused) == (False, False)
    assert away.detail.startswith("ConnectError")
    assert (again.accepted, again.detail) == (True, "409")


async def test_a_wrong_key_is_undecided_and_records_nothing(process: PlatformProcess) -> None:
    stranger = HttpPlatform(process.events_url, b"x" * 32, timeout_s=_PATIENCE_S)

    verdict = await stranger.deliver(effect_id(FIRE), FIRE)
    await stranger.close()

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert verdict.detail.startswith("401: wrong-signature")
    assert process.get("/incidents") == []


async def test_an_event_whose_id_is_not_its_incidents_is_refused(platform: HttpPlatform) -> None:
    verdict = await platform.deliver("something-else", FIRE)

    assert verdict.refused
    assert verdict.detail.startswith("422: wrong-id")


# --- a server that keeps no contract at all --------------------------------------------------------------------------

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def _served(serve: _Serve) -> AsyncIterator[HttpPlatform]:
    served: list[asyncio.Future[None]] = []

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        served.append(ended)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set_result(None)

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    platform = HttpPlatform(f"http://127.0.0.1:{port}/events", KEY.encode(), timeout_s=_PATIENCE_S)
    try:
        yield platform
    finally:
        await platform.close()
        server.close()
        await asyncio.gather(*served)


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with _served(serve) as platform:
        verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert len(verdict.detail) <= 200
    assert sent < 64 * 1024 * 1024


async def test_an_answer_that_drips_does_not_hold_a_delivery_for_ever() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with _served(serve) as platform:
        verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert verdict.detail == "no answer within 1.5 s"


async def test_bytes_that_are_no_http_are_undecided() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x16\x03\x01\x02\x00garbage\r\n\r\n")

    async with _served(serve) as platform:
        verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert (verdict.accepted, verdict.refused) == (False, False)
    assert verdict.detail.startswith("RemoteProtocolError")


async def test_a_redirect_takes_the_incident_nowhere() -> None:
    visited: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append(await reader.readuntil(b"\r\n\r\n"))
        port = writer.get_extra_info("sockname")[1]
        writer.write(
            f"HTTP/1.1 307 Over There\r\nLocation: http://127.0.0.1:{port}/there\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async with _served(serve) as platform:
        verdict = await platform.deliver(effect_id(FIRE), FIRE)

    assert verdict.detail.startswith("307: redirects are not followed")
    assert len(visited) == 1


async def test_proxies_of_the_environment_are_not_used(
    process: PlatformProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    platform = HttpPlatform(process.events_url, KEY.encode(), timeout_s=_PATIENCE_S)

    verdict = await platform.deliver(effect_id(FIRE), FIRE)
    await platform.close()

    assert verdict.accepted


# --- its list ------------------------------------------------------------------------------------------------------


async def _list(platform: HttpPlatform) -> list[str]:
    return [held.incident async for held in platform.list_held(0)]


async def test_a_list_of_many_pages_is_read_to_its_end(platform: HttpPlatform, process: PlatformProcess) -> None:
    ids = [f"case-{number:04d}" for number in range(401)]
    for id in ids:
        assert (await platform.deliver(f"{id}/1", structs.replace(FIRE, id=id))).accepted

    assert await _list(platform) == ids


async def test_an_id_with_odd_characters_is_asked_for_as_it_is(platform: HttpPlatform) -> None:
    odd = structs.replace(FIRE, id="a b/c?d=e&#%")
    await platform.deliver(effect_id(odd), odd)

    held = await platform.find_held(odd.id)

    assert held is not None
    assert held.content == odd
    assert await _list(platform) == [odd.id]


async def test_a_stranger_is_shown_nothing(process: PlatformProcess) -> None:
    stranger = HttpPlatform(process.events_url, b"x" * 32, list_url=process.list_url)

    with pytest.raises(PlatformAway, match=r"^401"):
        await _list(stranger)
    with pytest.raises(PlatformAway, match=r"^401"):
        await stranger.find_held(FIRE.id)
    await stranger.close()


async def test_a_page_that_is_not_there_does_not_say_that_an_incident_is_not_held(process: PlatformProcess) -> None:
    lost = HttpPlatform(process.events_url, KEY.encode(), list_url=process.url + "/no-such-page")
    nowhere = HttpPlatform(process.events_url, KEY.encode())

    with pytest.raises(PlatformAway, match=r"^404"):
        await lost.find_held(FIRE.id)
    with pytest.raises(PlatformAway, match=r"platform\.list_url"):
        await nowhere.find_held(FIRE.id)
    await lost.close()
    await nowhere.close()


@contextlib.asynccontextmanager
async def _listing(*pages: object) -> AsyncIterator[HttpPlatform]:
    """A platform that answers its list with these, one after the other."""
    answers = [msgspec.json.encode(page) for page in pages]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(answers.pop(0)))

    transport = httpx.MockTransport(answer)
    platform = HttpPlatform("http://p/events", KEY.encode(), transport=transport, list_url="http://p/held")
    yield platform
    await platform.close()


_ITEM = {"id": "i", "revision": 1, "state": "filed", "updated_at": "2026-11-23T12:00:00+08:00"}


@pytest.mark.parametrize(
    "page",
    [
        "text",
        {"items": [{**_ITEM, "revision": 0}]},
        {"items": [{**_ITEM, "revision": "1"}]},
        {"items": [{**_ITEM, "updated_at": "2026-11-23T12:00:00"}]},
        {"items": [{**_ITEM, "state": "a\nb"}]},
        {"items": [{**_ITEM, "id": ""}]},
        {"next": None},
    ],
)
async def test_what_is_no_list_is_said(page: object) -> None:
    async with _listing(page) as platform:
        with pytest.raises(PlatformAway, match="cannot be read"):
            await _list(platform)


async def test_a_list_that_goes_round_is_left() -> None:
    async with _listing(*[{"items": [_ITEM], "next": "i"}] * 3) as platform:
        with pytest.raises(PlatformAway, match="goes round"):
            await _list(platform)


async def test_an_answer_for_another_incident_is_none() -> None:
    async with _listing(_ITEM) as platform:
        with pytest.raises(PlatformAway, match="answers for i when asked for j"):
            await platform.find_held("j")


async def test_content_that_is_no_incident_is_held_without_it() -> None:
    async with _listing({**_ITEM, "data": {"id": 1}}) as platform:
        held = await platform.find_held("i")

    assert held == Held("i", 1, "filed", 1_795_406_400_000, None)


# --- what is decided without a network -------------------------------------------------------------------------------


def test_the_same_revision_makes_the_same_bytes_and_a_later_one_others() -> None:
    once, again = (encode_event(effect_id(FIRE), FIRE) for _ in range(2))

    assert once == again
    assert sign(KEY.encode(), once) == sign(KEY.encode(), again)
    assert encode_event(effect_id(revise(FIRE, 2)), revise(FIRE, 2)) != once


def test_every_field_is_sent_also_those_at_their_default() -> None:
    data = msgspec.json.decode(encode_event(effect_id(FIRE), FIRE))["data"]

    assert set(data) == set(Incident.__struct_fields__)
    assert data["late"] is False
    assert data["cleared_at"] is None
    assert data["timeline"][0]["why"] == ""


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (b'{"id": "i/1", "revision": 1}', True),
        (b'{"id": "i/2"}', False),
        (b'{"id": 1}', False),
        (b'["i/1"]', False),
        (b'"i/1"', False),
        (b"i/1", False),
        (b"", False),
        (b"\xff\xfe", False),
        (b"[" * 60000, False),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_only_an_answer_that_echoes_the_id_accepts(status: int, answer: bytes, accepted: bool) -> None:
    verdict = judge(status, answer, "i/1")

    assert (verdict.accepted, verdict.refused) == (accepted, False)


def test_a_platforms_reason_is_shortened_and_kept_on_one_line() -> None:
    verdict = judge(422, msgspec.json.encode({"reason": "bad\x1b[31m", "detail": "line\nline " * 100}), "i/1")

    assert verdict.refused
    assert verdict.detail.startswith("422: bad [31m: line line")
    assert verdict.detail.isprintable()
    assert len(verdict.detail) == 200


@given(status=st.integers(100, 599), answer=st.binary(max_size=300))
def test_any_answer_is_judged_and_none_accepts_by_chance(status: int, answer: bytes) -> None:
    verdict = judge(status, answer, "i/1")

    assert not verdict.accepted
    assert verdict.refused == (status in (400, 413, 422))
    assert verdict.detail.isprintable()
    assert len(verdict.detail) <= 200


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://platform/events", "must begin with http"),
        ("platform:8080/events", "must begin with http"),
        ("http://", "name a host"),
        ("http://user:secret@platform/events", "must not hold a user or password"),
        ("http://platform:port/", "is not a URL"),
        ("http://platform:99999999/", "a port lies in"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        HttpPlatform(url, KEY.encode())

    assert "secret" not in str(raised.value)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="has 5 bytes; it needs at least 32"):
        HttpPlatform("http://127.0.0.1/events", b"short")


# --- the document -----------------------------------------------------------------------------------------------------


def test_the_example_in_the_document_is_what_is_sent() -> None:
    assert replace_example(DOCUMENT.read_text("utf-8")) == DOCUMENT.read_text("utf-8"), (
        "docs/platform.md is not what the adapter sends: run python -m tests.ports.platform_example"
    )


async def test_the_example_is_accepted_by_the_reference_platform(process: PlatformProcess) -> None:
    headers, body = render()

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(process.events_url, content=body, headers=headers)

    assert (answer.status_code, answer.json()["id"]) == (201, effect_id(FIRE))
