"""Sign-in by the city's portal: the whole way against a real OpenID provider in a process of its own, and against one
that lies in each way that we can think of."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from gateway.adapters.portal import OpenIdPortal
from gateway.core.model import Role
from gateway.runtime.accounts import PortalAway, PortalRefused
from gateway.runtime.clock import RunningClock
from gateway.runtime.signing import Policy
from gateway.web.access import Public, list_routes
from tests.servers import Process, free_port
from tests.web.house import DISTRICT, HTTPS, House, Visitor

CLAIMS = {"sub": "liwei", "employee_number": "QD-77", "name": "李伟"}


def make_portal(issuer: str, client: str = "gateway", secret: str = "s3cret", claim: str = "employee_number") -> Any:
    return OpenIdPortal(issuer, client, secret, claim, "openid profile", "城市统一门户", RunningClock())


# --- a real provider ----------------------------------------------------------------------------------------------


class Provider:
    """The provider's process, and what a person does on its page."""

    def __init__(self, url: str) -> None:
        self.url = url
        registered = httpx.post(f"{url}/oauth2/clients", json={"redirect_uris": [f"{HTTPS}/login/portal/callback"]})
        self.client = registered.json()

    def agree(self, away: str, sub: str = "liwei", **fields: str) -> str:
        """Signs in there; the address that the browser is sent back to."""
        answer = httpx.post(away, data={"sub": sub, **fields})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    port = free_port()
    log = tmp_path_factory.mktemp("provider") / "log"
    arguments = ["-p", str(port), "--require-nonce", "true", "--require-registration", "true"]
    arguments += ["--user-claims", json.dumps(CLAIMS), "--user-claims", json.dumps({"sub": "stranger"})]
    with Process.module("oidc_provider_mock", *arguments, log=log) as process:
        process.wait_for_line("Uvicorn running on")
        yield Provider(f"http://127.0.0.1:{port}")


@pytest.fixture
async def house(provider: Provider) -> AsyncIterator[House]:
    portal = make_portal(provider.url, provider.client["client_id"], provider.client["client_secret"])
    made = House(portal=portal)
    made.add("li", Role.AUDITOR, portal="QD-77")
    yield made
    await portal.close()
    made.close()


