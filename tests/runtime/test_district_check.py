"""Every kind of bad row is told with its file, its line and its mend, and everything else is taken in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.district import GridScheme, LevelScheme
from gateway.core.model import GridLevel
from gateway.runtime.district_check import Rules
from gateway.runtime.district_codes import CODES
from gateway.runtime.district_rows import FORMS
from gateway.runtime.district_tables import MARK, BadRow, Report
from tests.core.worlds import real_catalog
from tests.runtime.districts import TABLES, Imported, Office, look, write_folder

GRIDS, COMMUNITIES, PLACES, SOURCES, DEVICES, RESPONSIBLE, CONTACTS, LISTS = (form.file for form in FORMS)
ROOM = "c001,c001-b1-101,household,101室,c001-b1,,,,,away=false;elder_alone=true"
SMOKE = "c001,c001-smoke-1,nb-smoke,agent-001,c001-b1-101,烟感1,nb/1,,,"
KEEPER = "keeper-1,物业值班（模拟）,property,c001,,,,0,000-0000-0002,,,1-5 08:00-18:00; 6-7 20:00-08:00"


def lines_of(file: str) -> list[str]:
    return TABLES[file].splitlines()


def added(file: str, row: str) -> tuple[str, int]:
    """The table with one more row, and the row's line."""
    lines = [*lines_of(file), row]
    return "\n".join(lines) + "\n", len(lines)


def changed(file: str, old: str, new: str) -> tuple[str, int]:
    """The table with one row changed, and the row's line."""
    lines = lines_of(file)
    [index] = [number for number, line in enumerate(lines) if old in line]
    lines[index] = lines[index].replace(old, new)
    return "\n".join(lines) + "\n", index + 1


def look_at(folder: Path, file: str, text: str) -> Imported:
    return look(write_folder(folder, {**TABLES, file: text}))


def test_the_small_district_has_nothing_wrong(tmp_path: Path) -> None:
    done = look(write_folder(tmp_path))

    assert done.report.bad == []
    assert done.report.notes == []
    assert {kind: counts["new"] for kind, counts in done.changes.counts.items()} == {
        "grids": 11,
        "communities": 2,
        "places": 7,
        "sources": 2,
        "devices": 5,
        "responsible": 2,
        "contacts": 2,
        "lists": 2,
    }


