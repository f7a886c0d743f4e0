"""A run: start, hurt, heal, count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from simulators.chaos.disk import NoCompiler, compile_library
from simulators.chaos.faults import Fault, Injector, draw_plan
from simulators.chaos.oracle import Findings, judge, revisions_of
from simulators.chaos.programs import ProgramFailed
from simulators.chaos.stage import Stage
from simulators.processes import stop_on_signal

HEAL_S: Final = 180.0
"""After everything is whole again, all must have arrived within so long."""
SHOWN: Final = 20

Cases = Sequence[Mapping[str, Any]]
"""Incidents and notices, as the gateway prints them."""


def run(*, faults: int, seed: int, communities: int, as_json: bool, keep: bool) -> int:
    """Runs the harness; the exit status: 1 when anything is lost or doubled, 2 when it could not run."""
    console = Console(stderr=True, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="scg-chaos-"))
    is_good = False
    try:
        is_good = asyncio.run(_run(console, folder, faults, seed, communities, as_json=as_json))
        return 0 if is_good else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")
        return 130
    except ProgramFailed as error:
        console.print(f"chaos: {error}", style="red", markup=False)
        return 2
    finally:
        if is_good and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"logs, ledger, spools and the platform's store are in {folder}", markup=False)


async def _run(console: Console, folder: Path, count: int, seed: int, communities: int, *, as_json: bool) -> bool:
    stop_on_signal()
    library: Path | None = None
    try:
        library = compile_library(folder)
    except NoCompiler as error:
        console.print(f"no power is cut, no disk filled and no clock moved: {error}", style="bold red", markup=False)
    stage = Stage(folder, communities, seed, library)
    plan = draw_plan(count, seed, communities, has_disks=library is not None)
    started = time.monotonic()
    try:
        await stage.start()
        injector = Injector(stage, folder / "faults.log")
        with _progress(console) as progress:
            task = progress.add_task("faults", total=count, presses=0, kind="")
            await _hurt(stage, injector, plan, progress, task)
            findings, cases = await _heal(stage, injector, progress, task)
        await stage.stop()
        if findings.is_good:
            findings = _judge(stage, await stage.list_cases(), before=revisions_of(cases))
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(stage.stop())
    _report(console, stage, injector, findings, time.monotonic() - started)
    line = {
        "faults": injector.struck.total(),
        "kinds": len(injector.struck),
        "presses": findings.presses,
        "alarms": findings.alarms,
        "incidents": findings.incidents,
        "lost": findings.lost,
        "doubled": findings.doubled,
        "late_s_max": findings.late_s,
        "seed": seed,
    }
    if as_json:
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        console.print(line)
    return findings.is_good


async def _hurt(stage: Stage, injector: Injector, plan: list[Fault], progress: Progress, task: TaskID) -> None:
    """Injects the plan while everybody presses; returns when the last press is acknowledged."""
    smoke_every_s = max(4.0, len(plan) * 1.5 / 4)
    pressing = [asyncio.create_task(presser.press_until_over(smoke_every_s)) for presser in stage.pressers]
    telling = asyncio.create_task(_tell(stage, injector, progress, task))
    try:
        await asyncio.sleep(2)
        await injector.inject_all(plan)
        await injector.mend_all()
        for presser in stage.pressers:
            presser.end()
        await asyncio.gather(*pressing)
    finally:
        for one in (*pressing, telling):
            one.cancel()
        await asyncio.gather(*pressing, telling, return_exceptions=True)


async def _tell(stage: Stage, injector: Injector, progress: Progress, task: TaskID) -> None:
    while True:
        pressed = sum(len(presser.presses) for presser in stage.pressers)
        progress.update(task, completed=injector.struck.total(), presses=pressed, kind=injector.now)
        await asyncio.sleep(0.5)


async def _heal(stage: Stage, injector: Injector, progress: Progress, task: TaskID) -> tuple[Findings, Cases]:
    """Waits until everything has arrived, or ought to have. What was found then, and in which cases of the ledger."""
    for program in stage.programs:
        await program.wait_ready()
    until = time.monotonic() + HEAL_S
    while True:
        progress.update(task, completed=injector.struck.total(), kind="healing")
        cases, waiting = await stage.list_cases(), await stage.count_waiting()
        findings = _judge(stage, cases)
        if findings.is_good and waiting == 0:
            # What comes twice may come late.
            await asyncio.sleep(3)
            return _judge(stage, await stage.list_cases(), before=revisions_of(cases)), cases
        if time.monotonic() > until:
            return _judge(stage, cases, waiting), cases
        await asyncio.sleep(1.5)


def _judge(stage: Stage, cases: Cases, waiting: int = 0, before: Mapping[str, int] | None = None) -> Findings:
    presses = [press for presser in stage.pressers for press in presser.presses]
    smokes = [smoke for presser in stage.pressers for smoke in presser.smokes]
    return judge(presses, smokes, cases, stage.store, waiting, before)


def _report(console: Console, stage: Stage, injector: Injector, findings: Findings, took_s: float) -> None:
    counts: Counter[str] = injector.struck
    shown = ", ".join(f"{kind} {counts[kind]}" for kind in sorted(counts))
    console.print(f"{counts.total()} faults of {len(counts)} kinds in {took_s:.0f} s: {shown}", markup=False)
    for line in (*injector.missed, *stage.falls()):
        console.print(line, style="yellow", markup=False)
    for line in findings.faults[:SHOWN]:
        console.print(line, style="bold red", markup=False)
    if len(findings.faults) > SHOWN:
        console.print(f"and {len(findings.faults) - SHOWN} more", style="bold red")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.completed}/{task.total} faults"),
        BarColumn(30),
        TextColumn("{task.fields[presses]} presses"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[kind]}"),
        console=console,
        transient=True,
    )
