"""The chain of the audit log: whatever is done to a line is found, and where."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.runtime.accounts import AuditRow, Deed
from gateway.runtime.audit import START, chain_hash, verify

TEXTS = st.text(max_size=8)
DEEDS = st.builds(
    Deed, st.integers(0, 2**53), TEXTS, TEXTS, about=TEXTS, where=TEXTS, outcome=TEXTS, detail=TEXTS, role=TEXTS
)
LOGS = st.lists(DEEDS, min_size=1, max_size=12)
FIELDS = ("at", "who", "what", "about", "where", "outcome", "detail", "role")


def chain(deeds: list[Deed]) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for seq, deed in enumerate(deeds, 1):
        rows.append(AuditRow(seq, deed, chain_hash(rows[-1].hash if rows else START, seq, deed)))
    return rows


def head_of(rows: list[AuditRow]) -> tuple[int, str]:
    return (rows[-1].seq, rows[-1].hash) if rows else (0, "")


def test_a_line_is_hashed_over_the_one_before_and_all_its_fields() -> None:
    deed = Deed(1, "李", "sign-in", "li", "10.0.0.1", "done", "", "dispatcher")
    text = '[1,1,"李","dispatcher","sign-in","li","10.0.0.1","done",""]'

    assert chain_hash(START, 1, deed) == hashlib.sha256(bytes(32) + text.encode()).hexdigest()


@given(LOGS)
def test_what_was_written_is_whole(deeds: list[Deed]) -> None:
    rows = chain(deeds)

    verdict = verify(rows, head_of(rows))

    assert (verdict.lines, verdict.seq, verdict.hash, verdict.flaws) == (len(rows), len(rows), rows[-1].hash, ())


@given(LOGS, st.data())
def test_a_changed_field_is_found_at_its_line(deeds: list[Deed], data: st.DataObject) -> None:
    rows = chain(deeds)
    index = data.draw(st.integers(0, len(rows) - 1))
    field = data.draw(st.sampled_from(FIELDS))
    other = data.draw(st.integers(0, 2**53) if field == "at" else TEXTS)
    changed = replace(rows[index].deed, **{field: other})
    tampered = [*rows]
    tampered[index] = replace(rows[index], deed=changed)

    verdict = verify(tampered, head_of(rows))

    assert [flaw.seq for flaw in verdict.flaws] == ([] if changed == rows[index].deed else [index + 1])


@given(LOGS, st.data())
def test_a_line_that_is_made_to_fit_itself_betrays_the_next_or_the_end(deeds: list[Deed], data: st.DataObject) -> None:
    rows = chain(deeds)
    index = data.draw(st.integers(0, len(rows) - 1))
    deed = replace(rows[index].deed, detail=rows[index].deed.detail + "!")
    before = rows[index - 1].hash if index else START
    tampered = [*rows]
    tampered[index] = AuditRow(index + 1, deed, chain_hash(before, index + 1, deed))

    flaws = verify(tampered, head_of(rows)).flaws

    assert flaws
    assert flaws[0].seq == min(index + 2, len(rows))


@given(LOGS, st.data())
def test_lines_taken_out_are_named(deeds: list[Deed], data: st.DataObject) -> None:
    rows = chain(deeds)
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first, len(rows) - 1))
    left = rows[:first] + rows[last + 1 :]

    flaws = verify(left, head_of(rows)).flaws

    named = f"line {first + 1}:" if first == last else f"lines {first + 1} to {last + 1}:"
    assert [flaw.what.startswith(named) for flaw in flaws] == [True]


@given(LOGS, DEEDS, st.data())
def test_a_line_put_in_is_found_though_all_after_it_are_counted_anew(
    deeds: list[Deed], forged: Deed, data: st.DataObject
) -> None:
    rows = chain(deeds)
    index = data.draw(st.integers(0, len(rows)))
    more = [AuditRow(index + 1, forged, chain_hash(rows[index - 1].hash if index else START, index + 1, forged))]
    tampered = rows[:index] + more + [replace(row, seq=row.seq + 1) for row in rows[index:]]

    flaws = verify(tampered, head_of(rows)).flaws

    assert flaws
    assert flaws[0].seq in (index + 1, index + 2)


@given(LOGS, DEEDS)
def test_a_log_written_anew_is_found_by_what_was_noted_down(deeds: list[Deed], other: Deed) -> None:
    rows = chain(deeds)
    anew = chain([other, *deeds[1:]])
    known = head_of(rows)

    flaws = verify(anew, head_of(anew), known).flaws

    assert bool(flaws) == (other != deeds[0])
    assert verify([*rows, *chain([*deeds, other])[-1:]], head_of(chain([*deeds, other])), known).flaws == ()


def test_what_is_appended_while_it_reads_is_no_flaw() -> None:
    rows = chain([Deed(n, "li", "sign-in") for n in range(5)])

    assert verify(rows, head_of(rows[:3]), read_end=lambda: 5).flaws == ()
    assert [flaw.what for flaw in verify(rows, head_of(rows[:3]), read_end=lambda: 4).flaws] == [
        "line 5: put in at the end"
    ]


@pytest.mark.parametrize("known", [(3, "0" * 64), (9, "0" * 64)])
def test_a_noted_line_that_is_another_or_gone_is_a_flaw(known: tuple[int, str]) -> None:
    rows = chain([Deed(n, "li", "sign-in") for n in range(5)])

    assert verify(rows, head_of(rows), known).flaws