ROWS = [
    # file, row, code, column, words of what or mend
    (GRIDS, "370215002,street,示例二街道,370215", "unknown-level", 2, "district, town"),
    (GRIDS, "37021500A,town,示例二街道,370215", "wrong-digits", 1, "digits only"),
    (GRIDS, "370214002,town,示例二街道,370215", "wrong-prefix", 1, "370215"),
    (GRIDS, "37021500200,town,示例二街道,370215", "wrong-length", 1, "11 digits"),
    (GRIDS, "370215001004902,base,示例网格,37021500100402", "wrong-serial", 1, "1..899"),
    (GRIDS, "370215001004019,base,示例网格,37021500100409", "unknown-parent", 4, "37021500100409"),
    (GRIDS, "370215001004019,base,示例网格,370215001", "wrong-parent", 4, "level town"),
    (GRIDS, "370215001006,centre,示例网格中心,370215901", "wrong-parent", 4, "level department"),
    (GRIDS, "370215002004,centre,示例网格中心,370215001", "not-below-parent", 4, "first 9 digits"),
    (GRIDS, "370215001,town,又一示例街道,370215", "duplicate", 1, "grids.csv:3"),
    (GRIDS, "3.70215E+14,base,示例网格,37021500100402", "spreadsheet-number", 1, "a column of text"),
    (GRIDS, "370215002,town,,370215", "empty", 3, "name is empty"),
    (GRIDS, "370215002,town,示例二街道", "wrong-columns", 0, "3 columns, not 4"),
    (GRIDS, '370215002,town,"示例二街道,370215', "bad-quotes", 0, "close it"),
    (GRIDS, "370215002,town,示例\t二街道,370215", "bad-text", 3, "plain text"),
    (COMMUNITIES, "C003,3,示例三期,370215001004,", "bad-id", 1, "a-z"),
    (COMMUNITIES, "c003,2,示例三期,370215001004,", "duplicate-serial", 2, "c002"),
    (COMMUNITIES, "c003,1000,示例三期,370215001004,", "bad-number", 2, "1 to 999"),
    (COMMUNITIES, "c003,3,示例三期,370215009,", "unknown-grid", 4, "370215009"),
    (COMMUNITIES, "c003,3,示例三期,370215001004017,", "wrong-grid-level", 4, "centre"),
    (COMMUNITIES, "c003,3,示例三期,370215001004,", "no-root", 1, "places.csv"),
    (PLACES, "c009,c009-x,public,门,c009,,,,,", "unknown-community", 1, "c009"),
    (PLACES, "c001,c001-x,shed,门,c001,,,,,", "unknown-kind", 3, "household"),
    (PLACES, "c001,c001-x,unit,1单元,c001,,,,,", "wrong-parent", 5, "below building"),
    (PLACES, "c001,c001-x,public,门,c001-y,,,,,", "unknown-parent", 5, "c001-y"),
    (PLACES, "c001,c001-x,public,门,c002-gate,,,,,", "other-community", 5, "c002"),
    (PLACES, "c001,c001-x,public,门,c001-x,,,,,", "cycle", 5, "c001-x → c001-x"),
    (PLACES, "c001,c001-x,community,又一小区,,,,,,", "second-root", 0, "second community"),
    (PLACES, "c002,c001-gate,public,门,c002,,,,,", "duplicate", 2, "places.csv:6"),
    (PLACES, "c001,c001-x,public,门,c001,370215001004019,,,,", "unknown-grid", 6, "370215001004019"),
    (PLACES, "c001,c001-x,public,门,c001,37021500100402,,,,", "wrong-grid-level", 6, "base grid"),
    (PLACES, "c001,c001-x,public,门,c001,370215001005001,,,,", "other-grid", 6, "370215001004"),
    (PLACES, "c001,c001-x,public,门,c001,,120.45,,cgcs2000,", "half-position", 7, "both or neither"),
    (PLACES, "c001,c001-x,public,门,c001,,120.45,36.39,,", "unknown-crs", 9, "gcj02"),
    (PLACES, "c001,c001-x,public,门,c001,,120.45,36.39,epsg:3857,", "unknown-crs", 9, "epsg:3857"),
    (PLACES, "c001,c001-x,public,门,c001,,36.39,120.45,cgcs2000,", "swapped-position", 7, "exchange"),
    (PLACES, "c001,c001-x,public,门,c001,,121.45,36.39,cgcs2000,", "outside-district", 7, "119.9 to 121.3"),
    (PLACES, "c001,c001-x,public,门,c001,,东经120,36.39,cgcs2000,", "bad-number", 7, "digits"),
    (PLACES, "c001,c001-x,public,门,c001,,,,,floors", "bad-attributes", 10, "name=value"),
    (PLACES, "c001,c001-x,public,门,c001,,,,,noise_class=9", "wrong-attribute", 10, "0, 1, 2, 3, 4"),
    (PLACES, "c001,c001-x,public,门,c001,,,,,away='no'", "wrong-attribute", 10, "true or false"),
    (PLACES, "c001,c001-x,public,门,c001,,,,,panel=agent-001", "wrong-attribute", 10, "devices.csv"),
    (SOURCES, "c001,agent-003,c001-y,", "unknown-place", 3, "c001-y"),
    (SOURCES, "c001,agent-003,c002-gate,", "other-community", 3, "c002"),
    (SOURCES, "c001,agent-003,c001-gate,agent-003", "unknown-device", 4, "devices.csv"),
    (SOURCES, "c002,agent-001,c002-gate,", "duplicate", 2, "sources.csv:2"),
    (DEVICES, "c001,c001-x,nb-smok,agent-001,c001-gate,,,,,", "unknown-profile", 3, "nb-smoke?"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-009,c001-gate,,,,,", "unknown-source", 4, "agent-009"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-002,c001-gate,,,,,", "other-community", 4, "c002"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c002-gate,,,,,", "other-community", 5, "c002"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c001-y,,,,,", "unknown-place", 5, "c001-y"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c001-gate,,,broken,,", "unknown-state", 8, "maintenance"),
    (DEVICES, "c001,c001-x,ip-camera,agent-001,c001-gate,,,,,gb28181=123", "wrong-attribute", 10, "20 digits"),
    (DEVICES, "c001,c001-x,ip-camera,agent-001,c001-gate,,,,,rtsp=rtsp://a:b@c/d", "wrong-attribute", 10, "without"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c001-gate,,,drill,,", "missing-until", 9, "for ever"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c001-gate,,,drill,明天,", "bad-time", 9, "2026-12-01T08:00"),
    (DEVICES, "c001,c001-x,nb-smoke,agent-001,c001-gate,,,,,panel=c001-y", "unknown-device", 10, "c001-y"),
    (RESPONSIBLE, "propperty,370215001,示例（模拟）", "unknown-body", 1, "property?"),
    (RESPONSIBLE, "property,370215009,示例（模拟）", "unknown-grid", 2, "370215009"),
    (RESPONSIBLE, "property,370215001004,示例（模拟）", "duplicate", 0, "responsible.csv:2"),
    (CONTACTS, "x-1,甲（模拟）,guard,,,,,0,000-0000,,,", "unknown-role", 3, "family"),
    (CONTACTS, "x-1,甲（模拟）,family,,,,,0,000-0000,,,", "empty", 5, "place"),
    (CONTACTS, "x-1,甲（模拟）,family,,c001-y,,,0,000-0000,,,", "unknown-place", 5, "c001-y"),
    (CONTACTS, "x-1,甲（模拟）,family,c002,c001-gate,,,0,000-0000,,,", "other-community", 5, "c001"),
    (CONTACTS, "x-1,甲（模拟）,property,c009,,,,0,000-0000,,,", "unknown-community", 4, "c009"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,,,,", "unreachable", 9, "a phone"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,13x,,,", "bad-contact", 9, "digits"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,,nobody,,", "bad-contact", 10, "name@host"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,,,ftp://x,", "bad-contact", 11, "https://"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,000-0000,,,1-8 08:00-18:00", "bad-duty", 12, "1-5 08:00"),
    (CONTACTS, "x-1,甲（模拟）,duty,,,370215,,0,000-0000,,,1-5 08:00-25:00", "bad-duty", 12, "25:00"),
    (LISTS, "wanted,鲁B00002,c009", "unknown-community", 3, "c009"),
    (LISTS, "wanted,鲁B00001,", "duplicate", 0, "lists.csv:2"),
    (LISTS, "wanted,,", "empty", 2, "entry"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "row", "code", "column", "words"), ROWS, ids=[f"{r[0][:-4]}-{r[2]}" for r in ROWS])
def test_a_bad_row_is_told_and_all_others_are_in(
    tmp_path: Path, file: str, row: str, code: str, column: int, words: str
) -> None:
    good = look(write_folder(tmp_path / "good"))
    text, line = added(file, row)

    done = look_at(tmp_path / "bad", file, text)

    [bad] = done.report.bad
    assert (bad.file, bad.line, bad.column, bad.code) == (file, line, column, code)
    assert words in f"{bad.what}; {bad.mend}"
    assert bad.mend
    assert str(bad).startswith(f"{file}:{line}:")
    assert done.plan == good.plan


def test_there_are_more_than_twenty_kinds_and_each_has_its_chinese_words() -> None:
    kinds = {row[2] for row in ROWS}

    assert len(kinds) > 40
    assert kinds <= set(CODES)


def test_no_fault_quotes_a_number_or_an_address(tmp_path: Path) -> None:
    text, _ = added(CONTACTS, "x-1,甲（模拟）,guard,,,370215,,0,not-a-phone,not-a-mail,not-a-hook,")

    done = look_at(tmp_path, CONTACTS, text)

    assert len(done.report.bad) == 4
    assert not any("not-a-" in str(bad) for bad in done.report.bad)


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "code", "words"),
    [
        ("body,grid", "missing-column", "column name is missing"),
        ("body,grid,name,name", "twice-column", "twice"),
        ("body,grid,nam", "unknown-column", "did you mean name?"),
    ],
)
def test_a_table_with_a_wrong_head_is_not_read(tmp_path: Path, head: str, code: str, words: str) -> None:
    rows = "\n".join(lines_of(RESPONSIBLE)[1:])

    done = look_at(tmp_path, RESPONSIBLE, f"{head}\n{rows}\n")

    assert code in done.codes
    assert words in " ".join(map(str, done.report.bad))
    assert all(bad.line == 1 for bad in done.report.bad)
    assert done.plan.responsible == []


