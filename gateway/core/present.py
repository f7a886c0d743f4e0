"""What a community's devices show now: for people who look, never for judging."""

from __future__ import annotations

from msgspec import Struct

from gateway.core.model import Device, Place, Silence, Source, Value
from gateway.core.registry import KnownDevice, Registry


class LastValue(Struct, frozen=True):
    """The last believed value of a reading, and when the gateway took it to be."""

    value: Value
    at: int


class DevicePresent(Struct, frozen=True, omit_defaults=True):
    """A device as the engine knows it. ``silent_since`` (ms) is when it was last heard of, where that is longer ago
    than its heartbeat allows and nothing excuses it; ``heard_at`` is None for one that never said anything.
    ``is_cut_off``: its source is out of reach, so that nobody can say how it is."""

    device: Device
    heard_at: int | None = None
    silent_since: int | None = None
    is_cut_off: bool = False
    values: dict[str, LastValue] = {}
    events: dict[str, int] = {}


class SourcePresent(Struct, frozen=True, omit_defaults=True):
    """A source, and since when it is out of reach."""

    source: Source
    out_since: int | None = None


class Present(Struct, frozen=True, omit_defaults=True):
    """A community at ``now``. It may be some milliseconds ahead of what is committed."""

    now: int
    devices: tuple[DevicePresent, ...] = ()
    sources: tuple[SourcePresent, ...] = ()
    places: tuple[Place, ...] = ()
    silences: tuple[Silence, ...] = ()


def describe(registry: Registry, now: int, device: str = "") -> Present:
    """The community, with all its devices or with one alone (none, where it is not registered)."""
    known = registry.devices
    shown = [known[id] for id in ([device] if device else sorted(known)) if id in known]
    return Present(
        now,
        tuple(_describe_device(registry, one, now) for one in shown),
        tuple(SourcePresent(source.source, source.out_since) for source in registry.sources.values()),
        tuple(registry.places.values()),
        tuple(registry.silences.values()),
    )


def _describe_device(registry: Registry, known: KnownDevice, now: int) -> DevicePresent:
    heard = known.heard
    values = {id: LastValue(cell.value, cell.at) for id, cell in known.cells.items() if cell.value is not None}
    events = {kind: cell.at for kind, cell in known.events.items() if cell.at}
    source = registry.sources.get(known.source)
    is_silent = heard.heartbeat is not None and now - heard.at > heard.heartbeat + heard.excused
    return DevicePresent(
        known.device,
        heard.at if values or events else None,
        heard.at if is_silent else None,
        source is not None and source.out_since is not None,
        values,
        events,
    )
