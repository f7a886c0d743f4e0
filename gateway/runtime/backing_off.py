"""How long whoever got no good answer waits before asking again."""

from __future__ import annotations

import random
from typing import Final

DOUBLINGS: Final = 20
"""More would only make a large number larger, before it is cut."""


def back_off(first_ms: int, most_ms: int, failures: int) -> int:
    """The pause in ms after so many failures: it doubles from ``first_ms`` up to ``most_ms``, and up to half of it is
    left to chance, so that whoever comes back is not met by everything at once."""
    pause = min(most_ms, first_ms << max(0, min(failures, DOUBLINGS)))
    return round(pause * random.uniform(0.5, 1.0))  # noqa: S311