def test_a_misspelt_optional_column_empties_no_attributes(tmp_path: Path) -> None:
    office = Office()
    office.take(write_folder(tmp_path / "first"))
    text = TABLES[PLACES].replace("attributes", "attribute", 1)

    done = office.take(write_folder(tmp_path / "again", {PLACES: text}))

    assert done.codes == ["unknown-column"]
    assert done.changes.is_nothing


def test_people_may_have_columns_and_files_of_their_own(tmp_path: Path) -> None:
    lines = [f"{line},{'备注' if number == 0 else '见图'}" for number, line in enumerate(lines_of(RESPONSIBLE))]
    folder = write_folder(tmp_path, {**TABLES, RESPONSIBLE: "\n".join(lines), "备忘.txt": "…"})

    done = look(folder)

    assert done.report.bad == []
    assert [note.code for note in done.report.notes] == ["own-column"]


@pytest.mark.parametrize(("name", "words"), [("device.csv", "devices?"), ("设备.xlsx", "known here")])
def test_a_file_that_nobody_reads_is_told(tmp_path: Path, name: str, words: str) -> None:
    done = look(write_folder(tmp_path, {**TABLES, name: "x"}))

    [bad] = done.report.bad
    assert (bad.file, bad.code) == (name, "unknown-file")
    assert words in bad.mend


