"""`check` and `test-rules` on the real folders and on spoilt copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from gateway.core.catalog import CatalogError
from gateway.runtime import checks
from gateway.runtime.catalog_files import read_catalog, read_files

ROOT = Path(__file__).parents[2]
Output = Callable[[], list[str]]


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return lambda: capsys.readouterr().out.splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The real folders, to be spoilt."""
    for folder in ("device_profiles", "rules"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_check_finds_nothing_wrong_with_what_is_shipped(output: Output) -> None:
    assert checks.check(ROOT) == 0
    assert output()[-1].endswith(": no problems")


def test_check_warns_when_the_holidays_end_soon_and_is_never_red_for_it(output: Output) -> None:
    until = date(2026, 12, 31)
    assert checks.check(ROOT, until - timedelta(days=61)) == 0
    assert not any(line.startswith("warning") for line in output())
    for today in (until - timedelta(days=59), until + timedelta(days=90)):
        assert checks.check(ROOT, today) == 0
        assert any(line.startswith("warning: holidays are known to 2026-12-31 only") for line in output())


def test_check_names_file_line_and_mend_of_every_fault(copy: Path, output: Output) -> None:
    spoil(copy / "device_profiles/smoke/nb-smoke.yaml", "heartbeat: 24h", "heartbeat: 24h\ncolour: red")
    spoil(copy / "rules/gas/level-1.yaml", "{gas:", "{gass:")
    (copy / "rules/fire/smoke-persists.test.yaml").unlink()
    assert checks.check(copy) == 1
    lines = output()
    line = (copy / "device_profiles/smoke/nb-smoke.yaml").read_text(encoding="utf-8").split("colour")[0].count("\n") + 1
    assert lines[0].startswith(f"{copy}/device_profiles/smoke/nb-smoke.yaml:{line}: unknown key 'colour'; mend: ")
    assert lines[-1] == "2 problems"
    # What the broken profile hides is not told of the rules that use it; mended, the rules' own faults come out.
    spoil(copy / "device_profiles/smoke/nb-smoke.yaml", "colour: red\n", "")
    assert checks.check(copy) == 1
    assert any("no profile has a reading or an event gass; mend: did you mean gas?" in line for line in output())


def test_bytes_that_are_no_text_are_one_problem_and_the_rest_is_checked(copy: Path, output: Output) -> None:
    path = copy / "device_profiles/heat/heat-detector.yaml"
    path.write_bytes(path.read_bytes().replace(b"status", b"\xff\xfestatus", 1))
    spoil(copy / "rules/categories.yaml", "level: critical", "level: crticial")
    assert checks.check(copy) == 1
    lines = output()
    assert any("heat-detector.yaml:4: the file is not UTF-8" in line for line in lines)
    assert any("mend: did you mean critical?" in line for line in lines)


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path, output: Output) -> None:
    assert checks.check(tmp_path) == 1
    assert checks.test_rules(tmp_path, "*") == 1
    assert all("there is no such folder" in line or line == "1 problem" for line in output())


def test_the_folders_may_be_called_otherwise(copy: Path, tmp_path: Path) -> None:
    (copy / "device_profiles").rename(tmp_path / "models")
    (copy / "rules").rename(tmp_path / "laws")
    elsewhere = read_catalog(tmp_path / "models", tmp_path / "laws")
    assert elsewhere.hash == read_catalog(ROOT / "device_profiles", ROOT / "rules").hash


def test_line_ends_of_another_system_change_nothing(copy: Path) -> None:
    before = read_files(copy / "device_profiles", copy / "rules")
    for path in copy.rglob("*.yaml"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_files(copy / "device_profiles", copy / "rules") == before


def test_a_file_with_the_other_suffix_is_not_passed_over(copy: Path) -> None:
    (copy / "rules/fire/extra.yml").write_text("id: fire.extra\n", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"rules/fire/extra\.yml:1: the file does not end in \.yaml"):
        read_catalog(copy / "device_profiles", copy / "rules")


def test_test_rules_counts_and_shows_what_is_covered(output: Output) -> None:
    assert checks.test_rules(ROOT, "fire.*") == 0
    lines = output()
    assert lines[-1].endswith(" cases passed, 0 failed")
    table = [line.split() for line in lines if line.startswith("fire.")]
    assert [row[0] for row in table] == sorted(row[0] for row in table)
    assert all(row[2] == "0" for row in table)


def test_test_rules_fails_when_a_case_fails_and_says_where(copy: Path, output: Output) -> None:
    spoil(copy / "rules/fire/smoke-persists.yaml", "hold: 10s", "hold: 10m")
    assert checks.test_rules(copy, "fire.smoke-*") == 1
    lines = output()
    assert any(
        line.startswith("rules/fire/smoke-persists.test.yaml:") and "expected phase firing" in line for line in lines
    )
    assert not lines[-1].endswith(" 0 failed")


def test_a_pattern_that_matches_nothing_is_no_success(output: Output) -> None:
    assert checks.test_rules(ROOT, "fire") == 1
    assert output() == ["no rule with tests matches 'fire'; write, for example, 'fire.*'"]
