"""What every ledger does, whatever stands behind it.

Tables that the port has no view of are looked at with SQL: what is written there is a promise to those who read the
database with other tools.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.adapters.ledger import PAGE, SqlLedger
from gateway.adapters.ledger_batch import QUARANTINE_ROWS, REJECTED_ROWS
from gateway.adapters.passwords import is_password
from gateway.core.model import (
    NOTHING,
    Answer,
    Command,
    Community,
    CursorMove,
    Deliver,
    Device,
    Effect,
    Grid,
    GridLevel,
    Incident,
    Level,
    Line,
    Notify,
    Phase,
    Rejected,
    Responsible,
    Sort,
    Step,
    Transition,
)
from gateway.runtime.ports import (
    Batch,
    Checkpoint,
    Claim,
    CommitRefused,
    Contact,
    Duty,
    Entry,
    Fence,
    FenceLost,
    Finding,
    JournalRow,
    Ledger,
    OutboxState,
    Outcome,
    PlaceTally,
    Quarantined,
    Tally,
)
from gateway.wire import Lane, Reply
from tests.ports.incidents import FIRE, revise

NOW = 1_795_435_200_000
DAY = 86_400_000
COMMUNITIES = [Community(f"c{number:03d}", number, f"小区{number}") for number in (1, 2, 3)]


GRIDS = [
    Grid("370215", GridLevel.DISTRICT, "即墨区"),
    Grid("370215001", GridLevel.TOWN, "环秀街道", "370215"),
]
RESPONSIBLE = [Responsible("property", "370215001", "物业（模拟）")]
CONTACTS = [
    Contact("duty-1", "值班（模拟）", "duty", grid="370215", phone="000-0000-0001", duty=(Duty((0, 1), 0, 480),)),
    Contact("family-1", "家属（模拟）", "family", "c001", "b1-u1-101", rank=1, phone="000-0000-0002"),
]


def build_entry(seq: int, community: str = "c001", *, step: Step = NOTHING, **fields: Any) -> Entry:
    """A telemetry message like most."""
    plain = Entry(
        community=community,
        seq=seq,
        at=NOW + seq,
        kind="delivery",
        catalog="0123456789abcdef",
        body=b'{"seq": %d}' % seq,
        source=f"agent-{community}",
        lane=Lane.TELEMETRY,
        digest=seq * 7919,
        step=step,
    )
    return replace(plain, **fields)


class Hand:
    """A writer of some communities: claims them, and commits entries under its fences."""

    def __init__(self, ledger: Ledger, communities: Sequence[str] = ("c001",)) -> None:
        self.ledger = ledger
        self.claims = {claim.community.id: claim for claim in ledger.claim(communities, NOW)}
        self.heads = {name: claim.head for name, claim in self.claims.items()}

    def batch(self, *entries: Entry, **parts: Any) -> Batch:
        """A batch of entries with their fences; the heads move with `commit` only."""
        last: dict[str, int] = {}
        for entry in entries:
            last[entry.community] = max(entry.seq, last.get(entry.community, 0))
        fences = [Fence(name, self.claims[name].epoch, self.heads[name], new) for name, new in last.items()]
        return Batch(fences, entries, **parts)

    def commit(self, *entries: Entry, **parts: Any) -> None:
        self.ledger.commit(self.batch(*entries, **parts))
        for entry in entries:
            self.heads[entry.community] = max(entry.seq, self.heads[entry.community])

    def step(self, step: Step, community: str = "c001", **fields: Any) -> None:
        """Commits one entry with this step."""
        self.commit(build_entry(self.heads[community] + 1, community, step=step, **fields))


def opened(number: int = 1, **fields: Any) -> Incident:
    """An incident of c001 at its first revision."""
    plain = replace(
        FIRE, id=f"00000000-0000-5000-8000-{number:012d}", number=f"JM20261123-001-{number:04d}", community="c001"
    )
    return replace(plain, **fields)


def deliver(incident: Incident) -> Deliver:
    return Deliver(f"{incident.id}/{incident.revision}", incident)


def order(number: int = 1, **fields: Any) -> Command:
    plain = Command(
        id=f"command-{number}",
        community="c001",
        source="agent-c001",
        device="speaker-1",
        name="broadcast",
        args={"text": "发现火情"},
        expires_at=NOW + 60_000,
        incident=opened().id,
    )
    return replace(plain, **fields)


def forged(number: int = 1, **fields: Any) -> Quarantined:
    plain = Quarantined(
        at=NOW + number,
        community="c001",
        source="agent-c001",
        topic="sc/v1/c001/agent-c001/alarm",
        reason="bad-envelope",
        detail="no JSON",
        digest=hashlib.sha256(str(number).encode()).hexdigest(),
        length=17,
        head="\ufffd{garbage",
    )
    return replace(plain, **fields)


def journal(ledger: Ledger, community: str = "c001") -> list[JournalRow]:
    return list(ledger.read_journal(community, 0))


def everything(ledger: SqlLedger) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table."""
    tables = (
        "community journal checkpoint catalog device credential cursor rule_state incident timeline outbox command "
        "quarantine rejected meta"
    )
    with ledger.database.reading() as session:
        return {table: sorted(session.select(f"SELECT * FROM {table}"), key=repr) for table in tables.split()}


def select(ledger: SqlLedger, sql: str) -> list[tuple[Any, ...]]:
    with ledger.database.reading() as session:
        return session.select(sql)


