"""The central platform over HTTP: each revision of an incident is one signed CloudEvent (docs/platform.md).

The same revision always makes the same bytes and the same signature, so a delivery can be repeated until it is
answered, and the receiver can tell a repetition by its id alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Meta, Struct

from gateway.core.model import Incident
from gateway.core.policy import PlatformMapping
from gateway.runtime.cloud_events import CONTENT_TYPE, encode_cloud_event, spell_out, to_rfc3339
from gateway.runtime.ports import REFUSALS, Held, PlatformAway, Verdict

EVENT_TYPE: Final = "cn.jimo.gateway.incident.v1"
SIGNATURE_HEADER: Final = "Gateway-Signature"
KEY_HEADER: Final = "Idempotency-Key"
SHORTEST_KEY: Final = 32
"""Bytes: as long as the digest (RFC 2104, section 3: shorter keys weaken the function)."""

_ANSWER_LIMIT: Final = 64 * 1024
_DETAIL_LIMIT: Final = 200
_PAGE: Final = 200
_PAGE_LIMIT: Final = 64 * 1024 * 1024
_LIST_TIMEOUT_S: Final = 60.0


_Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Item(Struct):
    """What the platform holds of one incident, as its list says it; docs/platform.md."""

    id: _Word
    revision: Annotated[int, Meta(ge=1)]
    state: _Word
    updated_at: Annotated[datetime, Meta(tz=True)]
    data: msgspec.Raw = msgspec.Raw(b"null")
    actions: list[msgspec.Raw] = []


class _Page(Struct):
    items: list[_Item]
    next: str | None = None


_pages: Final = msgspec.json.Decoder(_Page)
_items: Final = msgspec.json.Decoder(_Item)
_incidents: Final = msgspec.json.Decoder(Incident)


class HttpPlatform:
    """Delivers to ``url``, the platform's address for events, without ever raising for what the platform or the network
    does. What it holds is asked for at ``list_url``.

    ``key`` signs every request; ``timeout_s`` is for a delivery as a whole, from the connection to the last byte of the
    answer. Proxies and certificates named in the environment are not used, and redirects are not followed: an incident
    goes to the configured address or nowhere. Raises ValueError for an address or a key that cannot be used."""

    def __init__(
        self,
        url: str,
        key: bytes,
        *,
        timeout_s: float = 10.0,
        connections: int = 16,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        mapping: PlatformMapping | None = None,
        list_url: str | None = None,
    ) -> None:
        self._url = _check_url(url)
        self._list_url = None if list_url is None else _check_url(list_url)
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"the platform's key has {len(key)} bytes; it needs at least {SHORTEST_KEY}")
        self._key = key
        self._mapping = mapping
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
            follow_redirects=False,
            verify=verify,
            transport=transport,
            # A compressed answer could be small on the wire and endless in memory.
            headers={
                "User-Agent": "smart-community-gateway",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def deliver(self, effect_id: str, incident: Incident) -> Verdict:
        """Sends this revision once and judges the answer. ``effect_id`` is the event's id and idempotency key."""
        body = encode_event(effect_id, incident, self._mapping)
        headers = {
            "Content-Type": CONTENT_TYPE,
            KEY_HEADER: effect_id,
            SIGNATURE_HEADER: sign(self._key, body),
        }
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                answer = await _read_answer(response)
        except (TimeoutError, httpx.TimeoutException):
            return _undecided(f"no answer within {self._timeout_s:g} s")
        except httpx.HTTPError as error:
            return _undecided(f"{type(error).__name__}: {error}")
        return judge(response.status_code, answer, effect_id)

    async def list_held(self, since: int) -> AsyncIterator[Held]:
        """Page by page. Raises PlatformAway when it has no list, does not answer, or answers what is no list."""
        after: str | None = None
        while True:
            parameters = {"updated_since": to_rfc3339(since), "limit": str(_PAGE)}
            status, answer = await self._get("", parameters if after is None else parameters | {"after": after})
            if status != 200:
                raise PlatformAway(_shorten(f"{status}: {_read_reason(answer)}"))
            try:
                page = _pages.decode(answer)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise PlatformAway(_shorten(f"its list cannot be read: {error}")) from error
            for item in page.items:
                yield _to_held(item)
            if page.next is None:
                return
            if after is not None and page.next <= after:
                raise PlatformAway("its list goes round: each page's next must lie beyond the last one's")
            after = page.next

    async def find_held(self, incident: str) -> Held | None:
        """None only when the answer is 404 and names the incident: a page that is not there says nothing of it."""
        status, answer = await self._get("/" + quote(incident, safe=""), {})
        if status == 404 and _read_id(answer) == incident:
            return None
        if status != 200:
            raise PlatformAway(_shorten(f"{status}: {_read_reason(answer)}"))
        try:
            item = _items.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PlatformAway(_shorten(f"its answer cannot be read: {error}")) from error
        if item.id != incident:
            raise PlatformAway(_shorten(f"it answers for {item.id} when asked for {incident}"))
        return _to_held(item)

    async def _get(self, path: str, parameters: dict[str, str]) -> tuple[int, bytes]:
        if self._list_url is None:
            raise PlatformAway("its list has no address (platform.list_url)")
        url = httpx.URL(str(self._list_url).rstrip("/") + path, params=parameters or None)
        headers = {SIGNATURE_HEADER: sign(self._key, b"GET " + url.raw_path)}
        try:
            async with (
                asyncio.timeout(_LIST_TIMEOUT_S),
                self._client.stream("GET", url, headers=headers, timeout=_LIST_TIMEOUT_S) as response,
            ):
                answer = await _read_answer(response, _PAGE_LIMIT)
        except (TimeoutError, httpx.TimeoutException):
            raise PlatformAway(f"no answer within {_LIST_TIMEOUT_S:g} s") from None
        except httpx.HTTPError as error:
            raise PlatformAway(_shorten(f"{type(error).__name__}: {error}")) from error
        return response.status_code, answer

    async def close(self) -> None:
        """Closes the connections; the platform cannot be used afterwards."""
        await self._client.aclose()


