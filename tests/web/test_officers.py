"""The pages of the three officers: accounts are made by one, empowered by another, and a third reads of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import pytest

from gateway.core.model import Role
from gateway.runtime.access import MACHINES, NEVER_BY_TOKEN, PERMISSIONS, ROLE_TITLES, Permission, roles_with
from gateway.runtime.accounts import Account, Deed
from gateway.web.access import Authorise, list_routes
from tests.web.house import ANOTHER, CLI, DISTRICT, PASSWORD, House, Visitor


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    for role in (Role.ADMINISTRATOR, Role.SECURITY, Role.AUDITOR):
        made.add(role, role)
    yield made
    made.close()


async def visit(house: House, role: Role, path: str) -> Visitor:
    visitor = await house.visitor_as(role)
    assert (await visitor.get(path)).status_code == 200
    return visitor


def find(house: House, name: str) -> Account:
    account = house.accounts.find_account(name)
    assert account is not None
    return account


async def test_two_officers_make_an_account_that_one_could_not(house: House) -> None:
    administrator = await visit(house, Role.ADMINISTRATOR, "/accounts")
    made = await administrator.submit("/accounts", {"name": "Wang.Fang", "title": "王芳", "language": "zh"})
    found = re.search(r"<code>([\w-]{20})</code>", made.text)
    assert found is not None
    account = find(house, "wang.fang")
    assert (account.title, account.role, account.must_change) == ("王芳", None, True)
    assert (await house.visitor().sign_in("wang.fang", found[1])).status_code == 401

    security = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    fields = {"role": "dispatcher", "grids": f"{DISTRICT}", "communities": "c001，c002", "portal": "QD-77"}
    assert (await security.submit(f"/accounts/{account.id}/grant", fields)).status_code == 303
    account = find(house, "wang.fang")
    assert (account.role, account.grids, account.communities) == (Role.DISPATCHER, (DISTRICT,), ("c001", "c002"))
    assert account.portal == "QD-77"

    person = house.visitor()
    assert (await person.sign_in("wang.fang", found[1])).headers["location"] == "/login/password"
    deeds = [(deed.who, deed.role, deed.what, deed.about) for deed in house.deeds("account.")[:2]]
    assert deeds == [
        ("security", "security", "account.grant", "wang.fang"),
        ("administrator", "administrator", "account.add", "wang.fang"),
    ]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "a"}, "name"),
        ({"name": "-li"}, "name"),
        ({"name": "li wei"}, "name"),
        ({"name": "李伟"}, "name"),
        ({"name": "li\x00wei"}, "name"),
        ({"name": "auditor"}, "taken"),
        ({"name": "liwei", "title": "x" * 41}, "title"),
    ],
)
async def test_what_is_no_name_makes_no_account(house: House, fields: dict[str, str], code: str) -> None:
    visitor = await visit(house, Role.ADMINISTRATOR, "/accounts")
    before = len(house.accounts.accounts())

    answer = await visitor.submit("/accounts", fields)

    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert len(house.accounts.accounts()) == before


async def test_nobody_does_it_to_their_own_account(house: House) -> None:
    attempts = [
        (Role.ADMINISTRATOR, "disable", {}),
        (Role.ADMINISTRATOR, "reset", {}),
        (Role.SECURITY, "grant", {"role": "administrator", "grids": "", "communities": "", "portal": ""}),
        (Role.SECURITY, "factor", {}),
    ]
    for role, act, fields in attempts:
        before = find(house, role)
        visitor = await visit(house, role, f"/accounts/{before.id}")
        assert (await visitor.submit(f"/accounts/{before.id}/{act}", fields)).status_code == 422
        after = find(house, role)
        assert (after.role, after.is_disabled, after.password) == (role, False, before.password)
    assert {deed.outcome for deed in house.deeds() if deed.who in ("administrator", "security")} == {
        "done",
        "refused: own-account",
    }


@pytest.mark.parametrize(
    "fields", [{"role": "resident"}, {"role": "god"}, {"grids": "370299"}, {"communities": "c001 c999"}]
)
async def test_a_role_or_scope_that_is_not_there_is_not_granted(house: House, fields: dict[str, str]) -> None:
    account = house.add("li")
    visitor = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    all_fields = {"role": "tester", "grids": "", "communities": "", "portal": "", **fields}

    assert (await visitor.submit(f"/accounts/{account.id}/grant", all_fields)).status_code == 422
    assert find(house, "li").role is Role.DISPATCHER


async def test_what_is_granted_holds_from_the_next_request_on(house: House) -> None:
    account = house.add("li", Role.AUDITOR)
    person = await house.visitor_as("li")
    assert (await person.get("/audit")).status_code == 200
    visitor = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    await visitor.submit(f"/accounts/{account.id}/grant", {"role": "tester", "grids": "", "communities": ""})

    assert (await person.get("/audit")).status_code == 303
    await person.sign_in("li")
    assert (await person.get("/audit")).status_code == 403


async def test_a_reset_password_is_shown_once_and_good_for_its_change(house: House) -> None:
    account = house.add("li")
    device = house.give_factor(account)
    person = house.visitor()
    visitor = await visit(house, Role.ADMINISTRATOR, f"/accounts/{account.id}")
    answer = await visitor.submit(f"/accounts/{account.id}/reset")
    found = re.search(r"<code>([\w-]{20})</code>", answer.text)
    assert found is not None

    assert found[1] not in (await visitor.get(f"/accounts/{account.id}")).text
    assert (await person.get("/account")).status_code == 303
    assert (await person.sign_in("li", PASSWORD)).status_code == 401
    assert (await person.sign_in("li", found[1])).headers["location"] == "/login/totp"
    await person.get("/login/totp")
    entered = await person.submit("/login/totp", {"code": device.at(house.now // 1000)})
    assert entered.headers["location"] == "/login/password"
    await person.get("/login/password")
    again = {"present": found[1], "new": PASSWORD, "again": PASSWORD}
    assert (await person.submit("/login/password", again)).status_code == 422
    assert (await person.submit("/login/password", again | {"new": ANOTHER, "again": ANOTHER})).status_code == 303


async def test_an_administrator_cannot_become_somebody_else_who_has_none(house: House) -> None:
    """The role goes with the password, and the security administrator gives it again."""
    account = house.add("li", Role.GRID_WORKER, grids=("370215001",))
    administrator = await visit(house, Role.ADMINISTRATOR, f"/accounts/{account.id}")
    page = await administrator.submit(f"/accounts/{account.id}/reset")
    found = re.search(r"<code>([\w-]{20})</code>", page.text)
    assert found is not None
    assert "由安全管理员核实本人后重新授权" in page.text
    stolen = house.visitor()
    assert (await stolen.sign_in("li", found[1])).status_code == 401
    [deed] = house.deeds("account.reset")
    assert (deed.who, deed.detail) == (Role.ADMINISTRATOR, "no second factor: grid_worker until it is granted again")

    officer = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    assert "370215001" in officer.page, "where it worked stays written"
    given = {"role": "grid_worker", "grids": "370215001", "communities": ""}
    assert (await officer.submit(f"/accounts/{account.id}/grant", given)).status_code == 303
    assert (await stolen.sign_in("li", found[1])).headers["location"] == "/login/password"


async def test_an_administrator_cannot_become_somebody_else_who_has_a_second_factor(house: House) -> None:
    """They reset the password; the second factor is the security administrator's to reset."""
    victim = find(house, Role.SECURITY)
    device = house.give_factor(victim)
    administrator = await visit(house, Role.ADMINISTRATOR, f"/accounts/{victim.id}")
    page = await administrator.submit(f"/accounts/{victim.id}/reset")
    found = re.search(r"<code>([\w-]{20})</code>", page.text)
    assert found is not None

    assert (await administrator.submit(f"/accounts/{victim.id}/factor")).status_code == 403
    stolen = house.visitor()
    assert (await stolen.sign_in(Role.SECURITY, found[1])).headers["location"] == "/login/totp"
    assert (await stolen.get("/accounts")).headers["location"] == "/login/totp"
    await stolen.get("/login/totp")
    assert (await stolen.submit("/login/totp", {"code": device.at(house.now // 1000)})).status_code == 303


async def test_a_machine_gets_its_token_from_the_security_administrator_alone(house: House) -> None:
    administrator = await visit(house, Role.ADMINISTRATOR, "/accounts")
    made = await administrator.submit("/accounts", {"name": "city-platform", "machine": "1"})
    assert "<code>" not in made.text
    account = find(house, "city-platform")
    security = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    wanted = {"title": "对账", "days": "90", "may.incidents.see": "1"}
    assert (await security.submit(f"/accounts/{account.id}/tokens", wanted)).status_code == 422
    await security.submit(f"/accounts/{account.id}/grant", {"role": "platform", "grids": DISTRICT, "communities": ""})
    answer = await security.submit(f"/accounts/{account.id}/tokens", wanted)

    found = re.search(r"scg_[\w-]{43}", answer.text)
    assert found is not None
    held = house.sign_in.find_token(found[0])
    assert held is not None
    assert held[0].permissions == (Permission.INCIDENTS_SEE,)
    person = house.add("li")
    assert (await security.submit(f"/accounts/{person.id}/tokens", wanted)).status_code == 422
    [token] = house.accounts.tokens(account.id)
    await security.submit(f"/accounts/{account.id}/tokens/{token.id}/drop")
    assert house.sign_in.find_token(found[0]) is None


# --- the audit log ------------------------------------------------------------------------------------------------


async def test_nobody_gets_a_token_of_somebody_else_by_way_of_a_machines_role(house: House) -> None:
    victim = house.add("li", Role.DISPATCHER)
    machine = house.add("platform", Role.PLATFORM)
    security = await visit(house, Role.SECURITY, f"/accounts/{victim.id}")
    for id, role in ((victim.id, "platform"), (machine.id, "dispatcher")):
        statuses = []
        for given in (role, "", role):  # nor by way of no role at all
            await security.get(f"/accounts/{id}")
            statuses.append((await security.submit(f"/accounts/{id}/grant", {"role": given})).status_code)
        assert statuses == [422, 303, 422]
    await security.get(f"/accounts/{victim.id}")
    wish = {"title": "x", "days": "9", "may.incidents.see": "1"}
    assert (await security.submit(f"/accounts/{victim.id}/tokens", wish)).status_code == 422
    assert house.accounts.tokens(victim.id) == []


async def test_tokens_end_with_what_an_officer_does_after_a_leak(house: House) -> None:
    acts = {
        "disable": ("administrator", {}),
        "reset": ("administrator", {}),
        "grant": ("security", {"role": "tester", "grids": DISTRICT}),
    }
    for act, (officer, fields) in acts.items():
        account = house.add(f"li-{act}", Role.DISPATCHER)
        house.token(account, Permission.INCIDENTS_SEE)
        visitor = await visit(house, Role(officer), f"/accounts/{account.id}")
        assert (await visitor.submit(f"/accounts/{account.id}/{act}", fields)).status_code in (200, 303)
        assert house.accounts.tokens(account.id) == [], act

    account = house.add("platform", Role.PLATFORM)
    house.token(account, Permission.INCIDENTS_SEE)
    security = await visit(house, Role.SECURITY, f"/accounts/{account.id}")
    await security.submit(f"/accounts/{account.id}/grant", {"role": "platform", "communities": "c001"})
    assert len(house.accounts.tokens(account.id)) == 1, "another scope holds for the token, too"


def test_every_operation_for_programs_is_for_somebody_who_can_get_a_token(house: House) -> None:
    able = {role for role in ROLE_TITLES if role in MACHINES or Permission.TOKENS_OWN in PERMISSIONS[role]}
    for route in list_routes(house.app.routes):
        marks = [mark for mark in route.marks if isinstance(mark, Authorise)]
        if route.path.startswith("/api/v1/") and marks:
            assert able & set(roles_with(marks[0].permission)), route.path
            assert marks[0].permission not in NEVER_BY_TOKEN, route.path


async def test_the_auditor_sees_who_did_what_from_where(house: House) -> None:
    house.add("li")
    await house.visitor("10.7.7.7").sign_in("li", "Wrong-1-Password")
    visitor = await visit(house, Role.AUDITOR, "/audit?what=sign-in&refused=1")

    assert "10.7.7.7" in visitor.page
    assert "已拒绝（wrong）" in visitor.page
    assert "account.grant" not in visitor.page
    assert house.deeds()[0].what == "audit.see"


async def test_the_log_is_read_page_by_page(house: House) -> None:
    for number in range(250):
        house.accounts.record(Deed(house.now, "li", "tried", f"thing-{number}"))
    visitor = await visit(house, Role.AUDITOR, "/audit?who=li")
    seen: list[str] = []
    while True:
        seen += re.findall(r"thing-\d+", visitor.page)
        older = re.search(r'href="(/audit\?[^"]*before=\d+)"', visitor.page)
        if older is None:
            break
        await visitor.get(older[1].replace("&amp;", "&"))

    assert seen == [f"thing-{number}" for number in reversed(range(250))]


async def test_an_export_opens_in_a_spreadsheet_and_runs_nothing(house: House) -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "＝1", 'a"b,c\nd'):
        house.accounts.record(Deed(house.now, text, "tried", text, text, text, text))
    visitor = await visit(house, Role.AUDITOR, "/audit")
    answer = await visitor.get("/audit/export.csv?what=tried")

    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert rows[0][:4] == ["seq", "time", "who", "role"]
    assert len(rows) == 8
    cells = [cell for row in rows[1:] for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r＝")]
    assert rows[1][1:3] == ["2026-11-23 20:00:00", 'a"b,c\nd']
    assert house.deeds()[0].what == "audit.export"


async def test_the_auditor_has_the_whole_chain_checked(house: House) -> None:
    visitor = await visit(house, Role.AUDITOR, "/audit")
    whole = await visitor.submit("/audit/verify")
    with house.ledger.database.writing() as session:
        session.run("DROP TRIGGER audit_keeps_update")
        session.run("UPDATE audit SET who = 'nobody' WHERE seq = 2")
    broken = await visitor.submit("/audit/verify")

    assert "记录链完整" in whole.text
    assert "line 2 was changed" in broken.text
    assert house.deeds()[0].outcome == "1 flaws"


@pytest.mark.parametrize("query", ["before=x", "since=never", "until=9999-99-99", f"before={'9' * 40}", "who=%00"])
async def test_a_filter_that_is_none_filters_nothing_and_breaks_nothing(house: House, query: str) -> None:
    visitor = await house.visitor_as(Role.AUDITOR)

    assert (await visitor.get(f"/audit?{query}")).status_code == 200
    assert (await visitor.get(f"/audit/export.csv?{query}")).status_code == 200


INJECTIONS = ("' OR '1'='1", "'; DROP TABLE account; --", "%' --", '" UNION SELECT document FROM account --')


async def test_no_text_is_taken_for_sql(house: House) -> None:
    house.officers.grant(CLI, house.add("li").id, Role.DISPATCHER, (DISTRICT,), (), "P-1")
    officer = await house.visitor_as(Role.AUDITOR)
    for text in INJECTIONS:
        stranger = house.visitor(f"10.4.0.{INJECTIONS.index(text)}")
        assert (await stranger.sign_in(text, text)).status_code == 401
        assert (await stranger.get("/account", headers={"Cookie": f"__Host-scg={text}"})).status_code == 303
        asked = {"who": text, "what": text, "about": text, "where": text}
        answer = await officer.get("/audit", params=asked)
        assert answer.status_code == 200
        assert "没有符合条件的记录" in answer.text
        assert (await officer.get("/accounts", headers={"Authorization": f"Bearer scg_{text}"})).status_code == 303

    assert len(house.accounts.accounts()) == 4
