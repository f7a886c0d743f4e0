"""A score: the corpus of a seed is played, held against its labels, and told."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct, field
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.core.model import Incident, Sort
from simulators.catalog import read_catalog
from simulators.district import District, encode, generate
from simulators.score.compare import Verdict, judge
from simulators.score.compose import SMALL, Size, compose, count_estates
from simulators.score.corpus import Label, Outage, read_import_file
from simulators.score.play import Played, play

RECALL: Final = 1.0
PRECISION: Final = 0.98
REDUCTION: Final = 0.95
"""What a whole corpus must reach."""

WINDOW_MS: Final = 10 * 60_000
SHOWN: Final = 20
PLAIN_WIDTH: Final = 120
"""Columns of the tables where there is no terminal."""

LOCAL: Final = ZoneInfo("Asia/Shanghai")


class Count(Struct):
    """The figures of a chapter, or of all. ``cases`` are incidents and notices together; ``upsets`` are devices, agents
    and communities that are out of order and must be told of once; ``in_storm`` are emergencies that stand in the list
    of a storm and have no case of their own."""

    communities: int = 0
    signals: int = 0
    raw_alarms: int = 0
    cases: int = 0
    notices: int = 0
    emergencies: int = 0
    emergencies_found: int = 0
    in_storm: int = 0
    upsets: int = 0
    upsets_found: int = 0
    near_misses: int = 0
    doubled: int = 0
    false: int = 0

    def add(self, other: Count) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def recall(self) -> float:
        return _share(self.emergencies_found, self.emergencies)

    @property
    def precision(self) -> float:
        return 1 - _share(self.doubled + self.false, self.cases, 0.0)

    @property
    def reduction(self) -> float:
        return 1 - _share(self.cases, self.raw_alarms)


class Score(Struct):
    """What a corpus came to. ``outages`` are the agents' with what was opened meanwhile and how many devices stand
    under it; ``refused`` is what people were not allowed to do."""

    seed: int
    total: Count = field(default_factory=Count)
    chapters: dict[str, Count] = field(default_factory=dict)
    categories: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    likes: Counter[str] = field(default_factory=Counter)
    missed: list[Label] = field(default_factory=list)
    doubled: list[Incident] = field(default_factory=list)
    false: list[Incident] = field(default_factory=list)
    outages: list[tuple[Outage, int, int]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def take(self, played: Played) -> None:
        """Adds what came of one community."""
        script, verdict = played.script, judge(played.script.labels, played.cases)
        told = [label for label, _ in verdict.found] + verdict.stormed
        count = Count(
            communities=1,
            signals=played.signals,
            raw_alarms=played.raw_alarms,
            cases=len(played.cases),
            notices=sum(case.sort is Sort.NOTICE for case in played.cases),
            emergencies=sum(label.kind == "emergency" for label in script.labels),
            emergencies_found=sum(label.kind == "emergency" for label in told),
            in_storm=len(verdict.stormed),
            upsets=sum(label.kind == "upset" for label in script.labels),
            upsets_found=sum(label.kind == "upset" for label in told),
            near_misses=len(script.near_misses),
            doubled=len(verdict.doubled),
            false=len(verdict.false),
        )
        self.total.add(count)
        self.chapters.setdefault(script.chapter, Count()).add(count)
        self.categories.update(label.category for label in script.labels if label.kind == "emergency")
        self.found.update(label.category for label in told if label.kind == "emergency")
        self.likes.update(near.like for near in script.near_misses)
        self._keep(verdict, played)

    def _keep(self, verdict: Verdict, played: Played) -> None:
        self.missed += verdict.missed
        self.doubled += verdict.doubled
        self.false += verdict.false
        self.refused += played.refused
        self.opened += [case.opened_at for case in played.cases]
        for outage in played.script.outages:
            opened = [case for case in played.cases if outage.since <= case.opened_at <= outage.until]
            self.outages.append((outage, len(opened), sum(len(case.members) for case in opened)))

    @property
    def per_10_min_max(self) -> int:
        """The most cases that were opened within any ten minutes, in all communities together."""
        recent: deque[int] = deque()
        most = 0
        for at in sorted(self.opened):
            recent.append(at)
            while recent[0] <= at - WINDOW_MS:
                recent.popleft()
            most = max(most, len(recent))
        return most

    @property
    def is_good(self) -> bool:
        """Whether it reaches what a whole corpus must."""
        total = self.total
        is_one = all(opened == 1 for _, opened, _ in self.outages)
        is_enough = total.recall >= RECALL and total.precision >= PRECISION and total.reduction >= REDUCTION
        return is_one and is_enough

    def line(self) -> dict[str, object]:
        """The last line of the output."""
        total = self.total
        outage, opened, listed = max(
            self.outages, key=lambda kept: kept[0].devices, default=(Outage("", 0, 0, 0), 0, 0)
        )
        return {
            "signals": total.signals,
            "raw_alarms": total.raw_alarms,
            "incidents": total.cases,
            "reduction": round(total.reduction, 4),
            "recall": round(total.recall, 4),
            "precision": round(total.precision, 4),
            "per_10_min_max": self.per_10_min_max,
            "seed": self.seed,
            "notices": total.notices,
            "emergencies": total.emergencies,
            "in_storm": total.in_storm,
            "upsets": total.upsets,
            "upset_recall": round(_share(total.upsets_found, total.upsets), 4),
            "near_misses": total.near_misses,
            "missed": len(self.missed),
            "doubled": total.doubled,
            "false": total.false,
            "outage": {"devices": outage.devices, "incidents": opened, "listed": listed},
            "emergencies_by_category": dict(sorted(self.categories.items())),
            "recall_by_category": {
                category: round(_share(self.found[category], count), 4)
                for category, count in sorted(self.categories.items())
            },
        }


def score(seed: int, size: Size, without: str = "", tell: Callable[[int, int], None] = lambda done, of: None) -> Score:
    """Plays and judges the whole corpus of a seed. ``without`` is a rule that is switched off; ``tell`` hears how far
    it is. Raises ValueError when the corpus has no room."""
    counts = count_estates(size)
    districts = dict(lay_out(seed, counts))
    settlements = {s.community.id: s for district in districts.values() for s in district.communities}
    files = {devices: read_import_file(encode(district)) for devices, district in districts.items()}
    result = Score(seed)
    for number, script in enumerate(compose(seed, size, files)):
        tell(number, len(settlements))
        result.take(play(script, settlements[script.community], districts[SMALL].lists, without))
    tell(len(settlements), len(settlements))
    return result


def lay_out(seed: int, counts: dict[int, int]) -> Iterator[tuple[int, District]]:
    """Communities of every number of devices, no two with the same id."""
    first = 0
    for devices, count in counts.items():
        district = generate(seed, first + count, devices)
        yield devices, replace(district, communities=district.communities[first:])
        first += count


def run(*, seed: int, cases: int, without: str, as_json: bool) -> int:
    """Scores and tells. The exit status: 1 when the figures are below what a whole corpus must reach."""
    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PLAIN_WIDTH)
    started = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("communities")

        def tell(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)
            if not console.is_terminal and done and done % 20 == 0:
                console.print(f"· {done} of {of} communities, {time.monotonic() - started:.0f} s")

        result = score(seed, Size(cases), without, tell)
    _report(console, result, time.monotonic() - started)
    line = json.dumps(result.line())
    if as_json:
        sys.stdout.write(line + "\n")
    else:
        console.print(line, markup=False)
    return 0 if result.is_good else 1


def _report(console: Console, result: Score, seconds: float) -> None:
    table = Table(title=f"评分 · score, seed {result.seed}, {seconds:.0f} s", title_justify="left", box=None)
    heads = (
        "章 chapter",
        "小区",
        "signals",
        "raw",
        "cases",
        "警情 found",
        "upsets",
        "near",
        "×2",
        "false",
        "reduction",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right")
    for name, count in (*result.chapters.items(), ("together", result.total)):
        table.add_row(name, *_row(count))
    console.print(table)
    categories = Table(box=None)
    for head in ("类别 category", "警情 cases", "found", "near-misses"):
        categories.add_column(head, justify="left" if "category" in head else "right")
    titles = read_catalog().categories
    for category, number in sorted(result.categories.items()):
        title = f"{category} {titles[category].title['zh']}"
        categories.add_row(title, str(number), str(result.found[category]), str(result.likes[category]))
    console.print(categories)
    for label in result.missed[:SHOWN]:
        _tell(console, f"missed: {label.scenario} {label.category} at {label.place}, {_clock(label.since)}")
    for word, cases in (("doubled", result.doubled), ("false", result.false)):
        for case in cases[:SHOWN]:
            devices = ", ".join(case.devices)
            _tell(console, f"{word}: {case.number} {case.rule} ({devices}) at {case.place}, {_clock(case.opened_at)}")
    for why, times in Counter(result.refused).items():
        _tell(console, f"people were refused {times} times: {why}")


def _row(count: Count) -> Iterable[str]:
    return (
        str(count.communities),
        f"{count.signals:,}",
        f"{count.raw_alarms:,}",
        f"{count.cases:,}",
        f"{count.emergencies_found}/{count.emergencies}",
        f"{count.upsets_found}/{count.upsets}",
        str(count.near_misses),
        str(count.doubled),
        str(count.false),
        f"{count.reduction:.1%}" if count.raw_alarms else "",
    )


def _tell(console: Console, text: str) -> None:
    console.print(text, style="red", markup=False)


def _share(part: int, whole: int, of_nothing: float = 1.0) -> float:
    return part / whole if whole else of_nothing


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, LOCAL).strftime("%m-%d %H:%M:%S")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