def encode_event(effect_id: str, incident: Incident, mapping: PlatformMapping | None = None) -> bytes:
    """The CloudEvent 1.0 (structured JSON, UTF-8) of this revision; the same bytes every time.

    ``data`` holds every field of the incident, also those at their default, so that a receiver needs none of ours. With
    a ``mapping``, the platform's own codes stand beside it, as the extension attributes that CloudEvents allows."""
    codes = {}
    if mapping is not None:
        codes = {
            "platformstate": mapping.states.get(incident.state, incident.state),
            "platformlevel": mapping.levels.get(incident.level, incident.level),
            "platformcategory": mapping.categories.get(incident.category, incident.category),
        }
    return encode_cloud_event(
        effect_id,
        EVENT_TYPE,
        f"/gateway/{incident.community}",
        incident.id,
        incident.updated_at,
        spell_out(incident),
        codes,
    )


def sign(key: bytes, body: bytes) -> str:
    """The signature header's value: ``v1=`` and the HMAC-SHA256 of the body's bytes in lower-case hexadecimal."""
    return "v1=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def judge(status: int, answer: bytes, effect_id: str) -> Verdict:
    """What an answer means (docs/platform.md): accepted only when a 2xx or 409 echoes the id, because a proxy's page
    with status 200 says nothing about the event; refused for good with 400, 413 or 422; undecided otherwise."""
    if 200 <= status < 300 or status == 409:
        if _read_id(answer) == effect_id:
            return Verdict(accepted=True, refused=False, detail=str(status))
        return _undecided(f"{status} without the event's id: {_quote(answer)}")
    if status in REFUSALS:
        return Verdict(accepted=False, refused=True, detail=_shorten(f"{status}: {_read_reason(answer)}"))
    if 300 <= status < 400:
        return _undecided(f"{status}: redirects are not followed; configure the platform's own address")
    return _undecided(f"{status}: {_read_reason(answer)}")


async def _read_answer(response: httpx.Response, limit: int = _ANSWER_LIMIT) -> bytes:
    """The beginning of the answer; what exceeds the limit is not an answer of ours and is not read."""
    answer = bytearray()
    async for chunk in response.aiter_raw():
        answer += chunk
        if len(answer) > limit:
            break
    return bytes(answer[:limit])


def _to_held(item: _Item) -> Held:
    try:
        content: Incident | None = _incidents.decode(item.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = None
    at = round(item.updated_at.timestamp() * 1000)
    return Held(item.id, item.revision, item.state, at, content, tuple(bytes(act) for act in item.actions))


def _decode_object(answer: bytes) -> dict[str, object]:
    try:
        decoded = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _read_id(answer: bytes) -> object:
    return _decode_object(answer).get("id")


def _read_reason(answer: bytes) -> str:
    """The platform's own words: ``reason`` and ``detail`` of its JSON, or the beginning of whatever it sent."""
    said = _decode_object(answer)
    words = [said[name] for name in ("reason", "detail") if isinstance(said.get(name), str)]
    return ": ".join(str(word) for word in words) if words else _quote(answer)


def _quote(answer: bytes) -> str:
    return answer[:_DETAIL_LIMIT].decode("utf-8", "replace") if answer else "(empty)"


def _shorten(text: str) -> str:
    # A platform's text is foreign: it ends up in logs and lists, so control characters go and it stays on one line.
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _DETAIL_LIMIT else line[: _DETAIL_LIMIT - 1] + "…"


def _undecided(detail: str) -> Verdict:
    return Verdict(accepted=False, refused=False, detail=_shorten(detail))


def _check_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the platform's address is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("the platform's address must begin with http:// or https:// and name a host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ValueError(f"the platform's address has port {parsed.port}; a port lies in 1..65535")
    if parsed.userinfo:
        raise ValueError("the platform's address must not hold a user or password; requests are signed instead")
    return parsed
