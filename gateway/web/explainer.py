"""Asks the engine why an incident's rule fired, one question at a time: each reads a day of a journal again."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.engine import Explained
from gateway.core.model import Incident, Line
from gateway.errors import GatewayError
from gateway.runtime.ports import Ledger
from gateway.runtime.writer import Catalogs, load_engine

KEPT: Final = 200


class Told(Struct, frozen=True):
    """What the rule saw with the line that opened the incident. Each leaf of its condition is (path, text, truth, what
    it saw). ``is_momentary``: it held for that moment alone, such as a press, and the line says what was seen."""

    line: Line
    explained: Explained

    @property
    def is_momentary(self) -> bool:
        return not self.explained.truth


class Explainer:
    """Remembers its last answers: what happened stays as it was."""

    def __init__(self, ledger: Ledger, catalog: Catalog, catalogs: Catalogs) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._catalogs = catalogs
        self._turn = asyncio.Lock()
        self._known: dict[str, Told] = {}

    async def explain(self, incident: Incident) -> Told | None:
        """What its rule saw when it was opened; None when the rule is silent about it. Raises GatewayError and
        LedgerDown."""
        async with self._turn:
            known = self._known.get(incident.id)
            if known is None:
                known = await asyncio.to_thread(self._ask, incident)
                if known is not None:
                    if len(self._known) >= KEPT:
                        self._known.clear()
                    self._known[incident.id] = known
            return known

    def _ask(self, incident: Incident) -> Told | None:
        line = next((line for line in incident.timeline if line.what == "opened" and line.device), None)
        if line is None or not incident.rule:
            return None
        community = next((c for c in self._ledger.communities() if c.id == incident.community), None)
        if community is None:
            raise GatewayError("unknown-community", "its community is gone", incident.community, "look its id up")
        engine = load_engine(self._ledger, community, self._catalogs, self._catalog, line.at).engine
        if not engine.has_device(line.device):
            return None
        found = [explained for explained in engine.explain(line.device, line.at) if explained.rule == incident.rule]
        return Told(line, found[0]) if found else None