async def leave(visitor: Visitor, going_to: str = "/") -> str:
    await visitor.get("/login")
    answer = await visitor.get("/login/portal", params={"next": going_to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def test_the_portal_says_who_it_is_and_the_account_what_they_may(house: House, provider: Provider) -> None:
    visitor = house.visitor()
    assert "用城市统一门户登录" in (await visitor.get("/login")).text
    away = await leave(visitor, "/audit?who=li")
    asked = parse_qs(urlsplit(away).query)
    assert (asked["response_type"], asked["code_challenge_method"]) == (["code"], ["S256"])
    assert asked["redirect_uri"] == [f"{HTTPS}/login/portal/callback"]

    back = await visitor.get(provider.agree(away))

    assert (back.status_code, back.headers["location"]) == (303, "/audit?who=li")
    assert (await visitor.get("/audit")).status_code == 200
    assert (house.deeds("sign-in")[0].who, house.deeds("sign-in")[0].detail) == ("li", "portal")


def test_the_way_to_the_portal_is_for_everybody(house: House) -> None:
    ways = [route for route in list_routes(house.app.routes) if "portal" in route.path]

    assert [(way.method, way.path) for way in ways] == [("GET", "/login/portal"), ("GET", "/login/portal/callback")]
    assert all(isinstance(mark, Public) for way in ways for mark in way.marks)


async def test_whom_no_account_knows_gets_none(house: House, provider: Provider) -> None:
    visitor = house.visitor()
    back = await visitor.get(provider.agree(await leave(visitor), "stranger"))

    assert back.status_code == 401
    assert len(house.accounts.accounts()) == 1
    assert (await visitor.get("/audit")).headers["location"].startswith("/login")


async def test_what_came_back_is_for_this_browser_and_this_once(house: House, provider: Provider) -> None:
    """Login CSRF, replay, and a code that was caught on the way."""
    mallory, victim = house.visitor(), house.visitor()
    caught = provider.agree(await leave(mallory))
    await leave(victim)

    assert (await victim.get(caught)).status_code == 400
    assert (await house.visitor().get(caught)).status_code == 400
    forged = caught.replace("state=", "state=0")
    assert (await mallory.get(forged)).status_code == 400
    assert (await mallory.get(caught)).status_code == 303
    assert (await mallory.get(caught)).status_code == 400


async def test_a_code_without_this_browsers_verifier_is_worth_nothing(house: House, provider: Provider) -> None:
    """The code of one browser in the address of another, whose state is right."""
    mallory, victim = house.visitor(), house.visitor()
    caught = parse_qs(urlsplit(provider.agree(await leave(victim))).query)["code"][0]
    state = parse_qs(urlsplit(provider.agree(await leave(mallory))).query)["state"][0]

    answer = await mallory.get("/login/portal/callback", params={"code": caught, "state": state})

    assert answer.status_code == 401
    assert (await mallory.get("/audit")).status_code == 303


async def test_whoever_says_no_at_the_portal_is_back_at_the_form(house: House, provider: Provider) -> None:
    visitor = house.visitor()
    back = await visitor.get(provider.agree(await leave(visitor), action="deny"))

    assert back.status_code == 401
    assert 'role="alert"' in back.text


async def test_the_second_factor_is_asked_for_unless_the_portal_does(house: House, provider: Provider) -> None:
    strict = Policy(second_factor=frozenset({Role.AUDITOR}))
    for policy, stage in ((strict, "/login/enrol"), (_trusting(strict), "/")):
        portal = make_portal(provider.url, provider.client["client_id"], provider.client["client_secret"])
        other = House(policy, portal=portal)
        other.add("li", Role.AUDITOR, portal="QD-77", must_change=True)
        visitor = other.visitor()
        back = await visitor.get(provider.agree(await leave(visitor)))
        assert back.headers["location"] == stage
        await portal.close()
        other.close()


async def test_a_portal_that_is_away_leaves_names_and_passwords() -> None:
    portal = make_portal(f"http://127.0.0.1:{free_port()}")
    house = House(portal=portal)
    house.add("li", grids=(DISTRICT,))
    visitor = house.visitor()
    await visitor.get("/login")

    assert (await visitor.get("/login/portal")).status_code == 502
    assert (await visitor.sign_in("li")).status_code == 303
    await portal.close()
    house.close()


def _trusting(policy: Policy) -> Policy:
    return Policy(second_factor=policy.second_factor, portal_has_factor=True)


# --- one that lies ------------------------------------------------------------------------------------------------

GOOD_KEY = RSAKey.generate_key(2048, {"kid": "good"})
NEXT_KEY = ECKey.generate_key("P-256", {"kid": "next"})
STRANGE_KEY = RSAKey.generate_key(2048, {"kid": "good"})


class Liar(ThreadingHTTPServer):
    """A provider whose token answer is what the test sets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.keys: list[Any] = [GOOD_KEY]
        self.answer: tuple[int, Any] = (200, {})
        self.metadata: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        }

    def token(self, key: Any = GOOD_KEY, alg: str = "RS256", **changes: Any) -> None:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "gateway",
            "sub": "liwei",
            "employee_number": "QD-77",
            "nonce": "n",
            "iat": now,
            "exp": now + 300,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        made = jwt.encode({"alg": alg, "kid": key.kid}, claims, key, algorithms=[alg])
        self.answer = (200, {"id_token": made, "access_token": "a", "token_type": "Bearer"})


class _Answers(BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        if self.path == "/jwks":
            self._say(200, KeySet(self.server.keys).as_dict())
        else:
            self._say(200, self.server.metadata)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(*self.server.answer)

    def _say(self, status: int, body: Any) -> None:
        written = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test says what happened."""


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.asynccontextmanager
async def asking(liar: Liar, claim: str = "employee_number") -> AsyncIterator[OpenIdPortal]:
    portal = make_portal(liar.issuer, claim=claim)
    try:
        yield portal
    finally:
        await portal.close()


async def ask(portal: OpenIdPortal) -> str:
    return await portal.finish(f"{HTTPS}/login/portal/callback", "code", "n", "v" * 43)


async def test_a_token_that_is_right_is_believed_and_new_keys_are_fetched(liar: Liar) -> None:
    async with asking(liar) as portal:
        liar.token()
        assert await ask(portal) == "QD-77"
        liar.keys = [NEXT_KEY, GOOD_KEY]
        liar.token(NEXT_KEY, "ES256", aud=["gateway"], azp="gateway")
        assert await ask(portal) == "QD-77"


LIES: dict[str, dict[str, Any]] = {
    "signed by a stranger's key": {"key": STRANGE_KEY},
    "signed with our own secret": {"key": OctKey.import_key("s3cret" * 8, {"kid": "good"}), "alg": "HS256"},
    "of another issuer": {"iss": "https://other.test"},
    "without an issuer": {"iss": None},
    "for somebody else": {"aud": "another"},
    "for somebody else, too": {"aud": ["gateway", "another"]},
    "made for somebody else": {"aud": ["gateway", "another"], "azp": "another"},
    "over": {"exp": int(time.time()) - 61},
    "without an end": {"exp": None},
    "from the future": {"iat": int(time.time()) + 3600},
    "not yet good": {"nbf": int(time.time()) + 3600},
    "of another sign-in": {"nonce": "m"},
    "without a nonce": {"nonce": None},
    "without the claim": {"employee_number": None},
    "with an empty claim": {"employee_number": ""},
    "with a claim that is no text": {"employee_number": ["QD-77"]},
    "with an endless claim": {"employee_number": "x" * 201},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_token_that_is_wrong_is_not_believed(liar: Liar, lie: str) -> None:
    liar.token(**LIES[lie])

    async with asking(liar) as portal:
        with pytest.raises(PortalRefused):
            await ask(portal)


@pytest.mark.parametrize(
    "token", ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJsaXdlaSJ9.", "no.token", "", "a.b.c", None, 7, ["x"]]
)
async def test_what_is_no_token_is_not_believed(liar: Liar, token: Any) -> None:
    liar.answer = (200, {"id_token": token})

    async with asking(liar) as portal:
        with pytest.raises(PortalRefused):
            await ask(portal)


@pytest.mark.parametrize("answer", [(500, {}), (200, b"<html>"), (200, []), (302, {}), (200, b"\xff")])
async def test_an_answer_that_is_none_is_as_no_answer(liar: Liar, answer: tuple[int, Any]) -> None:
    liar.answer = answer

    async with asking(liar) as portal:
        with pytest.raises(PortalAway):
            await ask(portal)


@pytest.mark.parametrize(
    "changes", [{"issuer": "https://other.test"}, {"jwks_uri": ""}, {"token_endpoint": None}, {"issuer": None}]
)
async def test_a_portal_that_is_another_than_configured_is_not_asked(liar: Liar, changes: dict[str, Any]) -> None:
    liar.metadata |= changes

    async with asking(liar) as portal:
        with pytest.raises(PortalAway):
            await portal.begin(HTTPS, "state", "n", "v")


async def test_the_portals_no_is_a_no(liar: Liar) -> None:
    liar.answer = (400, {"error": "invalid_grant"})

    async with asking(liar) as portal:
        with pytest.raises(PortalRefused, match="invalid_grant"):
            await ask(portal)
