"""What every place for accounts does, whatever stands behind it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from gateway.core.model import Role
from gateway.runtime.access import Permission
from gateway.runtime.accounts import (
    Account,
    AccountMoved,
    Accounts,
    AccountTaken,
    AuditFilter,
    Deed,
    Session,
    Stage,
    Token,
    Way,
)
from gateway.runtime.audit import verify_log

NOW = 1_795_435_200_000
LI = Account(
    "a1", "li", "李伟", Role.DISPATCHER, ("370215",), ("c001",), password="hash", password_at=NOW, portal="P-1"
)
WANG = Account("a2", "wang", "王芳")
SESSION = Session("s1", "a1", Stage.FULL, NOW, NOW, "127.0.0.1", "Firefox", Way.PASSWORD)
TOKEN = Token("t1", "h1", "a1", "大屏", (Permission.INCIDENTS_SEE,), NOW, NOW + 1000)


def deed(what: str = "tried", at: int = NOW, **more: str) -> Deed:
    return Deed(at, "li", what, **more)


class AccountsConformance:
    """Subclass it with fixtures ``accounts`` (an empty place, migrated) and ``others`` (the same place, as another
    process has it open)."""

    @pytest.fixture
    def accounts(self) -> Accounts:
        raise NotImplementedError

    @pytest.fixture
    def others(self, accounts: Accounts) -> Accounts:
        raise NotImplementedError

    def test_an_account_is_found_by_id_name_and_portal(self, accounts: Accounts) -> None:
        accounts.add_account(LI, deed("account.add"))
        accounts.add_account(WANG, deed("account.add"))

        assert accounts.account("a1") == accounts.find_account("li") == accounts.find_portal("P-1") == LI
        assert accounts.accounts() == [LI, WANG]
        assert accounts.account("no") is accounts.find_account("L\x00I") is accounts.find_portal("") is None

    def test_a_name_and_a_portal_identity_are_one_accounts_alone(self, accounts: Accounts) -> None:
        accounts.add_account(LI, deed())
        for other in (replace(WANG, name="li"), replace(WANG, portal="P-1")):
            with pytest.raises(AccountTaken):
                accounts.add_account(other, deed("account.add"))
        accounts.add_account(WANG, deed())
        with pytest.raises(AccountTaken):
            accounts.change_account(replace(WANG, portal="P-1"), deed("account.grant"))

        assert accounts.account("a2") == WANG
        assert accounts.find_audit(AuditFilter(what="account."), 9) == []

    def test_a_change_is_made_to_what_was_read_or_not_at_all(self, accounts: Accounts, others: Accounts) -> None:
        accounts.add_account(LI, deed())
        changed = accounts.change_account(replace(LI, title="李"), deed("account.grant"))

        assert (changed.title, changed.revision) == ("李", 1)
        assert others.account("a1") == changed
        with pytest.raises(AccountMoved):
            others.change_account(replace(LI, title="王"), deed("account.disable"))
        assert accounts.account("a1") == changed
        assert [row.deed.what for row in accounts.find_audit(AuditFilter(), 9)] == ["account.grant", "tried"]

    def test_attempts_at_once_are_counted_each_and_lock(self, accounts: Accounts, others: Accounts) -> None:
        accounts.add_account(LI, deed())
        start = threading.Barrier(8)

        def attempt(number: int) -> Account | None:
            start.wait()
            return (accounts, others)[number % 2].begin_attempt("a1", 5, NOW, NOW + 900)

        with ThreadPoolExecutor(8) as pool:
            counted = list(pool.map(attempt, range(8)))

        assert sorted(found.failures for found in counted if found is not None) == [1, 2, 3, 4, 5]
        assert accounts.begin_attempt("a1", 5, NOW + 899, NOW + 2000) is None
        again = accounts.begin_attempt("a1", 5, NOW + 900, NOW + 2000)
        assert again is not None
        assert (again.failures, again.locked_until) == (1, 0)
        assert accounts.begin_attempt("nobody", 5, NOW, NOW) is None

    def test_a_session_is_found_with_its_account_until_it_ends(self, accounts: Accounts, others: Accounts) -> None:
        accounts.add_account(LI, deed())
        accounts.open_session(SESSION, deed("sign-in"))
        accounts.touch_session("s1", NOW + 5)

        assert others.find_session("s1") == (replace(SESSION, seen_at=NOW + 5), LI)
        accounts.open_session(replace(SESSION, id="s2", stage=Stage.CODE), None, replaces="s1")
        assert accounts.find_session("s1") is None
        assert [session.id for session in accounts.sessions("a1")] == ["s2"]
        accounts.change_account(LI, deed(), ends_sessions=True)
        assert accounts.sessions("a1") == []

    def test_sessions_end_of_one_account_alone(self, accounts: Accounts) -> None:
        for account in (LI, WANG):
            accounts.add_account(account, deed())
            for number in range(3):
                accounts.open_session(replace(SESSION, id=f"{account.id}-{number}", account=account.id), None)

        assert accounts.end_sessions("a1", deed(), only="a2-0") == 0
        assert accounts.end_sessions("a1", deed(), only="a1-0") == 1
        assert accounts.end_sessions("a1", deed(), keep="a1-1") == 1
        assert [session.id for session in accounts.sessions("a1")] == ["a1-1"]
        assert len(accounts.sessions("a2")) == 3
        accounts.drop_sessions(NOW, NOW + 1)
        assert accounts.sessions("a2") == []

    def test_a_token_is_found_by_its_hash_until_it_is_dropped(self, accounts: Accounts, others: Accounts) -> None:
        accounts.add_account(LI, deed())
        accounts.add_account(WANG, deed())
        accounts.add_token(TOKEN, deed("token.add"))
        accounts.touch_token("t1", NOW + 7)

        found = others.find_token("h1")
        assert found == (replace(TOKEN, used_at=NOW + 7), LI)
        assert accounts.tokens("a1") == [replace(TOKEN, used_at=NOW + 7)]
        assert not accounts.drop_token("a2", "t1", deed("token.drop"))
        assert accounts.find_token("h1") is not None
        assert accounts.drop_token("a1", "t1", deed("token.drop"))
        assert accounts.find_token("h1") is None
        assert [row.deed.what for row in accounts.find_audit(AuditFilter(what="token."), 9)] == [
            "token.drop",
            "token.add",
        ]

    def test_the_log_is_one_chain_whoever_appends(self, accounts: Accounts, others: Accounts) -> None:
        start = threading.Barrier(4)

        def append(number: int) -> None:
            start.wait()
            for turn in range(10):
                (accounts, others)[number % 2].record(deed(f"t{number}.{turn}", NOW + turn))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(append, range(4)))

        verdict = verify_log(others)
        assert (verdict.lines, verdict.flaws) == (40, ())
        assert accounts.audit_head() == (40, verdict.hash)
        assert [row.seq for row in accounts.read_audit(after=38)] == [39, 40]

    def test_an_empty_log_is_whole(self, accounts: Accounts) -> None:
        assert accounts.audit_head() == (0, "")
        assert verify_log(accounts).flaws == ()

    def test_lines_are_found_by_what_they_say(self, accounts: Accounts) -> None:
        lines = [
            Deed(NOW, "li", "sign-in", "li", "10.0.0.1"),
            Deed(NOW + 1, "li", "account.add", "wang", "10.0.0.1", detail="50% done_"),
            Deed(NOW + 2, "wang", "sign-in", "wang", "10.0.0.2", "refused: wrong"),
            Deed(NOW + 3, "", "sign-in", "", "10.0.0.3", "refused: wrong"),
        ]
        for line in lines:
            accounts.record(line)

        def find(wanted: AuditFilter, limit: int = 9, before: int | None = None) -> list[int]:
            return [row.seq for row in accounts.find_audit(wanted, limit, before)]

        assert [row.deed for row in accounts.find_audit(AuditFilter(), 9)] == lines[::-1]
        assert find(AuditFilter(who="li")) == [2, 1]
        assert find(AuditFilter(what="sign-in")) == [4, 3, 1]
        assert find(AuditFilter(what="sign_in")) == find(AuditFilter(what="%")) == []
        assert find(AuditFilter(about="wang", where="10.0.0.2")) == [3]
        assert find(AuditFilter(refused_only=True)) == [4, 3]
        assert find(AuditFilter(since=NOW + 1, until=NOW + 3)) == [3, 2]
        assert find(AuditFilter(), 2) == [4, 3]
        assert find(AuditFilter(), 2, 3) == [2, 1]
        assert find(AuditFilter(who="'; DROP TABLE audit; --\x00")) == []

    def test_what_came_from_outside_is_cut_and_cleaned(self, accounts: Accounts) -> None:
        accounts.record(deed("x" * 9_000, where="a\x00b", detail="d\ud800" * 9_000))

        [row] = accounts.find_audit(AuditFilter(), 9)
        assert (len(row.deed.what), row.deed.where, len(row.deed.detail)) == (200, "a\ufffdb", 2_000)
        assert verify_log(accounts).flaws == ()
