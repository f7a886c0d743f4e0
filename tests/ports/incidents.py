"""Incidents for the tests of whatever delivers or receives them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import structs

from gateway.core.model import Incident, Level, Line, Sort

FIRE = Incident(
    id="7d9f3a52-0f4e-5b53-9f0e-3d2f0c9f5a11",
    number="JM20261123-042-0007",
    sort=Sort.INCIDENT,
    community="c042",
    cause="fire",
    key="c042-b03",
    category="ext:21-01",
    level=Level.CRITICAL,
    title={"zh": "海韵花园3号楼 烟感持续报警", "en": "Smoke persists"},
    place="c042-b03",
    place_name="海韵花园3号楼",
    grid="370215001004017",
    body="消防救援大队",
    rule="fire.smoke-persists",
    opened_by="agent-042/k3f9/alarm/17/0",
    opened_at=1_795_435_200_123,
    updated_at=1_795_435_200_123,
    revision=1,
    state="reported",
    joinable=True,
    signals=1,
    devices=("c042-smoke-0017",),
    lon=120.447,
    lat=36.389,
    timeline=(
        Line(
            seq=1,
            at=1_795_435_200_123,
            who="rule:fire.smoke-persists",
            what="opened",
            event="agent-042/k3f9/alarm/17/0",
            device="c042-smoke-0017",
            rule="fire.smoke-persists",
        ),
    ),
)


def revise(incident: Incident, revision: int) -> Incident:
    """The incident at a later revision: one line of its timeline for each."""
    lines = tuple(
        Line(seq=seq, at=incident.opened_at + 1000 * (seq - 1), who="dispatcher:wang", what="accepted")
        for seq in range(len(incident.timeline) + 1, revision + 1)
    )
    return structs.replace(
        incident,
        revision=revision,
        updated_at=incident.opened_at + 1000 * (revision - 1),
        timeline=(*incident.timeline, *lines),
    )


def effect_id(incident: Incident) -> str:
    return f"{incident.id}/{incident.revision}"


def make_callback(id: str, incident: str, action: str, user: str, at: int = FIRE.opened_at, **data: object) -> bytes:
    """The callback of somebody's act at the platform, in its words."""
    event = {
        "specversion": "1.0",
        "id": id,
        "source": "/platform",
        "type": "cn.jimo.platform.action.v1",
        "subject": incident,
        "time": datetime.fromtimestamp(at / 1000, UTC).isoformat(),
        "data": {"incident": incident, "action": action, "user": user, **data},
    }
    return msgspec.json.encode(event)
