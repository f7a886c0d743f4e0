"""Who stands before a route: `authorise` asks for a permission, `public` says that none is needed, and why.

A route that says neither does not start (`check_routes`). A person comes with the session cookie, a program with
``Authorization: Bearer scg_…``. Every unsafe request with a cookie proves by a token that it comes from a page of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from msgspec import Struct
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, compile_path

from gateway.runtime.access import Actor, Permission
from gateway.runtime.accounts import TOKEN_PREFIX, Account, Deed, Session, Stage, make_secret
from gateway.runtime.officers import Hand, Officers
from gateway.runtime.signing import MINUTE_MS, Opened, Origin, SignIn
from gateway.web.limits import Limiter, Rate
from gateway.web.problems import Problem, unknown

SECURE_COOKIE: Final = "__Host-scg"
LOOPBACK_COOKIE: Final = "scg"
"""On plain http of the loopback, where a browser takes no ``__Host-`` cookie."""

CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"
STATIC: Final = "static"
"""The name under which the folder of static files is mounted: nobody needs to sign in for those."""

FOLLOWS: Final = "X-Follows"
"""The header of what a page's script fetches without anybody having asked for it."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

REQUESTS: Final = Rate(600, MINUTE_MS)
"""Of one account."""

STRANGERS: Final = Rate(300, MINUTE_MS)
"""Requests from one address that were refused because nobody had signed in."""

SIGN_INS: Final = Rate(20, 15 * MINUTE_MS)
"""Sign-ins from one address that failed, or wait for their outcome."""

HASHES_AT_ONCE: Final = 2
HASHES_WAITING: Final = 60
"""Each hash takes 64 MiB and a core for a tenth of a second; whoever would wait longer than some seconds is told so."""

T = TypeVar("T")

STAGE_PAGES: Final = {Stage.CODE: "/login/totp", Stage.ENROL: "/login/enrol", Stage.PASSWORD: "/login/password"}


class SignInNeeded(Problem):
    """Nobody has signed in, or a sign-in is not done yet: then ``stage`` is where it stands."""

    def __init__(self, stage: Stage | None = None) -> None:
        detail = "sign in, or send a token: Authorization: Bearer scg_…"
        super().__init__(401, "sign-in-needed", detail, headers={"WWW-Authenticate": "Bearer"})
        self.stage = stage


class Visit(Struct, frozen=True):
    """Who has come with this request. ``cookie`` is the browser's secret, signed in or not ("" without one)."""

    cookie: str = ""
    session: Session | None = None
    account: Account | None = None
    actor: Actor | None = None
    has_bearer: bool = False

    @property
    def csrf(self) -> str:
        """What a page's form or script must send along; derived from the cookie, which no other site can read."""
        return derive(self.cookie, "csrf")


def derive(secret: str, what: str) -> str:
    """A value that only the holder of the secret can know, in 64 hex digits."""
    return hmac.new(secret.encode(), what.encode(), hashlib.sha256).hexdigest()


