"""The direction of imports is kept, and the contracts that say so in pyproject.toml would notice if it were not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.servers import ROOT

PACKAGES = ("gateway", "edge", "simulators")

OFFENCES = {
    "rooms": ("gateway/core/offence.py", "import gateway.runtime.ports"),
    "leaves": ("gateway/wire.py", "import gateway.settings"),
    "gateway-alone": ("gateway/runtime/offence.py", "import simulators"),
    "core-pure": ("gateway/core/offence.py", "import time"),
    "runtime-vendor-free": ("gateway/runtime/offence.py", "import fastapi"),
    "vendors": ("gateway/runtime/offence.py", "import sqlalchemy"),
    "edge-shares": ("edge/offence.py", "import gateway.runtime.ports"),
    "simulators-share": ("simulators/offence.py", "import gateway.adapters"),
    "score-generator": ("simulators/score/plots.py", "import simulators.district"),
}
"""For each contract a file and a line that breaks it."""


def lint(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the checkout, or copy of one, at ``root``."""
    chosen = [f"--contract={contract}" for contract in contracts]
    program = "from importlinter.cli import import_linter; import_linter()"
    return subprocess.run(
        [sys.executable, "-c", program, "lint", "--no-cache", "--no-logo", *chosen],
        cwd=root,
        env={"PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their contracts with every offence in it."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("gateway/wire.py", "gateway/settings.py"):
        (root / name).touch()
    for name, line in OFFENCES.values():
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    return root


def test_the_contracts_are_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_every_contract_has_an_offence_that_it_must_notice() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]} == set(OFFENCES)


@pytest.mark.parametrize("contract", OFFENCES)
def test_a_broken_contract_is_noticed(contract: str, copied: Path) -> None:
    result = lint(copied, contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout


def test_a_module_without_a_room_is_noticed(copied: Path) -> None:
    (copied / "gateway" / "helpers.py").touch()
    result = lint(copied, "rooms")
    assert "gateway.helpers" in result.stdout + result.stderr
