"""The keys with which pages and programs ask (``Idempotency-Key``, or a form's ``id``), as ids of the journal's events.

The same again is the same event, and happens once. The key of somebody else, or with another content, is another event:
it is done or refused for itself, and nobody is told that something was done which was not.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gateway.runtime.access import Actor

FINGERPRINT_BYTES: Final = 12


def make_event_id(kind: str, actor: Actor, key: str, *content: object) -> str:
    """``content`` is what was asked for, and where: texts and structs that msgspec can write."""
    written = msgspec.json.encode(content, order="deterministic")
    fingerprint = hashlib.blake2b(written, digest_size=FINGERPRINT_BYTES).hexdigest()
    return f"{kind}/{actor.id}/{key}/{fingerprint}"
