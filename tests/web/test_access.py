"""Who may come where: every route, role and scope in one table, and the ways in which strangers try to get in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from gateway.core.model import Role
from gateway.runtime.access import NEVER_BY_TOKEN, PERMISSIONS, ROLE_TITLES, Actor, Permission, roles_with
from gateway.runtime.accounts import Deed
from gateway.runtime.signing import MINUTE_MS
from gateway.web.access import (
    Authorise,
    Midway,
    Public,
    authorise,
    check_routes,
    demand_cover,
    gate_of,
    list_routes,
    public,
    safe_next,
)
from tests.web.house import CLI, DISTRICT, PASSWORD, TOWN, House
from tests.web.test_callbacks import code_of

P = Permission


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


# --- the table ----------------------------------------------------------------------------------------------------

ROUTES = {
    "GET /account": P.ACCOUNT_OWN,
    "GET /account/totp": P.ACCOUNT_OWN,
    "GET /accounts": P.ACCOUNTS_SEE,
    "GET /accounts/{id}": P.ACCOUNTS_SEE,
    "GET /audit": P.AUDIT_SEE,
    "GET /audit/export.csv": P.AUDIT_SEE,
    "POST /account/stay": P.ACCOUNT_OWN,
    "POST /account/password": P.ACCOUNT_OWN,
    "POST /account/sessions/end": P.ACCOUNT_OWN,
    "POST /account/sessions/{id}/end": P.ACCOUNT_OWN,
    "POST /account/tokens": P.TOKENS_OWN,
    "POST /account/tokens/{id}/drop": P.TOKENS_OWN,
    "POST /account/totp": P.ACCOUNT_OWN,
    "POST /accounts": P.ACCOUNTS_CHANGE,
    "POST /accounts/{id}/disable": P.ACCOUNTS_CHANGE,
    "POST /accounts/{id}/enable": P.ACCOUNTS_CHANGE,
    "POST /accounts/{id}/factor": P.ACCOUNTS_GRANT,
    "POST /accounts/{id}/grant": P.ACCOUNTS_GRANT,
    "POST /accounts/{id}/reset": P.ACCOUNTS_CHANGE,
    "POST /accounts/{id}/tokens": P.ACCOUNTS_GRANT,
    "POST /accounts/{id}/tokens/{token}/drop": P.ACCOUNTS_GRANT,
    "POST /audit/verify": P.AUDIT_SEE,
    "GET /": P.ACCOUNT_OWN,
    "GET /board": P.INCIDENTS_SEE,
    "GET /board/alarms": P.INCIDENTS_SEE,
    "GET /board/rows": P.INCIDENTS_SEE,
    "GET /board/stream": P.INCIDENTS_SEE,
    "GET /incidents/{id}": P.INCIDENTS_SEE,
    "GET /incidents/{id}/callers": P.CONTACTS_SEE,
    "GET /incidents/{id}/pane": P.INCIDENTS_SEE,
    "GET /incidents/{id}/stream": P.INCIDENTS_SEE,
    "GET /incidents/{id}/why": P.INCIDENTS_SEE,
    "POST /incidents/{id}/acts": P.INCIDENTS_ACT,
    "GET /incidents/{id}/cameras": P.CAMERAS_SEE,
    "GET /incidents/{id}/commands": P.COMMANDS_GIVE,
    "GET /incidents/{id}/commands/given": P.INCIDENTS_SEE,
    "POST /incidents/{id}/commands": P.COMMANDS_GIVE,
    "GET /incidents/{id}/points": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/{id}/why": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/{id}/callers": P.CONTACTS_SEE,
    "GET /api/v1/incidents/{id}/cameras": P.CAMERAS_SEE,
    "GET /api/v1/incidents/{id}/points": P.INCIDENTS_SEE,
    "GET /api/v1/map": P.INCIDENTS_SEE,
    "GET /api/v1/map/grids/{code}": P.INCIDENTS_SEE,
    "GET /api/v1/map/communities/{community}": P.REGISTRY_SEE,
    "GET /api/v1/heat": P.INCIDENTS_SEE,
    "GET /api/v1/heat/{community}": P.INCIDENTS_SEE,
    "GET /api/v1/wall": P.WALL_SEE,
    "GET /api/v1/incidents/{id}/commands": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/{id}/commands/offers": P.COMMANDS_GIVE,
    "POST /api/v1/incidents/{id}/commands": P.COMMANDS_GIVE,
    "GET /api/v1/incidents": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/changes": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/stream": P.INCIDENTS_SEE,
    "GET /api/v1/incidents/{id}": P.INCIDENTS_SEE,
    "POST /api/v1/incidents/{id}/acts": P.INCIDENTS_ACT,
    "GET /api/v1/devices": P.REGISTRY_SEE,
    "GET /api/v1/devices/asks": P.REGISTRY_SEE,
    "GET /api/v1/devices/sick": P.REGISTRY_SEE,
    "GET /api/v1/devices/{community}/{id}/points": P.REGISTRY_SEE,
    "GET /api/v1/devices/{community}/{id}/signals": P.REGISTRY_SEE,
    "GET /api/v1/devices/{community}/{id}": P.REGISTRY_SEE,
    "POST /api/v1/devices": P.REGISTRY_CHANGE,
    "POST /api/v1/devices/{community}/{id}/changes": P.REGISTRY_CHANGE,
    "GET /api/v1/accounts": P.ACCOUNTS_SEE,
    "GET /api/v1/audit": P.AUDIT_SEE,
    "GET /api/v1/audit/verdict": P.AUDIT_SEE,
    "GET /api/v1/communities": P.REGISTRY_SEE,
    "GET /api/v1/devices/{community}/{id}/history": P.REGISTRY_SEE,
    "GET /api/v1/handover": P.INCIDENTS_SEE,
    "GET /api/v1/places": P.REGISTRY_SEE,
    "POST /api/v1/devices/list": P.REGISTRY_CHANGE,
    "GET /api/v1/windows": P.REGISTRY_SEE,
    "POST /api/v1/windows": P.SILENCES_CHANGE,
    "POST /api/v1/windows/{community}/{id}/end": P.SILENCES_CHANGE,
    "GET /bulk": P.REGISTRY_CHANGE,
    "GET /bulk/places.csv": P.REGISTRY_CHANGE,
    "GET /bulk/places.xlsx": P.REGISTRY_CHANGE,
    "GET /bulk/template.xlsx": P.REGISTRY_CHANGE,
    "POST /bulk": P.REGISTRY_CHANGE,
    "GET /api/v1/appraisal": P.APPRAISAL_SEE,
    "GET /api/v1/rules": P.RULES_SEE,
    "GET /api/v1/rules/{id}": P.RULES_SEE,
    "POST /api/v1/rules/{id}/override": P.RULES_OVERRIDE,
    "GET /devices": P.REGISTRY_SEE,
    "GET /devices/new": P.REGISTRY_CHANGE,
    "GET /devices/{community}/{id}": P.REGISTRY_SEE,
    "GET /devices/{community}/{id}/past": P.REGISTRY_SEE,
    "GET /devices/{community}/{id}/points": P.REGISTRY_SEE,
    "GET /devices/{community}/{id}/stream": P.REGISTRY_SEE,
    "GET /devices/{community}/{id}/values": P.REGISTRY_SEE,
    "POST /devices": P.REGISTRY_CHANGE,
    "POST /devices/{community}/{id}/changes": P.REGISTRY_CHANGE,
    "GET /windows": P.REGISTRY_SEE,
    "POST /windows": P.SILENCES_CHANGE,
    "POST /windows/{community}/{id}/end": P.SILENCES_CHANGE,
    "GET /handover": P.INCIDENTS_SEE,
    "GET /appraisal": P.APPRAISAL_SEE,
    "GET /appraisal/export.csv": P.APPRAISAL_SEE,
    "GET /appraisal/export.xlsx": P.APPRAISAL_SEE,
    "GET /rules": P.RULES_SEE,
    "GET /rules/{id}": P.RULES_SEE,
    "POST /rules/{id}/status": P.RULES_OVERRIDE,
    "GET /products": P.PRODUCTS_CHANGE,
    "POST /products": P.PRODUCTS_CHANGE,
    "GET /api/v1/products": P.PRODUCTS_CHANGE,
    "POST /api/v1/products/{profile}/changes": P.PRODUCTS_CHANGE,
    "GET /webhooks": P.WEBHOOKS_CHANGE,
    "GET /webhooks/{id}": P.WEBHOOKS_CHANGE,
    "GET /webhooks/{id}/deliveries": P.WEBHOOKS_CHANGE,
    "POST /webhooks": P.WEBHOOKS_CHANGE,
    "POST /webhooks/{id}/again": P.WEBHOOKS_CHANGE,
    "POST /webhooks/{id}/changes": P.WEBHOOKS_CHANGE,
    "GET /api/v1/webhooks": P.WEBHOOKS_CHANGE,
    "GET /api/v1/webhooks/{id}": P.WEBHOOKS_CHANGE,
    "GET /api/v1/webhooks/{id}/deliveries": P.WEBHOOKS_CHANGE,
    "POST /api/v1/webhooks": P.WEBHOOKS_CHANGE,
    "POST /api/v1/webhooks/{id}/changes": P.WEBHOOKS_CHANGE,
    "POST /api/v1/webhooks/{id}/deliveries/again": P.WEBHOOKS_CHANGE,
    "GET /tester": P.SCENARIOS_PLAY,
    "GET /tester/rules": P.SCENARIOS_PLAY,
    "GET /tester/rules/days": P.SCENARIOS_PLAY,
    "GET /tester/rules/{id}": P.SCENARIOS_PLAY,
    "GET /tester/rules/{id}/part": P.SCENARIOS_PLAY,
    "GET /tester/runs/{id}": P.SCENARIOS_PLAY,
    "GET /tester/runs/{id}/part": P.SCENARIOS_PLAY,
    "POST /tester/rules": P.SCENARIOS_PLAY,
    "POST /tester/runs": P.SCENARIOS_PLAY,
    "POST /tester/runs/{id}/stop": P.SCENARIOS_PLAY,
    "GET /api/v1/trials/{id}": P.SCENARIOS_PLAY,
    "GET /api/v1/stand": P.SCENARIOS_PLAY,
    "GET /api/v1/stand/runs/{id}": P.SCENARIOS_PLAY,
    "GET /api/v1/stand/runs/{id}/signals": P.SCENARIOS_PLAY,
    "POST /api/v1/stand/runs": P.SCENARIOS_PLAY,
    "POST /api/v1/stand/runs/{id}/stop": P.SCENARIOS_PLAY,
    "POST /api/v1/trials": P.SCENARIOS_PLAY,
    "GET /map": P.INCIDENTS_SEE,
    "GET /map/communities/{id}": P.REGISTRY_SEE,
    "GET /map/data": P.INCIDENTS_SEE,
    "GET /map/grids/{code}": P.INCIDENTS_SEE,
    "GET /map/heat": P.INCIDENTS_SEE,
    "GET /map/heat/{community}": P.INCIDENTS_SEE,
    "GET /map/stream": P.INCIDENTS_SEE,
    "GET /wall": P.WALL_SEE,
    "GET /wall/part": P.WALL_SEE,
    "GET /wall/stream": P.WALL_SEE,
}
"""Every route for people who have signed in. Whoever adds one says here what it takes."""

PUBLIC = {
    "GET /api/v1/openapi.json",
    "GET /metrics",
    "GET /healthz",
    "GET /login",
    "GET /r/receipt/{secret}",
    "GET /r/{address}",
    "GET /readyz",
    "POST /language",
    "POST /login",
    "POST /logout",
    "POST /api/v1/provision",
    "POST /platform/callbacks",
    "POST /r/receipt/{secret}/rating",
    "POST /r/receipt/{secret}/said",
    "POST /r/{address}",
}
MIDWAY = {
    "GET /login/enrol",
    "GET /login/password",
    "GET /login/totp",
    "POST /login/enrol",
    "POST /login/password",
    "POST /login/totp",
}


def fill(where: str) -> str:
    """A route with something in its places."""
    return where.replace("{id}", "nobody").replace("{token}", "none").replace("{community}", "c001")


def test_the_table_names_every_route_and_what_it_takes(house: House) -> None:
    asked: dict[str, Permission] = {}
    public_ones, midway = set(), set()
    for route in list_routes(house.app.routes):
        [mark] = route.marks
        where = f"{route.method} {route.path}"
        match mark:
            case Authorise():
                asked[where] = mark.permission
            case Midway():
                midway.add(where)
            case Public():
                assert mark.why
                public_ones.add(where)

    assert asked == ROUTES
    assert public_ones == PUBLIC
    assert midway == MIDWAY


async def test_each_role_passes_where_it_has_the_permission_and_nowhere_else(house: House) -> None:
    accounts = house.add_all()
    for role, account in accounts.items():
        is_machine = role is Role.PLATFORM
        visitor = house.visitor() if is_machine else await house.visitor_as(account.name)
        headers = {"Authorization": f"Bearer {house.token(account, *P)}"} if is_machine else {}
        # What an allowed act would change must not take the visitor's session along.
        for where, permission in ROUTES.items():
            if not is_machine:
                visitor = await house.visitor_as(account.name)
                await visitor.get("/account")
            method, path = fill(where).split()
            answer = await visitor.client.request(
                method, path, data={"csrf": visitor.csrf} if method == "POST" else None, headers=headers
            )
            house.now += MINUTE_MS
            passes = permission in PERMISSIONS[role] and not (is_machine and permission in NEVER_BY_TOKEN)
            assert (answer.status_code != 403) == passes, (role, where, answer.status_code, answer.text)
            assert answer.status_code not in (401, 429, 500), (role, where)
            refused = house.deeds("access")
            assert passes or (refused[0].who, refused[0].about, refused[0].detail) == (
                account.name,
                f"{method} {path}",
                permission,
            )


async def test_nobody_passes_without_having_signed_in(house: House) -> None:
    for where in [*ROUTES, *MIDWAY]:
        method, path = fill(where).split()
        person = await house.visitor().client.request(method, path)
        program = await house.visitor(headers={"Accept": "application/json"}).client.request(method, path)

        if not path.startswith("/api/"):
            assert (person.status_code, person.headers["location"].partition("?")[0]) == (303, "/login"), where
        assert code_of(program) == (401, "sign-in-needed"), where
        assert program.headers["www-authenticate"] == "Bearer"


def test_a_route_that_says_nothing_does_not_start() -> None:
    app = FastAPI(openapi_url=None)
    inner = APIRouter()

    @inner.get("/left-open")
    def left_open() -> None: ...

    app.include_router(inner, prefix="/deep")
    with pytest.raises(RuntimeError, match="GET /deep/left-open"):
        check_routes(app.routes)


def test_a_route_that_says_two_things_does_not_start() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/both", dependencies=[Depends(public("by mistake"))])
    def both(actor: Annotated[Actor, Depends(authorise(P.AUDIT_SEE))]) -> None: ...

    with pytest.raises(RuntimeError, match="GET /both"):
        check_routes(app.routes)


def test_the_three_officers_share_no_duty() -> None:
    duties = (P.ACCOUNTS_CHANGE, P.ACCOUNTS_GRANT, P.AUDIT_SEE)

    assert [roles_with(duty) for duty in duties] == [[Role.ADMINISTRATOR], [Role.SECURITY], [Role.AUDITOR]]
    for officer in (Role.ADMINISTRATOR, Role.SECURITY, Role.AUDITOR):
        assert not PERMISSIONS[officer] & {P.INCIDENTS_SEE, P.INCIDENTS_ACT, P.PLATES_REVEAL, P.COMMANDS_GIVE}
    assert set(PERMISSIONS) == set(ROLE_TITLES)


# --- scope --------------------------------------------------------------------------------------------------------

CHAIN_1 = (DISTRICT, TOWN, "370215001001", "370215001001003")
SCOPES = [
    # grids, communities, covers c001, covers its base grid 003, acts in it as
    ((), (), False, False, None),
    ((DISTRICT,), (), True, True, DISTRICT),
    ((TOWN,), (), True, True, TOWN),
    (("370215002",), (), False, False, None),
    (("370215001001003",), (), False, True, "370215001001003"),
    (("370215001001004",), (), False, False, None),
    ((), ("c001",), True, True, ""),
    ((), ("c002",), False, False, None),
    ((TOWN, DISTRICT), (), True, True, DISTRICT),
    ((DISTRICT,), ("c001",), True, True, ""),
]


@pytest.mark.parametrize(("grids", "communities", "whole", "base", "acts_as"), SCOPES)
def test_a_scope_covers_itself_and_what_lies_below(
    grids: tuple[str, ...], communities: tuple[str, ...], whole: bool, base: bool, acts_as: str | None
) -> None:
    for role in ROLE_TITLES:
        actor = Actor("a1", "li", role, grids, communities)

        assert actor.covers("c001", CHAIN_1[:3]) is whole
        assert actor.covers("c001", CHAIN_1) is base
        assert actor.acting_grid("c001", CHAIN_1) == acts_as


def test_a_role_without_a_row_may_do_nothing() -> None:
    for role in (Role.RESIDENT, Role.GATEWAY):
        actor = Actor("a1", "x", role, (DISTRICT,))
        assert not any(actor.may(permission) for permission in P)


async def test_what_lies_in_another_community_is_not_there(house: House) -> None:
    """A route as the console has them, over each scope of the table."""
    known = {"i-1": ("c001", CHAIN_1), "i-2": ("c002", (DISTRICT, "370215002", "370215002001", "370215002001001"))}

    @house.app.get("/things/{id}")
    async def show(id: str, actor: Annotated[Actor, Depends(authorise(P.INCIDENTS_SEE))]) -> str:
        demand_cover(actor, *known[id])
        return id

    for number, (grids, communities, _, base, _) in enumerate(SCOPES):
        account = house.add(f"li-{number}", Role.DISPATCHER)
        grids = tuple(set(grids) - {"370215001001003", "370215001001004"})
        if not grids and not communities and base:
            continue
        house.officers.grant(CLI, account.id, Role.DISPATCHER, grids, communities)
        visitor = await house.visitor_as(account.name, f"10.2.0.{number}")

        mine, other = await visitor.get("/things/i-1"), await visitor.get("/things/i-2")

        actor = house.accounts.account(account.id)
        assert actor is not None
        standing = actor.actor()
        assert standing is not None
        assert (mine.status_code == 200) == standing.covers(*known["i-1"])
        assert (other.status_code == 200) == standing.covers(*known["i-2"])
        assert {mine.status_code, other.status_code} <= {200, 404}


# --- ways in ------------------------------------------------------------------------------------------------------


async def test_a_form_of_another_site_does_nothing(house: House) -> None:
    house.add("adm", Role.ADMINISTRATOR)
    visitor = await house.visitor_as("adm")
    await visitor.get("/accounts")
    fields = {"name": "mallory", "title": "x"}
    attempts: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "no token": ({}, {}),
        "a token of nobody's": ({"csrf": "0" * 64}, {}),
        "the right token from another site": ({"csrf": visitor.csrf}, {"Origin": "https://evil.test"}),
        "from a sandboxed frame": ({"csrf": visitor.csrf}, {"Origin": "null"}),
        "from a neighbour's subdomain": ({"csrf": visitor.csrf}, {"Sec-Fetch-Site": "same-site"}),
        "the token in the address": ({}, {"Sec-Fetch-Site": "same-origin"}),
    }
    for how, (token, headers) in attempts.items():
        query = f"?csrf={visitor.csrf}" if "address" in how else ""
        answer = await visitor.client.post(f"/accounts{query}", data=fields | token, headers=headers)
        assert answer.status_code == 403, how

    assert house.accounts.find_account("mallory") is None
    assert {deed.outcome for deed in house.deeds("access")} == {"refused: cross-site"}
    assert (await visitor.submit("/accounts", fields)).status_code == 200
    assert house.accounts.find_account("mallory") is not None


async def test_another_ones_token_fits_no_other_session(house: House) -> None:
    for name in ("adm", "mallory"):
        house.add(name, Role.ADMINISTRATOR)
    victim, mallory = await house.visitor_as("adm"), await house.visitor_as("mallory")
    await mallory.get("/accounts")

    answer = await victim.client.post("/accounts", data={"csrf": mallory.csrf, "name": "new"})

    assert answer.status_code == 403


async def test_nobody_is_signed_in_as_somebody_else_by_another_site(house: House) -> None:
    house.add("mallory")
    victim = house.visitor()

    answer = await victim.client.post("/login", data={"name": "mallory", "password": PASSWORD})

    assert answer.status_code == 403
    assert house.deeds("sign-in") == []


async def test_a_cookie_that_was_known_before_is_worth_nothing_after(house: House) -> None:
    house.add("li")
    victim = house.visitor()
    await victim.get("/login")
    known = victim.cookie

    await victim.submit("/login", {"name": "li", "password": PASSWORD})

    assert victim.cookie != known
    assert (await house.visitor().get("/account", headers={"Cookie": known})).status_code == 303
    assert (await victim.get("/account")).status_code == 200


async def test_a_cookie_that_was_set_from_outside_is_not_taken_on(house: House) -> None:
    """Session fixation: a cookie of the attacker's choice stays a stranger's."""
    house.add("li")
    victim = house.visitor()
    victim.client.cookies.set("__Host-scg", "a" * 43, domain="gateway.test")
    await victim.sign_in("li")

    assert (await house.visitor().get("/account", headers={"Cookie": f"__Host-scg={'a' * 43}"})).status_code == 303


async def test_guessing_passwords_ends_after_five(house: House) -> None:
    house.add("li")
    visitor = house.visitor()
    wrong = [await visitor.sign_in("li", "Wrong-1-Password") for _ in range(5)]
    locked = await visitor.sign_in("li")
    unknown = await visitor.sign_in("nobody")

    assert {answer.status_code for answer in (*wrong, locked, unknown)} == {401}
    assert len({_fault(answer) for answer in (*wrong, locked, unknown)}) == 1
    assert [deed.detail for deed in house.deeds("sign-in")][:2] == ["unknown name", "it is locked"]
    house.now += 15 * MINUTE_MS
    assert (await visitor.sign_in("li")).status_code == 303


async def test_a_sign_in_that_was_good_in_the_end_begins_a_new_count(house: House) -> None:
    house.add("li")
    for turn in range(3):
        visitor = house.visitor(f"10.1.1.{turn}")
        for _ in range(4):
            assert (await visitor.sign_in("li", "Wrong-1-Password")).status_code == 401
        assert (await visitor.sign_in("li")).status_code == 303


async def test_guessing_names_and_passwords_from_one_address_is_slowed_down(house: House) -> None:
    house.add("li")
    visitor = house.visitor()
    for number in range(20):
        assert (await visitor.sign_in(f"name-{number}")).status_code == 401
    slowed = await visitor.sign_in("li")
    elsewhere = await house.visitor("10.1.1.2").sign_in("li")

    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "45")
    assert elsewhere.status_code == 303
    house.now += 45_000
    assert (await visitor.sign_in("li")).status_code == 303


async def test_a_network_of_ipv6_is_one_address(house: House) -> None:
    house.add("li")
    for number in range(20):
        assert (await house.visitor(f"2001:db8:1:2::{number}").sign_in(f"name-{number}")).status_code == 401

    assert (await house.visitor("2001:db8:1:2:ffff::1").sign_in("li")).status_code == 429
    assert (await house.visitor("2001:db8:1:3::1").sign_in("li")).status_code == 303


async def test_a_stream_ends_for_whoever_has_lost_the_right(house: House) -> None:
    """What a long stream asks between its events: the session, the role and the account as they stand then."""
    account = house.add("aud", Role.AUDITOR)
    visitor = await house.visitor_as("aud")
    asked: list[bool] = []

    @house.app.get("/stream")
    async def stream(
        request: Request, actor: Annotated[Actor, Depends(authorise(P.AUDIT_SEE, is_passive=True))]
    ) -> str:
        gate = gate_of(request)
        asked.append(await gate.still_admits(request, P.AUDIT_SEE))
        asked.append(await gate.still_admits(request, P.ACCOUNTS_SEE))
        house.officers.disable(CLI, account.id)
        asked.append(await gate.still_admits(request, P.AUDIT_SEE))
        return ""

    assert (await visitor.get("/stream")).status_code == 200
    assert asked == [True, False, False]


async def test_a_stream_keeps_no_session_alive(house: House) -> None:
    house.add("aud", Role.AUDITOR)
    visitor = await house.visitor_as("aud")

    @house.app.get("/stream")
    async def stream(actor: Annotated[Actor, Depends(authorise(P.AUDIT_SEE, is_passive=True))]) -> str:
        return ""

    @house.app.get("/part")
    async def part(actor: Annotated[Actor, Depends(authorise(P.AUDIT_SEE))]) -> str:
        return ""

    house.now += 29 * MINUTE_MS
    assert (await visitor.get("/stream")).status_code == 200
    assert (await visitor.client.get("/part", headers={"X-Follows": "1"})).status_code == 200
    house.now += MINUTE_MS
    assert (await visitor.get("/stream")).status_code == 303


async def test_one_account_asks_so_often_and_no_more(house: House) -> None:
    account = house.add("li")
    program = house.visitor(headers={"Authorization": f"Bearer {house.token(account, *P)}"})

    @house.app.get("/cheap")
    async def cheap(actor: Annotated[Actor, Depends(authorise(P.RULES_SEE))]) -> str:
        return ""

    answers = [(await program.client.get("/cheap", headers={"Accept": "*/*"})) for _ in range(601)]

    assert {answer.status_code for answer in answers[:600]} == {200}
    assert code_of(answers[600]) == (429, "too-often")
    assert answers[600].headers["retry-after"] == "1"


async def test_a_token_stands_in_the_header_alone(house: House) -> None:
    account = house.add("aud", Role.AUDITOR)
    secret = house.token(account, P.AUDIT_SEE)
    program = house.visitor(headers={"Accept": "*/*"})

    for query in (f"access_token={secret}", f"token={secret}", secret):
        assert code_of(await program.get(f"/audit?{query}")) == (400, "token-in-url")
    assert code_of(await program.get("/audit", headers={"Authorization": f"Basic {secret}"})) == (401, "sign-in-needed")
    assert (await program.get("/audit", headers={"Cookie": f"__Host-scg={secret}"})).status_code == 401
    assert (await program.get("/audit", headers={"Authorization": f"Bearer {secret}"})).status_code == 200
    assert secret not in "".join(f"{deed}" for deed in house.deeds())


async def test_a_token_carries_what_it_was_given_as_long_as_its_account_has_it(house: House) -> None:
    account = house.add("aud", Role.AUDITOR)
    secrets = {
        "good": house.token(account, P.AUDIT_SEE, P.ACCOUNT_OWN),
        "less": house.token(account, P.TOKENS_OWN),
        "more": house.token(account, P.ACCOUNTS_CHANGE, P.AUDIT_SEE),
        "short": house.token(account, P.AUDIT_SEE, days=1),
    }

    async def ask(name: str, path: str = "/audit") -> int:
        headers = {"Authorization": f"Bearer {secrets[name]}", "Accept": "*/*"}
        return (await house.visitor(headers=headers).get(path)).status_code

    assert [await ask(name) for name in secrets] == [200, 403, 200, 200]
    assert await ask("good", "/account") == await ask("more", "/accounts") == 403
    house.now += 24 * 60 * MINUTE_MS
    assert [await ask(name) for name in secrets] == [200, 403, 200, 401]
    house.officers.grant(CLI, account.id, Role.TESTER, (), ())
    assert await ask("good") == 401, "with another role its tokens end"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "\\\\evil.test",
        "/\t/evil.test",
        "javascript:alert(1)",
        " //evil.test",
        "http:evil.test",
        "/ok\r\nSet-Cookie: a=b",
        "",
    ],
)
async def test_a_sign_in_leads_to_no_other_site(house: House, target: str) -> None:
    house.add("li")

    assert safe_next(target) == "/"
    answer = await house.visitor().sign_in("li", next=target)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = await house.visitor().get("/login", params={"next": target})
    assert 'name="next" value="/"' in page.text


async def test_a_sign_in_leads_back_to_where_one_wanted(house: House) -> None:
    house.add("aud", Role.AUDITOR)
    visitor = house.visitor()

    away = await visitor.get("/audit?who=li&refused=1")
    await visitor.get(away.headers["location"])
    answer = await visitor.submit("/login", {"name": "aud", "password": PASSWORD, "next": visitor.hidden("next")})

    assert answer.headers["location"] == "/audit?who=li&refused=1"


NASTY = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}'


async def test_what_people_write_is_text_on_every_page(house: House) -> None:
    officer = house.add("sec", Role.SECURITY)
    nasty = house.add("li", Role.DISPATCHER, title=NASTY[:40])
    house.officers.grant(CLI, nasty.id, Role.DISPATCHER, (DISTRICT,), (), portal=NASTY)
    house.sign_in.issue_token(nasty, NASTY, [P.INCIDENTS_SEE], 9, house.deeds()[0])
    house.accounts.record(Deed(house.now, NASTY, NASTY, NASTY, NASTY, NASTY, NASTY))
    own = house.visitor(headers={"User-Agent": NASTY})
    await own.sign_in("li")
    other = await house.visitor_as("sec")
    house.add("aud", Role.AUDITOR)
    auditor = await house.visitor_as("aud")

    pages = [
        await own.get("/account"),
        await other.get("/accounts"),
        await other.get(f"/accounts/{nasty.id}"),
        await auditor.get(f"/audit?what={NASTY[:99]}"),
        await auditor.get("/audit", params={"who": NASTY}),
        await house.visitor().get("/login", params={"next": f"/{NASTY}"}),
        await house.visitor().sign_in(NASTY),
        await other.get(f"/{NASTY}"),
    ]

    assert officer.name == "sec"
    for page in pages:
        reader = _Tags()
        reader.feed(page.text)
        assert "img" not in reader.tags, page.url
        assert all(source.startswith("/static/") for source in reader.scripts), page.url
        assert not {name for name in reader.attributes if name.startswith("on") or name == "style"}, page.url
        assert "49" not in re.sub(r"[0-9a-f]{32,}|\?v=[0-9a-f]+", "", page.text), page.url
        assert "script-src 'self'" in page.headers["content-security-policy"]


class _Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("src") or "")
        self.attributes |= {name for name, _ in attrs}


# --- cookies, addresses, hosts ------------------------------------------------------------------------------------


async def test_the_cookie_is_bound_to_https_to_this_host_and_to_no_script(house: House) -> None:
    answer = await house.visitor().get("/login")

    name, value, *flags = re.split(r"=|; ", answer.headers["set-cookie"])
    assert (name, len(value)) == ("__Host-scg", 43)
    assert {flag.lower() for flag in flags} == {"httponly", "path", "/", "samesite", "lax", "secure"}
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


async def test_on_plain_http_the_loopback_alone_is_served() -> None:
    house = House(public_url=None)
    house.add("li")
    near = house.visitor()
    answer = await near.sign_in("li")
    far = await house.visitor().get("/login", headers={"Host": "gateway.test"})

    assert answer.status_code == 303
    assert answer.headers["set-cookie"].startswith("scg=")
    assert "secure" not in answer.headers["set-cookie"].lower()
    assert "strict-transport-security" not in answer.headers
    assert far.status_code == 421
    house.close()


async def test_of_trusted_proxies_alone_it_is_believed_who_asks() -> None:
    house = House(trusted_proxies=("10.9.0.0/16",))
    house.add("li")
    told = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
    await house.visitor("10.9.0.1", told).sign_in("li")
    await house.visitor("10.8.0.1", told).sign_in("li")

    assert [deed.where for deed in house.deeds("sign-in")] == ["10.8.0.1", "198.51.100.7"]
    house.close()


async def test_a_program_reads_problems_and_a_person_reads_pages(house: House) -> None:
    house.add("li")
    visitor = await house.visitor_as("li")

    page = await visitor.get("/audit")
    program = await visitor.get("/audit", headers={"Accept": "application/json"})
    swapped = await house.visitor(headers={"HX-Request": "true", "Accept": "*/*"}).get("/audit")

    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "您没有这项权限" in page.text
    assert code_of(program) == (403, "not-allowed")
    assert (swapped.status_code, swapped.headers["hx-redirect"]) == (401, "/login")
    assert code_of(await visitor.get("/api/v1/no-such")) == (404, "no-such-page")


async def test_a_sign_in_leads_back_to_the_page_that_somebody_was_on(house: House) -> None:
    stranger = house.visitor(headers={"Accept": "text/html"})

    asked = await stranger.get("/audit?who=li")
    part = {"HX-Request": "true", "HX-Current-URL": "http://127.0.0.1:1/audit?what=access"}
    swapped = await stranger.get("/audit", headers=part)
    sent = await stranger.client.post("/account/password", headers={"Referer": "http://127.0.0.1:1/account"})
    answer = await stranger.client.post("/account/password", headers={"Referer": "http://127.0.0.1:1/account/password"})
    foreign = await stranger.client.post(
        "/account/password", headers={"Referer": "https://evil.example//evil.example/"}
    )

    assert asked.headers["location"] == "/login?next=/audit%3Fwho%3Dli"
    assert swapped.headers["hx-redirect"] == "/login?next=/audit%3Fwhat%3Daccess"
    assert sent.headers["location"] == "/login?next=/account"
    assert answer.headers["location"] == foreign.headers["location"] == "/login"


async def test_pages_speak_the_language_that_was_chosen(house: House) -> None:
    visitor = house.visitor()
    assert "<h1>登录</h1>" in (await visitor.get("/login")).text

    chosen = await visitor.submit("/language", {"language": "en", "next": "/login"})

    assert chosen.headers["location"] == "/login"
    page = (await visitor.get("/login")).text
    assert '<html lang="en" ' in page
    assert "<h1>Sign in</h1>" in page
    assert (await visitor.submit("/language", {"language": "../x"})).headers.get("set-cookie") is None


def _fault(answer: httpx.Response) -> str:
    found = re.search(r'<p role="alert".*?</p>', answer.text, re.DOTALL)
    assert found is not None
    return found[0]
