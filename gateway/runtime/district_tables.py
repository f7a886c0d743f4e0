"""Tables as people keep them: CSV in UTF-8 or GB 18030, one row a line, and what is wrong with a row said in one line.

A row never reaches over its line: a quote that somebody forgot spoils one row, not the rest of the file.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from gateway.core.model import Scalar
from gateway.runtime.district_codes import CODES
from gateway.runtime.workbooks import MOST_COLUMNS, NoWorkbook, read_workbook

LONGEST_CELL: Final = 2_000
LONGEST_LINE: Final = 20_000
LARGEST: Final = 2**53 - 1
"""The largest whole number of an attribute."""

_ID: Final = re.compile(r"[a-z0-9-]{1,48}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_FORMULA: Final = re.compile(r"['\s\x00\ufeff]*[=+\-@＝＋－＠]|'*[\t\r\n]")
"""Signs of full width, too: a Chinese spreadsheet reads them as the others. What cannot be seen before them is left out
by some that read the table."""
_SPREADSHEET: Final = re.compile(r"[0-9](\.[0-9]+)?[Ee]\+[0-9]{1,3}")
_PLAIN: Final = re.compile(r"[^;='\s](?:[^;=']*[^;='\s])?")
_PAIR: Final = re.compile(r"\s*([^=;']*?)\s*=\s*(?:'((?:[^']|'')*)'|([^;']*?))\s*(?:;|$)")
_SYNTAX: Final = "write name=value;name=value, and texts with ; or = in single quotes"
_FOREIGN: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a workbook", b"\xd0\xcf": "a workbook"}
"""How files begin that a spreadsheet writes and that are no CSV."""

MARK: Final = "\ufeff"
"""Stands at the start of a table, so that a spreadsheet takes it for UTF-8 and shows Chinese as it is."""

FOLLOWING: Final = frozenset({"needs-bad-row"})
"""What is bad because something else is."""

SHOWN: Final = 100
SHOWN_OF_MANY: Final = 5
"""So many rows with the same fault in one file are shown on a terminal."""

HEAD: Final = ("文件 file", "行 line", "列 column", "类别 sort", "代码 code", "说明", "what", "how to mend")

T = TypeVar("T")


class BadRow(Struct, frozen=True):
    """What is wrong in a file, and how to mend it. ``line`` and ``column`` count from 1; 0 is the file as a whole, or
    the row. ``code`` is one of `CODES`. Nothing personal is quoted: no number, no address."""

    file: str
    line: int
    column: int
    code: str
    what: str
    mend: str

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{where}: {CODES[self.code]} · {self.what}; {self.mend} [{self.code}]"


class Report:
    """What was found in the files: ``bad`` rows, which stay out, and ``notes`` on what is in or was left alone."""

    def __init__(self) -> None:
        self.bad: list[BadRow] = []
        self.notes: list[BadRow] = []

    def lines(self) -> Iterator[str]:
        """Bad rows, then notes, for a terminal: of many alike the first ones, and how many more there are. What is bad
        only because of another row comes after those."""
        first = [row for row in self.bad if row.code not in FOLLOWING]
        yield from _shorten(first, SHOWN)
        yield from _shorten([row for row in self.bad if row.code in FOLLOWING], SHOWN_OF_MANY)
        yield from _shorten(self.notes, SHOWN_OF_MANY)

    def write(self, path: Path) -> None:
        """All of it as a table. Raises OSError."""
        sorts = (("坏行 bad", self.bad), ("提示 note", self.notes))
        rows = [
            (row.file, str(row.line), str(row.column), sort, row.code, CODES[row.code], row.what, row.mend)
            for sort, found in sorts
            for row in found
        ]
        write_table(path, HEAD, rows)


def is_report(path: Path) -> bool:
    """Whether the file is a report of an earlier import."""
    head = ",".join(HEAD).encode()
    with path.open("rb") as file:
        return file.read(len(head) + 8).removeprefix(MARK.encode()).startswith(head)


def _shorten(rows: Iterable[BadRow], most: int) -> Iterator[str]:
    shown: dict[tuple[str, str], int] = {}
    for row in rows:
        alike = (row.file, row.code)
        shown[alike] = shown.get(alike, 0) + 1
        if shown[alike] <= most:
            yield str(row)
    for (file, code), count in shown.items():
        if count > most:
            yield f"{file}: {CODES[code]} · and {count - most} more; --report FILE.csv has them all [{code}]"


class Table(Struct, frozen=True):
    """A file as read: its rows, and the encoding that it turned out to be in. ``is_whole`` is false when a part of it
    could not be read: then nobody can say what it does not have."""

    file: str
    encoding: str
    rows: tuple[Row, ...]
    is_whole: bool = True


class Row:
    """One row, cell by cell. Every cell that is not as it should be adds to ``faults``; ``is_bad`` says whether any
    was."""

    __slots__ = ("_cells", "_columns", "_is_cells", "faults", "file", "line")

    def __init__(
        self, file: str, line: int, cells: Sequence[str], columns: Mapping[str, int], *, is_table: bool = True
    ) -> None:
        """``is_table`` is false for what has names and no numbered columns."""
        self.file = file
        self.line = line
        self.faults: list[BadRow] = []
        self._cells = cells
        self._columns = columns
        self._is_cells = is_table

    @property
    def is_bad(self) -> bool:
        return bool(self.faults)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def has(self, column: str) -> bool:
        """Whether the file has the column at all: one that is not there says nothing."""
        return column in self._columns

    def peek(self, column: str) -> str:
        """The cell as it is, without judging it."""
        index = self._columns.get(column)
        if index is None:
            return ""
        cell = self._cells[index].strip()
        return unguard(cell) if cell.startswith("'") else cell

    def fault(self, column: str, code: str, what: str, mend: str) -> None:
        """Adds a fault of a column, or of the whole row (an empty name)."""
        number = self._columns[column] + 1 if self._is_cells and column in self._columns else 0
        self.faults.append(BadRow(self.file, self.line, number, code, what, mend))

    def text(self, column: str, *, required: bool = False) -> str:
        """The cell's text; an empty one where the column is missing."""
        text = self.peek(column)
        if not text:
            # A cell that a spreadsheet has spoilt is not empty, and has its fault already.
            if required and all(fault.column != self._columns.get(column, -1) + 1 for fault in self.faults):
                self.fault(column, "empty", f"{column} is empty", f"write the {column}")
            return text
        if len(text) > LONGEST_CELL or not is_plain(text):
            self.fault(column, "bad-text", f"{column} is too long or has control characters", "write plain text")
            return ""
        return text

    def code(self, column: str, *, required: bool = False) -> str:
        """A code of many digits, which spreadsheets like to take for a number."""
        text = self.text(column, required=required)
        if _SPREADSHEET.fullmatch(text):
            what = f"{column} {text} was rounded by a spreadsheet"
            self.fault(column, "spreadsheet-number", what, "make the column a column of text, and write the code again")
        return text

    def id(self, column: str, *, required: bool = True) -> str:
        """An id as on the wire."""
        text = self.code(column, required=required)
        if text and _ID.fullmatch(text) is None and _SPREADSHEET.fullmatch(text) is None:
            self.fault(
                column, "bad-id", f"{column} {text[:60]!r} is no id", "use 1 to 48 of the characters a-z, 0-9, -"
            )
        return text

    def number(self, column: str) -> float | None:
        """A finite number, or None for an empty cell."""
        text = self.text(column)
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fault(column, "bad-number", f"{column} {text[:60]!r} is no number", "write digits, such as 120.4567")
            return None
        return number

    def whole(self, column: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``."""
        text = self.text(column, required=default is None)
        if not text:
            return low if default is None else default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            what = f"{column} {text[:60]!r} is no whole number from {low} to {high}"
            self.fault(column, "bad-number", what, "write one")
            return low
        return int(text)

    def choice(self, column: str, read: Callable[[str], T], choices: Iterable[str], default: T) -> T:
        """One of the words that ``read`` knows; ``default`` for an empty or a wrong one."""
        text = self.text(column)
        if not text:
            return default
        try:
            return read(text)
        except ValueError:
            listed = ", ".join(choices)
            self.fault(column, f"unknown-{column}", f"there is no {column} {text[:60]!r}", f"write one of {listed}")
            return default

    def attributes(self, column: str = "attributes") -> dict[str, Scalar]:
        """``name=value;name=value``."""
        try:
            return read_attributes(self.text(column))
        except ValueError as error:
            self.fault(column, "bad-attributes", str(error), _SYNTAX)
            return {}


def is_plain(text: str) -> bool:
    """Whether it can be printed. The wide space of Chinese texts is a space like any other."""
    return text.isprintable() or text.replace("\u3000", " ").isprintable()


def read_attributes(text: str) -> dict[str, Scalar]:
    """``away=false;floors=6;noise_class='2'``: true, false and numbers are what they look like, unless quoted. Raises
    ValueError in plain words."""
    found: dict[str, Scalar] = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ValueError(f"{text[at : at + 60]!r} is not name=value")
        name, quoted, plain = pair[1], pair[2], pair[3]
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name[:60]!r} is no attribute's name: a small letter, then a-z, 0-9 and _")
        if name in found:
            raise ValueError(f"attribute {name} stands there twice")
        if quoted is None and not plain:
            raise ValueError(f"attribute {name} has no value")
        found[name] = quoted.replace("''", "'") if quoted is not None else _read_scalar(plain)
        at = pair.end()
    return found


def write_attributes(attributes: Mapping[str, Scalar]) -> str:
    """The same the other way round, by name."""
    return ";".join(f"{name}={_write_scalar(attributes[name])}" for name in sorted(attributes))


def _read_scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    try:
        whole = int(text)
    except ValueError:
        pass
    else:
        # What readers of JSON do not hold exactly is a text like any other.
        return whole if abs(whole) <= LARGEST else text
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _write_scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    is_bare = _PLAIN.fullmatch(value) is not None and isinstance(_read_scalar(value), str)
    return value if is_bare else "'" + value.replace("'", "''") + "'"


def guard(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like one gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """The cell without that apostrophe. What begins like a formula is a text like any other here."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_table(path: Path, required: Sequence[str], optional: Sequence[str], report: Report) -> Table:
    """The file's rows; those that cannot be read are in the report. Raises OSError."""
    return parse_table(path.name, path.read_bytes(), required, optional, report)


def parse_table(file: str, data: bytes, required: Sequence[str], optional: Sequence[str], report: Report) -> Table:
    """The same for what a file of this name holds."""
    before = len(report.bad)
    lines, encoding = _decode(data, file, report.bad)
    rows: list[Row] = []
    columns: dict[str, int] | None = None
    width = 0
    for line, text in lines:
        if not text.strip():
            continue
        cells = _split(file, line, text, report.bad)
        if cells is None:
            continue
        if columns is None:
            columns = _read_head(file, line, cells, required, optional, report)
            width = len(cells)
            if columns is None:
                break
        elif len(cells) != width:
            what = f"there are {len(cells)} columns, not {width}"
            mend = "give every column, empty ones too, and quote cells with a comma"
            report.bad.append(BadRow(file, line, 0, "wrong-columns", what, mend))
        elif any(cells):
            rows.append(Row(file, line, cells, columns))
    if columns is None and len(report.bad) == before:
        what, mend = "it is empty", f"write {','.join(required)} first"
        report.bad.append(BadRow(file, 0, 0, "missing-column", what, mend))
    return Table(file, encoding, tuple(rows), len(report.bad) == before)


def parse_workbook(file: str, data: bytes, required: Sequence[str], optional: Sequence[str], report: Report) -> Table:
    """The same for the first sheet of an .xlsx file. What a spreadsheet made of a code is a fault of its row, and a
    number where a text belongs a note."""
    before = len(report.bad)
    rows: list[Row] = []
    columns: dict[str, int] | None = None
    try:
        sheet = read_workbook(data)
    except NoWorkbook as error:
        mend = "save it as .xlsx anew, with one sheet of devices, or as CSV in UTF-8"
        report.bad.append(BadRow(file, 0, 0, error.code, str(error), mend))
        return Table(file, "xlsx", (), is_whole=False)
    for line, cells in sheet:
        if not any(cell.text or cell.fault for cell in cells):
            continue
        if columns is None:
            columns = _read_head(file, line, [cell.text for cell in cells], required, optional, report)
            if columns is None:
                break
            continue
        row = Row(file, line, [cell.text for cell in cells] + [""] * (MOST_COLUMNS - len(cells)), columns)
        for name, index in columns.items():
            cell = cells[index] if index < len(cells) else None
            if cell is not None and cell.fault:
                what, mend = _SHEET_FAULTS[cell.fault]
                row.fault(name, cell.fault, f"{name} {what}", mend)
            elif cell is not None and cell.note:
                what, mend = _SHEET_FAULTS[cell.note]
                report.notes.append(BadRow(file, line, index + 1, cell.note, f"{name} {cell.text} {what}", mend))
        rows.append(row)
    if columns is None and len(report.bad) == before:
        what, mend = "it is empty", f"write {', '.join(required)} into the first row"
        report.bad.append(BadRow(file, 0, 0, "missing-column", what, mend))
    return Table(file, "xlsx", tuple(rows), len(report.bad) == before)


_SHEET_FAULTS: Final[Mapping[str, tuple[str, str]]] = {
    "formula": ("is a formula or an error", "copy the cells, and paste them as values"),
    "was-date": ("was made a date by the spreadsheet", "make the column a column of text, and write it again"),
    "was-number": (
        "is a number: zeros before it are lost, if it had any",
        "look whether it is right; to be safe, make the column a column of text",
    ),
    "spreadsheet-number": (
        "is a number of more than 15 digits, and was rounded",
        "make the column a column of text, and write the code again",
    ),
}


def _split(file: str, line: int, text: str, faults: list[BadRow]) -> list[str] | None:
    if len(text) > LONGEST_LINE:
        faults.append(BadRow(file, line, 0, "bad-text", "the row is too long", f"write at most {LONGEST_LINE} signs"))
        return None
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:
        what, mend = "a quote has no end", 'close it, and write "" for a quote'
        faults.append(BadRow(file, line, 0, "bad-quotes", what, mend))
        return None


def _read_head(
    file: str, line: int, cells: Sequence[str], required: Sequence[str], optional: Sequence[str], report: Report
) -> dict[str, int] | None:
    """Column → index; None when one is missing that is needed, or that seems to be meant. Others that nobody knows are
    people's own, and are left out."""
    found: dict[str, int] = {}
    strange: list[tuple[int, str]] = []
    faults = len(report.bad)
    for index, cell in enumerate(cells):
        name = cell.strip().lower()
        if name not in required and name not in optional:
            strange.append((index + 1, name))
        elif name in found:
            what = f"column {name} stands there twice"
            report.bad.append(BadRow(file, line, index + 1, "twice-column", what, "drop one"))
        else:
            found[name] = index
    missing = [name for name in (*required, *optional) if name not in found]
    for column, name in strange:
        close = difflib.get_close_matches(name, missing, 1, 0.7)
        what = f"there is no column {name[:60]!r}"
        if close:
            report.bad.append(BadRow(file, line, column, "unknown-column", what, f"did you mean {close[0]}?"))
        elif name:
            mend = f"the columns are {', '.join((*required, *optional))}"
            report.notes.append(BadRow(file, line, column, "own-column", what, mend))
    report.bad.extend(
        BadRow(file, line, 0, "missing-column", f"column {name} is missing", "add it to the first line")
        for name in required
        if name not in found
    )
    return found if len(report.bad) == faults else None


def _decode(data: bytes, file: str, faults: list[BadRow]) -> tuple[list[tuple[int, str]], str]:
    """(line, text) and the encoding. A file is UTF-8 when most of its lines beyond ASCII are: Chinese text in GB 18030
    hardly ever is by chance. What is left over is reported line by line."""
    foreign = _FOREIGN.get(data[:2])
    if foreign is not None:
        faults.append(BadRow(file, 0, 0, "not-utf-8", f"it is {foreign}", "save it as CSV in UTF-8"))
        return [], foreign
    if data.startswith(b"\xef\xbb\xbf"):
        data, has_mark = data[3:], True
    else:
        has_mark = False
    raw = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    beyond = [line for line in raw if not line.isascii()]
    readable = sum(1 for line in beyond if _is_readable(line, "utf-8"))
    encoding = "utf-8" if has_mark or 2 * readable >= len(beyond) else "gb18030"
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(raw, 1):
        if _is_readable(line, encoding):
            lines.append((number, line.decode(encoding)))
        else:
            what, mend = f"it is not {encoding.upper()} as the rest is", "save the file as CSV in UTF-8"
            faults.append(BadRow(file, number, 0, "not-utf-8", what, mend))
    return lines, encoding


def _is_readable(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The text of a table that `read_table` reads back as it was."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # A cell never reaches over its line either.
    writer.writerows([" ".join(guard(cell).splitlines()) for cell in row] for row in rows)
    return MARK + text.getvalue()


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], *, mode: int = 0o644) -> None:
    """Writes a table in UTF-8. ``mode`` is the file's when it is made. Raises OSError."""

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    with open(path, "w", encoding="utf-8", newline="", opener=create) as file:
        file.write(format_table(columns, rows))
