"""How the district governs, as data: limits of each step, reminders, rings, storms (rules/governance.yaml).

All spans are ``int`` milliseconds where the clock alone counts, and a `Limit` where people's working time does.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.core.model import Level
from gateway.core.worktime import Limit

STEPS = ("accept", "dispatch", "arrive", "resolve", "verify", "close", "rate", "report_in")
"""What can be awaited of an incident, in the order of the closed loop; ``report_in`` answers a whistle."""


class Policy(Struct, frozen=True):
    """``limits``: for each level, each of `STEPS`; a category may name its own for some.

    ``warn_share``: a step is yellow when this share of its time (0 to 1) is over. ``remind_every``: how long after a
    step is red the owner is reminded, and again; after ``escalate_after`` reminders the step goes up to the next level
    of the grid. ``ring_every``: how long a critical incident waits for a person before the next number is rung.
    ``returns_limit``: how often it may be returned as not ours before it goes up. ``reopen_within``: how long what is
    closed stays in the book. A storm is more than ``storm_incidents`` new ones in ``storm_window`` in one community;
    flapping is ``flap_times`` changes in ``flap_window``. ``life_safety_silence``: the longest silence of a device that
    people's lives hang on."""

    limits: Mapping[Level, Mapping[str, Limit]]
    warn_share: float
    remind_every: Mapping[Level, int]
    escalate_after: int
    ring_every: int
    returns_limit: int
    reopen_within: int
    storm_incidents: int
    storm_window: int
    flap_times: int
    flap_window: int
    life_safety_silence: int


class PlatformMapping(Struct, frozen=True):
    """How the central platform calls our states, levels and categories, and its words for our moves (``actions``: its
    word → our verb)."""

    states: Mapping[str, str]
    levels: Mapping[str, str]
    categories: Mapping[str, str]
    actions: Mapping[str, str]
