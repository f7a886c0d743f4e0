"""An MQTT client that acknowledges a message when its taker says so: when it is on the disk, and not when it is in
memory.

aiomqtt 2.5 has no acknowledgement by hand, but stands on paho-mqtt, which has: so this file, and no other, reaches for
the paho client within. What is not acknowledged stays with the broker, which brings it again at the next connection of
the same session:

- What waits in memory when a connection ends is let go if the broker still has the session, and kept if it has lost it.
- What was taken, and could not be acknowledged because the connection was gone, is acknowledged when it comes again.

So a message at QoS 1 is lost only by a broker that loses its session while the client is down. It may come twice: when
the process is killed between the disk and the acknowledgement, or when an acknowledgement is lost on its way.
"""

from __future__ import annotations

from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


class Client(aiomqtt.Client):
    """Used as its base, and for one connection after the other. Each message of ``messages`` wants an `acknowledge`,
    in their order. Subscribe at QoS 1 at most, with a session that persists."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._client.manual_ack_set(True)
        self._owed: dict[int, tuple[str, bytes]] = {}
        """What was taken and could not be acknowledged, by its packet id: topic and payload."""

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """The broker may forget it."""
        if message.qos == 0 or message.mid == 0:
            return
        if self._client.is_connected():
            self._client.ack(message.mid, message.qos)
        else:
            self._owed[message.mid] = str(message.topic), bytes(message.payload)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not reason_code.is_failure:
            self._begin_connection(is_resumed=flags.session_present)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _begin_connection(self, *, is_resumed: bool) -> None:
        """What is in memory now is of a connection that is gone."""
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        for message in waiting:
            if message.qos == 0 or not is_resumed:
                message.mid = 0  # There is nobody to acknowledge it to.
                self._queue.put_nowait(message)
        if not is_resumed:
            self._owed.clear()

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if message.dup and self._owed.pop(message.mid, None) == (message.topic, message.payload):
            self._client.ack(message.mid, message.qos)
            return
        super()._on_message(client, userdata, message)
