"""The city's unified portal by OpenID Connect Core 1.0: authorisation code with PKCE (RFC 7636), and an id token whose
signature, issuer, audience, times and nonce are checked before a word of it is believed."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.runtime.accounts import PortalAway, PortalRefused
from gateway.runtime.ports import Clock

TIMEOUT_S: Final = 10.0
KNOWN_MS: Final = 3_600_000
"""How long what the portal says of itself is taken as known; a signature by an unknown key is a reason to ask again."""

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones only: with the others our own secret would sign."""

SKEW_S: Final = 60
LONGEST: Final = 200
"""Characters of an identity."""


class OpenIdPortal:
    """See `gateway.runtime.accounts.Portal`. ``claim`` names the member of the id token that is the account's identity
    there; ``verify`` is as for httpx: True, or a context with the portal's own certificates."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        claim: str,
        scope: str,
        title: str,
        clock: Clock,
        verify: Any = True,
    ) -> None:
        self.title = title
        self._issuer: Final = issuer
        self._id: Final = client_id
        self._secret: Final = client_secret
        self._claim: Final = claim
        self._scope: Final = scope
        self._clock: Final = clock
        self._http: Final = httpx.AsyncClient(timeout=TIMEOUT_S, verify=verify, trust_env=False)
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._known_at = 0

    async def begin(self, redirect: str, state: str, nonce: str, verifier: str) -> str:
        await self._know()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._id,
            "redirect_uri": redirect,
            "scope": self._scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        where = str(self._metadata["authorization_endpoint"])
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    async def finish(self, redirect: str, code: str, nonce: str, verifier: str) -> str:
        await self._know()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        methods = self._metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth: httpx.BasicAuth | None = None
        if self._secret and "client_secret_basic" in methods:
            auth = httpx.BasicAuth(self._id, self._secret)
        else:
            form["client_id"] = self._id
            if self._secret:
                form["client_secret"] = self._secret
        answer = await self._fetch("POST", str(self._metadata["token_endpoint"]), data=form, auth=auth)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise PortalRefused("its answer holds no id token")
        claims = await self._read(token)
        self._check(claims, nonce)
        identity = claims.get(self._claim)
        if not isinstance(identity, str) or not 0 < len(identity) <= LONGEST:
            raise PortalRefused(f"its id token has no usable claim {self._claim}")
        return identity

    async def close(self) -> None:
        await self._http.aclose()

    async def _read(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that the portal has signed. Keys are fetched anew once where none fits."""
        for is_last in (False, True):
            if self._keys is None or is_last:
                self._keys = await self._fetch_keys()
            try:
                return jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
            except (JoseError, ValueError) as error:
                if is_last:
                    raise PortalRefused(f"the id token is not signed as it should be: {error}") from error
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _check(self, claims: Mapping[str, Any], nonce: str) -> None:
        now_s = self._clock() // 1000
        registry = jwt.JWTClaimsRegistry(
            now=now_s,
            leeway=SKEW_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(dict(claims))
        except (JoseError, ValueError, TypeError) as error:
            raise PortalRefused(f"the id token is not for us, or not now: {error}") from error
        if not secrets.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise PortalRefused("the id token is of another sign-in (nonce)")
        others = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (others or "azp" in claims) and claims.get("azp") != self._id:
            raise PortalRefused("the id token was made for somebody else (azp)")

    async def _know(self) -> None:
        """What the portal says of itself, asked again now and then."""
        if self._metadata and self._clock() - self._known_at < KNOWN_MS:
            return
        found = await self._fetch("GET", self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            raise PortalAway(f"it calls itself {found.get('issuer')!r}, not {self._issuer!r}")
        missing = [name for name in ("authorization_endpoint", "token_endpoint", "jwks_uri") if not found.get(name)]
        if missing:
            raise PortalAway(f"it does not name its {missing[0]}")
        self._metadata, self._keys, self._known_at = found, None, self._clock()

    async def _fetch_keys(self) -> KeySet:
        found = await self._fetch("GET", str(self._metadata["jwks_uri"]))
        try:
            return KeySet.import_key_set(found)  # type: ignore[arg-type] # checked as it is read
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise PortalAway(f"its keys cannot be read: {error}") from error

    async def _fetch(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, url, **more)
            body = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise PortalAway(f"{method} {url}: {type(error).__name__}") from error
        if answer.status_code in (400, 401, 403) and isinstance(body, dict):
            raise PortalRefused(f"{method} {url}: {answer.status_code} {str(body.get('error', ''))[:60]}")
        if answer.status_code != 200 or not isinstance(body, dict):
            raise PortalAway(f"{method} {url}: {answer.status_code}")
        return body
