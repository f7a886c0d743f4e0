"""The web process ends at once though browsers listen to it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from gateway.assembly import open_migrated_ledger, open_sign_in
from gateway.core.model import Role
from gateway.runtime.officers import Officers
from gateway.runtime.signing import Origin
from gateway.settings import read_settings
from tests.conftest import StartProcess
from tests.servers import free_port
from tests.web.house import CLI, PASSWORD


async def test_a_stopped_process_waits_for_no_stream(tmp_path: Path, start_process: StartProcess) -> None:
    port = free_port()
    env = {"SCG_DATA": str(tmp_path), "SCG_WEB__PORT": str(port), "SCG_WEB__SECOND_FACTOR": "auditor"}
    settings = read_settings(None, env)
    ledger = open_migrated_ledger(settings)
    sign_in = open_sign_in(settings, ledger)
    account = Officers(sign_in, ledger).add(CLI, "li", "", password=PASSWORD, must_change=False)[0]
    Officers(sign_in, ledger).grant(CLI, account.id, Role.DISPATCHER, (), ())
    secret = sign_in.sign_in("li", PASSWORD, Origin("127.0.0.1", "test")).secret
    ledger.close()
    web = start_process("gateway", "web", env=env)
    web.wait_for_line('"event": "ready"')

    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", cookies={"scg": secret}, trust_env=False) as client,
        client.stream("GET", "/board/stream?after=0") as answer,
    ):
        lines = answer.aiter_lines()
        async for line in lines:
            if line == "event: pulse":
                break
        begun = time.monotonic()
        web.terminate()
        spent_s = time.monotonic() - begun
        # The stream ends as one that is whole.
        assert [line async for line in lines][-1] == ""
    assert spent_s < 4
    assert "Traceback" not in web.output()
