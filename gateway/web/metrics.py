"""``/metrics`` for Prometheus: what waits, what was lost or refused, what is open, and who is looking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Depends, Response

from gateway.core.model import Sort
from gateway.runtime.ports import LedgerDown
from gateway.web.access import public
from gateway.web.console import Console

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


def route_metrics(console: Console) -> APIRouter:
    """The route. It tells numbers alone: no name, no place, no person."""
    router = APIRouter()

    @router.get("/metrics", dependencies=[Depends(public("it tells numbers alone, to whoever watches this machine"))])
    async def tell() -> Response:
        """The numbers as they stand now."""
        try:
            counts = await asyncio.to_thread(console.ledger.counts)
        except LedgerDown:
            counts = {}
        return Response(write(console, counts), media_type=CONTENT_TYPE)

    return router


def write(console: Console, counts: Mapping[str, Mapping[str, int]]) -> str:
    """The text of all metrics."""
    board, now = console.board, console.clock()
    lines: list[str] = []
    lines += _metric("scg_ledger_up", "gauge", "Whether the ledger was read just now.", [({}, board.is_fresh)])
    lines += _metric("scg_gateway_up", "gauge", "Whether the gateway says it runs.", [({}, board.is_gateway_there)])
    lines += _metric("scg_streams", "gauge", "Browsers and programs that listen.", [({}, console.listening)])
    lines += _metric("scg_changes_total", "counter", "Changes of incidents so far.", [({}, board.position)])
    opened = [
        ({"sort": str(sort), "level": level}, float(number))
        for sort in Sort
        for level, number in board.count(lambda community, chain: True, sort).levels.items()
    ]
    lines += _metric("scg_open_incidents", "gauge", "Open incidents and notices by level.", opened)
    whole = board.count(lambda community, chain: True)
    lines += _metric("scg_overdue_incidents", "gauge", "Open incidents that are late.", [({}, whole.overdue)])
    waited = max((now - i.opened_at for i in board.unanswered(lambda community, chain: True)), default=0)
    about = "How long the oldest critical incident has waited for a person."
    lines += _metric("scg_unanswered_seconds", "gauge", about, [({}, waited / 1000)])
    for name, label, kind, help in _COUNTED:
        samples = [({label: key}, float(number)) for key, number in sorted(counts.get(name, {}).items())]
        if samples:
            lines += _metric(f"scg_{name}{'_total' if kind == 'counter' else ''}", kind, help, samples)
    return "\n".join(lines) + "\n"


_COUNTED = (
    ("outbox", "state", "gauge", "Deliveries and commands by state."),
    ("notifications", "state", "gauge", "Notifications by state."),
    ("commands", "state", "gauge", "Commands by state."),
    ("quarantined", "reason", "counter", "Messages put aside, by reason."),
    ("rejected", "reason", "counter", "Values not believed, by reason."),
)


def _metric(name: str, kind: str, help: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        lines.append(f"{name}{'{' + inside + '}' if inside else ''} {float(value):g}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
