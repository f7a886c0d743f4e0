"""The examples in docs/wire.md: `python -m tests.wire.examples --write` writes them there, a test compares them."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from gateway.wire import (
    GATEWAY_STATUS,
    CommandMessage,
    DeviceConfig,
    Lane,
    Measurement,
    Message,
    PlaceConfig,
    Receipt,
    Reply,
    Signal,
    SourceConfig,
    Status,
    encode_command,
    encode_config,
    encode_message,
    encode_receipt,
    encode_reply,
    encode_status,
    topic_of,
)

MANUAL = Path(__file__).parents[2] / "docs" / "wire.md"

COMMUNITY, SOURCE, SPOOL = "c001", "agent-c001", "k3f9a2b1c4d5"
TAKEN, SENT = 1_763_888_887_900, 1_763_888_888_123

_BLOCK = re.compile(r"(<!-- example: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def examples() -> dict[str, tuple[str, bytes]]:
    """One example per topic: its topic and its payload, by the topic's last level."""
    alarm = Message(
        COMMUNITY,
        SOURCE,
        Lane.ALARM,
        SPOOL,
        17,
        15,
        SENT,
        TAKEN,
        (Signal("button-0042", "pressed", {"presses": 2}),),
        [Measurement("button-0042:battery", 88, "%EL"), Measurement("smoke-0007:smoke", True)],
        (),
        0,
    )
    telemetry = Message(
        COMMUNITY,
        SOURCE,
        Lane.TELEMETRY,
        SPOOL,
        4711,
        4706,
        SENT,
        TAKEN,
        (),
        [
            Measurement("climate-0003:temperature", 21.4, "Cel", -60_000),
            Measurement("climate-0003:temperature", 21.5, "Cel"),
            Measurement("meter-0108:volume", 132.871, "m3", 0, 1_763_888_880.0),
        ],
        (),
        0,
    )
    devices = (
        DeviceConfig("button-0042", "fixed-sos", "lora/0042", "b1-u1-101", "卧室", attributes={"elder": True}),
        DeviceConfig("smoke-0007", "nb-smoke", "fire-1/17.3", "b1-u1"),
    )
    places = (
        PlaceConfig("c001", "community", "示例一期"),
        PlaceConfig("b1", "building", "1号楼", "c001"),
        PlaceConfig("b1-u1", "unit", "1单元", "b1"),
        PlaceConfig("b1-u1-101", "household", "101室", "b1-u1"),
    )
    command = CommandMessage("9b2f7c1e-0/3", "speaker-0001", "speak", {"text": "请沿安全通道撤离"}, SENT + 60_000)
    bodies = {
        "alarm": encode_message(alarm),
        "telemetry": encode_message(telemetry),
        "status": encode_status(
            Status(True, "agent-c001-0009", "0.1.0", 3, SENT, 0, {"fire-1/17.3": "no answer for 12 min"})
        ),
        "reply": encode_reply(Reply(command.id, command.device, "done")),
        "command": encode_command(command),
        "receipt": encode_receipt(Receipt(Lane.ALARM, SPOOL, 17, (19, 20), ((16, "seq-conflict"),), SENT)),
        "config": encode_config(SourceConfig(95_121_904_003_817, devices, places)),
    }
    found = {leaf: (topic_of(COMMUNITY, SOURCE, leaf), body) for leaf, body in bodies.items()}
    found["gateway-status"] = (GATEWAY_STATUS, encode_status(Status(True, "gateway-1", "0.1.0", 0, SENT)))
    return found


def printed(topic: str, body: bytes) -> str:
    """An example as the manual shows it: a member to a line, arrays of objects an object to a line."""
    lines = []
    for name, value in json.loads(body).items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict):
            inner = (json.dumps(one, ensure_ascii=False) for one in value)
            text = "[\n    " + ",\n    ".join(inner) + "\n  ]"
        lines.append(f'  "{name}": {text}')
    return f"`{topic}`\n\n```json\n{{\n" + ",\n".join(lines) + "\n}\n```\n"


def renew(manual: str) -> str:
    """The manual with its examples as the code makes them now."""
    made = examples()
    return _BLOCK.sub(lambda found: f"{found[1]}{printed(*made[found[2]])}{found[3]}", manual)


def shown(manual: str) -> list[str]:
    """The names of the examples that the manual has."""
    return [found[2] for found in _BLOCK.finditer(manual)]


def main() -> None:
    parser = argparse.ArgumentParser(description="the examples of docs/wire.md")
    parser.add_argument("--write", action="store_true", help="write them into the manual")
    text = MANUAL.read_text(encoding="utf-8")
    renewed = renew(text)
    if parser.parse_args().write:
        MANUAL.write_text(renewed, encoding="utf-8")
    elif renewed != text:
        raise SystemExit("docs/wire.md has old examples; run: python -m tests.wire.examples --write")


if __name__ == "__main__":
    main()
