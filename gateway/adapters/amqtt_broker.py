"""amqtt as a broker process of its own: ``python -m gateway.adapters.amqtt_broker PASSWORDS HOST PORT``.

`gateway.adapters.broker` starts it where Mosquitto is not installed. It speaks MQTT 3.1.1 only, forgets everything when
it ends, and does not send again what a client has not acknowledged (its issue 401): good for trying things out, on one
machine. Sources' receipts make up for what it loses. SIGHUP makes it read the password file again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.contexts import Action, BaseContext, BrokerConfig, ListenerConfig  # type: ignore[import-untyped]
from amqtt.plugins.base import BaseAuthPlugin  # type: ignore[import-untyped]
from amqtt.session import Session  # type: ignore[import-untyped]

from gateway.adapters.broker import may_publish, may_receive, read_passwords
from gateway.adapters.passwords import is_password

log = logging.getLogger(__name__)


class PasswordPlugin(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in whoever stands in the password file, and nobody else."""

    @dataclass
    class Config:
        """``passwords``: the file, one ``name:hash`` per line."""

        passwords: str = ""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self.file = Path(self._get_config_option("passwords"))
        self.hashes = read_passwords(self.file)

    async def authenticate(self, *, session: Session) -> bool:
        """Whether the user name is known and the password right."""
        hashed = self.hashes.get(session.username or "")
        if hashed is not None and is_password(session.password or "", hashed):
            return True
        log.warning("%r is not authorised", session.username)
        return False

    def reload(self) -> set[str]:
        """Reads the file again; the identities whose password has changed or gone."""
        old, self.hashes = self.hashes, read_passwords(self.file)
        return {name for name, hashed in old.items() if self.hashes.get(name) != hashed}


class _Broker(Broker):  # type: ignore[misc]
    """amqtt with our access rules, and with three of its ways mended."""

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        # A plugin for this would be asked through tasks, and amqtt waits for them while it walks through its dict of
        # subscriptions: whenever somebody subscribes meanwhile, the walk breaks off and the message is lost.
        identity = session.username or ""
        return may_publish(identity, topic) if action is Action.PUBLISH else may_receive(identity, topic)

    async def _run_broadcast(self, running_tasks: deque[asyncio.Task[Any]]) -> None:
        # amqtt matches each message against every filter there is; of ours, all but a handful are exact topics.
        broadcast = await self._broadcast_queue.get()
        topic = broadcast["topic"]
        holders = list(self._subscriptions.get(topic, ()))
        for pattern, more in self._subscriptions.items():
            if ("+" in pattern or "#" in pattern) and self._matches(topic, pattern):
                holders += more
        for session, granted in holders:
            if not may_receive(session.username or "", topic):
                continue
            qos = broadcast.get("qos", granted)
            if session.transitions.state == "connected":
                handler = self._get_handler(session)
                publishing = handler.mqtt_publish(topic, broadcast["data"], qos, retain=False)
                running_tasks.append(asyncio.ensure_future(publishing))
            elif qos and not session.clean_session:
                await self._retain_broadcast_message(broadcast, qos, session)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        # On every connection amqtt sends the retained messages of everybody's subscriptions to the one that connects:
        # other sources' configurations, and as many messages as sources times sources.
        holders = self._subscriptions.get(subscription[0], [])
        if any(holder is session for holder, _ in holders):
            await super()._publish_retained_messages_for_subscription(subscription, session)


async def serve(passwords: Path, host: str, port: int) -> None:
    """Runs the broker until SIGTERM or SIGINT."""
    here = f"{__package__}.amqtt_broker"
    plugins = {f"{here}.PasswordPlugin": {"passwords": str(passwords)}}
    broker = _Broker(BrokerConfig(listeners={"default": ListenerConfig(bind=f"{host}:{port}")}, plugins=plugins))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(broker))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    await broker.start()
    await stopping.wait()
    await broker.shutdown()


async def _reload(broker: _Broker) -> None:
    """Reads the password file again, and hangs up on whoever it does not let in any more."""
    changed = broker.plugins_manager.get_plugin(PasswordPlugin.__name__).reload()
    for session, handler in list(broker.sessions.values()):
        if session.username in changed and session.transitions.state == "connected":
            await handler.handle_connection_closed()


def main() -> None:
    """The command line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    passwords, host, port = sys.argv[1:]
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(Path(passwords), host, int(port)))
    else:
        uvloop.run(serve(Path(passwords), host, int(port)))


if __name__ == "__main__":
    main()
