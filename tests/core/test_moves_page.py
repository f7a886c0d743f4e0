"""docs/governance.md shows the table of moves as it is."""

from __future__ import annotations

from pathlib import Path

from gateway.core.moves import MOVES, State
from gateway.runtime.moves_page import render_moves

DOCUMENT = Path(__file__).parents[2] / "docs" / "governance.md"


def test_the_document_shows_the_table_in_force() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text.partition("<!-- moves -->\n")[2].partition("<!-- /moves -->")[0]
    assert shown == render_moves(), "put the output of python -m gateway moves between the marks"


def test_every_move_and_every_state_is_drawn() -> None:
    page = render_moves()
    assert all(f"| `{move.verb}` " in page for move in MOVES)
    assert all(f"    {state}: " in page for state in State)
    assert "    verified --> closed: close" in page
    assert "    parked --> handling: resume" in page
