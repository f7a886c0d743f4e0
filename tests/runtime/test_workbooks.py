"""Workbooks: what comes from outside is judged before it is read, and what goes out holds no formula."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from datetime import date, datetime
from typing import Any

import pytest
from openpyxl import Workbook, load_workbook

from gateway.runtime.appraisal import By, Names, Question, appraise
from gateway.runtime.appraising import render_workbook
from gateway.runtime.device_tables import read_registrations
from gateway.runtime.district_tables import Report
from gateway.runtime.workbooks import MOST_ROWS, Cell, NoWorkbook, read_workbook, write_workbook
from tests.ports.incidents import FIRE


def save(rows: list[list[Any]], formats: dict[str, str] | None = None) -> bytes:
    book = Workbook()
    sheet: Any = book.active
    for row in rows:
        sheet.append(row)
    for place, shown in (formats or {}).items():
        sheet[place].number_format = shown
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def repack(data: bytes, changes: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The workbook with other parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", packing) as new:
        for part in old.infolist():
            new.writestr(part.filename, changes.pop(part.filename, old.read(part)))
        for name, body in changes.items():
            new.writestr(name, body)
    return out.getvalue()


def test_cells_are_read_as_texts_and_what_a_spreadsheet_made_of_them_is_said() -> None:
    data = save(
        [
            [
                "00123",
                123,
                45,
                1.5,
                True,
                "=1+1",
                date(2026, 1, 2),
                datetime.fromisoformat("2026-01-02T03:00"),
                10**15,
                None,
                "两\n行",
            ]
        ],
        {"C1": "00000"},
    )
    [(number, cells)] = read_workbook(data)
    assert number == 1
    assert cells[:11] == [
        Cell("00123"),
        Cell("123", note="was-number"),
        Cell("00045"),
        Cell("1.5", note="was-number"),
        Cell("true"),
        Cell("", "formula"),
        Cell("", "was-date"),
        Cell("", "was-date"),
        Cell("", "spreadsheet-number"),
        Cell(""),
        Cell("两 行"),
    ]


def refused(data: bytes) -> str:
    with pytest.raises(NoWorkbook) as error:
        read_workbook(data)
    return error.value.code


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = repack(save([["code"]]), {"xl/sharedStrings.xml": b"<sst>" + b" " * (300 << 20) + b"</sst>"})
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    assert refused(bomb) == "too-big"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    # One that says that it is small is caught by what is in it.
    liar = bytearray(bomb)
    size = (len(b"<sst></sst>") + (300 << 20)).to_bytes(4, "little")
    at = 0
    while (at := liar.find(size, at)) >= 0:
        liar[at : at + 4] = (1000).to_bytes(4, "little")
        at += 4
    assert refused(bytes(liar)) in ("not-a-workbook", "too-big")
    many = repack(save([["code"]]), {f"xl/part{number}.xml": b"" for number in range(300)})
    assert refused(many) == "too-big"


def test_what_is_no_workbook_is_refused() -> None:
    good = save([["code"]])
    assert refused(good[: len(good) // 2]) == "not-a-workbook"
    assert refused(b"PK\x03\x04") == "not-a-workbook"
    assert refused(repack(good, {}, zipfile.ZIP_LZMA)) == "not-a-workbook"
    assert refused(repack(good, {"xl/workbook.xml": b"no xml"})) == "not-a-workbook"
    entities = b'<!DOCTYPE a [<!ENTITY b "bbbb">]><worksheet><sheetData>&b;</sheetData></worksheet>'
    assert refused(repack(good, {"xl/worksheets/sheet1.xml": entities})) == "not-a-workbook"
    outside = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><sst>&b;</sst>'
    assert refused(repack(save([["x"]]), {"xl/workbook.xml": outside})) == "not-a-workbook"


def test_a_sheet_that_says_it_is_endless_costs_nothing() -> None:
    sheet = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/>'
        b'<sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>code</t></is></c></row>'
        b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    )
    assert refused(repack(save([["x"]]), {"xl/worksheets/sheet1.xml": sheet})) == "too-big"
    rows: list[list[Any]] = [["code"] for _ in range(MOST_ROWS + 1)]
    long = save(rows)
    assert refused(long) == "too-big"


def test_a_table_of_devices_has_the_same_report_as_csv() -> None:
    rows: list[list[Any]] = [
        ["Code", "profile", "place", "说明"],
        ["00123", "nb-smoke", "1号楼", "甲"],
        [],
        [7, "nb-smoke", "b2", None],
        ["=A2", "nb-smoke", "b2", None],
        [None, "nb-smoke", "b2", None],
    ]
    report = Report()
    found = read_registrations("d.xlsx", save(rows), {"1号楼": "b1"}, report, is_test=False)
    assert [(one.line, one.wish.code, one.wish.place) for one in found] == [(2, "00123", "b1"), (4, "7", "b2")]
    assert {(row.line, row.code) for row in report.bad} == {(5, "formula"), (6, "empty")}
    assert {(row.line, row.column, row.code) for row in report.notes} == {(1, 4, "own-column"), (4, 1, "was-number")}
    report = Report()
    assert read_registrations("d.xlsx", save([["code"]]), {}, report, is_test=False) == []
    assert {row.code for row in report.bad} == {"missing-column"}


def test_what_goes_out_is_text_or_number_and_never_a_formula() -> None:
    names = ["=HYPERLINK(1)", "+1", "-1", "@a", "\x01a", "00123"]
    book = load_workbook(io.BytesIO(write_workbook("t", ("name", "n"), [(name, 5) for name in names], ("note",))))
    cells = [row[0] for row in book.worksheets[0].iter_rows(min_row=2)]
    assert [cell.data_type for cell in cells] == ["s"] * len(names)
    assert [cell.value for cell in cells] == [*names[:4], " a", "00123"]
    assert book.worksheets[0]["B2"].value == 5
    assert book.worksheets[1]["A1"].value == "note"


def test_the_appraisal_has_its_figures_as_numbers() -> None:
    fire = FIRE
    question = Question(By.COMMUNITY, fire.opened_at - 1, fire.opened_at + 1)
    names = Names({fire.community: "=小区"})
    book = load_workbook(io.BytesIO(render_workbook(appraise([fire], question, names, fire.opened_at + 5))))
    head, first, *_ = book.worksheets[0].values
    assert head[2:4] == ("名称 name", "件数 number")
    assert first[1:4] == (fire.community, "=小区", 1)
