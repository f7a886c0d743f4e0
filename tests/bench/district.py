"""Seconds to take a district of 4,549 grid nodes and 60,000 devices in from tables, once more unchanged, and out again.

The ledger is SQLite with ``synchronous=FULL`` on a disk, or PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from simulators.district import COMMUNITIES, generate
from simulators.tables import write_tables
from tests.core.worlds import ROOT
from tests.servers import Postgres

DEVICES_PER_COMMUNITY: Final = 216


def run(ledger: str, communities: int = COMMUNITIES) -> dict[str, object]:
    """Through the command line, as people do it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIR", ROOT)))
    try:
        district = generate(1, communities, devices_per_community=DEVICES_PER_COMMUNITY)
        write_tables(district, folder / "in")
        sizes = {"ledger": ledger, "grids": len(district.grids), "devices": district.device_count}
        if ledger == "sqlite":
            return sizes | _measure(folder, {})
        with Postgres(durable=True) as server:
            return sizes | _measure(folder, {"SCG_LEDGER__URL": server.new_database()})
    finally:
        shutil.rmtree(folder)


def _measure(folder: Path, settings: dict[str, str]) -> dict[str, object]:
    env = os.environ | {"SCG_DATA": str(folder / "data")} | settings

    def call(*arguments: str) -> float:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "gateway", "district", *arguments], env=env, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        return round(time.perf_counter() - began, 1)

    first = call("import", str(folder / "in"))
    again = call("import", str(folder / "in"))
    return {"import_s": first, "again_s": again, "export_s": call("export", str(folder / "out"))}
