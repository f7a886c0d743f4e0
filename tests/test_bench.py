"""The benchmarks start and measure what they say: short runs of the commands that the README names. No figure of theirs
is asserted, for what else the machine does is not known here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.core.worlds import ROOT


def bench(*args: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *args, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_every_rule_is_asked_of_every_reading() -> None:
    result = bench("engine", "--seconds", "0.2")

    assert result["rules"] == 300
    assert result["readings"] > 0
    assert result["transitions"] > 0
    assert result["evaluations_per_s"] >= result["readings_per_s"] * 299


@pytest.mark.parametrize(("mode", "messages", "readings"), [("single", 400, 400), ("pack", 40, 2_000)])
def test_what_waited_in_the_broker_is_judged_and_committed(mode: str, messages: int, readings: int) -> None:
    result = bench("pipeline", "--mode", mode, "--messages", str(messages))

    assert result["judged"] == readings
    assert result["readings_per_s"] > 0
    assert result["ceiling_per_s"] > 0
    assert result["ratio_to_ceiling"] == pytest.approx(result["readings_per_s"] / result["ceiling_per_s"], rel=0.02)


def test_a_month_is_appraised() -> None:
    result = bench("appraisal", "--incidents", "50")

    assert result["incidents"] == 50
    assert {"by_grid_s", "by_device_s"} <= set(result)


def test_every_browser_sees_every_press() -> None:
    # `console` does the same, but presses buttons instead of pages.
    result = bench("resident", "--incidents", "20", "--browsers", "4", "--presses", "3", "--communities", "2")

    assert (result["presses"], result["updates"], result["lost"]) == (3, 12, 0)
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["max_ms"]


def test_the_import_of_a_district_is_measured() -> None:
    result = bench("district", "--communities", "2")

    assert (result["grids"], result["devices"]) == (4549, 2 * 217)
    assert result["import_s"] > 0
