"""What a resident says beside a press on a help page: values, and the port to where it is kept.

The press is an event like any other; the telephone number and the words of whoever pressed are personal, so they are
in no event: not in the journal, not in the timeline, not in a delivery. They stand beside, sealed, under the event's
id, and are forgotten when nobody needs them any more. All times are ``int`` milliseconds UTC, real time.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from gateway.core.model import Incident, Text
from gateway.runtime.accounts import Deed
from gateway.runtime.ports import CommitRefused

PAGE: Final = "page/"
"""What the event id of a press from a page begins with."""

SECRET: Final = re.compile(r"[A-Za-z0-9_-]{22,64}")
"""What a page makes for each press before it sends it: 128 random bits or more. Whoever has it sees how the case
stands, and nobody else: ids in the journal are made from it, and do not tell it."""

LONGEST_PHONE: Final = 24
LONGEST_WORDS: Final = 200


class Need(StrEnum):
    """The kinds of help that a page offers; device_profiles/sos/resident-page.yaml has the same."""

    MEDICAL = "medical"
    FIRE = "fire"
    GAS = "gas"
    TRAPPED = "trapped"
    THREAT = "threat"
    OTHER = "other"


NEED_TITLES: Final[dict[Need, Text]] = {
    Need.MEDICAL: {"zh": "急病、受伤", "en": "Ill or hurt"},
    Need.FIRE: {"zh": "着火、冒烟", "en": "Fire or smoke"},
    Need.GAS: {"zh": "燃气泄漏", "en": "Gas leak"},
    Need.TRAPPED: {"zh": "被困", "en": "Trapped"},
    Need.THREAT: {"zh": "人身受威胁", "en": "In danger"},
    Need.OTHER: {"zh": "其他求助", "en": "Other help"},
}


class Call(Struct, frozen=True, omit_defaults=True):
    """What was said beside the press with this event ``id``. ``waited`` (ms) lay between the press and its arrival.
    ``is_unreadable``: something was said, and the key that it was sealed with is lost."""

    id: str
    community: str
    place: str
    device: str
    at: int
    waited: int = 0
    need: str = ""
    phone: str = ""
    words: str = ""
    entered_at: int | None = None
    is_unreadable: bool = False

    @property
    def has_said(self) -> bool:
        return bool(self.phone or self.words)

    def says_more_than(self, known: Call) -> bool:
        """Whether anything is said here that is not known, or said at another place."""
        mine, theirs = (self.need, self.phone, self.words), (known.need, known.phone, known.words)
        is_new = any(said not in ("", before) for said, before in zip(mine, theirs, strict=True))
        return is_new or (self.community, self.device) != (known.community, known.device)


class CallElsewhere(CommitRefused):
    """A press with this id was made at another place."""


class Calls(Protocol):
    """Where calls are kept. Every method is one transaction. Raises LedgerDown besides what is named."""

    def keep(self, call: Call) -> Call:
        """Writes what was said; of a call that is there already, only what is said anew, and when it came as long as it
        was not known to be in the journal. The call as it stands now. Raises CallElsewhere."""

    def find(self, id: str) -> Call | None: ...

    def enter(self, id: str, now: int, deed: Deed) -> bool:
        """Notes that the press is in the journal, with its line of the audit log: the first time only."""

    def record(self, deed: Deed) -> None:
        """A line of the audit log for a press that was not taken in."""

    def calls_of(self, incident: str) -> list[Call]:
        """Of an incident's presses, in their order."""

    def unsettled(self, before: int) -> list[Call]:
        """Those of before that time of which it is not known whether the press is in the journal."""

    def drop(self, id: str) -> None: ...

    def forget(self, said_before: int, before: int) -> int:
        """Forgets numbers and words of before ``said_before``, except where the case is open, and whole calls of before
        ``before``. How many were touched."""


_NEED: Final = re.compile(rf"\bneed ({'|'.join(Need)})\b")


def needs_of(incident: Incident) -> tuple[Need, ...]:
    """The kinds of help that its presses asked for, each once, in their order: as its timeline says it."""
    told = (line.why for line in incident.timeline if line.what in ("opened", "joined"))
    return tuple(dict.fromkeys(Need(kind) for why in told for kind in _NEED.findall(why)))


def event_of(secret: str) -> str:
    """The event id of the press with this secret: unique with it, and it does not tell it."""
    return PAGE + hashlib.sha256(secret.encode()).hexdigest()[:32]


def clean(text: str, longest: int) -> str:
    """What somebody typed, on one line, without what cannot be seen."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:longest]
