"""Errors with stable codes: where it is, what is wrong, what to do."""

from __future__ import annotations


class GatewayError(Exception):
    """Something that a person can mend."""

    def __init__(self, code: str, message: str, where: str, mend: str) -> None:
        super().__init__(f"{where}: {message}; {mend}")
        self.code = code
        self.message = message
        self.where = where
        self.mend = mend
