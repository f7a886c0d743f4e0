"""How long a press takes to an open board, with many browsers listening and many incidents open, by real processes.

The gateway and the web process run beside this one, which plays all browsers: each listens to the same stream as a real
one. Every stream must end with every incident at the revision that the ledger has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

import httpx
from msgspec.structs import replace

from gateway.assembly import issue_help_pages, open_catalogs, open_migrated_ledger, open_seal, open_sign_in
from gateway.core.model import Due, Incident, Level, Press, Role, Sort, Step, Tick
from gateway.runtime.calls import event_of
from gateway.runtime.catalog_files import read_catalog
from gateway.runtime.door import DoorClient
from gateway.runtime.help_pages import PageKeys
from gateway.runtime.officers import Hand, Officers
from gateway.runtime.ports import Batch
from gateway.runtime.registrar import read_district, register
from gateway.runtime.signing import Origin
from gateway.runtime.writer import load_writer
from gateway.settings import Settings, read_settings
from simulators.district import COMMUNITIES, District, generate, write
from tests.ports.ledger_conformance import opened
from tests.servers import ROOT, Process, free_port

PER_S: Final = 10
PASSWORD: Final = "Lanting-7-Willows"
SETTLE_S: Final = 3.0
GONE: Final = 1 << 60
"""The revision, on a board, of what is closed: it is no longer there."""
DEMO_PAGES_OF: Final = 40
"""Communities of the demo whose pages are pressed on."""


def run(incidents: int, browsers: int, presses: int, communities: int, *, by_page: bool = False) -> dict[str, object]:
    """Opens so many incidents, lets so many browsers listen, and presses buttons, or residents' pages (``by_page``)."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder), incidents, browsers, presses, communities, by_page=by_page))


async def _run(
    folder: Path, incidents: int, browsers: int, presses: int, communities: int, *, by_page: bool
) -> dict[str, object]:
    port = free_port()
    environ = _environ(folder / "data") | {"SCG_WEB__PORT": str(port), "SCG_WEB__SECOND_FACTOR": "auditor"}
    settings = read_settings(None, environ)
    district = generate(1, communities)
    _prepare(folder, settings, incidents, district)
    with (
        Process.module("gateway", "serve", "--log-level", "error", log=folder / "gateway.log", env=environ) as gateway,
        Process.module("gateway", "web", log=folder / "web.log", env=environ) as web,
    ):
        gateway.wait_for_line('"event": "ready"', 120)
        web.wait_for_line('"event": "ready"', 60)
        names = [settlement.community.id for settlement in district.communities]
        pages = await _issue_pages(settings, names, presses) if by_page else []
        buttons = find_buttons(district)[:presses]
        measured = await _measure(settings, port, browsers, pages=pages, buttons=buttons)
    return {"open_incidents": incidents, **measured}


