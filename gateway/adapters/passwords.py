"""Password hashes in the form that Mosquitto reads, and that the embedded broker reads too."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final

ROUNDS: Final = 101
"""Mosquitto's default. Stretching makes guessed words dear to try; these passwords are 144 random bits, which nobody
guesses, and every connection of 277 agents after an outage pays for each round at the broker."""

SALT_BYTES: Final = 12
HASH: Final = re.compile(r"\$7\$[1-9][0-9]*\$[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+")


def make_password() -> str:
    """144 random bits in 24 characters that need no quoting anywhere."""
    return secrets.token_urlsafe(18)


def hash_password(password: str) -> str:
    """``$7$rounds$salt$hash``: PBKDF2 with HMAC-SHA-512 and a fresh salt (mosquitto_passwd(1), format 7)."""
    salt = secrets.token_bytes(SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def is_password(password: str, hashed: str) -> bool:
    """Whether the password has this hash: ``$7$iterations$salt$hash``, PBKDF2 with SHA-512, salt and hash in base64, as
    mosquitto_passwd(1) writes it."""
    if HASH.fullmatch(hashed) is None:
        return False
    _, _, iterations, salt, expected = hashed.split("$")
    try:
        found = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt), int(iterations))
        return hmac.compare_digest(found, base64.b64decode(expected))
    except binascii.Error:
        return False
