"""The classic ways in, tried against every route that there is. None of them gets in.

Other communities' things: test_other_communities.py. Injection into pages and tables: test_injection.py. Guessing
passwords, one-time codes, receipts and addresses of help pages: also test_access.py, test_login.py, test_resident.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from gateway.core.model import Role
from gateway.runtime.access import MACHINES, PERMISSIONS, Permission, roles_with
from gateway.runtime.signing import MINUTE_MS, Policy
from gateway.web.access import SAFE_METHODS, STRANGERS, Authorise, Marked, Midway, list_routes
from gateway.web.guard import HEADERS
from tests.web.control_room import ControlRoom
from tests.web.house import PASSWORD, House, Visitor
from tests.web.test_callbacks import code_of


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def fill(path: str) -> str:
    """An address with something in its places."""
    return re.sub(r"{(\w+)}", lambda found: "c001" if found[1] == "community" else "nobody", path)


def asking(house: House) -> Iterator[tuple[Marked, Permission]]:
    """Every route that asks for a permission."""
    for route in list_routes(house.app.routes):
        for mark in route.marks:
            if isinstance(mark, Authorise):
                yield route, mark.permission


# --- forged requests (CSRF) -------------------------------------------------------------------------------------------

NO_COOKIE_COUNTS: Final = {
    "POST /api/v1/provision": "it is signed with a model's secret; cookies mean nothing to it",
    "POST /language": "it chooses a language, for whoever sends it",
    "POST /platform/callbacks": "it is signed; cookies mean nothing to it",
    "POST /r/{address}": "no cookie; whoever has the address may press",
    "POST /r/receipt/{secret}/rating": "no cookie; whoever has the receipt may rate",
    "POST /r/receipt/{secret}/said": "no cookie; whoever has the receipt may add",
}
FORGED: Final[dict[str, tuple[bool, dict[str, str]]]] = {
    "without a token": (False, {}),
    "from another site": (True, {"Origin": "https://evil.test"}),
    "from a sandboxed frame": (True, {"Origin": "null"}),
    "from a neighbour's subdomain": (True, {"Sec-Fetch-Site": "same-site"}),
    "from another site, as its browser says": (True, {"Sec-Fetch-Site": "cross-site"}),
}
"""How a request is forged: whether the token is the right one, and what the browser says."""


async def test_no_route_that_changes_anything_takes_a_forged_request(house: House) -> None:
    accounts = house.add_all()
    visitors: dict[Role, Visitor] = {}
    tried = 0
    for route, permission in asking(house):
        if route.method in SAFE_METHODS:
            continue
        role = next(role for role in roles_with(permission) if role not in MACHINES)
        if role not in visitors:
            visitors[role] = await house.visitor_as(accounts[role].name)
            await visitors[role].get("/account")
        visitor = visitors[role]
        for how, (is_right, headers) in FORGED.items():
            token = {"csrf": visitor.csrf} if is_right else {}
            if route.path.startswith("/api/"):
                headers = {**headers, "Content-Type": "application/json", "Idempotency-Key": "0" * 32}
                headers |= {"X-CSRF-Token": token["csrf"]} if is_right else {}
                answer = await visitor.client.post(fill(route.path), content="{}", headers=headers)
            else:
                answer = await visitor.client.post(fill(route.path), data=token, headers=headers)
            assert answer.status_code == 403, (route, how, answer.text[:200])
            assert house.deeds()[0].outcome == "refused: cross-site", (route, how)
            house.now += 1000
            tried += 1
    assert tried > 100
    assert {deed.what for deed in house.deeds()} <= {"access", "sign-in", "account.add", "account.grant"}


async def test_no_step_of_a_sign_in_takes_a_forged_request() -> None:
    house = House(Policy(second_factor=frozenset(Role)))
    victim = house.add("li")
    house.give_factor(victim)
    house.add("wang")
    stages = {"li": "/login/totp", "wang": "/login/enrol"}
    for name, path in stages.items():
        visitor = await house.visitor_as(name)
        await visitor.get(path)
        for how, (is_right, headers) in FORGED.items():
            token = {"csrf": visitor.csrf} if is_right else {}
            answer = await visitor.client.post(path, data=token | {"code": "000000"}, headers=headers)
            assert answer.status_code == 403, (path, how)
    stranger = house.visitor()
    await stranger.get("/login")
    for how, (is_right, headers) in FORGED.items():
        token = {"csrf": stranger.csrf} if is_right else {}
        fields = token | {"name": "li", "password": PASSWORD}
        assert (await stranger.client.post("/login", data=fields, headers=headers)).status_code == 403, how
    house.close()


def test_every_other_unsafe_route_says_why_no_cookie_counts_there(house: House) -> None:
    held = {"POST /login", "POST /logout"}
    unsafe = {
        f"{route.method} {route.path}"
        for route in list_routes(house.app.routes)
        if route.method not in SAFE_METHODS and not any(isinstance(mark, Authorise | Midway) for mark in route.marks)
    }
    assert unsafe == held | set(NO_COOKIE_COUNTS)


async def test_nobody_is_signed_out_by_another_site(house: House) -> None:
    house.add("li")
    victim = await house.visitor_as("li")
    await victim.client.post("/logout", headers={"Origin": "https://evil.test"})
    assert (await victim.get("/account")).status_code == 200


# --- sessions that are foisted on somebody ----------------------------------------------------------------------------


async def test_each_step_of_a_sign_in_has_another_cookie_and_the_one_before_is_dead() -> None:
    house = House(Policy(second_factor=frozenset(Role)))
    factor = house.give_factor(house.add("li"))
    victim = house.visitor()
    await victim.get("/login")
    cookies = [victim.cookie]
    await victim.submit("/login", {"name": "li", "password": PASSWORD})
    cookies.append(victim.cookie)
    await victim.get("/login/totp")
    answer = await victim.submit("/login/totp", {"code": factor.at(house.now // 1000)})
    assert answer.status_code == 303, answer.text
    cookies.append(victim.cookie)

    assert len(set(cookies)) == 3
    for known in cookies[:2]:
        for path in ("/account", "/login/totp"):
            answer = await house.visitor().get(path, headers={"Cookie": known})
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), path
    assert (await victim.get("/account")).status_code == 200
    await victim.submit("/logout")
    assert (await house.visitor().get("/account", headers={"Cookie": cookies[2]})).status_code == 303
    house.close()


async def test_a_cookie_of_two_names_or_of_an_address_is_none(house: House) -> None:
    house.add("li")
    victim = await house.visitor_as("li")
    name, _, secret = victim.cookie.partition("=")
    plain = {"Cookie": f"scg={secret}"}  # without the prefix that binds it to this host and to https
    assert (await house.visitor().get("/account", headers=plain)).status_code == 303
    assert (await house.visitor().get(f"/account?{name}={secret}")).status_code == 303


# --- guessing, and hiding behind made-up addresses --------------------------------------------------------------------

SPOOFED: Final = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP")


@pytest.mark.parametrize("header", SPOOFED)
async def test_whoever_guesses_does_not_hide_behind_a_header(house: House, header: str) -> None:
    house.add("li")
    visitor = house.visitor()
    await visitor.get("/login")
    statuses = []
    for number in range(21):
        told = f"for=203.0.113.{number}" if header == "Forwarded" else f"203.0.113.{number}"
        fields = {"name": f"name-{number}", "password": "Wrong-1-Password"}
        statuses.append((await visitor.submit("/login", fields, headers={header: told})).status_code)

    assert statuses == [401] * 20 + [429]
    assert {deed.where for deed in house.deeds("sign-in")} == {"10.1.1.1"}


async def test_guessing_tokens_and_cookies_is_slowed_down(house: House) -> None:
    house.add("li")
    for turn, headers in enumerate(
        (
            {"Authorization": "Bearer scg_" + "A" * 43},
            {"Cookie": "__Host-scg=" + "A" * 43},
            {"Authorization": "Bearer "},
        )
    ):
        address = f"10.3.0.{turn}"
        visitor = house.visitor(address, {"Accept": "application/json", **headers})
        answers = [await visitor.get("/api/v1/rules") for _ in range(STRANGERS.burst + 1)]
        assert {code_of(answer) for answer in answers[:-1]} == {(401, "sign-in-needed")}
        assert code_of(answers[-1]) == (429, "too-often")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await house.visitor_as("li", "10.4.0.1")).cookie, "nobody else is kept out"


async def test_a_token_that_is_almost_right_is_wrong(house: House) -> None:
    account = house.add("aud", Role.AUDITOR)
    secret = house.token(account, Permission.AUDIT_SEE)
    for almost in (
        secret[:-1],
        secret + "A",
        secret.upper(),
        secret[4:],
        f"scg_{secret}",
        f"{secret},{secret}",
        "scg_",
    ):
        headers = {"Accept": "*/*", "Authorization": f"Bearer {almost}"}
        assert (await house.visitor(headers=headers).get("/audit")).status_code == 401, almost
    headers = {"Accept": "*/*", "Authorization": f"bearer {secret}"}
    assert (await house.visitor(headers=headers).get("/audit")).status_code == 200


# --- secrets in addresses ---------------------------------------------------------------------------------------------


async def test_no_route_takes_a_token_from_its_address(house: House) -> None:
    accounts = house.add_all()
    for route, permission in asking(house):
        role = roles_with(permission)[0]
        secret = house.token(accounts[role], permission)
        visitor = house.visitor(headers={"Accept": "application/json"})
        for query in (f"token={secret}", f"access_token={secret}", f"x=1&Authorization=Bearer+{secret}"):
            answer = await visitor.client.request(route.method, f"{fill(route.path)}?{query}")
            assert code_of(answer) == (400, "token-in-url"), (route, query)
        house.now += MINUTE_MS
    assert "scg_" not in str(house.deeds())


async def test_no_page_writes_a_secret_into_an_address(house: House) -> None:
    """Neither a session's nor a form's nor a token's: addresses are known to histories and logs."""
    for role, account in house.add_all().items():
        if role in MACHINES:
            continue
        visitor = await house.visitor_as(account.name)
        for route, permission in asking(house):
            if route.method != "GET" or permission not in PERMISSIONS[role] or "stream" in route.path:
                continue
            page = await visitor.get(fill(route.path))
            house.now += 2_000
            addresses = re.findall(r'(?:href|src|action|hx-get|hx-post)="([^"]*)"', page.text)
            addresses += [page.headers.get("location", "")]
            cookie = visitor.cookie.partition("=")[2]
            for address in addresses:
                assert not re.search("csrf=|scg_|token=|password=", address), (route, address)
                assert cookie not in address, (route, address)


