"""What a person may ask of devices for an incident, and in words why not. What becomes of it is `casebook`'s affair."""

from __future__ import annotations

from typing import Final

from gateway.core.incident import is_over
from gateway.core.model import DeviceState, Incident, Order, Role
from gateway.core.registry import Registry

ORDERERS: Final = (Role.DISPATCHER,)
"""Whose orders are taken."""

ORDER_DEVICES: Final = 64
"""Devices of one order, at most: the speakers of a large community."""

ORDER_TTL_MS: Final = 2 * 60_000
"""An order that could not be given within two minutes is given no more: whoever gave it waits at the page, and would
rather hear soon that it was not done than have a gate open behind their back."""

UPKEEP: Final = frozenset({"lamp", "sync_clock", "initialise"})
"""Commands that are the gateway's and its technicians' own: nobody gives them for an incident."""


ON_THE_SPOT: Final = frozenset({"open_valve"})
"""Commands that no screen gives: a gas valve is opened by somebody who stands there and has looked at every tap behind
it. (Ours; rules never open one either.)"""


def refuse_order(order: Order, incident: Incident | None, registry: Registry) -> str | None:
    """Why this order is refused, in words; None when its devices are to be commanded."""
    if incident is None:
        return "no such open incident in this community"
    if order.role not in ORDERERS:
        return f"commands are not for a {order.role}"
    if not order.actor.strip():
        return "nobody is named as the one who acts"
    if is_over(incident):
        return f"nothing is commanded for an incident that is {incident.state}"
    if order.grid and order.grid not in incident.chain:
        return f"it lies in grid {incident.grid or 'unknown'}, which is not below yours ({order.grid})"
    if not order.reason.strip():
        return "a command needs a reason"
    if not 0 < len(set(order.devices)) == len(order.devices) <= ORDER_DEVICES:
        return f"a command names 1 to {ORDER_DEVICES} devices, each once"
    for id in order.devices:
        problem = _refuse_device(order, id, registry)
        if problem is not None:
            return problem
    return None


def _refuse_device(order: Order, id: str, registry: Registry) -> str | None:
    known = registry.devices.get(id)
    if known is None:
        return f"there is no device {id[:48]} in this community"
    if order.grid and order.grid not in registry.grid_chain(known.place):
        return f"device {id} lies in grid {registry.grid_of(known.place) or 'unknown'}, which is not below yours"
    if known.device.state is not DeviceState.ACTIVE:
        return f"device {id} is not in use ({known.device.state}): it is not commanded"
    spec = known.profile.commands.get(order.name)
    if spec is None:
        return f"device {id} cannot do {order.name[:48]}"
    if order.name in UPKEEP:
        return f"{order.name} is not given for an incident"
    if order.name in ON_THE_SPOT:
        return f"{order.name} is done by somebody on the spot"
    return spec.refuse(order.args)
