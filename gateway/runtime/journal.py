"""Journal rows and the events they hold: one codec, so that what is replayed is what was fed."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.model import (
    Answer,
    Blind,
    Delivery,
    ListChange,
    OperatorAction,
    Order,
    Override,
    Presence,
    Press,
    Refusal,
    RegistryChange,
    SilenceChange,
    Tick,
    Told,
)
from gateway.runtime.ports import JournalRow
from gateway.wire import Message, decode, topic_of

Stored = (
    Presence
    | Answer
    | Tick
    | Blind
    | RegistryChange
    | ListChange
    | Override
    | OperatorAction
    | Order
    | Press
    | Refusal
    | SilenceChange
    | Told
)

SWAP: Final = "swap"
"""The kind of the row that says: from here on, this catalog."""

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Stored]] = msgspec.json.Decoder(Stored)


class JournalFault(Exception):
    """A journal row that cannot be read back: the ledger was damaged, or written by another version."""


def kind_of(event: Stored) -> str:
    """The kind of the event's row."""
    return str(event.__struct_config__.tag)


def encode_event(event: Stored) -> bytes:
    """The body of the event's row."""
    return _encoder.encode(event)


def decode_row(community: str, row: JournalRow) -> Stored | Delivery:
    """The event of a row. Raises JournalFault."""
    if row.kind != "delivery":
        try:
            return _decoder.decode(row.body)
        except msgspec.MsgspecError as error:
            raise JournalFault(f"{community} row {row.seq} ({row.kind}): {error}") from error
    message = decode(topic_of(community, row.source, row.lane), row.body)
    if not isinstance(message, Message):
        raise JournalFault(f"{community} row {row.seq}: its message cannot be decoded any more: {message}")
    # The digest is that of the message as it came: a sealed body has another.
    return Delivery(replace(message, digest=row.digest), row.body)
