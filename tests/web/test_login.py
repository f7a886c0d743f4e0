"""Signing in, step by step, and one's own account: passwords, second factors, sessions, tokens."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import threading
from collections.abc import Iterator

import pytest

from gateway.core.model import Role
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Permission
from gateway.runtime.accounts import Account
from gateway.runtime.signing import MINUTE_MS, Policy
from gateway.web.access import HASHES_AT_ONCE, HASHES_WAITING, Gate
from tests.web.house import ANOTHER, CLI, PASSWORD, House, Visitor, read_device

STRICT = Policy(second_factor=frozenset({Role.DISPATCHER}))


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


@pytest.fixture
def strict() -> Iterator[House]:
    """Where dispatchers need a second factor."""
    made = House(STRICT)
    yield made
    made.close()


def account_of(house: House, name: str) -> Account:
    account = house.accounts.find_account(name)
    assert account is not None
    return account


async def enrol(house: House, visitor: Visitor, path: str = "/login/enrol", present: str = "") -> tuple[str, list[str]]:
    """Scans the page's QR code by its text; the secret, and the recovery codes."""
    page = await visitor.get(path)
    secret = re.search(r"<code>([A-Z2-7 ]{32,})</code>", page.text)
    assert secret is not None
    assert "<svg" in page.text
    plain = secret[1].replace(" ", "")
    code = read_device(f"otpauth://totp/x?secret={plain}").at(house.now // 1000)
    fields = {"factor": visitor.hidden("factor"), "code": code, "present": present, "next": "/account"}
    done = await visitor.submit(path, fields)
    assert done.status_code == 200, done.text
    return plain, re.findall(r"<code>([a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4})</code>", done.text)


# --- the first sign-in --------------------------------------------------------------------------------------------


async def test_a_first_sign_in_enrols_a_device_and_changes_the_password(strict: House) -> None:
    strict.add("li", must_change=True)
    visitor = strict.visitor()

    entered = await visitor.sign_in("li", next="/account")
    assert entered.headers["location"] == "/login/enrol?next=/account"
    assert (await visitor.get("/account")).headers["location"] == "/login/enrol"
    _, codes = await enrol(strict, visitor)
    assert len(set(codes)) == 8
    assert (await visitor.get("/account")).headers["location"] == "/login/password"
    await visitor.get("/login/password?next=/account")
    fields = {"present": PASSWORD, "new": ANOTHER, "again": ANOTHER, "next": "/account"}
    changed = await visitor.submit("/login/password", fields)
    assert changed.headers["location"] == "/account"

    assert (await visitor.get("/account")).status_code == 200
    assert [deed.what for deed in strict.deeds()][:3] == ["sign-in", "password.change", "factor.change"]


async def test_half_a_sign_in_opens_nothing_and_does_not_last(strict: House) -> None:
    device = strict.give_factor(strict.add("li", must_change=True))
    visitor = strict.visitor()
    await visitor.sign_in("li")
    for path in ("/account", "/accounts", "/login/enrol", "/login/password"):
        assert (await visitor.get(path)).headers["location"] == "/login/totp"
    await visitor.get("/login/totp")
    assert (await visitor.submit("/account/password", {"present": PASSWORD, "new": ANOTHER})).status_code == 303
    assert account_of(strict, "li").password_at == strict.now

    strict.now += 10 * MINUTE_MS
    assert (await visitor.submit("/login/totp", {"code": device.at(strict.now // 1000)})).headers[
        "location"
    ] == "/login"


async def test_a_password_that_is_too_old_must_be_changed(house: House) -> None:
    house.add("li")
    house.now += 90 * DAY_MS - 1
    assert (await house.visitor().sign_in("li")).headers["location"] == "/"
    house.now += 1
    visitor = house.visitor()
    assert (await visitor.sign_in("li")).headers["location"] == "/login/password"


WEAK = {
    "Short-1-Pass"[:11]: "short",
    "Ab1-" * 19: "long",
    "lanting-willows-again": "plain",
    "Liwei-7-Willows-9": "name",
    "Password-123456": "guessable",
    "Qwertyuiop-1": "guessable",
    PASSWORD: "reused",
}


async def test_a_new_password_is_none_that_is_guessed_or_was_there_before(house: House) -> None:
    house.add("liwei", must_change=True)
    visitor = await house.visitor_as("liwei")
    await visitor.get("/login/password")
    for password, code in WEAK.items():
        answer = await visitor.submit("/login/password", {"present": PASSWORD, "new": password, "again": password})
        assert answer.status_code == 422, password
        assert 'role="alert"' in answer.text
        assert house.secrets.judge_password(password, ["liwei"]) == code.replace("reused", ""), password
    wrong = await visitor.submit("/login/password", {"present": ANOTHER, "new": ANOTHER, "again": ANOTHER})
    differ = await visitor.submit("/login/password", {"present": PASSWORD, "new": ANOTHER, "again": PASSWORD})

    assert (wrong.status_code, differ.status_code) == (422, 422)
    assert account_of(house, "liwei").must_change


async def test_the_last_five_passwords_are_not_taken_again(house: House) -> None:
    house.add("li")
    visitor = await house.visitor_as("li")
    passwords = [PASSWORD, *(f"Harbour-{number}-Magpies" for number in range(1, 6))]
    for present, new in itertools.pairwise(passwords):
        await visitor.get("/account")
        assert (await visitor.submit("/account/password", _change(present, new))).status_code == 303
    await visitor.get("/account")

    for old in passwords[1:]:
        assert (await visitor.submit("/account/password", _change(passwords[-1], old))).status_code == 422
    assert (await visitor.submit("/account/password", _change(passwords[-1], PASSWORD))).status_code == 303


# --- the second factor --------------------------------------------------------------------------------------------


async def test_a_code_is_good_once_and_for_a_moment(strict: House) -> None:
    device = strict.give_factor(strict.add("li"))

    async def confirm(code: str) -> int:
        visitor = strict.visitor()
        assert (await visitor.sign_in("li")).headers["location"] == "/login/totp"
        await visitor.get("/login/totp")
        return (await visitor.submit("/login/totp", {"code": code})).status_code

    code = device.at(strict.now // 1000)
    assert await confirm(code) == 303
    assert await confirm(code) == 401
    strict.now += 60_000
    assert await confirm(f"{code[:3]} {code[3:]}") == 401
    assert await confirm(device.at(strict.now // 1000 - 30)) == 303
    assert await confirm(device.at(strict.now // 1000 + 30)) == 303
    assert await confirm(device.at(strict.now // 1000)) == 401
    assert await confirm("") == 401


async def test_guessing_codes_locks_the_account_however_often_the_password_was_right(strict: House) -> None:
    device = strict.give_factor(strict.add("li"))
    visitors = [strict.visitor(f"10.1.1.{number}") for number in range(5)]
    for visitor in visitors:
        await visitor.sign_in("li")
        await visitor.get("/login/totp")
    for number, visitor in enumerate(visitors):
        assert (await visitor.submit("/login/totp", {"code": f"00000{number}"})).status_code == 401
    right = await visitors[0].submit("/login/totp", {"code": device.at(strict.now // 1000)})

    assert right.status_code == 401
    assert [deed.outcome for deed in strict.deeds("sign-in")] == ["refused: locked", *["refused: wrong-code"] * 5]
    assert (await strict.visitor("10.1.2.1").sign_in("li")).status_code == 401
    strict.now += 15 * MINUTE_MS
    again = strict.visitor("10.1.2.1")
    await again.sign_in("li")
    await again.get("/login/totp")
    assert (await again.submit("/login/totp", {"code": device.at(strict.now // 1000)})).status_code == 303


async def test_a_recovery_code_is_good_once(strict: House) -> None:
    strict.add("li")
    visitor = strict.visitor()
    await visitor.sign_in("li")
    _, codes = await enrol(strict, visitor)

    for code, status in ((codes[0], 303), (codes[0], 401), (codes[1].upper().replace("-", " "), 303)):
        other = strict.visitor()
        await other.sign_in("li")
        await other.get("/login/totp")
        assert (await other.submit("/login/totp", {"code": code})).status_code == status
    assert len(account_of(strict, "li").recovery) == 6


async def test_another_device_takes_a_code_of_the_present_one(strict: House) -> None:
    strict.add("li")
    visitor = strict.visitor()
    await visitor.sign_in("li")
    first, codes = await enrol(strict, visitor)
    strict.now += MINUTE_MS

    await visitor.get("/account/totp")
    sealed = visitor.hidden("factor")
    refused = await visitor.submit("/account/totp", {"factor": sealed, "code": "123456", "present": "123456"})
    assert refused.status_code == 422
    second, _ = await enrol(strict, visitor, "/account/totp", codes[0])

    assert second != first
    assert (await visitor.get("/account")).status_code == 200


async def test_a_sealed_secret_is_taken_for_nobody_else(house: House) -> None:
    """Whoever knows their own secret cannot make it somebody else's."""
    for name in ("li", "mallory"):
        house.add(name)
    mallory = await house.visitor_as("mallory")
    await mallory.get("/account/totp")
    sealed = mallory.hidden("factor")
    victim = await house.visitor_as("li")
    await victim.get("/account/totp")
    secret = house.sign_in.secrets.factor_uri(account_of(house, "mallory").id, _decode(sealed), "x")
    code = read_device(secret).at(house.now // 1000)

    for factor in (sealed, "", "AAAA", "ö"):
        answer = await victim.submit("/account/totp", {"factor": factor, "code": code})
        assert answer.status_code == 422
    assert not account_of(house, "li").factor


# --- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_ends_when_nobody_uses_it_and_at_its_longest(house: House) -> None:
    house.add("li")
    idle, used = await house.visitor_as("li"), await house.visitor_as("li", "10.1.1.2")
    for _ in range(30):
        house.now += 23 * MINUTE_MS
        assert (await used.get("/account")).status_code == 200
    assert (await idle.get("/account")).status_code == 303
    house.now += 29 * MINUTE_MS
    assert (await used.get("/account")).status_code == 200
    house.now += MINUTE_MS
    assert (await used.get("/account")).status_code == 303


async def test_signing_out_ends_the_session_for_whoever_has_its_cookie(house: House) -> None:
    house.add("li")
    visitor = await house.visitor_as("li")
    await visitor.get("/account")
    known = visitor.cookie

    assert (await visitor.submit("/logout")).headers["location"] == "/login"

    assert (await house.visitor().get("/account", headers={"Cookie": known})).status_code == 303
    assert house.deeds()[0].what == "sign-out"


async def test_other_sessions_end_when_asked_and_with_the_password(house: House) -> None:
    house.add("li")
    here, there, far = [await house.visitor_as("li", f"10.1.1.{number}") for number in range(3)]
    page = await here.get("/account")
    [one] = [
        found
        for found in re.findall(r"/account/sessions/([0-9a-f]{64})/end", page.text)
        if house.accounts.find_session(found)[0].address == "10.1.1.1"  # type: ignore[index]
    ]
    assert (await here.submit(f"/account/sessions/{one}/end")).status_code == 303
    assert [(await visitor.get("/account")).status_code for visitor in (here, there, far)] == [200, 303, 200]
    assert (await here.submit("/account/sessions/end")).status_code == 303
    assert (await far.get("/account")).status_code == 303

    again = await house.visitor_as("li")
    await here.get("/account")
    assert (await here.submit("/account/password", _change(PASSWORD, ANOTHER))).status_code == 303
    assert (await here.get("/account")).status_code == 200
    assert (await again.get("/account")).status_code == 303


async def test_nobody_ends_a_session_or_token_of_somebody_else(house: House) -> None:
    """What an address names is looked for in one's own account alone."""
    victim = house.add("li")
    house.add("mallory")
    theirs, mallory = await house.visitor_as("li"), await house.visitor_as("mallory")
    [session] = house.accounts.sessions(victim.id)
    secret = house.token(victim, Permission.INCIDENTS_SEE)
    [token] = house.accounts.tokens(victim.id)
    await mallory.get("/account")

    assert (await mallory.submit(f"/account/sessions/{session.id}/end")).status_code == 404
    await mallory.get("/account")
    assert (await mallory.submit(f"/account/tokens/{token.id}/drop")).status_code == 404
    assert (await theirs.get("/account")).status_code == 200
    assert house.sign_in.find_token(secret) is not None


async def test_a_disabled_account_is_out_at_once(house: House) -> None:
    account = house.add("li")
    visitor = await house.visitor_as("li")
    house.officers.disable(CLI, account.id)

    assert (await visitor.get("/account")).status_code == 303
    assert (await house.visitor().sign_in("li")).status_code == 401
    house.officers.enable(CLI, account.id)
    assert (await house.visitor().sign_in("li")).status_code == 303


@pytest.mark.parametrize("role", [None, Role.PLATFORM])
async def test_whoever_has_no_role_or_is_a_machine_does_not_sign_in(house: House, role: Role | None) -> None:
    is_machine = role is Role.PLATFORM
    account, _ = house.officers.add(CLI, "li", "", password=PASSWORD, must_change=False, is_machine=is_machine)
    house.officers.grant(CLI, account.id, role, (), ())

    answer = await house.visitor().sign_in("li")

    assert answer.status_code == 401
    # A machine has no password that could be right.
    assert house.deeds()[0].outcome == ("refused: wrong" if role else "refused: no-role")


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_ends_when_it_is_dropped(house: House) -> None:
    account = house.add("aud", Role.AUDITOR)
    visitor = await house.visitor_as("aud")
    await visitor.get("/account")
    made = await visitor.submit("/account/tokens", {"title": "SIEM", "days": "30", "may.audit.see": "1"})
    found = re.search(r"scg_[\w-]{43}", made.text)
    assert found is not None
    secret = found[0]

    assert secret not in (await visitor.get("/account")).text
    [token] = house.accounts.tokens(account.id)
    assert (token.permissions, token.expires_at) == ((Permission.AUDIT_SEE,), house.now + 30 * DAY_MS)
    program = house.visitor(headers={"Authorization": f"Bearer {secret}", "Accept": "*/*"})
    assert (await program.get("/audit/export.csv")).status_code == 200
    assert house.accounts.tokens(account.id)[0].used_at == house.now
    await visitor.submit(f"/account/tokens/{token.id}/drop")
    assert (await program.get("/audit/export.csv")).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "x", "days": "30"},
        {"title": "x", "days": "30", "may.audit.see": "1", "may.accounts.change": "1"},
        {"title": "x", "days": "30", "may.account.own": "1"},
        {"title": " ", "days": "30", "may.audit.see": "1"},
        {"title": "x", "days": "0", "may.audit.see": "1"},
        {"title": "x", "days": "367", "may.audit.see": "1"},
        {"title": "x", "days": "-1", "may.audit.see": "1"},
    ],
)
async def test_a_token_has_a_purpose_an_end_and_no_more_than_its_account(house: House, fields: dict[str, str]) -> None:
    account = house.add("aud", Role.AUDITOR)
    visitor = await house.visitor_as("aud")
    await visitor.get("/account")

    assert (await visitor.submit("/account/tokens", fields)).status_code == 422
    assert house.accounts.tokens(account.id) == []


def _change(present: str, new: str) -> dict[str, str]:
    return {"present": present, "new": new, "again": new}


def _decode(sealed: str) -> bytes:
    return base64.urlsafe_b64decode(sealed)


async def test_a_flood_of_sign_ins_is_told_to_come_again_and_keeps_nobody_out_who_is_in(house: House) -> None:
    house.add("li")
    inside = await house.visitor_as("li")
    flood = [house.visitor(f"10.3.{number // 9}.{number % 9}") for number in range(HASHES_WAITING + 20)]
    for visitor in flood:
        await visitor.get("/login")
    door = threading.Event()
    gate: Gate = house.app.state.gate
    held = [asyncio.create_task(gate.hash(door.wait)) for _ in range(HASHES_AT_ONCE)]
    await asyncio.sleep(0)
    tries = [
        asyncio.create_task(visitor.submit("/login", {"name": "li", "password": "Wrong-1-Password"}))
        for visitor in flood
    ]
    done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)

    assert {task.result().status_code for task in done} == {503}
    assert (await inside.get("/account")).status_code == 200
    door.set()
    answers = [task.result().status_code for task in (await asyncio.wait(tries))[0]]
    await asyncio.gather(*held)
    assert answers.count(503) == 20 + HASHES_AT_ONCE
    assert answers.count(401) == HASHES_WAITING - HASHES_AT_ONCE
