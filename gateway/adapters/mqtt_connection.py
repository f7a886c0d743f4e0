"""One connection to the broker, inside the event loop: paho keeps the protocol, the socket is ours.

paho connects, subscribes, pings and disconnects. What comes a thousand times a second does not go through it: it reads
a packet with three or more ``recv`` calls, writes each acknowledgement with a ``send`` of its own, and builds property
objects per packet, which under MQTT 5 costs more than all else that the gateway does with a reading. So the stream is
read and written here, in bulk, and paho is handed the few packets that are its business. The one private method of paho
that this replaces is `Client._create_socket`; paho's own `SocketLike` says what it then expects.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.adapters.mqtt_packets import PINGREQ, MalformedPacket, PacketReader, Received
from gateway.errors import GatewayError
from gateway.runtime.ports import Clock

KEEPALIVE_S: Final = 20
CONNECT_TIMEOUT_S: Final = 10.0
V5_TIMEOUT_S: Final = 3.0
"""How long a broker has to answer in MQTT 5 before 3.1.1 is tried: some that know only that wait for more, silently."""

SESSION_EXPIRY_S: Final = 7 * 86_400
"""How long the broker keeps a session while no gateway is there: one that is gone must not fill it for ever."""

READ_BYTES: Final = 64 * 1024
"""Read per wake-up: about 300 single readings, then the other session has its turn."""

VERSIONS: Final = {
    "auto": (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311),
    "5": (MQTTProtocolVersion.MQTTv5,),
    "3.1.1": (MQTTProtocolVersion.MQTTv311,),
}

_UNSUPPORTED_VERSION: Final = 0x84


class BrokerSettings(Struct, frozen=True):
    """Where the broker is and who we are there. ``url`` is ``mqtt[s]://host[:port]``; the two client ids begin with
    ``client_prefix`` and must be this installation's alone, because a broker ends a session when its id connects
    anew. ``ca_file`` replaces the system's certificate authorities for ``mqtts``. ``version`` auto tries MQTT 5, then
    3.1.1."""

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    client_prefix: str = "scg"
    version: Literal["auto", "5", "3.1.1"] = "auto"

    def __repr__(self) -> str:
        return f"BrokerSettings(url={self.url!r}, username={self.username!r}, client_prefix={self.client_prefix!r})"


class Endpoint(Struct, frozen=True):
    """A broker's address; with ``tls`` the connection is encrypted and the broker's certificate checked."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class SessionPlan(Struct, frozen=True):
    """One of the gateway's sessions: its number and name, what it subscribes to, and how many of its messages may be
    with us unacknowledged at a time."""

    index: int
    name: str
    filters: tuple[str, ...]
    receive_maximum: int


class Will(Struct, frozen=True):
    """What the broker publishes (retained) when the connection ends without a farewell."""

    topic: str
    payload: bytes


class ConnectFailed(Exception):
    """A connection could not be made; the text says why. ``other_version``: another MQTT version may do better."""

    def __init__(self, why: str, *, other_version: bool = False) -> None:
        super().__init__(why)
        self.other_version = other_version


class _PahoSocket:
    """What paho takes for its socket: it reads from here only what it is handed, and what it writes joins ours."""

    def __init__(self, write: Callable[[bytes | bytearray], None]) -> None:
        self._write = write
        self._incoming = b""
        self.is_closed = False

    def put(self, packet: bytes) -> None:
        self._incoming += packet

    def recv(self, buffer_size: int) -> bytes:
        if not self._incoming:
            raise BlockingIOError
        data, self._incoming = self._incoming[:buffer_size], self._incoming[buffer_size:]
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        self._write(buffer)
        return len(buffer)

    def close(self) -> None:
        self.is_closed = True

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


class _Paho(paho.Client):
    def __init__(self, own_socket: _PahoSocket, client_id: str, version: MQTTProtocolVersion) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            # Under MQTT 5 this is said when connecting (clean_start), and paho refuses to be told twice.
            clean_session=None if version is MQTTProtocolVersion.MQTTv5 else False,
            protocol=version,
            reconnect_on_failure=False,
            # paho sees no PUBLISH. Should it ever see one, it must not acknowledge what is not committed.
            manual_ack=True,
        )
        self._own_socket = own_socket

    def _create_socket(self) -> _PahoSocket:
        return self._own_socket