def test_a_report_may_lie_beside_the_tables(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    look(folder).report.write(folder / "report.csv")

    assert look(folder).report.bad == []


def test_chinese_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    marked = {**TABLES, DEVICES: MARK + TABLES[DEVICES].replace("\n", "\r\n") + ",,,,,,,,,\r\n"}
    folder = write_folder(tmp_path, marked)
    (folder / GRIDS).write_bytes(TABLES[GRIDS].encode("gb18030"))

    done = look(folder)

    assert done.report.bad == []
    assert done.plan.grids[0].name == "即墨区"


@pytest.mark.parametrize("data", [TABLES[GRIDS].encode("utf-16"), b"PK\x03\x04 a workbook"])
def test_what_is_no_csv_is_told_as_such(tmp_path: Path, data: bytes) -> None:
    folder = write_folder(tmp_path)
    (folder / GRIDS).write_bytes(data)

    first = look(folder).report.bad[0]

    assert (first.file, first.code) == (GRIDS, "not-utf-8")
    assert "UTF-8" in first.mend


def test_a_row_in_another_encoding_spoils_itself_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    lines = [line.encode() for line in lines_of(RESPONSIBLE)]
    lines[2] = lines_of(RESPONSIBLE)[2].encode("gb18030")
    (folder / RESPONSIBLE).write_bytes(b"\n".join(lines))

    [bad] = look(folder).report.bad

    assert (bad.line, bad.code) == (3, "not-utf-8")


# --- one thing because of another ------------------------------------------------------------------------------------


def test_what_hangs_on_a_bad_row_stays_out_and_says_on_which(tmp_path: Path) -> None:
    text, line = changed(PLACES, "c001-b1,building", "c001-b1,bilding")

    done = look_at(tmp_path, PLACES, text)

    assert [(bad.file, bad.code) for bad in done.report.bad] == [
        (PLACES, "unknown-kind"),
        (PLACES, "needs-bad-row"),
        (PLACES, "needs-bad-row"),
        (DEVICES, "needs-bad-row"),
        (DEVICES, "needs-bad-row"),
        (CONTACTS, "needs-bad-row"),
    ]
    assert all(f"{PLACES}:" in bad.what for bad in done.report.bad if bad.code == "needs-bad-row")
    assert f"{PLACES}:{line}" in done.report.bad[1].what
    [first, second] = [one for one in done.plan.communities if one.devices]
    assert [device.id for device in first.devices] == ["agent-001"]
    assert len(second.devices) == 2


def test_a_community_whose_own_place_is_bad_stays_out_whole(tmp_path: Path) -> None:
    text, _ = changed(PLACES, "120.46,36.4,", "36.4,120.46,")

    done = look_at(tmp_path, PLACES, text)

    assert done.codes[:3] == ["needs-bad-row", "swapped-position", "needs-bad-row"]
    assert [one.community.id for one in done.plan.communities] == ["c001"]


def test_a_ring_of_grids_is_told_once_and_what_hangs_on_it_too(tmp_path: Path) -> None:
    levels = {
        GridLevel.DISTRICT: LevelScheme(6, (), 0),
        GridLevel.TOWN: LevelScheme(9, (GridLevel.DISTRICT, GridLevel.TOWN), 6),
    }
    rules = Rules(real_catalog(), GridScheme("370215", levels))
    table = """\
code,level,name,parent
370215,district,即墨区,
370215001,town,甲,370215003
370215002,town,乙,370215001
370215003,town,丙,370215002
370215004,town,丁,370215
"""
    done = look(write_folder(tmp_path, {GRIDS: table}), rules=rules)

    assert done.codes == ["cycle", "needs-bad-row", "needs-bad-row"]
    assert [grid.code for grid in done.plan.grids] == ["370215", "370215004"]


def test_another_district_has_another_scheme_and_another_box(tmp_path: Path) -> None:
    rules = Rules(real_catalog(), GridScheme("370213"), (10.0, 50.0, 11.0, 51.0))

    done = look(write_folder(tmp_path), rules=rules)

    assert done.codes.count("wrong-prefix") == 11
    assert done.codes.count("outside-district") == 3


def test_a_grid_without_the_district_above_it_is_told(tmp_path: Path) -> None:
    done = look(write_folder(tmp_path, {GRIDS: "code,level,name,parent\n370215001,town,示例街道,370215\n"}))

    assert done.codes == ["no-root", "unknown-parent"]


def test_a_change_that_would_break_what_is_registered_stays_out(tmp_path: Path) -> None:
    office = Office()
    office.take(write_folder(tmp_path / "first"))
    table = f"{lines_of(PLACES)[0]}\nc001,c001-b1,public,1号楼,c001,,,,,\n"

    done = office.take(write_folder(tmp_path / "again", {PLACES: table}))

    [bad] = done.report.bad
    assert (bad.line, bad.code) == (2, "breaks-known")
    assert "c001-b1-101" in bad.what
    assert done.changes.is_nothing


def test_an_attribute_that_no_rule_reads_may_be_misspelt(tmp_path: Path) -> None:
    text, line = changed(PLACES, "elder_alone=true", "elder_alon=true;maker=甲")

    done = look_at(tmp_path, PLACES, text)

    assert done.report.bad == []
    [note] = done.report.notes
    assert (note.line, note.column, note.code, note.mend) == (
        line,
        10,
        "misspelt-attribute",
        "did you mean elder_alone?",
    )


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_is_a_table_that_a_spreadsheet_shows(tmp_path: Path) -> None:
    report = Report()
    report.bad.append(BadRow(DEVICES, 7, 3, "unknown-profile", "there is no profile =1+1", "did you mean nb-smoke?"))
    report.notes.append(BadRow(DEVICES, 0, 0, "vanished", '=cmd|" /C calc"!A0', "it stays"))

    report.write(tmp_path / "report.csv")

    data = (tmp_path / "report.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    lines = data.decode("utf-8-sig").splitlines()
    assert lines[0].startswith("文件 file,行 line,列 column")
    assert (
        lines[1]
        == f"{DEVICES},7,3,坏行 bad,unknown-profile,没有这种设备型号,{report.bad[0].what},did you mean nb-smoke?"
    )
    assert "'=cmd" in lines[2]


def test_a_terminal_shows_the_first_of_many_and_counts_the_rest() -> None:
    report = Report()
    report.bad += [BadRow(DEVICES, n, 1, "needs-bad-row", "…", "mend that row first") for n in range(2, 50)]
    report.bad.append(BadRow(DEVICES, 50, 3, "unknown-profile", "…", "…"))

    lines = list(report.lines())

    assert lines[0].startswith(f"{DEVICES}:50:3: 没有这种设备型号")
    assert len(lines) == 7
    assert "and 43 more" in lines[-1]


# --- whatever people write -------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.sampled_from(
        ["", ",", '"', "'", ";", "=", "c001", "c002", "370215001004", "retired", "1e999", "9" * 400, "\0", "\n"]
    ),
    st.text(max_size=4),
)


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_written_is_told_or_taken_in(data: st.DataObject) -> None:
    """Any damage to any table: nothing breaks, each fault has its words, and what is good the engines accept."""
    tables = dict(TABLES)
    for file in data.draw(st.lists(st.sampled_from(list(TABLES)), min_size=1, max_size=4)):
        text = tables[file]
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        tables[file] = text[:start] + data.draw(PIECES) + text[end:]
    with tempfile.TemporaryDirectory() as folder:
        done = Office().take(write_folder(Path(folder), tables))

    assert done.refused == {}
    assert all(row.code in CODES and row.what and row.mend for row in (*done.report.bad, *done.report.notes))
