"""schemathesis against the API of a running control room: whatever the document allows, and whatever it forbids.

By hand, with many more examples than the test has: ``python -m tests.web.fuzz --max-examples 500``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from gateway.core.model import Role
from gateway.runtime.access import MACHINES, PERMISSIONS, ROLE_TITLES, Permission, roles_with
from gateway.runtime.accounts import Deed
from gateway.runtime.signing import MINUTE_MS
from gateway.web import access
from gateway.web.access import Authorise, list_routes
from gateway.web.limits import Rate
from tests.web.control_room import ControlRoom
from tests.web.house import CLI

API: Final = "/api/v1"
EVENTS: Final = 1
PATIENCE_S: Final = 60
"""Of a stream that does not end, so many are read."""

KNOWN: Final = {
    "community": ["c001", "c002"],
    "device": ["sos-1", "smoke-1", "agent-1", "speaker-1"],
    "rule": ["fire.smoke-persists"],
    "profile": ["fixed-sos", "nb-smoke"],
}
"""What is there, so that not every generated request ends at a 404."""

HARDER: Final = {
    f"{API}/appraisal": "which level goes with which question, and that a period ends after it begins",
    f"{API}/trials": "how a rule is written",
}
"""Operations whose input no schema can describe, and what it cannot: they may answer 422."""


async def run_schemathesis(url: str, settings: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """schemathesis in a process of its own, against the API at ``url``: its exit status, and what it said."""
    config = folder / "schemathesis.toml"
    config.write_text(settings, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}{API}/openapi.json"),
        *("--no-color", "--generation-database=none", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


class Fuzzing:
    """A room with a program for each role, something in each list, and no limit of how often."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self.tokens: dict[Role, str] = {}
        self.incidents: list[str] = []

    async def prepare(self) -> None:
        for role in ROLE_TITLES:
            name = f"fuzz-{role.replace('_', '-')}"
            account, _ = self.room.officers.add(
                CLI, name, "", password=None, must_change=False, is_machine=role in MACHINES
            )
            account = self.room.officers.grant(CLI, account.id, role, ("370215",), (), "")
            self.tokens[role], _ = self.room.sign_in.issue_token(
                account, "fuzz", tuple(Permission), 30, Deed(0, name, "token.add", name)
            )
        for device, community in (("sos-1", "c001"), ("sos-2", "c001"), ("sos-1", "c002")):
            self.incidents.append((await self.room.press(device, community)).id)

    def owner(self, permission: Permission) -> Role:
        """A role that may do it: of several, the one that may do the most."""
        return max(roles_with(permission), key=lambda role: (role not in MACHINES, len(PERMISSIONS[role])))

    def configure(self) -> str:
        """schemathesis' settings: each operation is asked by a role that may do it."""
        lists = KNOWN | {"incident": self.incidents}
        lines = [f"max-stream-events = {EVENTS}", "continue-on-failure = true", "warnings = false"]
        # What another method is answered, the tests of the gate say for every route; here a few are enough.
        lines += [f"request-timeout = {PATIENCE_S}", '[phases.coverage]\nunexpected-methods = ["DELETE", "OPTIONS"]']
        # The token is always sent: a request "without" it would not be one.
        lines += ["[generation]\nwith-security-parameters = false"]
        lines += [f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in lists.items()]
        for route in list_routes(self.room.app.routes):
            [mark] = route.marks
            if not route.path.startswith(f"{API}/") or not isinstance(mark, Authorise):
                continue
            bearer = json.dumps(f"Bearer {self.tokens[self.owner(mark.permission)]}")
            lines += ["[[operations]]", f'include-name = "{route.method} {route.path}"']
            lines += [f"headers = {{ Authorization = {bearer} }}"]
            kind = "incident" if "/incidents" in route.path else "rule" if "/rules" in route.path else "device"
            bound = {name: name if name in KNOWN else kind for name in re.findall(r"{(\w+)}", route.path)}
            bound["query.community"] = "community"
            if route.method == "POST":
                bound |= {"body.community": "community", "body.device": "device"}
            given = [f'"{name}" = {{ dictionary = "{known}", probability = 0.7 }}' for name, known in bound.items()]
            lines += ["[operations.parameters]", *given]
            if route.path in HARDER:
                expected = json.dumps(["2xx", "403", "404", "422"])
                lines += ["[operations.checks.positive_data_acceptance]", f"expected-statuses = {expected}"]
        return "\n".join(lines)

    async def run(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """schemathesis against the room: its exit status, and what it said."""
        return await run_schemathesis(self.room.url, self.configure(), folder, *arguments)

    def ask_as(self, role: Role, examples: int, seed_of: int) -> Counter[int]:
        """So many requests to each operation as ``role``, whatever it may do: how often each status came back. Every
        answer is one that the document has, in the form that it says. Blocks."""
        import hypothesis
        import schemathesis
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi import checks

        held = (
            not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
        )
        absent = held[1:]  # the room has no test stand, and says 503
        config = schemathesis.Config.from_dict({"max-stream-events": EVENTS, "request-timeout": PATIENCE_S})
        schema = schemathesis.openapi.from_url(f"{self.room.url}{API}/openapi.json", config=config)
        bearer = {"Authorization": f"Bearer {self.tokens[role]}"}
        statuses: Counter[int] = Counter()
        for found in schema.get_all_operations():
            operation = found.ok()  # type: ignore[union-attr]

            @hypothesis.seed(seed_of)
            @hypothesis.settings(
                max_examples=examples,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                answer = case.call(headers=bearer)
                if case.operation.path != f"{API}/provision":  # a device's, which signs: a token is nothing to it
                    statuses[answer.status_code] += 1
                is_stand = case.operation.path.startswith(f"{API}/stand")
                case.validate_response(answer, checks=absent if is_stand else held)

            ask()
        return statuses


@contextmanager
def without_limits() -> Iterator[None]:
    """A program that asks hundreds of times in a second is no attack here."""
    plenty = Rate(10**9, MINUTE_MS)
    with patch.object(access, "REQUESTS", plenty), patch.object(access, "STRANGERS", plenty):
        yield


async def main(arguments: Sequence[str]) -> int:
    """Arguments go to schemathesis."""
    with tempfile.TemporaryDirectory() as folder, without_limits():
        async with ControlRoom(Path(folder)) as room:
            fuzzing = Fuzzing(room)
            await fuzzing.prepare()
            status, said = await fuzzing.run(Path(folder), *arguments)
            print(said)
            return status


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
