"""A small community on the real profiles and rules, and the events that its sources send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from gateway.core.catalog import Catalog, build_catalog
from gateway.core.engine import Engine
from gateway.core.model import (
    Community,
    Delivery,
    Device,
    DeviceState,
    Place,
    PlaceKind,
    RegistryChange,
    Scalar,
    Source,
    Step,
)
from gateway.core.state import CommunityState, decode_state, encode_state
from gateway.wire import Lane, Measurement, Message, Signal

ROOT = Path(__file__).parents[2]
START = 1_795_435_200_000  # 2026-11-23T12:00:00Z, 20:00 in Jimo
COMMUNITY = Community("c001", 1, "示例一期", ("370215", "370215001"))


@cache
def real_catalog() -> Catalog:
    """The catalog that the product ships."""
    files = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in ("device_profiles", "rules")
        for path in sorted((ROOT / folder).rglob("*.yaml"))
    }
    return build_catalog(files)


PLACES = (
    Place("c001", PlaceKind.COMMUNITY, "示例一期", None, "370215001001001"),
    Place("b1", PlaceKind.BUILDING, "1号楼", "c001"),
    Place("b2", PlaceKind.BUILDING, "2号楼", "c001"),
    Place("b1-u1", PlaceKind.UNIT, "1单元", "b1"),
    Place("b1-u1-101", PlaceKind.HOUSEHOLD, "101室", "b1-u1"),
    Place("b1-u1-102", PlaceKind.HOUSEHOLD, "102室", "b1-u1"),
    Place("b2-u1", PlaceKind.UNIT, "1单元", "b2"),
    Place("b2-u1-101", PlaceKind.HOUSEHOLD, "101室", "b2-u1"),
    Place("gate", PlaceKind.PUBLIC, "大门", "c001"),
)

DEVICES = (
    Device("agent-1", "edge-agent", "agent-1", "gate"),
    Device("sos-1", "fixed-sos", "agent-1", "b1-u1-101"),
    Device("sos-2", "fixed-sos", "agent-1", "b2-u1-101"),
    Device("smoke-1", "nb-smoke", "agent-1", "b1-u1-101"),
    Device("smoke-2", "nb-smoke", "agent-1", "b1-u1-102"),
    Device("smoke-3", "nb-smoke", "agent-1", "b2-u1-101"),
    Device("room-1", "temperature-humidity", "agent-1", "gate"),
    Device("speaker-1", "ip-speaker", "agent-1", "b1"),
    Device("speaker-2", "ip-speaker", "agent-1", "b2"),
)


def registry(devices: Iterable[Device] = DEVICES) -> RegistryChange:
    return RegistryChange("test", PLACES, (Source("agent-1", "gate", "agent-1"),), tuple(devices))


def new_engine(devices: Iterable[Device] = DEVICES, catalog: Catalog | None = None, at: int = START) -> Engine:
    """An engine with the community registered, at `START`."""
    engine = Engine(catalog or real_catalog(), CommunityState(COMMUNITY))
    step = engine.feed(registry(devices), at)
    assert step.answer == "done", step.answer
    return engine


def restored(engine: Engine) -> Engine:
    """The engine as a restart would read it back from its checkpoint."""
    return Engine(engine.catalog, decode_state(encode_state(engine.snapshot())))


class Sender:
    """Makes deliveries of one source, with its own seq per lane, and a clock that may be off by ``skew`` ms."""

    def __init__(self, source: str = "agent-1", spool: str = "spool1", skew: int = 0) -> None:
        self.source = source
        self.spool = spool
        self.skew = skew
        self.seq = {Lane.ALARM: 0, Lane.TELEMETRY: 0}

    def send(
        self,
        now: int,
        readings: Mapping[str, float | bool | str] | None = None,
        signals: Iterable[tuple[str, str] | tuple[str, str, dict[str, Scalar]]] = (),
        lane: Lane = Lane.ALARM,
        waited: int = 0,
        units: Mapping[str, str] | None = None,
    ) -> Delivery:
        """A delivery that reaches the gateway at ``now`` after lying ``waited`` ms at the source."""
        self.seq[lane] += 1
        message = Message(
            community="c001",
            source=self.source,
            lane=lane,
            spool=self.spool,
            seq=self.seq[lane],
            floor=1,
            sent_at=now + self.skew,
            taken_at=now + self.skew - waited,
            signals=tuple(Signal(s[0], s[1], s[2] if len(s) == 3 else {}) for s in signals),
            measurements=[
                Measurement(name, value, (units or {}).get(name)) for name, value in (readings or {}).items()
            ],
            bad=(),
            digest=self.seq[lane] * 7919 + (1 if lane is Lane.ALARM else 2),
        )
        return Delivery(message, b"")


def with_state(device: str, state: DeviceState, until: int | None = None) -> RegistryChange:
    from msgspec.structs import replace

    [found] = [d for d in DEVICES if d.id == device]
    return RegistryChange("test", devices=(replace(found, state=state, state_until=until),))


def incidents_of(steps: Iterable[Step]) -> dict[str, str]:
    """Incident id → cause, over these steps."""
    return {incident.id: incident.cause for step in steps for incident in step.incidents}
