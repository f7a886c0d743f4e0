"""Password hashes in the form that Mosquitto reads, and that the embedded broker reads too."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Final

ROUNDS: Final = 101
"""Mosquitto's default. Stretching makes guessed words dear to try; these passwords are 144 random bits, which nobody
guesses, and every connection of 277 agents after an outage pays for each round at the broker."""

SALT_BYTES: Final = 12


def make_password() -> str:
    """144 random bits in 24 characters that need no quoting anywhere."""
    return secrets.token_urlsafe(18)


def hash_password(password: str) -> str:
    """``$7$rounds$salt$hash``: PBKDF2 with HMAC-SHA-512 and a fresh salt (mosquitto_passwd(1), format 7)."""
    salt = secrets.token_bytes(SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"
