"""Rows that are good, by name; those that are not go into the report, and what hangs on them follows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct

from gateway.core.district import Fault
from gateway.core.model import Grid, Place
from gateway.runtime.district_rows import FORMS, Form
from gateway.runtime.district_tables import BadRow, Report, Row

STEP: Final = 500
"""Rows after which the progress is told."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
N = TypeVar("N", Grid, Place)


class Tables(Struct, frozen=True):
    """The rows of each table that is there, by its form's file. Those of places may come from two files."""

    rows: Mapping[str, Sequence[Row]]
    broken: Collection[str]
    """Tables of which a part could not be read."""

    @property
    def size(self) -> int:
        """Rows in all."""
        return sum(len(rows) for rows in self.rows.values())


class Found(Struct, Generic[T]):
    """A good row, and what it says."""

    row: Row
    value: T


class Sieve:
    """``homes`` are, by form and id, the communities that have something of this name already."""

    def __init__(
        self,
        tables: Tables,
        report: Report,
        homes: Mapping[str, Mapping[str, set[str]]],
        on_rows: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.tables = tables
        self.report = report
        self.homes = homes
        self._on_rows = on_rows
        self._bad: dict[str, dict[object, str]] = {form.file: {} for form in FORMS}

    def rows(self, form: Form) -> Sequence[Row]:
        """All rows of a table, bad ones too."""
        return self.tables.rows.get(form.file, ())

    def has(self, form: Form) -> bool:
        """Whether the table is there."""
        return form.file in self.tables.rows

    def lose(self, form: Form, key: object, where: str) -> None:
        """Lets what hangs on this stay out though no row of its own is bad."""
        self._bad[form.file].setdefault(key, where)

    def where_bad(self, form: Form, key: object) -> str | None:
        """Where the bad row of this name stands."""
        return self._bad[form.file].get(key)

    def read(self, form: Form, read: Callable[[Row], T], name: Callable[[T], K]) -> dict[K, Found[T]]:
        """Good rows by name; the first one with a name has it."""
        found: dict[K, Found[T]] = {}
        rows = self.rows(form)
        for start in range(0, len(rows), STEP):
            part = rows[start : start + STEP]
            for row in part:
                value = read(row)
                key = name(value)
                if key in found:
                    what = f"this {form.noun} stands in {found[key].row.where} too"
                    row.fault(form.key, "duplicate", what, "drop one of them, or give it another name")
                if row.is_bad:
                    self.refuse(form, key, row)
                else:
                    found[key] = Found(row, value)
            self._on_rows(len(part))
        return found

    def refuse(self, form: Form, key: object, row: Row) -> None:
        """Reports a bad row, which stays out under its name."""
        self.report.bad.extend(row.faults)
        self._bad[form.file].setdefault(key, row.where)

    def keep(self, form: Form, found: dict[K, Found[T]], key: K) -> bool:
        """Keeps the row when it is still good, and says whether; one that is not goes."""
        row = found[key].row
        if row.is_bad:
            del found[key]
            self.refuse(form, key, row)
        return not row.is_bad

    def is_bad(self, form: Form, key: object) -> bool:
        """Whether a bad row has this name."""
        return key in self._bad[form.file]

    def is_clean(self, form: Form) -> bool:
        """Whether every row of the table was good: otherwise what it lacks may be what was bad."""
        return form.file not in self.tables.broken and not self._bad[form.file]

    def note(self, row: Row, column: str, code: str, what: str, mend: str) -> None:
        """A note on a row that is good."""
        row.fault(column, code, what, mend)
        self.report.notes.append(row.faults.pop())

    def look_for(self, row: Row, column: str, form: Form, id: str, known: Collection[str]) -> bool:
        """Whether what the cell names is there; otherwise the row gets its fault."""
        if id in known:
            return True
        noun, homes = form.noun, self.homes.get(form.file, {}).get(id)
        where = self._bad[form.file].get(id)
        if where is not None:
            row.fault(column, "needs-bad-row", f"{noun} {id} stands in {where}, which is bad", MEND_FIRST)
        elif homes:
            what = f"{noun} {id} is of {', '.join(sorted(homes))}"
            row.fault(column, "other-community", what, "name one of the same community")
        else:
            what = f"there is no {noun} {id[:60]}"
            row.fault(column, f"unknown-{noun}", what, f"add it to {form.file}, or correct it")
        return False

    def settle(
        self,
        form: Form,
        found: dict[str, Found[N]],
        known: Mapping[str, N],
        check: Callable[[Iterable[N]], tuple[Fault, ...]],
    ) -> tuple[dict[str, N], tuple[Fault, ...]]:
        """What makes a tree with what is known already; rows that do not fit, and what hangs on them, go. With the
        faults that no row is to blame for."""
        while True:
            there = {**known, **{id: one.value for id, one in found.items()}}
            faults = check(there.values())
            spoilt: dict[str, list[Fault]] = {}
            for fault in faults:
                culprit = _blame(_name_of(fault), found, there)
                if culprit is not None:
                    spoilt.setdefault(culprit, []).append(fault)
            if not spoilt:
                return there, faults
            for id, own in spoilt.items():
                row = found[id].row
                for fault in own:
                    self._explain(form, row, id, fault, there[id].parent or "")
                self.keep(form, found, id)

    def _explain(self, form: Form, row: Row, id: str, fault: Fault, parent: str) -> None:
        what, _, mend = f"{fault.what} {fault.detail}".partition("; ")
        where = self._bad[form.file].get(parent)
        if _name_of(fault) != id:
            row.fault("", "breaks-known", f"then {what}", "correct this row, or give the other one too")
        elif fault.code == "unknown-parent" and (where is not None or parent in self.homes.get(form.file, {})):
            self.look_for(row, "parent", form, parent, ())
        else:
            row.fault(_COLUMNS.get(fault.code, "parent"), fault.code, what, mend or "correct it")

    def note_vanished(self, form: Form, names: Iterable[str], *, may_go: bool, stays: bool = False) -> None:
        """Notes what the ledger has and the table has not; ``stays`` is what goes in no case."""
        mend = TAKEN_OUT if may_go else STAYS_ALWAYS if stays else STAYS
        self.report.notes.extend(
            BadRow(form.file, 0, 0, "vanished", f"{form.noun} {name} is in the ledger and not in this table", mend)
            for name in names
        )


_COLUMNS: Final = {
    "wrong-digits": "code",
    "wrong-prefix": "code",
    "wrong-length": "code",
    "wrong-serial": "code",
    "unknown-level": "level",
    "second-root": "",
}
"""The column that a fault of a tree concerns, where it is not the parent's."""

MEND_FIRST: Final = "mend that row first"
TAKEN_OUT: Final = "it goes, as asked"
STAYS: Final = "it stays; --retire takes it out, once no row of this table is bad"
STAYS_ALWAYS: Final = "it stays: what happened there is told by its name"


def _name_of(fault: Fault) -> str:
    return fault.what.partition(" ")[2]


def _blame(id: str, found: Mapping[str, Found[N]], there: Mapping[str, N]) -> str | None:
    """The row behind a fault: the thing's own, or else the nearest above it."""
    seen: set[str] = set()
    at: str | None = id
    while at is not None and at in there and at not in seen:
        if at in found:
            return at
        seen.add(at)
        at = there[at].parent
    return None