# --- other sites around and behind our pages --------------------------------------------------------------------------


async def test_every_answer_forbids_frames_foreign_scripts_and_guessing_of_types(house: House) -> None:
    accounts = house.add_all()
    signed_in = {role: await house.visitor_as(one.name) for role, one in accounts.items() if role not in MACHINES}
    for route in list_routes(house.app.routes):
        if "stream" in route.path:
            continue
        permissions = [mark.permission for mark in route.marks if isinstance(mark, Authorise)]
        roles = roles_with(permissions[0]) if permissions else []
        visitors = [house.visitor(), *(signed_in[role] for role in roles if role in signed_in)][:2]
        for visitor in visitors:
            answer = await visitor.client.request(route.method, fill(route.path))
            house.now += 5_000
            for name, value in HEADERS.items():
                if name not in ("Content-Security-Policy", "Referrer-Policy", "Cache-Control"):
                    assert answer.headers[name] == value, (route, name)
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'", route
            assert policy["form-action"] == policy["script-src"] == "'self'", route
            assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")
            assert answer.headers["strict-transport-security"]
            assert "access-control-allow-origin" not in answer.headers, route


async def test_another_sites_script_may_ask_nothing(house: House) -> None:
    """No answer to a preflight, and none that a foreign script might read."""
    asked = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    for route in list_routes(house.app.routes):
        answer = await house.visitor(headers=asked).client.options(fill(route.path))
        assert answer.status_code == 405, route
        assert not [name for name in answer.headers if name.startswith("access-control-")], route
        house.now += MINUTE_MS