class Site:
    """Where people reach us. ``public_url`` is set where a proxy stands in front; otherwise it is the loopback."""

    def __init__(self, public_url: str | None = None) -> None:
        parts = urlsplit(public_url or "")
        self._origin: Final = f"{parts.scheme}://{parts.netloc}" if public_url else ""
        self.is_secure: Final = parts.scheme == "https"

    def origin(self, request: Request) -> str:
        """``https://HOST``. Raises Problem for a name that is not ours: links and cookies are not for others."""
        if self._origin:
            return self._origin
        host = request.headers.get("host", "")
        if not _is_loopback(urlsplit(f"//{host}").hostname or ""):
            what = "this gateway is reached by 127.0.0.1 only; set SCG_WEB__PUBLIC_URL to its address for others"
            raise Problem(421, "wrong-host", what)
        return f"http://{host}"

    @property
    def cookie(self) -> str:
        return SECURE_COOKIE if self.is_secure else LOOPBACK_COOKIE


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """What the routes ask for who stands there. One for the application (``app.state.gate``)."""

    def __init__(self, sign_in: SignIn, officers: Officers, site: Site) -> None:
        self.sign_in: Final = sign_in
        self.officers: Final = officers
        self.site: Final = site
        self._requests: Final = Limiter(REQUESTS)
        self._strangers: Final = Limiter(STRANGERS)
        self._sign_ins: Final = Limiter(SIGN_INS)
        self._hashing: Final = ThreadPoolExecutor(HASHES_AT_ONCE, "hashing")
        self._waiting = 0

    async def hash(self, act: Callable[[], T]) -> T:
        """Runs what hashes passwords, a few at a time and beside all else: a flood of sign-ins keeps nobody from the
        pages who is in already. Raises Problem 503 when too many wait."""
        if self._waiting >= HASHES_WAITING:
            raise Problem(503, "busy", "too many sign in at once; try again", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hashing, act)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._hashing.shutdown(cancel_futures=True)

    # --- who ------------------------------------------------------------------------------------------------------

    async def look(self, request: Request, *, is_passive: bool = False) -> Visit:
        """Who has come; the same answer all through a request. What a page fetches by itself says so, and keeps no
        session alive."""
        known: Visit | None = getattr(request.state, "visit", None)
        if known is None:
            is_passive = is_passive or FOLLOWS in request.headers
            known = request.state.visit = await asyncio.to_thread(self._find, request, is_passive)
        return known

    def _find(self, request: Request, is_passive: bool) -> Visit:
        bearer = _read_bearer(request)
        if bearer is not None:
            held = self.sign_in.find_token(bearer)
            actor = held[1].actor(held[0].limits) if held is not None else None
            return Visit(actor=actor, account=held[1] if held is not None else None, has_bearer=True)
        cookie = request.cookies.get(self.site.cookie, "")
        found = self.sign_in.find_session(cookie, is_passive=is_passive) if cookie else None
        if found is None:
            return Visit(cookie)
        session, account = found
        actor = account.actor() if session.stage is Stage.FULL else None
        return Visit(cookie, session, account, actor)

    async def admit(self, request: Request, permission: Permission, *, is_passive: bool = False) -> Actor:
        """The actor, who may do this. Raises Problem: 401 for nobody, 403 for whoever may not, 429 for too often."""
        if TOKEN_PREFIX in request.url.query:
            detail = "a token never stands in an address: it is known to logs and histories now; make a new one"
            raise Problem(400, "token-in-url", detail)
        visit = await self.look(request, is_passive=is_passive)
        if visit.actor is None:
            self._limit(self._strangers, network_of(request))
            raise SignInNeeded(visit.session.stage if visit.session is not None else None)
        self._limit(self._requests, visit.actor.id)
        if not visit.has_bearer:
            await self.check_form(request, visit)
        if not visit.actor.may(permission):
            await self.record(request, visit.actor, "access", outcome="refused: not-allowed", detail=permission)
            raise Problem(403, "not-allowed", f"a {visit.actor.role} may not do this ({permission})")
        return visit.actor

    async def still_admits(self, request: Request, permission: Permission) -> bool:
        """For a stream that goes on for long: whether whoever opened it would be let in now, too, as the same role and
        with the same scope. It keeps no session alive. Raises LedgerDown."""
        opened = await self.look(request)
        visit = await asyncio.to_thread(self._find, request, True)
        return visit.actor is not None and visit.actor == opened.actor and visit.actor.may(permission)

    async def time_left(self, request: Request) -> int | None:
        """In how many seconds the session ends if nobody does anything more; None for a token, which has none. It keeps
        no session alive. Raises LedgerDown."""
        visit = await asyncio.to_thread(self._find, request, True)
        if visit.session is None or visit.account is None:
            return None if visit.has_bearer else 0
        return max(0, self.sign_in.ends_at(visit.session, visit.account) - self.sign_in.clock()) // 1000

    async def admit_midway(self, request: Request, stages: Sequence[Stage]) -> Visit:
        """A sign-in that waits for one of these. Raises Problem."""
        visit = await self.look(request)
        if visit.session is None or visit.session.stage not in stages:
            raise SignInNeeded(visit.session.stage if visit.session is not None else None)
        await self.check_form(request, visit)
        return visit

    async def check_form(self, request: Request, visit: Visit) -> None:
        """That an unsafe request comes from a page of ours. Raises Problem 403."""
        if request.method in SAFE_METHODS:
            return
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin", self.site.origin(request))
        token = request.headers.get(CSRF_HEADER) or await _read_csrf_field(request)
        is_ours = site in ("same-origin", "none") and origin == self.site.origin(request)
        if not is_ours or not visit.cookie or not hmac.compare_digest(token.encode(), visit.csrf.encode()):
            who = visit.actor
            if who is not None:
                await self.record(request, who, "access", outcome="refused: cross-site")
            raise Problem(403, "cross-site", "this did not come from a page of ours; load the page again")

    def check_sign_in(self, request: Request) -> None:
        """Counts a sign-in from this address. Raises Problem 429 when too many failed."""
        self._limit(self._sign_ins, network_of(request))

    def forgive(self, request: Request) -> None:
        """The sign-in was a good one."""
        self._sign_ins.give_back(network_of(request), self.sign_in.clock())

    def _limit(self, limiter: Limiter, key: str) -> None:
        wait = limiter.take(key, self.sign_in.clock())
        if wait:
            seconds = str(-(-wait // 1000))
            raise Problem(429, "too-often", f"too many requests; wait {seconds} s", headers={"Retry-After": seconds})

    # --- cookies --------------------------------------------------------------------------------------------------

    def give_cookie(self, response: Response, secret: str) -> None:
        """The browser's secret: sent back to us alone, never to a script, never from another site's form."""
        response.set_cookie(
            self.site.cookie, secret, path="/", secure=self.site.is_secure, httponly=True, samesite="lax"
        )

    def give_session(self, response: Response, opened: Opened) -> None:
        self.give_cookie(response, opened.secret)

    def meet(self, request: Request, visit: Visit) -> tuple[Visit, str]:
        """A visit with a cookie: the browser's own, or a new one, to be given along with the page (otherwise "")."""
        self.site.origin(request)
        if visit.cookie:
            return visit, ""
        secret = make_secret()
        return Visit(secret), secret

    # --- the audit log --------------------------------------------------------------------------------------------

    async def record(
        self, request: Request, actor: Actor, what: str, about: str = "", *, outcome: str = "done", detail: str = ""
    ) -> None:
        """A line of the audit log: for what was refused, and for reading what is sensitive."""
        about = about or f"{request.method} {request.url.path}"
        where = address_of(request)
        deed = Deed(self.sign_in.clock(), actor.name, what, about, where, outcome, detail, actor.role)
        await asyncio.to_thread(self.sign_in.accounts.record, deed)


# --- dependencies -------------------------------------------------------------------------------------------------


class Authorise:
    """A dependency that lets in whoever has ``permission``, and returns the `Actor`."""

    def __init__(self, permission: Permission, *, is_passive: bool = False) -> None:
        self.permission: Final = permission
        self._is_passive: Final = is_passive

    async def __call__(self, request: Request) -> Actor:
        """The actor. Raises Problem."""
        return await gate_of(request).admit(request, self.permission, is_passive=self._is_passive)


class Midway:
    """A dependency for the pages of a sign-in that is not done: it returns the `Visit`."""

    def __init__(self, *stages: Stage) -> None:
        self.stages: Final = stages

    async def __call__(self, request: Request) -> Visit:
        """The visit. Raises Problem."""
        return await gate_of(request).admit_midway(request, self.stages)


class Public:
    """A dependency that says that this route is for everybody, and ``why``."""

    def __init__(self, why: str) -> None:
        self.why: Final = why

    async def __call__(self) -> None:
        """Lets everybody in."""


def authorise(permission: Permission, *, is_passive: bool = False) -> Authorise:
    """For ``Depends(…)``: the actor who has this permission. A ``passive`` route (a stream that a page opens again by
    itself) does not keep a session alive."""
    return Authorise(permission, is_passive=is_passive)


def public(why: str) -> Public:
    """For ``dependencies=[Depends(…)]``: nobody needs to sign in for this, because …"""
    return Public(why)


def gate_of(request: Request) -> Gate:
    """The application's gate."""
    gate: Gate = request.app.state.gate
    return gate


Mark = Authorise | Midway | Public


class Marked(Struct, frozen=True):
    """A route, and what it says of who may come."""

    method: str
    path: str
    marks: tuple[Mark, ...]


def list_routes(routes: Sequence[BaseRoute]) -> list[Marked]:
    """Every route of an application with all its routers; the folder of static files is none."""

    def walk(dependant: Dependant) -> Iterator[Mark]:
        if isinstance(dependant.call, Mark):
            yield dependant.call
        for inner in dependant.dependencies:
            yield from walk(inner)

    found = []
    for context in iter_route_contexts(routes):
        if isinstance(context.route, Mount) and context.name == STATIC:
            continue
        dependant = getattr(context, "dependant", None)
        marks = tuple(walk(dependant)) if isinstance(dependant, Dependant) else ()
        found += [Marked(method, context.path or "", marks) for method in sorted(context.methods or {"?"})]
    return found


def list_methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """What one may do at an address."""
    found = [route.method for route in list_routes(routes) if compile_path(route.path)[0].match(path)]
    return sorted(set(found))


def check_routes(routes: Sequence[BaseRoute]) -> None:
    """Raises RuntimeError for a route that does not say who may come: it would be open to everybody by oversight."""
    for route in list_routes(routes):
        if len(route.marks) != 1:
            where = f"{route.method} {route.path}"
            raise RuntimeError(f"{where} must name one permission (authorise) or say that it is public")


# --- small things -------------------------------------------------------------------------------------------------


def address_of(request: Request) -> str:
    """The network address of whoever asks; behind a trusted proxy, the one that it tells."""
    return request.client.host if request.client is not None else ""


def network_of(request: Request) -> str:
    """What stands for one place from which somebody tries: an IPv4 address, or the /64 of IPv6 that one household or
    office has for itself."""
    return name_network(address_of(request))


def name_network(address: str) -> str:
    """The same of an address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def origin_of(request: Request) -> Origin:
    """From where, for a session."""
    return Origin(address_of(request), request.headers.get("user-agent", ""))


def hand_of(request: Request, actor: Actor) -> Hand:
    """Who acts on accounts, and from where."""
    return Hand(actor.name, actor.role, address_of(request))


def safe_next(path: str) -> str:
    """A place of ours to go on to: a path, never another site's address; "/" otherwise."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if is_ours and "\\" not in path and path.isprintable() else "/"


def wants_page(request: Request) -> bool:
    """Whether a person looks at the answer, not a program."""
    if request.url.path.startswith("/api/"):
        return False
    return "text/html" in request.headers.get("accept", "") or request.headers.get("hx-request") == "true"


def lead_to_sign_in(request: Request, error: SignInNeeded) -> Response:
    """Where a person's browser goes who has not signed in, or not wholly; afterwards it comes back to the same page."""
    back = _page_before(request)
    if error.stage is not None:
        page = STAGE_PAGES.get(error.stage, "/")
    elif back == "/":
        page = "/login"
    else:
        page = f"/login?next={quote(back, safe='/')}"
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": page})
    return RedirectResponse(page, 303)


def _page_before(request: Request) -> str:
    """The page that somebody looks at who sends this: the one that is asked for, or the one that a part of it or a form
    comes from; "/" if that is unknown."""
    if request.headers.get("hx-request") == "true":
        parts = urlsplit(request.headers.get("hx-current-url", ""))
    elif request.method in SAFE_METHODS:
        parts = urlsplit(str(request.url))
    else:
        parts = urlsplit(request.headers.get("referer", ""))
    # The answer to a form may stand where nothing can be asked for.
    if not parts.path or "GET" not in list_methods(request.app.routes, parts.path):
        return "/"
    return safe_next(parts.path + (f"?{parts.query}" if parts.query else ""))


def demand_cover(actor: Actor, community: str, chain: Sequence[str]) -> None:
    """Raises Problem 404 for what lies outside the actor's scope: whoever may not see it is not told that it is
    there."""
    if not actor.covers(community, chain):
        raise unknown()


def _read_bearer(request: Request) -> str | None:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else None


async def _read_csrf_field(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return ""
    field = (await request.form()).get(CSRF_FIELD, "")
    return field if isinstance(field, str) else ""
