"""The manual shows what the code does: its examples are generated, and its tables name every reason."""

from __future__ import annotations

import json
import re

import pytest

from gateway import wire
from gateway.wire import Message, Quarantine, ReplyFrom, StatusFrom, decode
from tests.wire.examples import MANUAL, examples, renew, shown
from tests.wire.fuzz import BAD_REASONS, REASONS

TEXT = MANUAL.read_text(encoding="utf-8")


def test_the_manual_has_one_current_example_per_topic() -> None:
    assert sorted(shown(TEXT)) == sorted([*wire.UP, *wire.DOWN, "gateway-status"])
    assert renew(TEXT) == TEXT, "run: python -m tests.wire.examples --write"


@pytest.mark.parametrize("leaf", [*wire.UP, *wire.DOWN, "gateway-status"])
def test_an_example_as_it_is_printed_can_be_read(leaf: str) -> None:
    block = TEXT.split(f"<!-- example: {leaf} -->")[1].split("<!-- end -->")[0]
    topic, payload = block.split("`")[1], block.split("```json\n")[1].split("```")[0].encode()
    match leaf:
        case "alarm" | "telemetry":
            found = decode(topic, payload)
            assert isinstance(found, Message)
            assert found.bad == ()
            assert found.measurements
        case "status":
            assert isinstance(decode(topic, payload), StatusFrom)
        case "reply":
            assert isinstance(decode(topic, payload), ReplyFrom)
        case "gateway-status":
            assert topic == wire.GATEWAY_STATUS
            assert not isinstance(wire.decode_gateway_status(payload), Quarantine)
        case _:
            decoders = {
                "receipt": wire.decode_receipt,
                "command": wire.decode_command,
                "config": wire.decode_config,
            }
            assert not isinstance(decoders[leaf](payload), Quarantine)
    assert json.loads(payload) == json.loads(examples()[leaf][1])


def reasons_under(heading: str) -> set[str]:
    section = TEXT.split(f"### {heading}\n")[1].split("\n#")[0]
    return set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.MULTILINE))


def test_the_manual_names_every_reason() -> None:
    assert reasons_under("Whole messages") == REASONS
    assert reasons_under("Single records and events") == BAD_REASONS


def test_the_manual_names_every_limit() -> None:
    sizes = (wire.PAYLOAD_LIMIT, wire.ENTRIES_LIMIT, wire.TEXT_LIMIT, wire.FOREIGN_LIMIT, wire.DEPTH_LIMIT)
    limits = (*sizes, wire.DATA_LIMIT, wire.OLDEST_S)
    table = TEXT.split("## Limits\n")[1].split("\n## ")[0].replace(",", "")
    assert [limit for limit in limits if str(limit) not in table] == []
