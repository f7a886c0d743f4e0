"""The way to webhooks' addresses: HTTPS, signed, and to none that lies inside (`gateway.runtime.webhooks.Receivers`).

A name is resolved here, all its addresses are judged, and the connection goes to an address that was judged: what the
name means a moment later changes nothing. Redirects are not followed, and proxies and certificates named in the
environment are not used.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
from msgspec import Struct

from gateway.adapters.platform import KEY_HEADER, SIGNATURE_HEADER
from gateway.runtime.cloud_events import CONTENT_TYPE
from gateway.runtime.webhooks import AddressRefused, Answer

TIMEOUT_S: Final = 10.0
"""For an attempt as a whole, from the name to the last byte of the answer that is read."""

TIMESTAMP_HEADER: Final = "Gateway-Timestamp"
LONGEST_URL: Final = 500
SAID: Final = 200
"""Characters of an answer that are kept."""

ADDRESSES: Final = 3
"""Of a name, so many are tried."""

_ANSWER_LIMIT: Final = 4 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_INSIDE: Final = (
    # Public by its number, and answers inside a cloud's machines only.
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("192.0.0.0/24"),
    # What stands for IPv4 addresses in IPv6.
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("fec0::/10"),
)


def sign_at(key: bytes, at_s: int, body: bytes) -> str:
    """One signature: ``v1=`` and HMAC-SHA256 over the time in seconds, a full stop, and the body's bytes."""
    return "v1=" + hmac.new(key, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()


def is_outside(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an address may be sent to: a public one, or one of the ``allowed`` networks."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in allowed):
        return True
    if any(address in network for network in _INSIDE):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class _Target(Struct, frozen=True):
    """Where an attempt goes: an address that was judged, and the name that stands in the request."""

    url: httpx.URL
    addresses: tuple[Address, ...]


class _Line:
    """One host's connections, and the thread that resolves its name: a resolver that hangs keeps no other waiting."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client: Final = client
        self.resolving: Final = ThreadPoolExecutor(1, "resolving")

    async def close(self) -> None:
        await self.client.aclose()
        self.resolving.shutdown(wait=False, cancel_futures=True)


class HttpReceivers:
    """See `gateway.runtime.webhooks.Receivers`. ``allowed`` are networks that may be sent to though they are not
    public; ``plain``: http is taken for all of them, not for the loopback alone."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        plain: bool = False,
        timeout_s: float = TIMEOUT_S,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed: Final = tuple(allowed)
        self._plain: Final = plain
        self._timeout_s: Final = timeout_s
        self._verify: Final = verify or ssl.create_default_context()
        self._lines: Final[dict[tuple[str, str, int | None], _Line]] = {}

    async def check(self, url: str) -> None:
        parsed = _parse(url)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._aim(parsed)
        except TimeoutError:
            raise AddressRefused("unknown-host", f"the name {parsed.host} is not resolved in time") from None

    async def post(self, url: str, id: str, body: bytes, keys: Sequence[bytes], now: int) -> Answer:
        at_s = now // 1000
        headers = {
            "Content-Type": CONTENT_TYPE,
            KEY_HEADER: id,
            TIMESTAMP_HEADER: str(at_s),
            SIGNATURE_HEADER: ",".join(sign_at(key, at_s, body) for key in keys),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                target = await self._aim(_parse(url))
                return await self._send(target, body, headers)
        except AddressRefused as error:
            return Answer(0, f"{error.code}: {error.words}")
        except (TimeoutError, httpx.TimeoutException):
            return Answer(0, f"no answer within {self._timeout_s:g} s")
        except httpx.HTTPError as error:
            return Answer(0, _shorten(f"{type(error).__name__}: {error}"))

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()
        self._lines.clear()

    async def _send(self, target: _Target, body: bytes, headers: dict[str, str]) -> Answer:
        line = self._line(target.url)
        name = target.url.netloc.decode("ascii")
        # The certificate is held against the name, whatever address the connection goes to.
        extensions = {"sni_hostname": target.url.host} if target.url.scheme == "https" else {}
        for number, address in enumerate(target.addresses, 1):
            try:
                async with line.client.stream(
                    "POST",
                    target.url.copy_with(host=str(address)),
                    content=body,
                    headers={**headers, "Host": name},
                    extensions=extensions,
                ) as response:
                    said = await _read(response)
            except httpx.ConnectError:
                if number == len(target.addresses):
                    raise
                continue
            if 300 <= response.status_code < 400:
                said = "redirects are not followed"
            return Answer(response.status_code, said)
        raise httpx.ConnectError("the name has no address")

    async def _aim(self, url: httpx.URL) -> _Target:
        """Raises AddressRefused."""
        addresses = await self._resolve(url)
        if not all(is_outside(address, self._allowed) for address in addresses):
            raise AddressRefused("private-address", f"{url.host} lies inside; SCG_WEB__WEBHOOKS__NETWORKS lets it in")
        if url.scheme == "http" and not self._plain and not all(address.is_loopback for address in addresses):
            raise AddressRefused("plain-http", "an address begins with https://; http is for this machine alone")
        return _Target(url, tuple(addresses[:ADDRESSES]))

    async def _resolve(self, url: httpx.URL) -> list[Address]:
        def ask() -> list[Address]:
            found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._line(url).resolving, ask)
        except (OSError, UnicodeError):
            raise AddressRefused("unknown-host", f"the name {url.host} has no address") from None

    def _line(self, url: httpx.URL) -> _Line:
        key = (url.scheme, url.host, url.port)
        if key not in self._lines:
            self._lines[key] = _Line(
                httpx.AsyncClient(
                    timeout=self._timeout_s,
                    trust_env=False,
                    follow_redirects=False,
                    verify=self._verify,
                    # A compressed answer could be small on the wire and endless in memory.
                    headers={"User-Agent": "smart-community-gateway", "Accept-Encoding": "identity"},
                )
            )
        return self._lines[key]


async def _read(response: httpx.Response) -> str:
    """The beginning of what it said."""
    answer = bytearray()
    async for chunk in response.aiter_raw():
        answer += chunk
        if len(answer) > _ANSWER_LIMIT:
            break
    return _shorten(bytes(answer[:_ANSWER_LIMIT]).decode("utf-8", "replace"))


def _shorten(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= SAID else line[: SAID - 1] + "…"


def _parse(url: str) -> httpx.URL:
    """Raises AddressRefused."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        raise AddressRefused("bad-address", "it is no address of the form https://HOST/PATH") from None
    if len(url) > LONGEST_URL or not url.isprintable():
        raise AddressRefused("bad-address", f"an address is a line of at most {LONGEST_URL} characters")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise AddressRefused("bad-address", "an address begins with https:// and names a host")
    if parsed.userinfo or parsed.fragment:
        raise AddressRefused("bad-address", "an address holds no user, no password and no #; events are signed")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise AddressRefused("bad-address", "a port lies in 1..65535")
    return parsed
