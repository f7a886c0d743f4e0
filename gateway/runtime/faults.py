"""Named points at which the fault harness may end this process, as a failing machine would: at once and unsaid.

``FAULT_POINT=before-commit:3`` ends it where it passes that point for the third time. Where the variable is absent,
passing a point does nothing. docs/chaos.md names the points.
"""

from __future__ import annotations

import os
import signal
from typing import Final

_WANTED, _, _COUNT = os.environ.get("FAULT_POINT", "").partition(":")
_left: Final = [int(_COUNT or 1)]

if _WANTED:

    def pass_point(name: str) -> None:
        """Here the process ends, if this is where it was asked to."""
        if name == _WANTED:
            _left[0] -= 1
            if _left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

else:

    def pass_point(name: str) -> None:
        """Here the process would end, had it been asked to."""