def leads_to(house: House, answer: httpx.Response) -> str:
    """The host to which a browser would go on."""
    location = answer.headers.get("location", "/")
    # Browsers take a backslash for a slash, and leave tabs and line breaks out.
    seen = re.sub(r"[\t\r\n]", "", location.strip()).replace("\\", "/")
    return urlsplit(urljoin(f"{house.origin}/login", seen)).netloc


ELSEWHERE: Final = (
    "https://evil.test/",
    "//evil.test",
    "/\\evil.test",
    "/%09/evil.test",
    "/\t/evil.test",
    "javascript:alert(1)",
    "/ok\r\nLocation: https://evil.test",
    "http:evil.test",
)


@pytest.mark.parametrize("target", ELSEWHERE)
async def test_no_answer_leads_to_another_site(house: House, target: str) -> None:
    house.add("li")
    visitor = await house.visitor_as("li")
    await visitor.get("/account")
    answers = [
        await visitor.submit("/language", {"language": "en", "next": target}),
        await visitor.get(f"/login?{urlencode({'next': target})}"),
        await house.visitor().get(f"/board?{urlencode({'next': target})}"),
        await house.visitor().get(f"/{quote(target)}"),
        await house.visitor().get(f"//evil.test/{quote(target)}"),
        await visitor.get("/board/"),
    ]
    for answer in answers:
        assert leads_to(house, answer) == "gateway.test", answer.headers["location"]


