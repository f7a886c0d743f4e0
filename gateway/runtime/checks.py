"""``check`` and ``test-rules``: what is wrong with profiles and rules, and what their tests show, in lines."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.core.catalog import HOLIDAYS, PROFILES, RULES, Catalog, CatalogError
from gateway.core.ruletest import Report, run_tests
from gateway.runtime.catalog_files import read_catalog

_PASSED: Final = 0
_FAILED: Final = 1
_HOLIDAYS_AHEAD: Final = timedelta(days=60)


def check(root: Path, today: date | None = None) -> int:
    """Reads ``root/device_profiles`` and ``root/rules`` and writes every problem as ``file:line: what; mend: …``, and
    last how many there are, or what was checked. Returns the exit status: 0 when nothing is wrong, otherwise 1."""
    catalog = _read(root)
    if catalog is None:
        return _FAILED
    until = catalog.calendar.known_until
    if until < (today or datetime.now(UTC).date()) + _HOLIDAYS_AHEAD:
        _write(
            f"warning: holidays are known to {until} only; for limits in working days every day after it counts, rules "
            f"go by weekends. Update chinesecalendar and run python -m gateway holidays > {HOLIDAYS}"
        )
    cases = sum(len(test.trials) for test in catalog.tests.values())
    _write(
        f"{len(catalog.profiles)} profiles, {len(catalog.rules)} rules, {len(catalog.categories)} categories and "
        f"{cases} cases in {len(catalog.tests)} test files: no problems"
    )
    return _PASSED


def test_rules(root: Path, pattern: str) -> int:
    """Runs the tests of the rules whose id matches ``pattern`` (as in ``fire.*``). Writes every failure, a table of
    what the tests cover, and last ``N cases passed, M failed``. Returns the exit status: 0 when all passed, 1 when a
    case failed, the files are at fault, or no rule matches."""
    catalog = _read(root)
    if catalog is None:
        return _FAILED
    reports = list(run_tests(catalog, pattern))
    if not reports:
        _write(f"no rule with tests matches {pattern!r}; write, for example, 'fire.*'")
        return _FAILED
    for report in reports:
        for failure in report.failures:
            _write(str(failure))
    _write_table(reports)
    failed = sum(report.failed for report in reports)
    _write(f"{sum(report.cases for report in reports) - failed} cases passed, {failed} failed")
    return _FAILED if failed else _PASSED


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _read(root: Path) -> Catalog | None:
    missing = [name for name in (PROFILES, RULES) if not (root / name).is_dir()]
    if missing:
        _write(f"{root / missing[0]}:1: there is no such folder; mend: run this where {PROFILES}/ and {RULES}/ are")
        _write("1 problem")
        return None
    try:
        return read_catalog(root / PROFILES, root / RULES)
    except CatalogError as error:
        for problem in error.problems:
            prefix = "" if root == Path() else f"{root.as_posix().rstrip('/')}/"
            _write(f"{prefix}{problem}")
        count = len(error.problems)
        _write("1 problem" if count == 1 else f"{count} problems")
        return None


def _write_table(reports: list[Report]) -> None:
    """One line per rule: its cases, how many of its leaves were seen true and how many false, and what is not shown."""
    width = max(4, *(len(report.rule) for report in reports))
    _write(f"{'rule':<{width}}  cases  failed   true  false  not shown by its tests")
    for report in reports:
        leaves = len(report.leaves)
        true = sum(leaf.was_true for leaf in report.leaves)
        false = sum(leaf.was_false for leaf in report.leaves)
        _write(
            f"{report.rule:<{width}}  {report.cases:>5}  {report.failed:>6}  {f'{true}/{leaves}':>5}  "
            f"{f'{false}/{leaves}':>5}  {', '.join(report.gaps)}".rstrip()
        )
    leaves = sum(len(report.leaves) for report in reports)
    true = sum(leaf.was_true for report in reports for leaf in report.leaves)
    false = sum(leaf.was_false for report in reports for leaf in report.leaves)
    whole = sum(not report.gaps for report in reports)
    _write(
        f"{whole} of {len(reports)} rules are shown both firing and quiet, with each leaf true and false "
        f"(leaves: {true} of {leaves} true, {false} of {leaves} false)"
    )
