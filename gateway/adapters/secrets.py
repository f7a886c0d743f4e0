"""Passwords by Argon2id and one-time codes by RFC 6238 (`gateway.runtime.accounts.Secrets`)."""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from collections.abc import Sequence
from typing import Final

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zxcvbn import zxcvbn

from gateway.runtime.accounts import SealBroken

SHORTEST: Final = 12
LONGEST: Final = 72
"""Characters of a password. Longer ones take the estimate of guesses too long, and nobody needs them."""

KINDS: Final = 3
"""Of small letters, capitals, digits and other characters, so many kinds must be there (GB/T 22239-2019 8.1.4.1 a)."""

SCORE: Final = 4
"""The best of zxcvbn's: more than 10^10 guesses; in its lists stand the passwords that many people have."""

LOCAL: Final = ("jimo", "qingdao", "shandong", "shequ", "wangge", "zhihui", "gateway")
"""Words that come to everybody's mind here."""

STEP_S: Final = 30
NEIGHBOURS: Final = (0, -1, 1)
"""The steps beside the present one whose code counts, too: clocks differ, and people type."""

ISSUER: Final = "智慧社区网关"
NONCE_BYTES: Final = 12


class ArgonSecrets:
    """See `gateway.runtime.accounts.Secrets`. ``key`` (32 bytes) seals the secrets of one-time codes; the costs of
    ``hasher`` are RFC 9106's second recommendation unless given."""

    def __init__(self, key: bytes, hasher: PasswordHasher | None = None) -> None:
        self._seal: Final = AESGCM(key)
        self._hasher: Final = hasher or PasswordHasher()
        self._nobodys = ""

    def hash_password(self, password: str) -> str:
        return self._hasher.hash(_spell(password))

    def is_password(self, hash: str, password: str) -> bool:
        # Made when the first password is looked at: a command that asks for none does not wait for it.
        self._nobodys = self._nobodys or self._hasher.hash(secrets.token_urlsafe(18))
        try:
            self._hasher.verify(hash or self._nobodys, _spell(password))
        except (VerificationError, InvalidHashError):
            return False
        return bool(hash)

    def judge_password(self, password: str, words: Sequence[str]) -> str:
        spelt = _spell(password)
        if len(spelt) < SHORTEST:
            return "short"
        if len(spelt) > LONGEST:
            return "long"
        if any(len(word) > 1 and word.lower() in spelt.lower() for word in words):
            return "name"
        if len({_kind(char) for char in spelt}) < KINDS:
            return "plain"
        return "" if zxcvbn(spelt, user_inputs=[*words, *LOCAL])["score"] >= SCORE else "guessable"

    def make_password(self) -> str:
        while True:
            password = secrets.token_urlsafe(15)
            if not self.judge_password(password, ()):
                return password

    def make_factor(self, account: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, pyotp.random_base32().encode(), account.encode())

    def factor_uri(self, account: str, factor: bytes, name: str) -> str:
        return pyotp.TOTP(self._open(account, factor), interval=STEP_S).provisioning_uri(name=name, issuer_name=ISSUER)

    def find_step(self, account: str, factor: bytes, code: str, now: int) -> int | None:
        totp = pyotp.TOTP(self._open(account, factor), interval=STEP_S)
        present = now // 1000 // STEP_S
        digits = unicodedata.normalize("NFKC", code).replace(" ", "")
        found = [present + shift for shift in NEIGHBOURS if _is_same(totp.at((present + shift) * STEP_S), digits)]
        return found[0] if found else None

    def _open(self, account: str, factor: bytes) -> str:
        try:
            opened = self._seal.decrypt(factor[:NONCE_BYTES], factor[NONCE_BYTES:], account.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("the secret of the one-time codes cannot be opened") from error
        return opened.decode()


def _is_same(code: str, given: str) -> bool:
    return hmac.compare_digest(code.encode(), given.encode())


def _spell(password: str) -> str:
    """One spelling, whatever keyboard it was typed on."""
    return unicodedata.normalize("NFKC", password)


def _kind(char: str) -> str:
    if char.isascii() and char.isalpha():
        return "small" if char.islower() else "capital"
    return "digit" if char.isdigit() else "other"