class LedgerConformance:
    """Subclass it with a fixture ``ledger``: an empty, migrated one."""

    @pytest.fixture
    def hand(self, ledger: SqlLedger) -> Hand:
        ledger.add_communities(COMMUNITIES)
        return Hand(ledger)

    # --- communities and claims ---

    def test_communities_are_added_and_renamed_and_keep_their_place(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(build_entry(1))
        renamed = replace(COMMUNITIES[0], name="海韵花园", grids=("370215", "370215001"))

        ledger.add_communities([renamed])

        assert ledger.communities() == [renamed, *COMMUNITIES[1:]]
        assert ledger.standing(["c001", "c002", "nowhere"]) == {"c001": (1, 1), "c002": (0, 0)}

    def test_two_communities_with_one_serial_are_refused_and_neither_is_added(self, ledger: SqlLedger) -> None:
        with pytest.raises(CommitRefused):
            ledger.add_communities([COMMUNITIES[0], Community("other", 1, "another with serial 1")])

        assert ledger.communities() == []

    def test_each_claim_raises_the_epoch_and_tells_the_head(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(*(build_entry(seq) for seq in (1, 2, 3)))

        claims = ledger.claim(["c002", "c001", "c001"], NOW)

        assert claims == [Claim(COMMUNITIES[0], 2, 3), Claim(COMMUNITIES[1], 1, 0)]

    def test_a_claim_of_what_is_not_there_claims_nothing(self, ledger: SqlLedger, hand: Hand) -> None:
        with pytest.raises(CommitRefused, match="nowhere"):
            ledger.claim(["c001", "nowhere"], NOW)

        assert ledger.standing(["c001"]) == {"c001": (1, 0)}

    # --- the journal ---

    def test_the_journal_is_read_back_as_it_was_written(self, ledger: SqlLedger, hand: Hand) -> None:
        bodies = [b"", bytes(range(256)) * 40, "烟感".encode()]
        entries = [
            build_entry(seq, body=body, lane=lane, kind=kind, source=source, event_id=event, digest=2**63 - 1)
            for seq, (body, lane, kind, source, event) in enumerate(
                [
                    (bodies[0], Lane.ALARM, "delivery", "agent-c001", "agent-c001/k3f9/alarm/1"),
                    (bodies[1], Lane.TELEMETRY, "delivery", "agent-c001", None),
                    (bodies[2], "", "press", "", "page-1"),
                ],
                start=1,
            )
        ]

        hand.commit(*entries)

        assert journal(ledger) == [
            JournalRow(e.seq, e.at, e.kind, e.catalog, e.body, e.source, e.lane, e.digest) for e in entries
        ]

    def test_the_journal_of_each_community_is_read_in_order_however_long(self, ledger: SqlLedger, hand: Hand) -> None:
        both = Hand(ledger, ["c001", "c002"])
        length = 2 * PAGE + 300
        entries = [build_entry(seq, name) for seq in range(1, length + 1) for name in ("c002", "c001")]

        both.commit(*reversed(entries))

        for name in ("c001", "c002"):
            rows = journal(ledger, name)
            assert [row.seq for row in rows] == list(range(1, length + 1))
            assert {row.source for row in rows} == {f"agent-{name}"}
        assert [row.seq for row in ledger.read_journal("c001", length - 2)] == [length - 1, length]
        assert journal(ledger, "c003") == []

    def test_the_journal_is_read_up_to_a_time_and_without_holes(self, ledger: SqlLedger, hand: Hand) -> None:
        times = {1: 0, 2: 10, 3: 30, 4: 20, 5: 40}
        hand.commit(*(build_entry(seq, at=NOW + ms) for seq, ms in times.items()))

        assert [row.seq for row in ledger.read_journal("c001", 0, NOW + 20)] == [1, 2]
        assert [row.seq for row in ledger.read_journal("c001", 1, NOW + 30)] == [2, 3, 4]
        assert [row.seq for row in ledger.read_journal("c001", 0, NOW - 1)] == []

    def test_the_journal_is_read_by_kind(self, ledger: SqlLedger, hand: Hand) -> None:
        kinds = {1: "registry", 2: "delivery", 3: "list", 4: "tick", 5: "registry"}
        hand.commit(*(build_entry(seq, kind=kind) for seq, kind in kinds.items()))

        assert [row.seq for row in ledger.read_journal("c001", 0, kinds=("registry", "list"))] == [1, 3, 5]
        assert [row.seq for row in ledger.read_journal("c001", 1, kinds=("registry",))] == [5]

    def test_the_journals_last_row_before_a_time_is_found(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(*(build_entry(seq, at=NOW + 10 * seq) for seq in (1, 2, 3)))

        found = [ledger.journal_before("c001", NOW + ms) for ms in (0, 10, 11, 25, 31)]

        assert found == [0, 0, 1, 2, 3]
        assert ledger.journal_before("c002", NOW + 31) == 0

    def test_an_event_is_found_by_its_id(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(build_entry(1), build_entry(2, event_id="page-1", digest=77))

        assert ledger.find_event("page-1") == ("c001", 77)
        assert ledger.find_event("page-2") is None

    # --- all or nothing ---

    def test_a_batch_with_a_known_event_id_changes_nothing_at_all(self, ledger: SqlLedger, hand: Hand) -> None:
        ledger.add_communities(COMMUNITIES)
        both = Hand(ledger, ["c001", "c002"])
        both.commit(build_entry(1, event_id="page-1"), alive_at=NOW)
        before = everything(ledger)
        full = build_full_step(1)

        with pytest.raises(CommitRefused):
            both.commit(
                build_entry(1, "c002"),
                build_entry(2, step=full),
                build_entry(3, event_id="page-1"),
                quarantined=[forged()],
                checkpoints=[Checkpoint("c001", 3, NOW, 1, "abc", b"state")],
                alive_at=NOW + 1,
            )

        assert everything(ledger) == before
        both.commit(build_entry(2, step=full), build_entry(3, event_id="page-2"), quarantined=[forged()])
        assert len(journal(ledger)) == 3

    def test_every_table_that_a_step_touches_is_written(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(
            build_entry(1, step=build_full_step(1)),
            quarantined=[forged()],
            checkpoints=[Checkpoint("c001", 1, NOW, 1, "abc", b"state")],
            alive_at=NOW,
        )
        ledger.save_catalog("abc", {"a": "b"}, NOW)
        ledger.issue_credentials(["agent-c001"], NOW)

        assert {table: len(rows) > 0 for table, rows in everything(ledger).items()} == dict.fromkeys(
            everything(ledger), True
        )

    @pytest.mark.parametrize(
        "spoil",
        [
            {"event_id": "twice"},
            {"digest": 2**63},
            {"catalog": None},
            {"source": "half a pair \ud800"},
            {"body": {"no": "bytes"}},
            {"kind": "answer", "body": b"no answer"},
        ],
        ids=["event id twice", "number too large", "nothing where something must be", "text", "type", "answer"],
    )
    def test_what_cannot_be_written_is_refused_with_a_reason(
        self, ledger: SqlLedger, hand: Hand, spoil: dict[str, Any]
    ) -> None:
        with pytest.raises(CommitRefused) as refusal:
            hand.commit(build_entry(1, event_id="twice"), build_entry(2, **spoil))

        assert 0 < len(str(refusal.value)) <= 300
        assert "\n" not in str(refusal.value)
        assert journal(ledger) == []
        hand.commit(build_entry(1), build_entry(2))
        assert len(journal(ledger)) == 2

    def test_a_seq_of_the_journal_is_written_once(self, ledger: SqlLedger, hand: Hand) -> None:
        with pytest.raises(CommitRefused):
            hand.commit(build_entry(1), build_entry(1))

        assert journal(ledger) == []

    def test_an_overlong_id_is_refused_or_kept_whole_but_never_taken_for_a_fault(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        # PostgreSQL's indexes hold no entry of this length; taken for a fault of the server it would be tried for ever.
        noise = hashlib.shake_256(b"noise").hexdigest(20_000)
        try:
            hand.commit(build_entry(1, event_id=noise))
        except CommitRefused:
            assert journal(ledger) == []
        else:
            assert ledger.find_event(noise) is not None

    def test_an_entry_of_a_community_without_a_fence_is_refused(self, ledger: SqlLedger, hand: Hand) -> None:
        batch = hand.batch(build_entry(1))

        with pytest.raises(CommitRefused, match="c002"):
            ledger.commit(replace(batch, entries=[*batch.entries, build_entry(1, "c002")]))

        assert journal(ledger) == []

    def test_an_empty_batch_says_only_that_the_gateway_is_alive(self, ledger: SqlLedger) -> None:
        assert ledger.alive_at() is None

        ledger.commit(Batch(alive_at=NOW))
        ledger.commit(Batch())

        assert ledger.alive_at() == NOW

    # --- the fence ---

    def test_the_later_claim_wins_and_the_earlier_writer_writes_nothing(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(build_entry(1))
        later = Hand(ledger)
        before = everything(ledger)

        with pytest.raises(FenceLost) as lost:
            hand.commit(build_entry(2, step=build_full_step(2)), quarantined=[forged()], alive_at=NOW)

        assert lost.value.communities == ("c001",)
        assert everything(ledger) == before
        later.commit(build_entry(2, body=b"later"))
        assert [row.body for row in ledger.read_journal("c001", 1)] == [b"later"]

    def test_exactly_the_lost_communities_are_named(self, ledger: SqlLedger, hand: Hand) -> None:
        first = Hand(ledger, ["c001", "c002", "c003"])
        Hand(ledger, ["c002"])

        with pytest.raises(FenceLost) as lost:
            first.commit(*(build_entry(1, name) for name in ("c003", "c002", "c001")))

        assert lost.value.communities == ("c002",)
        assert ledger.standing(["c001", "c002", "c003"]) == {"c001": (2, 0), "c002": (2, 0), "c003": (1, 0)}

    def test_a_head_that_stands_elsewhere_loses_the_fence(self, ledger: SqlLedger, hand: Hand) -> None:
        batch = hand.batch(build_entry(1))
        ledger.commit(batch)

        with pytest.raises(FenceLost):
            ledger.commit(batch)

        assert len(journal(ledger)) == 1
        assert ledger.standing(["c001"]) == {"c001": (1, 1)}

    def test_a_community_that_is_not_there_has_no_fence(self, ledger: SqlLedger, hand: Hand) -> None:
        with pytest.raises(FenceLost) as lost:
            ledger.commit(Batch([Fence("c001", 1, 0, 1), Fence("nowhere", 1, 0, 1)]))

        assert lost.value.communities == ("nowhere",)

    def test_a_community_fenced_twice_is_refused(self, ledger: SqlLedger, hand: Hand) -> None:
        with pytest.raises((CommitRefused, FenceLost)) as refusal:
            ledger.commit(Batch([Fence("c001", 1, 0, 1), Fence("c001", 1, 0, 1)]))

        assert not isinstance(refusal.value, FenceLost) or refusal.value.communities
        assert ledger.standing(["c001"]) == {"c001": (1, 0)}

    # --- cursors and rule states ---

    def test_the_last_move_of_each_cursor_is_kept(self, ledger: SqlLedger, hand: Hand) -> None:
        def move(seq: int, lane: str, contiguous: int, above: tuple[int, ...] = (), lost: int = 0) -> Entry:
            return build_entry(seq, step=Step(cursor=CursorMove("agent-c001", "k3f9", lane, contiguous, above, lost)))

        hand.commit(move(1, "alarm", 1), move(2, "telemetry", 1), move(3, "telemetry", 1, (3, 5)), move(4, "alarm", 2))

        sql = "SELECT source, spool, lane, contiguous, above, lost FROM cursor ORDER BY lane"
        assert select(ledger, sql) == [
            ("agent-c001", "k3f9", "alarm", 2, "", 0),
            ("agent-c001", "k3f9", "telemetry", 1, "3,5", 0),
        ]
        hand.commit(move(5, "telemetry", 5, (), 2))
        assert select(ledger, sql)[1] == ("agent-c001", "k3f9", "telemetry", 5, "", 2)
        assert ledger.counts()["lost"] == {"agent-c001": 2}

    def test_the_phase_of_each_rule_and_key_is_the_last_one(self, ledger: SqlLedger, hand: Hand) -> None:
        def turn(
            phase: Phase, at: int, note: str = "", incident: str | None = None, key: str = "smoke-1"
        ) -> Transition:
            return Transition("fire.smoke-persists", key, phase, at, NOW, "event-1", note, incident)

        sql = "SELECT community, rule, key, phase, at, since, event, note, incident FROM rule_state ORDER BY key"
        hand.step(Step(transitions=(turn(Phase.PENDING, NOW + 1), turn(Phase.FIRING, NOW + 2, "opened", "i-1"))))
        assert select(ledger, sql) == [
            ("c001", "fire.smoke-persists", "smoke-1", "firing", NOW + 2, NOW, "event-1", "opened", "i-1")
        ]

        hand.step(Step(transitions=(turn(Phase.QUIET, NOW + 3), turn(Phase.QUIET, NOW + 3, "shadow", key="smoke-2"))))
        assert [(row[2], row[3], row[7]) for row in select(ledger, sql)] == [("smoke-2", "quiet", "shadow")]

    # --- incidents ---

    def test_an_incident_is_read_back_whole_at_its_last_revision(self, ledger: SqlLedger, hand: Hand) -> None:
        first = opened()
        second = replace(revise(first, 2), state="filed", level=first.level, title={"zh": "改", "en": "changed"})
        hand.step(Step(incidents=(first,)))

        hand.step(Step(incidents=(second,)))

        assert ledger.incident(first.id) == second
        assert ledger.incidents() == [second]
        assert ledger.incident("unknown") is None
        assert ledger.counts()["incidents"] == {"filed": 1}

    def test_an_incident_is_found_by_any_signal_of_its_timeline(self, ledger: SqlLedger, hand: Hand) -> None:
        first = opened(1)
        press = Line(1, NOW, "gateway", "opened", event="page/1", device="page-1")
        again = Line(2, NOW + 1, "gateway", "joined", event="page/2", device="page-1")
        second = opened(2, key="page-1", timeline=(press, again))
        hand.step(Step(incidents=(first, second)))

        assert ledger.incident_of(first.opened_by) == first
        assert [ledger.incident_of(event) for event in ("page/1", "page/2")] == [second, second]
        assert ledger.incident_of("page/of-nobody") is None

    def test_the_newest_open_incident_of_a_key_is_found(self, ledger: SqlLedger, hand: Hand) -> None:
        older = opened(1, key="page-1", joinable=False, opened_at=NOW)
        newer = opened(2, key="page-1", joinable=False, opened_at=NOW + 1)
        hand.step(Step(incidents=(older, newer)))
        assert ledger.open_at("c001", "page-1") == newer

        hand.step(Step(incidents=(replace(revise(newer, 2), state="closed"),)))

        assert ledger.open_at("c001", "page-1") == older
        assert ledger.open_at("c002", "page-1") is None
        assert ledger.open_at("c001", "page-2") is None

    def test_a_revision_only_rises(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(incidents=(revise(opened(), 3),)))

        hand.step(Step(incidents=(replace(revise(opened(), 2), state="filed"),)))

        assert ledger.incidents() == [revise(opened(), 3)]

    def test_open_incidents_are_listed_the_newest_first(self, ledger: SqlLedger, hand: Hand) -> None:
        states = ["reported", "closed", "handling", "false_alarm", "dispatched"]
        incidents = [
            opened(number, state=state, key=f"k{number}", opened_at=NOW + number)
            for number, state in enumerate(states, start=1)
        ]
        notice = opened(9, sort=Sort.NOTICE, key="k9", opened_at=NOW)
        hand.step(Step(incidents=(*incidents, notice)))

        assert [i.number[-1] for i in ledger.incidents()] == ["5", "4", "3", "2", "1", "9"]
        assert [i.number[-1] for i in ledger.incidents(open_only=True)] == ["5", "3", "1", "9"]
        assert [i.number[-1] for i in ledger.incidents(open_only=True, limit=2)] == ["5", "3"]
        assert ledger.counts()["notices"] == {"reported": 1}

    def test_whoever_follows_the_changes_sees_each_incident_as_it_stands_last(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        first, second = opened(1), opened(2, key="c001-b02")
        hand.step(Step(incidents=(first, second)))
        seen = ledger.changes(0)
        closed = replace(revise(first, 2), state="closed")
        hand.step(Step(incidents=(closed,)))

        assert [(position, incident.id) for position, incident in seen] == [(1, first.id), (2, second.id)]
        assert ledger.changes(2) == [(3, closed)]
        assert ledger.changes(0) == [(2, second), (3, closed)]
        assert ledger.changes(0, open_only=True) == [(2, second)]
        assert ledger.changes(0, 1) == [(2, second)]
        assert ledger.position() == 3

    def test_a_batch_that_is_refused_moves_no_position(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(incidents=(opened(1),)))
        with pytest.raises(CommitRefused):
            hand.step(Step(incidents=(opened(2),)))  # of the same cause and key

        assert ledger.position() == 1
        assert [position for position, _ in ledger.changes(0)] == [1]

    def test_grids_bodies_and_contacts_are_kept_and_changed_by_their_names(self, ledger: SqlLedger) -> None:
        ledger.put_district(GRIDS, RESPONSIBLE, CONTACTS)
        renamed = replace(CONTACTS[0], name="另一值班（模拟）", rank=2)
        ledger.put_district(GRIDS[:1], [replace(RESPONSIBLE[0], name="另一物业（模拟）")], [renamed])

        assert ledger.grids() == GRIDS
        assert [known.name for known in ledger.responsible()] == ["另一物业（模拟）"]
        assert ledger.contacts() == [CONTACTS[1], renamed]

    def test_grids_bodies_and_contacts_are_taken_out_by_their_names(self, ledger: SqlLedger) -> None:
        ledger.put_district(GRIDS, RESPONSIBLE, CONTACTS)

        ledger.drop_district([GRIDS[0].code, "nobody"], [(RESPONSIBLE[0].body, RESPONSIBLE[0].grid)], [CONTACTS[0].id])

        assert ledger.grids() == GRIDS[1:]
        assert ledger.responsible() == RESPONSIBLE[1:]
        assert ledger.contacts() == [contact for contact in CONTACTS if contact.id != CONTACTS[0].id]

    def test_notifications_wait_beside_deliveries_and_are_counted_apart(self, ledger: SqlLedger, hand: Hand) -> None:
        told = Notify("incident-1/3/ring", "c001", "incident-1", "ring", "gate", "370215", {"zh": "…"}, NOW + 60_000)
        hand.step(Step(incidents=(opened(),), effects=(told,)))

        [row] = ledger.due_effects(NOW + 10, 9, "notify")
        assert row.effect == told
        assert ledger.outbox_counts() == {}
        ledger.settle([Outcome(row.id, OutboxState.DONE, NOW + 20, "sms to 值班（模拟） (duty-1)")])
        assert ledger.due_effects(NOW + 30, 9, "notify") == []
        assert ledger.counts()["notifications"] == {"done": 1}

    def test_each_line_of_a_timeline_is_written_once(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(incidents=(revise(opened(), 2),)))
        third = revise(opened(), 3)
        late = Line(4, NOW, "gateway", "joined", "a\x00b", "event-9", "smoke-2", "fire.smoke-persists", late=True)

        hand.step(Step(incidents=(third, replace(third, revision=4, timeline=(*third.timeline, late)))))

        rows = select(ledger, "SELECT seq, who, what, why, event, device, rule, late FROM timeline ORDER BY seq")
        assert [row[0] for row in rows] == [1, 2, 3, 4]
        assert rows[1][1:3] == ("dispatcher:wang", "accepted")
        assert (*rows[3][1:7], bool(rows[3][7])) == (
            "gateway",
            "joined",
            "a\ufffdb",
            "event-9",
            "smoke-2",
            "fire.smoke-persists",
            True,
        )

    def test_a_second_open_and_joinable_incident_of_one_cause_and_key_is_refused(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        hand.step(Step(incidents=(opened(1),)))

        with pytest.raises(CommitRefused):
            hand.step(Step(incidents=(opened(2),)))

        assert ledger.incidents() == [opened(1)]
        hand.step(Step(incidents=(opened(3, key="another"), opened(4, cause="gas"), opened(5, joinable=False))))
        hand.step(Step(incidents=(opened(6, state="closed"),)))
        other = Hand(ledger, ["c002"])
        other.step(Step(incidents=(opened(7, community="c002"),)), "c002")
        assert len(ledger.incidents()) == 6

    def test_an_incident_that_ends_its_joining_makes_room_in_the_same_batch(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        hand.step(Step(incidents=(opened(1),)))
        ended = replace(revise(opened(1), 2), joinable=False)

        hand.commit(build_entry(2, step=Step(incidents=(ended, opened(2)))))

        assert {(i.number[-1], i.joinable) for i in ledger.incidents()} == {("1", False), ("2", True)}

    # --- devices ---

    def test_devices_are_kept_by_community_and_id(self, ledger: SqlLedger, hand: Hand) -> None:
        both = Hand(ledger, ["c001", "c002"])
        here = Device("smoke-1", "nb-smoke", "agent-c001", "b01", "楼道烟感", attributes={"floor": 3})
        there = Device("smoke-1", "nb-smoke", "agent-c002", "b07")
        second = Device("button-1", "sos", "agent-c001", "b01")
        both.commit(
            build_entry(1, step=Step(devices=(here, second))), build_entry(1, "c002", step=Step(devices=(there,)))
        )

        both.commit(build_entry(2, step=Step(devices=(replace(here, place="b02"),))))

        assert ledger.devices("c001") == [second, replace(here, place="b02")]
        assert ledger.devices() == [second, replace(here, place="b02"), there]
        assert ledger.device("c002", "smoke-1") == there
        assert ledger.device("c003", "smoke-1") is None
        assert ledger.devices("c003") == []

    # --- the outbox ---

    def test_effects_wait_in_the_outbox_and_come_back_as_they_were(self, ledger: SqlLedger, hand: Hand) -> None:
        effects: tuple[Effect, ...] = (deliver(opened()), order(1), order(2))
        hand.step(Step(effects=effects))

        [delivery] = ledger.due_effects(NOW + 1, 10, "deliver")
        commands = ledger.due_effects(NOW + 1, 10, "command")

        assert (delivery.effect, delivery.attempts, delivery.created_at) == (effects[0], 0, NOW + 1)
        assert [(row.id, row.community, row.effect) for row in commands] == [
            ("command-1", "c001", effects[1]),
            ("command-2", "c001", effects[2]),
        ]
        assert ledger.due_effects(NOW, 10, "command") == []
        assert ledger.outbox_counts() == {"waiting": 3}
        assert ledger.counts()["commands"] == {"pending": 2}

    def test_due_effects_come_the_longest_due_first(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=tuple(order(number) for number in (1, 2, 3, 4))))
        ledger.settle(
            [
                Outcome("command-1", OutboxState.WAITING, NOW + 2, "no broker", NOW + 500),
                Outcome("command-3", OutboxState.WAITING, NOW + 2, "no broker", NOW + 300),
            ]
        )

        assert [row.id for row in ledger.due_effects(NOW + 299, 10, "command")] == ["command-2", "command-4"]
        due = ledger.due_effects(NOW + 500, 10, "command")
        assert [(row.id, row.attempts, row.due_at) for row in due] == [
            ("command-2", 0, NOW + 1),
            ("command-4", 0, NOW + 1),
            ("command-3", 1, NOW + 300),
            ("command-1", 1, NOW + 500),
        ]
        assert [row.id for row in ledger.due_effects(NOW + 500, 3, "command")] == [row.id for row in due[:3]]

    def test_what_a_clock_that_was_ahead_put_off_is_brought_forward(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=tuple(order(number) for number in (1, 2, 3, 4))))
        ledger.settle(
            [
                Outcome("command-1", OutboxState.WAITING, NOW + 2, "no broker", NOW + 90),
                Outcome("command-2", OutboxState.WAITING, NOW + 2, "no broker", NOW + 900),
                Outcome("command-3", OutboxState.DONE, NOW + 2),
            ]
        )

        ledger.bring_forward(NOW - 500, NOW + 100)

        # The first waits for its next attempt as it should; the fourth was never tried.
        due = ledger.due_effects(NOW - 500, 10, "command")
        assert {row.id for row in due} == {"command-2", "command-4"}
        assert [row.id for row in ledger.due_effects(NOW + 90, 10, "command")][-1] == "command-1"
        assert ledger.outbox_counts() == {"done": 1, "waiting": 3}

    def test_what_is_settled_for_good_is_not_due_again(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=(order(1), order(2))))
        ledger.settle([Outcome("command-1", OutboxState.DONE, NOW + 5), Outcome("unknown", OutboxState.DONE, NOW + 5)])

        ledger.settle([Outcome("command-1", OutboxState.WAITING, NOW + 6, "late news", NOW + 6)])
        ledger.settle([Outcome("command-1", OutboxState.DEAD, NOW + 6, "late news")])

        assert [row.id for row in ledger.due_effects(NOW + 1000, 10, "command")] == ["command-2"]
        assert ledger.outbox_counts() == {"done": 1, "waiting": 1}

    def test_a_dead_letter_can_be_sent_again(self, ledger: SqlLedger, hand: Hand) -> None:
        effect = deliver(opened())
        hand.step(Step(effects=(effect,)))
        ledger.settle([Outcome(effect.id, OutboxState.DEAD, NOW + 5, "422 no such category")])
        assert ledger.due_effects(NOW + 1000, 10, "deliver") == []
        assert ledger.outbox_counts() == {"dead": 1}

        assert ledger.resend_dead(effect.id, NOW + 10)
        assert not ledger.resend_dead(effect.id, NOW + 10)
        assert not ledger.resend_dead("unknown", NOW + 10)

        [row] = ledger.due_effects(NOW + 10, 10, "deliver")
        assert (row.id, row.attempts, row.due_at) == (effect.id, 0, NOW + 10)

    def test_a_newer_revision_supersedes_one_that_still_waits(self, ledger: SqlLedger, hand: Hand) -> None:
        first, second, third, other = (
            revise(opened(), 1),
            revise(opened(), 2),
            revise(opened(), 3),
            opened(2, key="another"),
        )
        hand.step(Step(effects=(deliver(first), deliver(other), order(1))))
        ledger.settle([Outcome(deliver(first).id, OutboxState.DONE, NOW + 5)])

        hand.commit(
            build_entry(2, step=Step(effects=(deliver(second),))), build_entry(3, step=Step(effects=(deliver(third),)))
        )

        assert {row.id for row in ledger.due_effects(NOW + 9, 10, "deliver")} == {deliver(third).id, deliver(other).id}
        assert ledger.outbox_counts() == {"done": 1, "superseded": 1, "waiting": 3}

    def test_the_attempt_that_a_newer_revision_overtook_may_still_end(self, ledger: SqlLedger, hand: Hand) -> None:
        first, second = revise(opened(), 1), revise(opened(), 2)
        hand.step(Step(effects=(deliver(first),)))
        hand.step(Step(effects=(deliver(second),)))

        ledger.settle([Outcome(deliver(first).id, OutboxState.WAITING, NOW + 5, "503", NOW + 6)])
        assert [row.id for row in ledger.due_effects(NOW + 9, 10, "deliver")] == [deliver(second).id]

        ledger.settle([Outcome(deliver(first).id, OutboxState.DONE, NOW + 5)])
        assert ledger.outbox_counts() == {"done": 1, "waiting": 1}

    def test_the_newest_revision_is_delivered_again_whatever_became_of_it(self, ledger: SqlLedger, hand: Hand) -> None:
        for state in (OutboxState.DONE, OutboxState.DEAD, OutboxState.WAITING):
            number = list(OutboxState).index(state) + 1
            first, second = revise(opened(number, key=str(number)), 1), revise(opened(number, key=str(number)), 2)
            hand.step(Step(incidents=(first,), effects=(deliver(first),)))
            hand.step(Step(incidents=(second,), effects=(deliver(second),)))
            ledger.settle([Outcome(deliver(second).id, state, NOW + 5, "as it was", NOW + 99_000)])
            assert ledger.outbox_state(deliver(second).id) is state
            assert ledger.due_effects(NOW + 90_000, 10, "deliver") == []

            assert ledger.deliver_again(first.id, NOW + 50_000)

            [row] = ledger.due_effects(NOW + 90_000, 10, "deliver")
            assert (row.id, row.community, row.effect) == (deliver(second).id, "c001", deliver(second))
            assert (row.attempts, row.due_at, row.created_at) == (0, NOW + 50_000, NOW + 50_000)
            assert ledger.outbox_state(deliver(first).id) is OutboxState.SUPERSEDED
            ledger.settle([Outcome(row.id, OutboxState.DONE, NOW + 60_000)])
            assert ledger.outbox_state(row.id) is OutboxState.DONE

    def test_a_delivery_that_the_outbox_never_had_is_entered(self, ledger: SqlLedger, hand: Hand) -> None:
        notice = opened(2, sort=Sort.NOTICE, key="another")
        hand.step(Step(incidents=(opened(), notice)))

        assert ledger.deliver_again(opened().id, NOW + 5)
        assert not ledger.deliver_again(notice.id, NOW + 5)
        assert not ledger.deliver_again("unknown", NOW + 5)

        assert [row.id for row in ledger.due_effects(NOW + 5, 10, "deliver")] == [deliver(opened()).id]
        assert ledger.outbox_state("unknown") is None

    def test_an_older_revision_that_still_waits_is_not_sent_beside_the_newest(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        first, second = revise(opened(), 1), revise(opened(), 2)
        hand.step(Step(incidents=(first,), effects=(deliver(first),)))
        hand.step(Step(incidents=(second,)))

        ledger.deliver_again(first.id, NOW + 5)

        assert [row.id for row in ledger.due_effects(NOW + 9, 10, "deliver")] == [deliver(second).id]

    def test_changed_incidents_come_by_pages_and_without_notices(self, ledger: SqlLedger, hand: Hand) -> None:
        cases = [opened(number, key=str(number), updated_at=NOW + number) for number in range(1, 8)]
        notice = opened(8, key="8", sort=Sort.NOTICE, updated_at=NOW + 8)
        hand.step(Step(incidents=(*reversed(cases), notice)))

        first = ledger.changed_incidents(NOW + 3, limit=3)
        rest = ledger.changed_incidents(NOW + 3, first[-1].id, limit=3)

        assert [*first, *rest] == cases[2:]
        assert ledger.changed_incidents(NOW + 3, rest[-1].id) == []

    def test_opened_incidents_come_by_time_and_id_by_pages_and_without_notices(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        # Two at each millisecond, so that pages end between two of the same.
        cases = [opened(number, key=str(number), opened_at=NOW + number // 2) for number in range(2, 10)]
        notice = opened(10, key="10", sort=Sort.NOTICE, opened_at=NOW + 2)
        closed = replace(cases[3], state="closed", revision=2, updated_at=NOW + 99)
        hand.step(Step(incidents=(*reversed(cases), notice)))
        hand.step(Step(incidents=(closed,)))
        expected = [*cases[:3], closed, *cases[4:6]]

        first = ledger.opened_incidents(NOW + 1, NOW + 4, limit=3)
        rest = ledger.opened_incidents(first[-1].opened_at, NOW + 4, first[-1].id, limit=3)

        assert [*first, *rest] == expected
        assert ledger.opened_incidents(rest[-1].opened_at, NOW + 4, rest[-1].id) == []
        assert ledger.opened_incidents(NOW + 1, NOW + 4) == expected

    def test_opened_incidents_are_counted_by_where_they_lie_and_what_they_are(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        fire = opened(1, key="1", opened_at=NOW + 10, chain=("370215", "370215001"))
        again = opened(2, key="2", opened_at=NOW + 20, place_name="3号楼（新名）", lon=120.5, lat=36.5, state="closed")
        calm = opened(3, key="3", opened_at=NOW + 30, level=Level.NORMAL, category="ext:21-04", place="gate", lon=None)
        others = [
            opened(4, key="4", opened_at=NOW + 9),
            opened(5, key="5", opened_at=NOW + 40),
            opened(6, key="6", opened_at=NOW + 15, sort=Sort.NOTICE),
        ]
        hand.step(Step(incidents=(fire, again, calm, *others)))
        home = (fire.community, fire.grid)

        assert ledger.tally_opened(NOW + 10, NOW + 40) == [
            Tally(*home, fire.category, fire.level, 2),
            Tally(*home, "ext:21-04", Level.NORMAL, 1),
        ]
        assert ledger.tally_places(fire.community, NOW + 10, NOW + 40) == [
            PlaceTally(fire.place, "3号楼（新名）", fire.category, fire.level, 2, (), 120.5, 36.5),
            PlaceTally("gate", calm.place_name, "ext:21-04", Level.NORMAL, 1, (), None, calm.lat),
        ]
        assert ledger.tally_places("nowhere", NOW, NOW + 99) == []
        assert ledger.tally_opened(NOW + 41, NOW + 99) == []

    def test_an_effect_is_entered_once(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=(order(1),)))

        with pytest.raises(CommitRefused):
            hand.step(Step(effects=(order(1),)))

        assert ledger.outbox_counts() == {"waiting": 1}

    # --- commands ---

    def test_a_command_goes_from_pending_to_its_outcome(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=(order(1),)))
        ledger.settle([Outcome("command-1", OutboxState.DONE, NOW + 5, "sent")])
        assert ledger.counts()["commands"] == {"sent": 1}

        hand.step(Step(), kind="answer", body=answer("command-1", "failed", "no power\x00"), at=NOW + 9)

        sql = "SELECT state, detail, created_at, updated_at FROM command"
        assert select(ledger, sql) == [("failed", "no power\ufffd", NOW + 1, NOW + 9)]

    def test_an_answer_that_overtakes_the_outbox_stays(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=(order(1),)))

        hand.step(Step(), kind="answer", body=answer("command-1", "done"))
        ledger.settle([Outcome("command-1", OutboxState.DONE, NOW + 5, "sent")])

        assert ledger.counts()["commands"] == {"done": 1}
        assert ledger.outbox_counts() == {"done": 1}

    def test_only_the_asked_source_answers(self, ledger: SqlLedger, hand: Hand) -> None:
        both = Hand(ledger, ["c001", "c002"])
        both.step(Step(effects=(order(1),)))

        both.step(Step(), kind="answer", body=answer("command-1", "done", source="agent-forged"))
        both.step(Step(), "c002", kind="answer", body=answer("command-1", "done"))
        both.step(Step(), kind="answer", body=answer("command-9", "done"))

        assert ledger.counts()["commands"] == {"pending": 1}

    def test_a_command_that_was_never_sent_is_expired_or_failed(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.step(Step(effects=(order(1), order(2))))

        ledger.settle(
            [
                Outcome("command-1", OutboxState.DEAD, NOW + 60_001, "expired"),
                Outcome("command-2", OutboxState.DEAD, NOW + 5, "no such topic"),
            ]
        )

        assert ledger.counts()["commands"] == {"expired": 1, "failed": 1}

    def test_what_was_commanded_for_an_incident_is_told_with_its_outcome(self, ledger: SqlLedger, hand: Hand) -> None:
        other = order(3, incident="another")
        hand.step(Step(incidents=(opened(),), effects=(order(1), other)))
        hand.step(Step(effects=(order(2, args={"text": "请撤离", "times": 2}),)))
        ledger.settle([Outcome("command-1", OutboxState.DONE, NOW + 5, "sent")])
        hand.step(Step(), kind="answer", body=answer("command-1", "failed", "no power"), at=NOW + 9)

        newest, oldest = ledger.commands_for(opened().id)

        assert (newest.id, newest.state, newest.args) == ("command-2", "pending", {"text": "请撤离", "times": 2})
        assert (oldest.id, oldest.device, oldest.name) == ("command-1", "speaker-1", "broadcast")
        assert (oldest.state, oldest.detail, oldest.updated_at) == ("failed", "no power", NOW + 9)
        assert (oldest.created_at, oldest.expires_at) == (NOW + 1, NOW + 60_000)
        assert [one.id for one in ledger.commands_for(opened().id, limit=1)] == ["command-2"]
        assert ledger.commands_for("nobody's") == []

    # --- rejected and quarantined ---

    def test_rejected_values_are_counted_by_device_reading_and_reason(self, ledger: SqlLedger, hand: Hand) -> None:
        hot = Rejected("agent-c001", "thermo-1", "temperature", "out-of-range", "900")
        odd = Rejected("agent-c001", "thermo-1", "temperature", "wrong-type", "x" * 500)

        hand.commit(
            build_entry(1, step=Step(rejected=(hot, odd))),
            build_entry(2, step=Step(rejected=(replace(hot, value="901"),))),
        )
        hand.step(Step(rejected=(replace(hot, value="902"),)))

        assert ledger.counts()["rejected"] == {"out-of-range": 3, "wrong-type": 1}
        sql = "SELECT community, source, device, reading, reason, value, count, first_at, last_at FROM rejected"
        assert sorted(select(ledger, sql), key=lambda row: str(row[4])) == [
            ("c001", "agent-c001", "thermo-1", "temperature", "out-of-range", "902", 3, NOW + 1, NOW + 3),
            ("c001", "agent-c001", "thermo-1", "temperature", "wrong-type", "x" * 64, 1, NOW + 1, NOW + 1),
        ]

    def test_a_source_that_invents_names_fills_no_table(self, ledger: SqlLedger, hand: Hand) -> None:
        known = Rejected("agent-c001", "thermo-1", "temperature", "out-of-range", "900")
        hand.step(Step(rejected=(known,)))
        for start in (0, 700):
            invented = (
                Rejected("agent-c001", f"d{number}\x00\ud800", "r" * 9000, "unknown-device", "\ud800\x00")
                for number in range(start, start + 700)
            )
            hand.step(Step(rejected=tuple(invented)))

        hand.step(Step(rejected=(known, Rejected("another", "d1", "r", "unknown-device", ""))))

        [(rows,)] = select(ledger, "SELECT count(*) FROM rejected WHERE source = 'agent-c001'")
        assert rows == REJECTED_ROWS + 1
        assert ledger.counts()["rejected"] == {"out-of-range": 2, "unknown-device": 1401}

    def test_the_same_bytes_again_are_quarantined_once_and_counted(self, ledger: SqlLedger, hand: Hand) -> None:
        ledger.commit(Batch(quarantined=[forged(1), forged(2), forged(1, at=NOW + 10)]))
        ledger.commit(Batch(quarantined=[forged(1, at=NOW + 20), forged(1, reason="forged-source", head="a\x00b")]))

        assert ledger.counts()["quarantined"] == {"bad-envelope": 4, "forged-source": 1}
        assert ledger.quarantine_counts() == [("c001", "bad-envelope", 4), ("c001", "forged-source", 1)]
        sql = "SELECT reason, count, first_at, last_at, head, length, community, topic FROM quarantine"
        where = "sc/v1/c001/agent-c001/alarm"
        assert sorted(select(ledger, sql)) == [
            ("bad-envelope", 1, NOW + 2, NOW + 2, "\ufffd{garbage", 17, "c001", where),
            ("bad-envelope", 3, NOW + 1, NOW + 20, "\ufffd{garbage", 17, "c001", where),
            ("forged-source", 1, NOW + 1, NOW + 1, "a\ufffdb", 17, "c001", where),
        ]

    def test_quarantine_keeps_so_much_of_a_source_and_counts_the_rest(self, ledger: SqlLedger, hand: Hand) -> None:
        for start in (0, QUARANTINE_ROWS - 10):
            ledger.commit(Batch(quarantined=[forged(number) for number in range(start, start + QUARANTINE_ROWS - 10)]))
        ledger.commit(Batch(quarantined=[forged(5), forged(10**6), forged(10**6 + 1, source="another")]))

        rows = dict(select(ledger, "SELECT source, count(*) FROM quarantine GROUP BY source"))
        assert rows == {"agent-c001": QUARANTINE_ROWS + 1, "another": 1}
        [(count, head, length)] = select(ledger, "SELECT count, head, length FROM quarantine WHERE digest = ''")
        assert (count, head, length) == (QUARANTINE_ROWS - 20 + 1, "", 0)
        assert ledger.counts()["quarantined"] == {"bad-envelope": 2 * (QUARANTINE_ROWS - 10) + 3}

    # --- checkpoints, catalogs, credentials ---

    def test_the_newest_checkpoint_before_a_time_is_loaded(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(*(build_entry(seq) for seq in range(1, 21)))
        one, two = (Checkpoint("c001", seq, NOW + seq, 7, "abc", bytes(range(256)) * seq * 50) for seq in (10, 20))
        ledger.commit(Batch(checkpoints=[one]))
        ledger.commit(Batch(checkpoints=[two]))

        assert ledger.load_checkpoint("c001") == two
        assert ledger.load_checkpoint("c001", NOW + 20) == two
        assert ledger.load_checkpoint("c001", NOW + 19) == one
        assert ledger.load_checkpoint("c001", NOW + 9) is None
        assert ledger.load_checkpoint("c002") is None

        again = replace(two, state=b"again")
        ledger.commit(Batch(checkpoints=[again]))
        assert ledger.load_checkpoint("c001") == again

    def test_of_old_checkpoints_the_last_of_each_day_is_kept(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(*(build_entry(seq) for seq in range(1, 73)))
        midnight = NOW // DAY * DAY
        for day in range(3):
            for hour in range(24):
                at = midnight + day * DAY + hour * 3_600_000
                ledger.commit(Batch(checkpoints=[Checkpoint("c001", day * 24 + hour + 1, at, 1, "abc", b"s")]))

        kept = [seq for (seq,) in select(ledger, "SELECT seq FROM checkpoint ORDER BY seq")]
        assert kept == [24, 48, 70, 71, 72]

    def test_a_checkpoint_beyond_the_journal_is_refused(self, ledger: SqlLedger, hand: Hand) -> None:
        hand.commit(build_entry(1), checkpoints=[Checkpoint("c001", 1, NOW, 1, "abc", b"as committed")])

        with pytest.raises(CommitRefused, match="c001"):
            ledger.commit(Batch(checkpoints=[Checkpoint("c001", 2, NOW, 1, "abc", b"fed, never committed")]))

        found = ledger.load_checkpoint("c001")
        assert found is not None
        assert found.state == b"as committed"

    def test_a_checkpoint_of_no_community_is_refused(self, ledger: SqlLedger) -> None:
        with pytest.raises(CommitRefused):
            ledger.commit(Batch(checkpoints=[Checkpoint("nowhere", 1, NOW, 1, "abc", b"")]))

    def test_a_catalog_is_kept_by_its_hash(self, ledger: SqlLedger) -> None:
        files = {"rules/fire/smoke.yaml": "id: 烟感\n" * 1000, "empty.yaml": ""}
        ledger.save_catalog("abc", files, NOW)
        ledger.save_catalog("abc", {"other": "content"}, NOW)

        assert ledger.load_catalog("abc") == files
        assert ledger.load_catalog("unknown") is None

    def test_passwords_are_seen_once_and_kept_as_hashes(self, ledger: SqlLedger) -> None:
        first = ledger.issue_credentials(["agent-c001", "agent-c002"], NOW)
        second = ledger.issue_credentials(["agent-c002"], NOW)

        hashes = ledger.credentials()
        assert list(hashes) == ["agent-c001", "agent-c002"]
        assert _has_hash(first["agent-c001"], hashes["agent-c001"])
        assert _has_hash(second["agent-c002"], hashes["agent-c002"])
        assert not _has_hash(first["agent-c002"], hashes["agent-c002"])
        assert len({*first.values(), *second.values()}) == 3
        assert min(len(password) for password in first.values()) == 24
        assert not any(password in repr(everything(ledger)) for password in (*first.values(), *second.values()))

    # --- several at once ---

    def test_whose_credentials_are_dropped_is_nobody_s_and_stays_taken_while_a_device_has_it(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        assert not ledger.is_identity_taken("button-9")
        ledger.issue_credentials(["button-9", "agent-9"], NOW)
        assert ledger.is_identity_taken("button-9")
        hand.step(Step(devices=(Device("button-9", "fixed-sos", "button-9", "gate"),)))
        ledger.drop_credentials(["button-9"])
        assert list(ledger.credentials()) == ["agent-9"]
        assert ledger.is_identity_taken("button-9")

    def test_what_was_listed_beforehand_is_claimed_with_its_secret_and_only_while_it_is_nobody_s(
        self, ledger: SqlLedger, hand: Hand
    ) -> None:
        issued = ledger.issue_credentials(["agent-9"], NOW)
        assert ledger.list_beforehand({"sn-7": "secret-of-sn-7", "agent-9": "overwritten"}, NOW) == ["agent-9"]
        assert ledger.list_beforehand({"sn-7": "another-secret"}, NOW) == ["sn-7"]
        assert ledger.is_unclaimed("sn-7", "secret-of-sn-7")
        assert not ledger.is_unclaimed("sn-7", "another-secret")
        assert not ledger.is_unclaimed("sn-8", "secret-of-sn-7")
        assert is_password(issued["agent-9"], ledger.credentials()["agent-9"]), "what was issued is not overwritten"
        hand.step(Step(devices=(Device("sn-7", "fixed-sos", "sn-7", "gate"),)))
        assert not ledger.is_unclaimed("sn-7", "secret-of-sn-7")

    def test_a_device_is_looked_up_with_what_became_of_it(self, ledger: SqlLedger, hand: Hand) -> None:
        device = Device("smoke-1", "nb-smoke", "agent-c001", "b1", name="一层")
        fire = opened(timeline=(Line(1, NOW, "gateway", "opened", device="smoke-1"),))
        asked = Command("k1", "c001", "agent-c001", "smoke-1", "mute", {"minutes": 5}, NOW + DAY, fire.id)
        rejected = Rejected("agent-c001", "smoke-1", "battery", "out-of-range", "240")
        hand.step(Step(devices=(device,), incidents=(fire,), effects=(asked,), rejected=(rejected,)))
        hand.step(Step(rejected=(rejected,)))
        other = Rejected("agent-c001", "smoke-2", "battery", "wrong-type", "full")
        hand.step(Step(rejected=(other,)), kind="registry", body=b"{}", source="", lane="")

        assert ledger.device("c001", "smoke-1") == device
        assert ledger.device("c002", "smoke-1") is None
        assert ledger.device("c001", "\ud800") is None
        assert [(c.id, c.name, c.state, c.incident) for c in ledger.commands("c001", "smoke-1")] == [
            ("k1", "mute", "pending", fire.id)
        ]
        assert ledger.commands("c002", "smoke-1") == []
        assert [i.id for i in ledger.incidents_of("c001", "smoke-1")] == [fire.id]
        assert ledger.incidents_of("c001", "smoke-2") == []
        [mine] = ledger.disbelieved("c001", "smoke-1")
        assert (mine.reading, mine.reason, mine.value, mine.count) == ("battery", "out-of-range", "240", 2)
        assert [d.device for d in ledger.disbelieved("c001")] == ["smoke-2", "smoke-1"]
        assert [(row.seq, row.kind) for row in ledger.registry_rows("c001")] == [(3, "registry")]

    def test_overrides_are_found_by_rule_among_all_events(self, ledger: SqlLedger) -> None:
        ledger.add_communities(COMMUNITIES)
        hand = Hand(ledger, ("c001", "c002"))
        plain = {"kind": "override", "source": "", "lane": "", "body": b"{}"}
        acts = [
            ("c002", "override/fire.smoke/a1/k1/c002"),
            ("c001", "override/fire.smoke/a1/k1/c001"),
            ("c001", "override/fire.smoke-and-heat/a1/k2/c001"),
            ("c001", "override/fire.smoke/a1/k3/c001"),
        ]
        for community, event_id in acts:
            hand.step(NOTHING, community, event_id=event_id, **plain)
        hand.step(NOTHING, event_id="overridden")
        hand.step(NOTHING, event_id="override/fire.smoke/of-another-kind", source="", lane="", kind="press", body=b"{}")

        one = ledger.override_rows("fire.smoke")

        assert [(row.community, row.seq, row.event_id) for row in one] == [
            ("c001", 1, acts[1][1]),
            ("c001", 3, acts[3][1]),
            ("c002", 1, acts[0][1]),
        ]
        assert {row.event_id for row in ledger.override_rows()} == {event_id for _, event_id in acts}
        assert ledger.override_rows("fire") == []

    def test_what_a_rule_found_is_told_the_newest_first(self, ledger: SqlLedger, hand: Hand) -> None:
        waits = Transition("fire.smoke", "smoke-1", Phase.PENDING, NOW, NOW, "e1")
        holds = Transition("fire.smoke", "smoke-2", Phase.FIRING, NOW + 1, NOW, "e2", "shadow")
        noted = Transition("gas.leak", "gas-1", Phase.QUIET, NOW, NOW, "e3", "late")
        hand.step(Step(transitions=(waits, holds, noted)))

        assert ledger.findings("fire.smoke") == [
            Finding("c001", "smoke-2", Phase.FIRING, NOW + 1, NOW, "shadow"),
            Finding("c001", "smoke-1", Phase.PENDING, NOW, NOW),
        ]
        assert ledger.findings("fire.smoke", 1)[0].key == "smoke-2"
        assert ledger.finding_counts() == [
            ("c001", "fire.smoke", Phase.FIRING, 1),
            ("c001", "fire.smoke", Phase.PENDING, 1),
            ("c001", "gas.leak", Phase.QUIET, 1),
        ]

    def test_readers_see_whole_commits_while_a_writer_writes(self, ledger: SqlLedger, hand: Hand) -> None:
        size, rounds = 20, 40
        is_over = threading.Event()

        def read() -> tuple[int, list[str]]:
            looks, faults = 0, []
            while not is_over.is_set() or looks == 0:
                rows = [row.seq for row in ledger.read_journal("c001", 0)]
                incident = ledger.incident(opened().id)
                head = ledger.standing(["c001"])["c001"][1]
                if rows != list(range(1, len(rows) + 1)) or len(rows) % size:
                    faults.append(f"half a commit: {len(rows)} rows")
                if incident is not None and not len(rows) <= incident.revision * size <= head:
                    faults.append(f"out of order: {len(rows)} rows, revision {incident.revision}, head {head}")
                looks += 1
            return looks, faults

        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read) for _ in range(3)]
            try:
                for turn in range(rounds):
                    entries = [build_entry(turn * size + number) for number in range(1, size)]
                    last = build_entry((turn + 1) * size, step=Step(incidents=(revise(opened(), turn + 1),)))
                    hand.commit(*entries, last)
            finally:
                is_over.set()
            for reader in readers:
                looks, faults = reader.result(timeout=30)
                assert looks > 0
                assert faults == []
        assert len(journal(ledger)) == size * rounds

    def test_threads_that_write_take_turns(self, ledger: SqlLedger, hand: Hand) -> None:
        def write(name: str) -> None:
            own = Hand(ledger, [name])
            for seq in range(1, 31):
                own.commit(build_entry(seq, name), quarantined=[forged(1)], alive_at=NOW + seq)

        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(write, community.id) for community in COMMUNITIES]:
                done.result(timeout=60)

        assert {name: head for name, (_, head) in ledger.standing(["c001", "c002", "c003"]).items()} == {
            "c001": 30,
            "c002": 30,
            "c003": 30,
        }
        assert ledger.counts()["quarantined"] == {"bad-envelope": 90}


def build_full_step(number: int) -> Step:
    """A step that writes into every table that a step can."""
    incident = opened(number)
    return Step(
        transitions=(Transition("fire.smoke-persists", "smoke-1", Phase.FIRING, NOW, NOW, "event-1"),),
        incidents=(incident,),
        effects=(deliver(incident), order(number)),
        rejected=(Rejected("agent-c001", "smoke-1", "battery", "out-of-range", "240"),),
        devices=(Device("smoke-1", "nb-smoke", "agent-c001", "b01"),),
        cursor=CursorMove("agent-c001", "k3f9", "telemetry", number),
    )


def answer(command: str, outcome: str, detail: str = "", source: str = "agent-c001") -> bytes:
    """The body of the journal row of a command's outcome."""
    return msgspec.json.encode(Answer(source, Reply(command, "speaker-1", outcome, detail)))


def _has_hash(password: str, hashed: str) -> bool:
    _, kind, rounds, salt, expected = hashed.split("$")
    found = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt), int(rounds))
    return kind == "7" and found == base64.b64decode(expected)
