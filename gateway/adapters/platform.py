"""The central platform over HTTP: each revision of an incident is one signed CloudEvent (docs/platform.md).

The same revision always makes the same bytes and the same signature, so a delivery can be repeated until it is
answered, and the receiver can tell a repetition by its id alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx
import msgspec
from msgspec import structs

from gateway.core.model import Incident
from gateway.core.policy import PlatformMapping
from gateway.runtime.ports import Verdict

EVENT_TYPE: Final = "cn.jimo.gateway.incident.v1"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
SIGNATURE_HEADER: Final = "Gateway-Signature"
KEY_HEADER: Final = "Idempotency-Key"
SHORTEST_KEY: Final = 32
"""Bytes: as long as the digest (RFC 2104, section 3: shorter keys weaken the function)."""

_REFUSALS: Final = frozenset({400, 413, 422})
_ANSWER_LIMIT: Final = 64 * 1024
_DETAIL_LIMIT: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class HttpPlatform:
    """Delivers to ``url``, the platform's address for events. Never raises for what the platform or the network does.

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
    ) -> None:
        self._url = _check_url(url)
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

    async def close(self) -> None:
        """Closes the connections; the platform cannot be used afterwards."""
        await self._client.aclose()


def encode_event(effect_id: str, incident: Incident, mapping: PlatformMapping | None = None) -> bytes:
    """The CloudEvent 1.0 (structured JSON, UTF-8) of this revision; the same bytes every time.

    ``data`` holds every field of the incident, also those at their default, so that a receiver needs none of ours. With
    a ``mapping``, the platform's own codes stand beside it, as the extension attributes that CloudEvents allows."""
    data = _spell_out(incident)
    codes = {}
    if mapping is not None:
        codes = {
            "platformstate": mapping.states.get(incident.state, incident.state),
            "platformlevel": mapping.levels.get(incident.level, incident.level),
            "platformcategory": mapping.categories.get(incident.category, incident.category),
        }
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": effect_id,
            "source": f"/gateway/{incident.community}",
            "type": EVENT_TYPE,
            "subject": incident.id,
            "time": _to_rfc3339(incident.updated_at),
            "datacontenttype": "application/json",
            **codes,
            "data": data,
        }
    )


def _spell_out(value: object) -> object:
    """A struct as a mapping of all its fields, and so all that is in it."""
    if isinstance(value, msgspec.Struct):
        return {name: _spell_out(part) for name, part in structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [_spell_out(part) for part in value]
    return value


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
    if status in _REFUSALS:
        return Verdict(accepted=False, refused=True, detail=_shorten(f"{status}: {_read_reason(answer)}"))
    if 300 <= status < 400:
        return _undecided(f"{status}: redirects are not followed; configure the platform's own address")
    return _undecided(f"{status}: {_read_reason(answer)}")


async def _read_answer(response: httpx.Response) -> bytes:
    """The beginning of the answer; what exceeds the limit is not an answer of ours and is not read."""
    answer = bytearray()
    async for chunk in response.aiter_raw():
        answer += chunk
        if len(answer) > _ANSWER_LIMIT:
            break
    return bytes(answer[:_ANSWER_LIMIT])


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


def _to_rfc3339(at: int) -> str:
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
