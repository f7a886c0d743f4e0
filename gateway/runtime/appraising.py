"""The appraisal (考核) as a query: reads the incidents of a period from the ledger, and writes JSON for programs and
CSV for spreadsheets. The arithmetic is `gateway.runtime.appraisal`'s.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Incident
from gateway.errors import GatewayError
from gateway.runtime.appraisal import NONE, Appraisal, By, Figures, Names, Question, appraise, chain_of
from gateway.runtime.district_tables import guard
from gateway.runtime.ports import Ledger
from gateway.runtime.workbooks import write_workbook

PAGE: Final = 500
"""Incidents that are read in one transaction."""

SHOWN_STEPS: Final = {
    "accept": "立案",
    "call_back": "回拨核实",
    "dispatch": "派遣",
    "arrive": "到场",
    "resolve": "处置反馈",
    "verify": "核查",
    "close": "结案",
}
"""The steps that have columns of their own, in the loop's order."""

_ZONE: Final = ZoneInfo("Asia/Shanghai")


Covers = Callable[[str, Sequence[str]], bool]
"""Whether somebody's scope takes in what lies in a community with this chain of grids."""


def appraise_ledger(
    ledger: Ledger, catalog: Catalog, question: Question, now: int, covers: Covers | None = None
) -> Appraisal:
    """The appraisal of what the ledger holds, as at ``now`` (ms UTC), of what ``covers`` takes in alone: a grid that
    reaches beyond that has no row, because its figures would not be its own. Raises GatewayError for a grid that
    neither the district nor any incident of the period knows."""
    names = read_names(ledger, catalog, question.by)
    incidents = read_opened(ledger, question.since, question.until)
    chains: dict[str, tuple[str, ...]] = {}
    found = appraise(incidents if covers is None else _leave_in(incidents, covers, chains), question, names, now)
    if covers is not None and question.by is By.GRID:
        found.rows = [row for row in found.rows if row.key == NONE or covers("", chains.get(row.key, (row.key,)))]
    if question.grid and not found.total.number and question.grid not in names.levels:
        raise GatewayError("unknown-grid", f"there is no grid {question.grid[:48]}", "--grid", "look its code up")
    return found


def _leave_in(incidents: Iterable[Incident], covers: Covers, chains: dict[str, tuple[str, ...]]) -> Iterator[Incident]:
    """What is covered; ``chains`` learns what lies above each grid."""
    for incident in incidents:
        chain = chain_of(incident)
        if covers(incident.community, chain):
            chains.update((code, chain[: depth + 1]) for depth, code in enumerate(chain) if code not in chains)
            yield incident


def read_opened(ledger: Ledger, since: int, until: int, limit: int = PAGE) -> Iterator[Incident]:
    """The incidents opened from ``since`` to before ``until``, page by page; the gateway may write meanwhile."""
    after = ""
    while page := ledger.opened_incidents(since, until, after, limit):
        yield from page
        since, after = page[-1].opened_at, page[-1].id


def read_names(ledger: Ledger, catalog: Catalog, by: By) -> Names:
    """What people call the rows' keys, from the ledger and the catalog in force."""
    grids = ledger.grids()
    titles: dict[str, str] = {}
    match by:
        case By.GRID:
            titles = {grid.code: grid.name for grid in grids}
        case By.COMMUNITY:
            titles = {community.id: community.name for community in ledger.communities()}
        case By.CATEGORY:
            titles = {code: category.title["zh"] for code, category in catalog.categories.items()}
        case By.RULE:
            titles = {rule.id: rule.title["zh"] for rule in catalog.rules}
        case By.DEVICE:
            titles = {
                f"{community.id}/{device.id}": device.name
                for community in ledger.communities()
                for device in ledger.devices(community.id)
            }
    return Names(
        titles=titles,
        bodies={body: title["zh"] for body, title in catalog.bodies.items()},
        responsible={(each.body, each.grid): each.name for each in ledger.responsible()},
        levels={grid.code: grid.level for grid in grids},
    )


# --- JSON ---------------------------------------------------------------------------------------------------------


