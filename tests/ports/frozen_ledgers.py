"""Ledgers as earlier versions left them, kept as SQL in ``tests/ports/databases``.

``python -m tests.ports.frozen_ledgers`` freezes the present version there, once for each database.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import make_url

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.calls import SqlCalls
from gateway.adapters.ledger import open_ledger
from gateway.adapters.products import SqlProducts
from gateway.adapters.webhooks import SqlWebhooks
from gateway.runtime.accounts import Deed
from gateway.runtime.calls import Call
from gateway.runtime.ports import Checkpoint
from gateway.runtime.products import Awaited
from gateway.runtime.webhooks import KINDS, Webhook, make_test
from tests.ports.accounts_conformance import LI, SESSION, TOKEN
from tests.ports.ledger_conformance import (
    COMMUNITIES,
    CONTACTS,
    GRIDS,
    NOW,
    RESPONSIBLE,
    Hand,
    build_entry,
    build_full_step,
    forged,
)
from tests.servers import Postgres, find_postgres

FOLDER: Final = Path(__file__).parent / "databases"


def fill(url: str) -> str:
    """Makes a ledger with a row in every table; its version."""
    ledger = open_ledger(url)
    ledger.migrate()
    ledger.add_communities(COMMUNITIES)
    Hand(ledger).commit(
        build_entry(1, step=build_full_step(1), event_id="agent-c001/k3f9/alarm/1"),
        quarantined=[forged()],
        checkpoints=[Checkpoint("c001", 1, NOW, 1, "0123456789abcdef", b"state")],
        alive_at=NOW,
    )
    ledger.save_catalog("0123456789abcdef", {"rules/fire/smoke.yaml": "id: 烟感"}, NOW)
    ledger.issue_credentials(["agent-c001"], NOW)
    ledger.put_district(GRIDS, RESPONSIBLE, CONTACTS)
    accounts = SqlAccounts(ledger.database)
    accounts.add_account(LI, Deed(NOW, "cli:root", "account.add", LI.name))
    accounts.open_session(SESSION, Deed(NOW, LI.name, "sign-in", LI.name, "127.0.0.1"))
    accounts.add_token(TOKEN, Deed(NOW, LI.name, "token.add", LI.name))
    SqlCalls(ledger.database, bytes(32)).keep(
        Call("page/1", "c001", "b1", "page-c001-b1", NOW, 1_500, "medical", "139 0000 1111", "三楼，门没锁")
    )
    webhooks = SqlWebhooks(ledger.database, bytes(32))
    hook = Webhook("hook1", "大屏", "https://receiver.test/a", KINDS, ("370215",), ("c001",), LI.name, NOW)
    webhooks.add(hook, "a-secret", Deed(NOW, LI.name, "webhook.add", "hook1"))
    webhooks.send(make_test(hook, "1", NOW), 5, Deed(NOW, LI.name, "webhook.test", "hook1"))
    products = SqlProducts(ledger.database, bytes(32))
    products.put("fixed-sos", "a-secret", "key", NOW, Deed(NOW, LI.name, "product.make", "fixed-sos"))
    products.expect([Awaited("sn-7", "sn-7", "c001", "fixed-sos", NOW)])
    with ledger.database.reading() as session:
        [(version,)] = session.select("SELECT version_num FROM alembic_version")
    ledger.close()
    return str(version)


def dump(url: str) -> str:
    """The whole database as SQL statements."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(parsed.database))) as connection:
            return "\n".join(connection.iterdump()) + "\n"
    # fmt: off
    command = [
        find_postgres() / "pg_dump", "--inserts", "--no-owner", "--host", parsed.host, "--port", parsed.port,
        "--username", parsed.username, parsed.database,
    ]
    # fmt: on
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    # Without psql's own commands, comments, and settings that only the dumping version knows.
    skipped = re.compile(r"^(\\|--|SET |SELECT pg_catalog\.set_config)")
    return "\n".join(line for line in done.stdout.splitlines() if line and not skipped.match(line)) + "\n"


def restore(sql: str, url: str) -> None:
    """Runs a dump on an empty database."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(str(make_url(url).database))) as connection:
            connection.executescript(sql)
        return
    with psycopg.connect(url.replace("+psycopg", "")) as server:
        server.execute(sql.encode())


def main() -> None:
    """Freezes the present version on both databases."""
    with Postgres() as server:
        scratch = FOLDER / "scratch.db"
        for url, name in ((f"sqlite:///{scratch}", "sqlite"), (server.new_database(), "postgresql")):
            version = fill(url)
            path = FOLDER / f"v{version}.{name}.sql"
            path.write_text(dump(url), encoding="utf-8")
            print(path)
        scratch.unlink()


if __name__ == "__main__":
    main()
