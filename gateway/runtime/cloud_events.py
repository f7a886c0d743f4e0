"""CloudEvents 1.0 in structured JSON: how the gateway tells others of something. Pure; the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import structs

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def encode_cloud_event(
    id: str, type: str, source: str, subject: str, at: int, data: object, extensions: Mapping[str, str] | None = None
) -> bytes:
    """The event as UTF-8. ``at`` is in ms UTC; ``extensions`` are attributes of our own."""
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": id,
            "source": source,
            "type": type,
            "subject": subject,
            "time": to_rfc3339(at),
            "datacontenttype": "application/json",
            **(extensions or {}),
            "data": data,
        }
    )


def spell_out(value: object) -> object:
    """A struct as a mapping of all its fields, and so all that is in it: a receiver needs none of our defaults."""
    if isinstance(value, msgspec.Struct):
        return {name: spell_out(part) for name, part in structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [spell_out(part) for part in value]
    return value


def to_rfc3339(at: int) -> str:
    """A time in ms UTC as ``2026-11-23T12:00:00.123Z``."""
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
