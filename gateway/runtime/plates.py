"""Plates are sealed at the door: from here on a plate is a keyed hash and a mask, in memory, journal and incidents.

A wanted plate is matched by the same hash. The key lies in a file of its own beside the ledger (mode 0600), so that a
copy of the ledger alone tells no plate.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from gateway.errors import GatewayError
from gateway.wire import Message, encode_message

_DROPPED: Final = str.maketrans("", "", "·•.- ")
KEY_BYTES: Final = 32
LONGEST_PLATE: Final = 16
"""Twice the longest plate there is; beyond, a mask of fixed length stands for it."""


def normalise_plate(plate: str) -> str:
    """One spelling per plate: NFKC, upper case, without dots, dashes and spaces."""
    return unicodedata.normalize("NFKC", plate).translate(_DROPPED).upper()


def mask_plate(plate: str) -> str:
    """``鲁B12345`` → ``鲁B12•••5``: enough to talk about it, too little to know it."""
    plain = normalise_plate(plate)
    if len(plain) > LONGEST_PLATE:
        return f"{plain[:4]}•••"
    return plain if len(plain) < 6 else f"{plain[:4]}{'•' * (len(plain) - 5)}{plain[-1]}"


def load_key(path: Path) -> bytes:
    """A key of this installation, made at the first start. Raises GatewayError when the file holds none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        what = f"it is no key: it has {len(key)} bytes, not {KEY_BYTES}"
        raise GatewayError("bad-key", what, str(path), "restore it from a backup")
    return key


def _make_key(path: Path) -> None:
    """The key appears whole and on the disk, or not at all: neither a kill nor a power cut leaves a part of it."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb", opener=_open_private) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # Of two programs that start at once, the second takes the first one's.
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


class PlateSeal:
    """Seals the plate fields of a message's signals. ``kinds`` maps an event kind to its plate fields."""

    def __init__(self, key: bytes, kinds: Mapping[str, Collection[str]]) -> None:
        self._key = key
        self._kinds = kinds

    def seal(self, plate: str) -> str:
        """The plate's mask and the keyed hash by which it is matched (HMAC-SHA-256 of its one spelling, 24 hex
        digits): ``鲁B12•••5~3fa8…``. A sealed plate stays as it is."""
        if "~" in plate:
            return plate
        plain = normalise_plate(plate)
        return f"{mask_plate(plain)}~{hmac.new(self._key, plain.encode(), hashlib.sha256).hexdigest()[:24]}"

    def apply(self, message: Message, body: bytes) -> tuple[Message, bytes]:
        """The message with sealed plates, and the body that the journal keeps. Both as they are when there are none."""
        if not any(signal.kind in self._kinds for signal in message.signals):
            return message, body
        signals = []
        for signal in message.signals:
            data = dict(signal.data)
            for field in self._kinds.get(signal.kind, ()):
                plate = data.get(field)
                if isinstance(plate, str):
                    # A "~" of the sender's own would pass for a seal.
                    data[field] = self.seal(plate.replace("~", ""))
            signals.append(replace(signal, data=data))
        sealed = replace(message, signals=tuple(signals))
        return sealed, encode_message(sealed)