async def test_half_a_sign_in_goes_on_to_no_other_site() -> None:
    house = House(Policy(second_factor=frozenset(Role)))
    factor = house.give_factor(house.add("li"))
    for target in ELSEWHERE:
        visitor = house.visitor()
        began = await visitor.sign_in("li", next=target)
        assert began.headers["location"].partition("?")[0] == "/login/totp"
        await visitor.get("/login/totp", params={"next": target})
        house.now += MINUTE_MS
        answer = await visitor.submit("/login/totp", {"code": factor.at(house.now // 1000), "next": target})
        assert (answer.status_code, leads_to(house, answer)) == (303, "gateway.test"), target
    house.close()


async def test_a_made_up_host_is_told_nowhere(house: House) -> None:
    """Links and cookies are for the address that is set; what a request calls us, counts for nothing."""
    house.add("li")
    for header in ("Host", "X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL"):
        visitor = house.visitor(headers={header: "evil.test"})
        for path in ("/login", "/board", "/healthz", "/api/v1/openapi.json", "/no-such"):
            answer = await visitor.get(path)
            assert "evil.test" not in answer.text + str(answer.headers), (header, path)
    near = House(public_url=None)
    answer = await near.visitor(headers={"Host": "evil.test"}).get("/login")
    assert (answer.status_code, "set-cookie" in answer.headers) == (421, False)
    near.close()


# --- tricks with methods, paths and files -----------------------------------------------------------------------------


async def test_no_header_turns_one_method_into_another(house: House) -> None:
    account = house.add("adm", Role.ADMINISTRATOR)
    visitor = await house.visitor_as("adm")
    for header in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        await visitor.get(f"/accounts/{account.id}/disable", headers={header: "POST"})
    assert next(iter(house.deeds())).what == "sign-in"
    for method in ("TRACE", "CONNECT", "DELETE", "PUT", "PATCH", "DEBUG"):
        answer = await visitor.client.request(method, "/accounts")
        assert answer.status_code == 405, method
        assert answer.headers["allow"] == "GET, POST"


OUTSIDE: Final = (
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e/app.py",
    "/static/%2e%2e%2fapp.py",
    "/static/..%5capp.py",
    "/static/....//app.py",
    "/static/css/../../app.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/css/%00.css",
    "/static/./../../../pyproject.toml",
    "/static/%c0%ae%c0%ae/app.py",
    "/static",
    "/static/",
    "/static/js",
    "/r/..%2f..%2fetc%2fpasswd",
    "/r/receipt/..%2f..%2f..%2fetc%2fpasswd",
    "/rules/..%2f..%2fgateway",
    "/r/../account",
    "//account",
    "/account%00",
    "/account%2f",
    "/account;x=1",
    "/ACCOUNT",
    "/%61ccount/../account",
    "/api/v1/../../account",
    "/healthz/../account",
)


async def test_no_path_leads_out_of_the_folder_or_around_the_gate(room: ControlRoom) -> None:
    """As bytes on the line: no client tidies them up before."""
    port = int(room.url.rpartition(":")[2])
    for path in OUTSIDE:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = (await asyncio.wait_for(reader.read(), 30)).decode(errors="replace")
        writer.close()
        status = int(answer.split()[1])
        assert status in (303, 307, 400, 401, 404), (path, answer[:200])
        assert not re.search(r"root:|import annotations|\[project\]|Traceback", answer), path
        location = re.search(r"(?im)^location: (\S+)", answer)
        assert location is None or location[1].startswith("/") or location[1].startswith("http://127.0.0.1"), path


# --- words that would be commands to a database -----------------------------------------------------------------------

SQL: Final = (
    "' OR '1'='1",
    "'; DROP TABLE incident; --",
    "1) UNION SELECT name, 1, 1 FROM sqlite_master --",
    "%' AND (SELECT 1 FROM pg_sleep(9)) --",
    "\\' OR 1=1 #",
    "\x00\uffff",
)


def parameters(house: House) -> Iterator[tuple[str, str, list[str]]]:
    """Method, path and the names in its query, of every route."""

    def walk(dependant: Dependant) -> Iterator[str]:
        yield from (field.alias for field in dependant.query_params)
        for inner in dependant.dependencies:
            yield from walk(inner)

    for context in iter_route_contexts(house.app.routes):
        dependant = getattr(context, "dependant", None)
        names = list(walk(dependant)) if isinstance(dependant, Dependant) else []
        for method in context.methods or ():
            yield method, context.path or "", names


UNDECLARED: Final = {"/audit": ["who", "what", "about", "where", "since", "until", "refused", "before"]}
"""What a route reads from its query by itself."""


async def test_no_word_in_an_address_or_a_field_is_a_command_to_the_database(house: House) -> None:
    accounts = house.add_all()
    everybody = {name: await house.visitor_as(one.name) for name, one in accounts.items() if name not in MACHINES}
    for visitor in everybody.values():
        await visitor.get("/account")
    before = house.ledger.counts(), [account.id for account in house.accounts.accounts()]
    permissions = {f"{route.method} {route.path}": permission for route, permission in asking(house)}
    tried = 0
    for method, path, names in parameters(house):
        wanted = permissions.get(f"{method} {path}")
        if wanted is None or "stream" in path or path.endswith(("disable", "reset", "factor", "sessions/end")):
            continue
        visitor = everybody[next(role for role in roles_with(wanted) if role in everybody)]
        names = names + UNDECLARED.get(path.removesuffix("/export.csv"), [])
        for words in SQL:
            places = re.sub(r"{\w+}", quote(words, safe=""), path)
            queries = [{name: words} for name in names] or [{}]
            for query in queries:
                data = dict.fromkeys(
                    ("id", "community", "code", "place", "name", "until", "verb", "role", "who"), words
                )
                body = {"csrf": visitor.csrf, **data} if method == "POST" else None
                if path.startswith("/api/"):
                    answer = await visitor.client.request(method, places, params=query)
                else:
                    answer = await visitor.client.request(method, places, params=query, data=body)
                house.now += 1_000
                tried += 1
                assert answer.status_code != 500, (method, places, query, answer.text[:300])
                assert not re.search("syntax error|OperationalError|sqlalchemy|psycopg", answer.text), (path, query)
    assert tried > 300
    assert (house.ledger.counts(), [account.id for account in house.accounts.accounts()]) == before


async def test_nobody_signs_in_with_half_a_question(house: House) -> None:
    house.add("li")
    for words in SQL:
        for fields in ({"name": words, "password": words}, {"name": f"li{words}", "password": PASSWORD}):
            visitor = house.visitor()
            await visitor.get("/login")
            answer = await visitor.submit("/login", fields)
            assert answer.status_code == 401, fields
        house.now += 20 * MINUTE_MS
    assert (await house.visitor().sign_in("li")).status_code == 303
