"""The ordinary readings of a generated district's devices, sorted into the lanes that their profiles say."""

from __future__ import annotations

from gateway.core.model import PlaceKind
from simulators.catalog import alarm_readings
from simulators.district import Settlement
from simulators.habits import Stream, make_streams


def streams_of(settlement: Settlement, silent: frozenset[str], seed: int) -> list[Stream]:
    """The streams of one community's devices; silent ones (dead battery, no signal) have none."""
    places = {place.id: place for place in settlement.places}
    return [
        stream
        for device in settlement.devices
        if device.id not in silent
        for stream in make_streams(
            device.id,
            device.profile,
            seed,
            is_home=places[device.place].kind is PlaceKind.HOUSEHOLD,
            is_away=places[device.place].attributes.get("away") is True,
            alarms=alarm_readings(device.profile),
        )
    ]
