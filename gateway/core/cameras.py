"""What is registered of a camera so that people can look through it: its national id and its address.

We speak no video protocol: the id is for the video platform (GB/T 28181), the address for a player. Neither opens
anything without a password, and no password is ever registered here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.core.model import Device, Scalar

GB28181: Final = "gb28181"
RTSP: Final = "rtsp"
CAMERA_ATTRIBUTES: Final = (GB28181, RTSP)

KINDS: Final = frozenset({"camera", "plate-camera", "face-camera"})
"""Kinds of device that are cameras, with or without an id."""

ADDRESS_LIMIT: Final = 256

_TYPES: Final = range(111, 200)
"""GB/T 28181, the id's digits 11 to 13: 111 to 130 main devices at the front (recorders among them), 131 to 199 what
hangs on them (131 a camera, 132 a network camera). From 200 on it is a platform or a person."""

_SECRETS: Final = re.compile(r"(user|account|login|pass|pwd|psw|token|secret|auth|sign|key)[a-z0-9]*=", re.IGNORECASE)
"""Makers put them behind the question mark, and some into the path."""


_NO_ADDRESS: Final = "is an address like rtsp://10.1.2.3:554/stream"


def is_camera(device: Device, kind: str) -> bool:
    """Whether people can look through this device: by its kind, or because it has an id or an address."""
    return kind in KINDS or any(name in device.attributes for name in CAMERA_ATTRIBUTES)


def refuse_camera(attributes: Mapping[str, Scalar]) -> str | None:
    """Why an attribute that tells of a camera cannot be registered, in words that do not repeat what may be secret;
    None when all is well."""
    for name, check in ((GB28181, _refuse_id), (RTSP, _refuse_address)):
        if name in attributes and (problem := check(attributes[name])) is not None:
            return f"{name} {problem}"
    return None


def _refuse_id(value: Scalar) -> str | None:
    if not isinstance(value, str) or re.fullmatch(r"[0-9]{20}", value) is None:
        return "is a text of 20 digits, as GB/T 28181 has it"
    if int(value[10:13]) not in _TYPES:
        return f"has {value[10:13]} for its type: a camera's is one of {_TYPES[0]} to {_TYPES[-1]}"
    return None


def _refuse_address(value: Scalar) -> str | None:
    if not isinstance(value, str) or len(value) > ADDRESS_LIMIT or not value.isascii() or not value.isprintable():
        return f"is an address of at most {ADDRESS_LIMIT} letters, digits and signs"
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("rtsp", "rtsps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return _NO_ADDRESS
    if not is_address or any(sign in value for sign in " <>\"'\\"):
        return _NO_ADDRESS
    if "@" in parts.netloc or _SECRETS.search(unquote(value)) is not None:
        return "holds a name or a password: write it without; whoever looks signs in at the player"
    return None
