"""An agent's driver for a local broker that is killed in the moment in which a press is to be written:
``python -m tests.edge.mqtt_child PORT BASE``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from edge.drivers.mqtt_local import MqttLocalDriver, Settings
from edge.ports import Carried, Report
from tests.edge.desk import ListDesk, shipped


class LastDesk(ListDesk):
    """Its disk is never reached."""

    async def take(self, *reports: Report) -> tuple[str, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def run(port: int, base: str) -> None:
    driver = MqttLocalDriver(
        Settings.model_validate(
            {"driver": "mqtt_local", "bus": "local", "port": port, "zigbee2mqtt": base, "client_id": base}
        )
    )
    desk = LastDesk(
        "local", Carried("zigbee-button", shipped().profiles["zigbee-button"], "local", f"{base}/button", "b1")
    )
    running = asyncio.create_task(driver.run(desk))
    await desk.wait_until(lambda: driver.is_listening)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await running


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2]))