def run_with_demo(browsers: int, presses: int) -> dict[str, object]:
    """Presses on residents' pages of a demo that runs meanwhile, with its 277 communities at sixty times real time."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run_with_demo(Path(folder), browsers, presses))


async def _run_with_demo(folder: Path, browsers: int, presses: int) -> dict[str, object]:
    settings = read_settings(None, _environ(folder / "demo" / "data") | {"SCG_WEB__SECOND_FACTOR": ""})
    with _running_demo(folder) as demo:
        port = int(demo.wait_for_line(r"console +http://127\.0\.0\.1:(\d+)", 300).group(1))
        ledger = open_migrated_ledger(settings)
        names = [community.id for community in ledger.communities()][:DEMO_PAGES_OF]
        ledger.close()
        pages = await _issue_pages(settings, names, presses)
        begun, before = time.perf_counter(), _count_journal(settings)
        measured = await _measure(settings, port, browsers, pages=pages, buttons=())
        rows = (_count_journal(settings) - before) / (time.perf_counter() - begun)
    return {"communities": COMMUNITIES, "journal_rows_per_s": round(rows), **measured}


@contextlib.contextmanager
def _running_demo(folder: Path) -> Iterator[Process]:
    """A demo that ends its own programs; a kill would leave them running."""
    arguments = ("demo", "--folder", str(folder / "demo"))
    with Process.module("simulators", *arguments, log=folder / "demo.log", env={"PYTHONUNBUFFERED": "1"}) as demo:
        try:
            yield demo
        finally:
            demo.terminate(60)


def _environ(data: Path) -> dict[str, str]:
    return {"SCG_DATA": str(data), "SCG_PROFILES": str(ROOT / "device_profiles"), "SCG_RULES": str(ROOT / "rules")}


def _count_journal(settings: Settings) -> int:
    """How many rows the journals have: each is a message, or what a person or the clock did."""
    with contextlib.closing(sqlite3.connect(f"file:{settings.data / 'ledger.db'}?mode=ro", uri=True)) as ledger:
        return int(ledger.execute("SELECT count(*) FROM journal").fetchone()[0])


async def _measure(
    settings: Settings, port: int, browsers: int, *, pages: Sequence[str], buttons: Sequence[tuple[str, str]]
) -> dict[str, object]:
    """Opens so many boards and presses on the ``pages``, or else the ``buttons``."""
    cookie = _sign_in(settings)
    limits = httpx.Limits(max_connections=browsers + 10)
    headers = {"Cookie": cookie, "Accept": "text/html"}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, limits=limits, timeout=30, trust_env=False
    ) as client:
        page_ms = [await _time_page(client) for _ in range(12)][2:]
        position = int((await client.get("/api/v1/incidents", params={"limit": 1})).json()["position"])
        seen: list[dict[str, tuple[float, int]]] = [{} for _ in range(browsers)]
        listening = [asyncio.create_task(_listen(client, position, one)) for one in seen]
        while (await _metric(client, "scg_streams")) < browsers:  # noqa: ASYNC110 - nobody tells when they are in
            await asyncio.sleep(0.1)
        pressed = await (_press_pages(client, pages) if pages else _press(settings, buttons))
        ledger = open_migrated_ledger(settings)
        changed = [one for _, one in ledger.changes(position, 100_000) if one.sort is Sort.INCIDENT]
        ledger.close()
        await asyncio.sleep(SETTLE_S)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    latencies = sorted(
        (mine[incident.id][0] - pressed[incident.opened_by]) * 1000
        for mine in seen
        for incident in changed
        if incident.opened_by in pressed and incident.id in mine
    )
    # Where more happens meanwhile, a board may be further than the ledger was when it was read.
    lost = sum(mine.get(incident.id, (0.0, 0))[1] < incident.revision for mine in seen for incident in changed)
    page_ms.sort()
    return {
        "browsers": browsers,
        "presses": len(pressed),
        "updates": len(changed) * browsers,
        "lost": lost,
        "p50_ms": _quantile(latencies, 0.5),
        "p95_ms": _quantile(latencies, 0.95),
        "max_ms": _quantile(latencies, 1.0),
        "page_p95_ms": _quantile(page_ms, 0.95),
    }


def _prepare(folder: Path, settings: Settings, incidents: int, district: District) -> None:
    """The district with so many open incidents."""
    file = folder / "district.json"
    write(district, file)
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = open_migrated_ledger(settings)
    ledger.put_district(district.grids, [], [])
    catalogs = open_catalogs(ledger, catalog)
    now = time.time_ns() // 1_000_000
    seal = open_seal(settings, catalog)
    register(ledger, read_district(file), catalog, catalogs, seal, now - 60_000, now, "bench")
    names = [settlement.community.id for settlement in district.communities]
    for claim in ledger.claim(names, now):
        writer = load_writer(ledger, claim, catalogs, catalog)
        _, entry = writer.feed(Tick(), now)
        number = names.index(claim.community.id)
        cases = tuple(
            _make_case(claim.community.id, claim.community.grids, index, now)
            for index in range(number, incidents, len(names))
        )
        fence = writer.seal()
        assert fence is not None
        ledger.commit(Batch([fence], [replace(entry, step=Step(incidents=cases))]))
    ledger.close()


def find_buttons(district: District) -> list[tuple[str, str]]:
    """Its buttons: community and device."""
    return [
        (settlement.community.id, device.id)
        for settlement in district.communities
        for device in settlement.devices
        if device.profile in ("fixed-sos", "zigbee-button")
    ]


def _make_case(community: str, chain: tuple[str, ...], index: int, now: int) -> Incident:
    level = list(Level)[index % 3]
    due = Due("resolve", Role.GRID_WORKER, chain[-1], "property", now, "2h", "", now + 10**6, now + 10**7 + index, now)
    return replace(
        opened(1, key=f"place-{index}"),
        id=f"00000000-0000-5000-9000-{index:012d}",
        number=f"JM20261101-{index:06d}",
        community=community,
        chain=chain,
        level=level,
        state="handling",
        accepted_at=now,
        due=due,
    )


def _sign_in(settings: Settings) -> str:
    """A dispatcher of the whole district; the cookie of a session."""
    ledger = open_migrated_ledger(settings)
    sign_in = open_sign_in(settings, ledger)
    officers, hand = Officers(sign_in, ledger), Hand("cli:bench")
    account, _ = officers.add(hand, "bench", "", password=PASSWORD, must_change=False)
    officers.grant(hand, account.id, Role.DISPATCHER, ("370215",), ())
    secret = sign_in.sign_in("bench", PASSWORD, Origin("127.0.0.1", "bench")).secret
    ledger.close()
    return f"scg={secret}"


async def _time_page(client: httpx.AsyncClient) -> float:
    begun = time.perf_counter()
    answer = await client.get("/board")
    assert answer.status_code == 200, answer.text[:300]
    return (time.perf_counter() - begun) * 1000


async def _metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name + " ")))


async def _listen(client: httpx.AsyncClient, position: int, seen: dict[str, tuple[float, int]]) -> None:
    """One browser: of each incident, when its first row came and which revision came last."""
    async with client.stream("GET", "/board/stream", params={"after": position}) as answer:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif name == "row" and line.startswith("data: "):
                row = json.loads(line[6:])
                revision = int(row["html"].split('data-revision="', 1)[1].split('"', 1)[0])
                first = seen.get(row["id"], (time.perf_counter(), 0))[0]
                seen[row["id"]] = first, revision
            elif name == "gone" and line.startswith("data: "):
                id = json.loads(line[6:])["id"]
                seen[id] = seen.get(id, (time.perf_counter(), 0))[0], GONE


async def _press(settings: Settings, buttons: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Presses them one after the other; the moment of each, by the press's id."""
    door = DoorClient(settings.door_path)
    pressed: dict[str, float] = {}
    for number, (community, device) in enumerate(buttons):
        id = f"bench-{number}"
        pressed[id] = time.perf_counter()
        answer = await door.submit(community, Press(id, device), id)
        assert answer == "done", answer
        await asyncio.sleep(1 / PER_S)
    await door.close()
    return pressed


async def _issue_pages(settings: Settings, communities: Sequence[str], presses: int) -> list[str]:
    """The addresses of so many help pages, as evenly over the communities as can be: an address is limited."""
    keys = PageKeys(settings.data)
    found: list[list[str]] = []
    for community in communities:
        pages = await issue_help_pages(settings, community, (), None, "bench", renew=False)
        found.append([f"/r/{keys.sign(page.code)}" for page in pages])
    turns = [address for turn in zip_longest(*found) for address in turn if address is not None]
    assert len(turns) >= presses, f"there are {len(turns)} places; press less often, or add communities"
    return turns[:presses]


async def _press_pages(client: httpx.AsyncClient, pages: Sequence[str]) -> dict[str, float]:
    """Presses on them one after the other, as their script does; the moment of each, by the press's id."""
    pressed: dict[str, float] = {}
    for number, address in enumerate(pages):
        secret = f"{number:032x}"
        pressed[event_of(secret)] = time.perf_counter()
        form = {"id": secret, "need": "medical", "phone": "000-0000-0000", "words": "三楼"}
        answer = await client.post(address, data=form, headers={"Accept": "application/json", "Cookie": ""})
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(1 / PER_S)
    return pressed


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 1) if values else None
