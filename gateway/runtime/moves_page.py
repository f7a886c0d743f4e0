"""The table of moves as a diagram and a table, for docs/governance.md (``python -m gateway moves``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.core.moves import FINAL, MOVES, NOTICE_MOVES, STATE_TITLES, Move, State


def render_moves() -> str:
    """A Mermaid state diagram, and a row for each move."""
    return "\n".join([*_diagram(), "", *_table(MOVES), "", "Maintenance notices:", "", *_table(NOTICE_MOVES)]) + "\n"


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    for state in State:
        yield f"    {state}: {STATE_TITLES[state]['zh']} {STATE_TITLES[state]['en']}"
    yield f"    [*] --> {State.REPORTED}"
    for (source, target), verbs in _arrows().items():
        yield f"    {source} --> {target}: {', '.join(verbs)}"
    for state in sorted(FINAL):
        yield f"    {state} --> [*]"
    yield "```"


def _arrows() -> dict[tuple[str, str], list[str]]:
    """(from, to) → the verbs that lead there; a verb that leaves the state as it is has no arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for move in MOVES:
        for source in move.sources:
            for target in _targets(move, source):
                if target != source:
                    arrows.setdefault((source, target), []).append(move.verb)
    return arrows


def _targets(move: Move, source: State) -> tuple[State, ...]:
    match move.verb:
        case "accept" if source is State.DISPATCHED:
            return ()
        case "call_back":
            return (State.FILED,) if source is State.REPORTED else ()
        case "resume":
            return (State.FILED, State.DISPATCHED, State.HANDLING)
        case "return":
            return (State.DISPATCHED, State.FILED)
    return () if move.target is None else (move.target,)


def _table(moves: Sequence[Move]) -> Iterator[str]:
    yield "| move | from | to | by | needs | |"
    yield "|---|---|---|---|---|---|"
    for move in moves:
        target = move.target or "as it was"
        yield (
            f"| `{move.verb}` {move.title['zh']} | {', '.join(move.sources)} | {target} | "
            f"{', '.join(role.replace('_', ' ') for role in move.roles)} | {', '.join(move.needs)} | {move.note} |"
        )
