"""What of the demo goes through real agents, and how a simulated device writes what it measures."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.core.profile import Disbelief
from simulators.agents import BUS, UNHURRIED_MS, _to_raw, give_addresses, is_unhurried
from simulators.catalog import read_catalog
from simulators.district import generate
from simulators.scenario import Instance
from simulators.scenario_file import Part, Sending


def instance(*sendings: Sending) -> Instance:
    return Instance("a", {"zh": "a"}, "c001", "agent-c001", "d-1", 0, 1, None, None, sendings)


def reads(time: int, value: float | bool, unit: str | None = None) -> Sending:
    return Sending(time, (Part("d-1", "smoke", value, unit, 0),), "d-1", None, {}, 0, False)


def test_what_must_come_at_its_second_is_played_elsewhere() -> None:
    pressed = Sending(0, (), "d-1", "pressed", {}, 0, False)
    assert is_unhurried(instance(pressed, pressed))
    assert is_unhurried(instance(reads(0, True), reads(5_000, True)))
    assert is_unhurried(instance(reads(0, True), reads(UNHURRIED_MS, False)))
    assert not is_unhurried(instance(reads(0, True), reads(5_000, False)))
    assert not is_unhurried(instance(reads(0, 1.0, "furlong")))
    assert not is_unhurried(instance(replace(pressed, late=90_000)))
    assert not is_unhurried(instance(replace(pressed, twice=True)))


def test_a_device_writes_in_its_own_unit_what_the_gateway_believes() -> None:
    for profile in read_catalog().profiles.values():
        for spec in profile.readings.values():
            if spec.type != "number":
                continue
            low, high = spec.low or 0.0, 100.0 if spec.high is None else spec.high
            value = low + (high - low) / 4
            back = spec.believe(_to_raw(spec, value), spec.raw_unit)
            assert not isinstance(back, Disbelief), (profile.id, spec.id)
            assert abs(float(back) - value) < 1e-6 * max(1.0, abs(value))


def test_the_chosen_communities_have_their_devices_on_the_agents_bus() -> None:
    district = give_addresses(generate(1, 20), ["c001"])
    first, *others = district.communities
    assert all(device.address == f"{BUS}/{device.id}" for device in first.devices)
    assert not any(device.address.startswith(BUS) for settlement in others for device in settlement.devices)
