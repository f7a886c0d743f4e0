"""Envelopes to start from, and what hypothesis makes of them."""

from __future__ import annotations

from typing import Any

TOPIC = "sc/v1/c001/agent-1/alarm"
TAKEN = 1_763_888_887.9
SENT = 1_763_888_888.123


def envelope(**members: Any) -> dict[str, Any]:
    """A right envelope of the alarm lane with these members set; None takes one out."""
    whole = {
        "v": 1,
        "spool": "k3f9a2b1c4d5",
        "lane": "alarm",
        "seq": 17,
        "floor": 15,
        "sent_at": SENT,
        "taken_at": TAKEN,
        **members,
    }
    return {name: value for name, value in whole.items() if value is not None}
