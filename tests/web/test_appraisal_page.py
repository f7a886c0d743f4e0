"""The appraisal on a page, as a table for spreadsheets, and in one's scope alone."""

from __future__ import annotations

import csv
import io
import re

from gateway.core.model import Community, Role
from gateway.runtime.access import Permission
from tests.web.control_room import ControlRoom
from tests.web.house import Visitor
from tests.web.test_api import client_of, code_of

DAY = "from=2026-11-23&to=2026-11-23"


def keys_of(page: str) -> list[str]:
    return re.findall(r'<tr data-key="([^"]*)"', page)


async def read_csv(visitor: Visitor, query: str) -> list[list[str]]:
    answer = await visitor.get(f"/appraisal/export.csv?{query}")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.content.startswith(b"\xef\xbb\xbf"), "or spreadsheets take it for another encoding"
    return list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))


async def test_each_town_has_its_row_and_the_export_has_the_same(room: ControlRoom) -> None:
    for device, community in (("sos-1", "c001"), ("sos-2", "c001"), ("sos-1", "c002")):
        await room.press(device, community)
    li = await room.visitor_as("li")

    page = (await li.get(f"/appraisal?{DAY}")).text
    by_day = (await li.get(f"/appraisal?by=category&{DAY}&every=day")).text
    head, *rows = await read_csv(li, f"by=grid&level=town&{DAY}")

    assert keys_of(page) == ["370215001", "370215002"]
    assert re.findall(r'data-number="(\d+)"', page) == ["2", "1"]
    assert 'data-period="2026-11-23"' in by_day
    assert [row[1:4] for row in rows] == [
        ["370215001", "环秀街道", "2"],
        ["370215002", "潮海街道", "1"],
        ["total", "合计 total", "3"],
    ]
    assert len(head) == len(rows[0])


async def test_nobody_sees_beyond_the_own_scope(room: ControlRoom) -> None:
    await room.press("sos-1", "c001")
    await room.press("sos-1", "c002")
    room.add("town", grids=("370215001",))
    room.add("keeper", Role.GRID_WORKER, grids=(), communities=("c002",))
    town, keeper = await room.visitor_as("town"), await room.visitor_as("keeper")

    whole = await read_csv(town, f"by=grid&{DAY}")
    own = (await keeper.get(f"/appraisal?{DAY}")).text

    assert whole[1][1] == "370215001", "the district's figures are not the town's"
    assert whole[-1][3] == "1"
    assert keys_of(own) == ["c002"]
    assert (await town.get(f"/appraisal?by=grid&{DAY}&grid=370215002")).status_code == 404
    assert (await town.get(f"/appraisal?by=grid&{DAY}&grid=370215")).status_code == 404
    assert (await town.get(f"/appraisal?by=grid&{DAY}&grid=370215001")).status_code == 200


async def test_what_is_no_question_is_refused(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    for query in (
        "from=2026-11-24&to=2026-11-23",
        "from=2024-01-01&to=2026-01-01",
        "from=yesterday",
        "by=grid&level=street",
        "every=hour",
        "by=moon",
    ):
        assert (await li.get(f"/appraisal?{query}")).status_code == 422, query
    page = (await li.get("/appraisal?from=2026-11-24&to=2026-11-23&by=community")).text
    assert "结束日期不能早于开始日期" in page
    assert 'name="to" value="2026-11-23" required aria-invalid="true" aria-describedby="wrong"' in page
    assert page.count("aria-invalid") == 1, "the fault stands at its field"
    odd = (await li.get("/appraisal?from=2026-11-24&to=2026-11-24&every=hour")).text
    assert "请从列表中选择" in odd
    assert 'name="every" aria-invalid="true"' in odd
    assert 'name="from" value="2026-11-24"' in page, "the form keeps what was asked for"
    assert "/appraisal/export" not in page


async def test_a_name_that_looks_like_a_formula_is_text(room: ControlRoom) -> None:
    await room.press("sos-1", "c001")
    [first, *_] = room.ledger.communities()
    room.ledger.add_communities([Community(first.id, first.serial, "=HYPERLINK(1)", first.grids)])
    li = await room.visitor_as("li")

    rows = await read_csv(li, f"by=community&{DAY}")

    assert rows[1][2] == "'=HYPERLINK(1)"


async def test_a_program_gets_it_as_json_and_as_a_table(room: ControlRoom) -> None:
    for community in ("c001", "c002"):
        await room.press("sos-1", community)
    program = client_of(room, "platform", Role.PLATFORM, ("370215001",), (Permission.APPRAISAL_SEE,))
    asked = {"by": "community", "from": "2026-11-23", "to": "2026-11-23"}

    report = (await program.get("/appraisal", params=asked)).json()
    table = (await program.get("/appraisal", params=asked | {"format": "csv"})).content.decode("utf-8-sig")

    assert [(row["key"], row["number"]) for row in report["rows"]] == [("c001", 1)]
    assert report["total"]["number"] == 1
    assert (report["from"], report["to"]) == ("2026-11-23T00:00:00+08:00", "2026-11-24T00:00:00+08:00")
    assert [row[1] for row in csv.reader(io.StringIO(table))][1:] == ["c001", "total"]
    assert code_of(await program.get("/appraisal", params=asked | {"grid": "370215"})) == (404, "unknown")
    assert code_of(await program.get("/appraisal", params=asked | {"level": "town"})) == (422, "not-valid")
