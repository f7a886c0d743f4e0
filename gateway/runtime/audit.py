"""The chain of the audit log: each line's hash covers the line before it, so that none is changed, taken out or put in
between without every later hash being wrong. Pure.

A chain that somebody has computed anew from some line on is consistent in itself; so the last line's number and hash
are written down elsewhere from time to time (`audit verify` prints them, `--head` compares).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from gateway.runtime.accounts import Accounts, AuditRow, Deed

ALGORITHM: Final = "sha256"
START: Final = "0" * 64
"""What stands before the first line."""


class Flaw(Struct, frozen=True):
    """The first place at which the log is not what was written: ``seq`` is the line's, ``what`` says in words."""

    seq: int
    what: str


class Verdict(Struct, frozen=True):
    """What came of checking: so many ``lines``, the last one's ``seq`` and ``hash``, and what is wrong."""

    lines: int
    seq: int
    hash: str
    flaws: tuple[Flaw, ...] = ()


def chain_hash(before: str, seq: int, deed: Deed) -> str:
    """The hash of a line: over the hash ``before`` it, and its number and deed as canonical bytes."""
    return hashlib.new(ALGORITHM, bytes.fromhex(before) + canonical(seq, deed)).hexdigest()


def canonical(seq: int, deed: Deed) -> bytes:
    """The bytes of a line: a JSON array of all its fields in this order, in UTF-8 without spaces."""
    return msgspec.json.encode(
        [seq, deed.at, deed.who, deed.role, deed.what, deed.about, deed.where, deed.outcome, deed.detail]
    )


def verify_log(accounts: Accounts, known: tuple[int, str] | None = None) -> Verdict:
    """Checks the log as it stands, while others append to it."""
    head = accounts.audit_head()
    return verify(accounts.read_audit(), head, known, lambda: accounts.audit_head()[0])


def verify(
    rows: Iterable[AuditRow],
    head: tuple[int, str],
    known: tuple[int, str] | None = None,
    read_end: Callable[[], int] | None = None,
) -> Verdict:
    """Checks the whole log, from the first line. ``head``: number and hash of the last line, as kept beside the log
    when reading began; ``read_end`` tells that number when it has ended. ``known``: number and hash of a line as noted
    down earlier.

    Each flaw is told once: after a wrong line the chain goes on from what stands there."""
    flaws: list[Flaw] = []
    notes = {seq: hash for seq, hash in (head, known or (0, "")) if seq}
    before, seq, lines = START, 0, 0
    for row in rows:
        lines += 1
        gap = _describe_gap(seq, row.seq)
        if gap:
            flaws.append(Flaw(row.seq, gap))
        elif chain_hash(before, row.seq, row.deed) != row.hash:
            flaws.append(Flaw(row.seq, f"line {row.seq} was changed, or line {seq} before it was put in or changed"))
        elif notes.get(row.seq, row.hash) != row.hash:
            flaws.append(Flaw(row.seq, f"line {row.seq} is not the one that was noted down"))
        before, seq = row.hash, row.seq
    end = max(notes, default=0)
    if end > seq:
        flaws.append(Flaw(seq + 1, _lines(seq + 1, end, "missing at the end")))
    end = read_end() if read_end is not None else head[0]
    if end < seq:
        flaws.append(Flaw(end + 1, _lines(end + 1, seq, "put in at the end")))
    return Verdict(lines, seq, before, tuple(flaws))


def _describe_gap(before: int, seq: int) -> str:
    return _lines(before + 1, seq - 1, "missing") if seq > before + 1 else ""


def _lines(first: int, last: int, what: str) -> str:
    return f"line {first}: {what}" if first == last else f"lines {first} to {last}: {what}"