class Connection:
    """One connection of a session, from its first byte to its last; never used again after that.

    ``deliver`` is called with what each read brought, from `open` on. All methods belong to one event loop.
    """

    def __init__(
        self,
        sock: socket.socket,
        settings: BrokerSettings,
        plan: SessionPlan,
        generation: int,
        version: MQTTProtocolVersion,
        will: Will | None,
        clock: Clock,
        deliver: Callable[[Received], None],
    ) -> None:
        self.is_v5 = version is MQTTProtocolVersion.MQTTv5
        self.server_window = 65_535
        self.server_longest = 268_435_455
        """How many of our messages the broker takes at a time, and how long they may be, in bytes."""
        self._sock = sock
        self._plan = plan
        self._clock = clock
        self._deliver = deliver
        self._reader = PacketReader(plan.index, generation, is_v5=self.is_v5)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._out = bytearray()
        self._is_flush_due = False
        self._is_writer_added = False
        self._is_paused = False
        self._is_leaving = False
        self._is_closed = False
        self._pinged_at = 0.0
        self._paho_rests_until = 0.0
        self._paho_socket = _PahoSocket(self.write)
        self._paho = _Paho(self._paho_socket, f"{settings.client_prefix}-gateway-{plan.name}", version)
        if settings.username is not None:
            self._paho.username_pw_set(settings.username, settings.password)
        if will is not None:
            self._paho.will_set(will.topic, will.payload, qos=1, retain=True)
        self._paho.on_connect = self._on_connect
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_disconnect = self._on_disconnect

    # --- connecting ------------------------------------------------------------------------------------------

    async def open(self, endpoint: Endpoint) -> None:
        """Connects and subscribes; messages may be delivered before it returns. Raises ConnectFailed."""
        properties = None
        if self.is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = self._plan.receive_maximum
        self._loop.add_reader(self._sock.fileno(), self._read)
        self._paho.connect(
            endpoint.host,
            endpoint.port,
            KEEPALIVE_S,
            clean_start=False if self.is_v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )
        timeout_s = V5_TIMEOUT_S if self.is_v5 else CONNECT_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready
        except TimeoutError:
            raise ConnectFailed(f"no answer within {timeout_s:g} s", other_version=True) from None

    def _on_connect(
        self, client: paho.Client, _data: Any, flags: paho.ConnectFlags, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            self._fail(ConnectFailed(f"it refuses us: {reason}", other_version=reason.value == _UNSUPPORTED_VERSION))
            return
        self.server_window = getattr(properties, "ReceiveMaximum", self.server_window)
        self.server_longest = getattr(properties, "MaximumPacketSize", self.server_longest)
        if self.is_v5:
            # Retained births and deaths are sent when the broker does not know this session yet, not every time.
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            client.subscribe([(topic, options) for topic in self._plan.filters])
        else:
            client.subscribe([(topic, 1) for topic in self._plan.filters])
        if flags.session_present and not self._ready.done():
            # The broker has our subscriptions and sends what has waited. Its answer to this one may stand far behind,
            # and to wait for that without taking anything could be to wait for ever.
            self._ready.set_result(None)

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            told = ", ".join(str(reason) for reason in reasons)
            self.lose(f"it does not let us subscribe to {', '.join(self._plan.filters)}: {told}")
        elif not self._ready.done():
            self._ready.set_result(None)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.lose(f"the broker ended it: {reason}")

    def _fail(self, failure: ConnectFailed) -> None:
        if not self._ready.done():
            self._ready.set_exception(failure)

    async def serve(self) -> str:
        """Stays until the connection is lost, and says why it was."""
        while not self._lost.done():
            await asyncio.wait((self._lost,), timeout=1.0)
            self._keep_alive()
        return self._lost.result()

    def _keep_alive(self) -> None:
        if self._is_closed:
            return
        now = self._loop.time()
        if self._is_paused or now < self._paho_rests_until:
            # The answer to a ping may stand behind what is not read now, and paho would take it for missing.
            if now - self._pinged_at >= KEEPALIVE_S / 2:
                self._pinged_at = now
                self.write(PINGREQ)
        elif self._paho.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._paho_socket.is_closed:
            self.lose(f"no answer for {KEEPALIVE_S} s")

    # --- reading ---------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Leaves the socket alone from now on; the broker notices through TCP."""
        if not (self._is_paused or self._is_closed):
            self._is_paused = True
            self._loop.remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """Reads again."""
        if self._is_paused and not self._is_closed:
            self._is_paused = False
            self._paho_rests_until = self._loop.time() + KEEPALIVE_S
            self._loop.add_reader(self._sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.lose(f"{type(error).__name__}: {error}")
            return
        if not data:
            self.lose("the broker closed it")
            return
        if self._is_leaving:
            return
        try:
            received = self._reader.feed(data, self._clock())
        except MalformedPacket as error:
            self.lose(f"it does not speak MQTT as agreed: {error}")
            return
        for packet in received.other:
            self._hand_to_paho(packet)
        self._deliver(received)

    def _hand_to_paho(self, packet: bytes) -> None:
        if self._is_closed:
            return
        self._paho_socket.put(packet)
        code = self._paho.loop_read()
        # What paho wants to say while it is in one of our callbacks, it keeps until it is asked.
        self._paho.loop_write()
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._paho_socket.is_closed:
            self.lose(paho.error_string(code))

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray) -> None:
        """All that is written in one turn of the event loop leaves in one system call."""
        if self._is_closed:
            return
        self._out += data
        if not (self._is_flush_due or self._is_writer_added):
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._is_closed:
            return
        try:
            sent = self._sock.send(self._out) if self._out else 0
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as error:
            self.lose(f"{type(error).__name__}: {error}")
            return
        del self._out[:sent]
        if self._out and not self._is_writer_added:
            self._is_writer_added = True
            self._loop.add_writer(self._sock.fileno(), self._flush)
        elif not self._out and self._is_writer_added:
            self._is_writer_added = False
            self._loop.remove_writer(self._sock.fileno())

    # --- ending ----------------------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """The connection is gone; the first reason counts."""
        self._fail(ConnectFailed(why, other_version=True))
        if not self._lost.done():
            self._lost.set_result(why)
        self.close()

    async def leave(self, timeout_s: float = 1.0) -> None:
        """Takes leave: the broker keeps the session and does not publish the last will. What still comes is not
        taken in. The broker hangs up: hanging up ourselves, on unread messages, could cost our last
        acknowledgements."""
        if self._is_closed:
            return
        self.resume()
        self._is_leaving = True
        self._paho.disconnect()
        await asyncio.wait((self._lost,), timeout=timeout_s)
        self.close()

    def close(self) -> None:
        """Hangs up at once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        # The callbacks point back at us; without them nothing of this connection outlives it.
        self._paho.on_connect = self._paho.on_subscribe = self._paho.on_disconnect = None
        if not self._ready.done():
            self._ready.cancel()


def read_endpoint(settings: BrokerSettings) -> Endpoint:
    """The address in the settings. Raises GatewayError."""
    mend = "write it as mqtt://host:port, or mqtts://host:port for TLS"
    try:
        parts = urlsplit(settings.url)
        port = parts.port
    except ValueError as error:
        raise GatewayError("broker-url", f"{settings.url!r}: {error}", "broker.url", mend) from error
    if parts.username or parts.password:
        # An address ends up in logs, so this message does not repeat it either.
        raise GatewayError(
            "broker-url", "it contains a user name", "broker.url", "give it as broker.username and broker.password"
        )
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
        raise GatewayError("broker-url", f"{settings.url!r} is no broker's address", "broker.url", mend)
    if parts.scheme == "mqtt":
        return Endpoint(parts.hostname, port or 1883, None)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise GatewayError(
            "broker-ca", f"{settings.ca_file}: {error}", "broker.ca_file", "give a readable PEM file"
        ) from error
    return Endpoint(parts.hostname, port or 8883, context)


async def open_socket(endpoint: Endpoint) -> socket.socket:
    """A connected socket, its TLS handshake done. Looking up a name and shaking hands block, so a thread does it.
    Raises ConnectFailed."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open_socket, endpoint)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise
    except OSError as error:
        raise ConnectFailed(f"{type(error).__name__}: {error}") from error


def _open_socket(endpoint: Endpoint) -> socket.socket:
    sock = socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_TIMEOUT_S)
    try:
        # Otherwise an acknowledgement waits for the next one, and a receipt for both.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.tls is not None:
            sock = endpoint.tls.wrap_socket(sock, server_hostname=endpoint.host)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_late(opening: asyncio.Future[socket.socket]) -> None:
    """Closes a socket that came when nobody wanted it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
