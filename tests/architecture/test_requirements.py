"""The lock files are what ``pip install --require-hashes --no-deps`` needs, and name no address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.servers import ROOT

LOCKS = sorted(ROOT.glob("requirements*.txt"))


def pins(path: Path) -> dict[str, str]:
    """Name → the rest of its requirement: version, marker and hashes."""
    logical = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return dict(line.split("==", maxsplit=1) for line in logical if line.strip())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_is_pinned_with_hashes(path: Path) -> None:
    for name, rest in pins(path).items():
        assert re.match(r"\d[\w.!+-]*( ;.*?)?( +--hash=sha256:[0-9a-f]{64})+\s*$", rest), f"{path.name}: {name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*")), ids=lambda path: path.name)
def test_no_requirements_file_names_an_address_or_an_option(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"://|^\s*(-i|-f|--index|--extra|--find|--trusted)|^\s*#", text, re.MULTILINE) is None


def test_the_dev_set_holds_the_run_set_in_the_same_versions() -> None:
    assert pins(ROOT / "requirements.txt").items() <= pins(ROOT / "requirements-dev.txt").items()


def test_what_is_asked_for_is_locked() -> None:
    asked = re.findall(r"^([A-Za-z][\w-]*)", (ROOT / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name.lower() for name in asked} <= set(pins(ROOT / "requirements.txt"))
