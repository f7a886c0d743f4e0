"""Workbooks of spreadsheets (.xlsx) as tables: read cell by cell with what a spreadsheet does to codes, and written
without formulas.

A workbook is a ZIP file of XML that comes from outside: its size is judged before anything of it is read as XML.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from msgspec import Struct
from openpyxl import Workbook, load_workbook
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter

CONTENT_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
BEGINNING: Final = b"PK\x03\x04"

PARTS: Final = 200
UNPACKED: Final = 8 * 1024 * 1024
"""Bytes of all parts together: a thousand devices take some hundred kilobytes."""

MOST_ROWS: Final = 2_000
MOST_COLUMNS: Final = 40
EXACT: Final = 10**15
"""A spreadsheet keeps 15 digits of a number."""

_PACKINGS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZEROS: Final = re.compile(r"0+")


class NoWorkbook(Exception):
    """It cannot be read; ``str()`` says why, ``code`` is one of `gateway.runtime.district_codes.CODES`."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Cell(Struct, frozen=True):
    """A cell as text. ``fault`` is why it is not to be believed, ``note`` what is to be looked at; both are codes, or
    empty."""

    text: str
    fault: str = ""
    note: str = ""


def is_workbook(data: bytes) -> bool:
    """Whether it begins as one."""
    return data.startswith(BEGINNING)


def read_workbook(data: bytes) -> list[tuple[int, list[Cell]]]:
    """The rows of the first sheet with their numbers, from 1. Raises NoWorkbook."""
    _check_size(data)
    try:
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=False, keep_links=False)
        try:
            sheet = book.worksheets[0]
            # What the sheet says of its own size may be wrong, and costs rows that are not there.
            sheet.reset_dimensions()
            rows = []
            for number, row in enumerate(sheet.iter_rows(max_row=MOST_ROWS + 1, max_col=MOST_COLUMNS), 1):
                if number > MOST_ROWS:
                    raise NoWorkbook("too-big", f"a sheet has at most {MOST_ROWS} rows")
                rows.append((number, [_read(cell) for cell in row]))
            return rows
        finally:
            book.close()
    except NoWorkbook:
        raise
    except (DefusedXmlException, ParseError) as error:
        raise NoWorkbook("not-a-workbook", "its parts are not the XML of a workbook") from error
    except Exception as error:
        # Whatever a library trips over in a foreign file is the file's fault.
        raise NoWorkbook("not-a-workbook", f"it cannot be read ({type(error).__name__})") from error


def _check_size(data: bytes) -> None:
    """What the directory says, and what is really there: one may lie."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            if len(parts) > PARTS or sum(part.file_size for part in parts) > UNPACKED:
                raise NoWorkbook("too-big", f"it has more than {PARTS} parts, or {UNPACKED >> 20} MB unpacked")
            if any(part.flag_bits & 1 or part.compress_type not in _PACKINGS for part in parts):
                raise NoWorkbook("not-a-workbook", "it is locked with a password, or packed in an unknown way")
            left = UNPACKED
            for part in parts:
                with archive.open(part) as stream:
                    while chunk := stream.read(64 * 1024):
                        left -= len(chunk)
                        if left < 0:
                            raise NoWorkbook("too-big", f"it has more than {UNPACKED >> 20} MB unpacked")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise NoWorkbook("not-a-workbook", "it is no whole .xlsx file") from error


def _read(cell: Any) -> Cell:
    value = cell.value
    match value:
        case None:
            return Cell("")
        case str() if cell.data_type == "f":
            return Cell("", "formula")
        case str() if cell.data_type == "e":
            return Cell("", "formula")
        case str():
            return Cell(" ".join(value.splitlines()))
        case bool():
            return Cell("true" if value else "false")
        case int() | float():
            return _read_number(value, str(cell.number_format or ""))
        case datetime() | date() | time() | timedelta():
            return Cell("", "was-date")
    return Cell("", "formula")


def _read_number(value: float, shown: str) -> Cell:
    if not math.isfinite(value) or abs(value) >= EXACT:
        return Cell("", "spreadsheet-number")
    if value != int(value):
        return Cell(repr(value), note="was-number")
    text = str(int(value))
    # A format of zeros alone shows, and so means, a code of that many digits.
    if _ZEROS.fullmatch(shown) and value >= 0 and len(shown) > 1:
        return Cell(text.zfill(len(shown)))
    return Cell(text, note="was-number")


def write_workbook(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | int | float]], notes: Sequence[str] = ()
) -> bytes:
    """A workbook with one sheet: texts are texts, whatever they begin with, and numbers are numbers. ``notes`` stand
    on a second sheet."""
    book = Workbook()
    sheet: Any = book.active
    sheet.title = title[:31]
    _fill(sheet, [columns, *rows])
    for cell in sheet[1]:
        cell.font = Font(bold=True)
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.freeze_panes = "A2"
    for number, name in enumerate(columns, 1):
        letter = get_column_letter(number)
        sheet.column_dimensions[letter].width = max(10, min(28, len(name) + 4))
        # So that what is typed into it stays as it was typed: 00123 keeps its zeros.
        sheet.column_dimensions[letter].number_format = "@"
    if notes:
        _fill(book.create_sheet("说明 notes"), [(note,) for note in notes])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _fill(sheet: Any, rows: Iterable[Sequence[str | int | float]]) -> None:
    for y, row in enumerate(rows, 1):
        for x, value in enumerate(row, 1):
            cell = sheet.cell(y, x)
            if isinstance(value, str):
                # Never a formula and never a number, and shown as it is.
                cell.value = _clean(value)
                cell.data_type = "s"
                cell.number_format = "@"
                cell.quotePrefix = True
            else:
                cell.value = value


def _clean(text: str) -> str:
    """XML holds no control characters."""
    return "".join(char if char.isprintable() or char == "\u3000" else " " for char in text)[:32_000]