class Report(Struct, rename={"since": "from", "until": "to"}):
    """The JSON form: the question, and the answer. Times are ISO 8601; ``to`` is the moment after the last."""

    by: By
    since: str
    until: str
    as_at: str
    grid: str
    level: str
    every: str
    rows: list[Figures]
    total: Figures


def make_report(appraisal: Appraisal, question: Question, now: int) -> Report:
    """The answer with its question, as at ``now`` (ms UTC)."""
    return Report(
        by=question.by,
        since=_show(question.since),
        until=_show(question.until),
        as_at=_show(now),
        grid=question.grid,
        level=question.level or "",
        every=question.every or "",
        rows=appraisal.rows,
        total=appraisal.total,
    )


def render_json(appraisal: Appraisal, question: Question, now: int) -> str:
    """One JSON object."""
    report = make_report(appraisal, question, now)
    return msgspec.json.format(msgspec.json.encode(report)).decode()


def _show(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, _ZONE).isoformat(timespec="seconds")


# --- CSV ----------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "周期 period",
    "编码 key",
    "名称 name",
    "件数 number",
    "未结 open",
    "未结已超时 overdue",
    "已响应 responded",
    "响应中位（分钟） response median, min",
    "响应90%（分钟） response 90 %, min",
    "结案 closed",
    "结案中位（小时） closing median, h",
    "结案90%（小时） closing 90 %, h",
    "误报 false alarms",
    "误报率 false-alarm rate",
    "按时办结 in time",
    "按时办结率 in-time rate",
    "合并 merged",
    "退回件 returned",
    "退回次 returns",
    "重开件 reopened",
    "延期件 extended",
    "吹哨 whistles",
    "已报到 answered",
    "按时报到 answered in time",
    "按时报到率 answered-in-time rate",
    "环节 steps",
    "按时环节 steps in time",
    "环节按时率 step in-time rate",
)


def render_csv(appraisal: Appraisal) -> str:
    """A table with a first line of names, a line for each row, and the total. No cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_head())
    writer.writerows(_cells(row) for row in (*appraisal.rows, appraisal.total))
    return text.getvalue()


def render_workbook(appraisal: Appraisal) -> bytes:
    """The same as an .xlsx file, whose figures are numbers."""
    rows = [[_to_number(cell) for cell in _cells(row)] for row in (*appraisal.rows, appraisal.total)]
    # Texts are texts in a workbook, and need no apostrophe.
    named = [[row.period, row.key, row.name] for row in (*appraisal.rows, appraisal.total)]
    return write_workbook("appraisal", _head(), [[*name, *row[3:]] for name, row in zip(named, rows, strict=True)])


def _head() -> list[str]:
    return [*_COLUMNS, *(f"{zh}{what} {step}" for step, zh in SHOWN_STEPS.items() for what in ("", "按时"))]


def _to_number(cell: str | int) -> str | int | float:
    """A span as the number that it is; rates stay as they are written."""
    try:
        return float(cell) if isinstance(cell, str) and cell else cell
    except ValueError:
        return cell


def _cells(row: Figures) -> list[str | int]:
    steps = [row.by_step.get(step) for step in SHOWN_STEPS]
    return [
        guard(row.period),
        guard(row.key),
        guard(row.name),
        row.number,
        row.open,
        row.overdue,
        row.responded,
        _show_span(row.response_median_ms, 60_000),
        _show_span(row.response_p90_ms, 60_000),
        row.closed,
        _show_span(row.closing_median_ms, 3_600_000),
        _show_span(row.closing_p90_ms, 3_600_000),
        row.false_alarms,
        _show_rate(row.false_alarm_rate),
        row.in_time,
        _show_rate(row.in_time_rate),
        row.merged,
        row.returned,
        row.returns,
        row.reopened,
        row.extended,
        row.whistles,
        row.whistles_answered,
        row.whistles_in_time,
        _show_rate(row.whistles_in_time_rate),
        row.steps,
        row.steps_in_time,
        _show_rate(row.steps_in_time_rate),
        *(cell for step in steps for cell in ((step.number, step.in_time) if step is not None else (0, 0))),
    ]


def _show_span(span: int | None, unit: int) -> str:
    return "" if span is None else f"{span / unit:.2f}"


def _show_rate(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f}%"
