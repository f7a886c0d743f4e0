"""The ways of telling people, each against a real server in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.notify import MailNotifier, TextMessageNotifier, WebhookNotifier
from gateway.adapters.platform import sign
from gateway.core.model import Level, Notify
from gateway.runtime.ports import Contact, Notifier
from tests.ports.notify_peers import BUSY_MAILBOX, NO_SUCH_MAILBOX
from tests.servers import Process, free_port

KEY = b"an-example-key-of-at-least-32-bytes"
NOTIFY = Notify(
    "incident-1/3/ring",
    "c001",
    "incident-1",
    "ring",
    "b1-u1-101",
    "370215001001001",
    {"zh": "【特急】1号楼一键求助：尚无人受理", "en": "[critical] call for help"},
    1_795_435_260_000,
    Level.CRITICAL,
)
CONTACT = Contact(
    "duty-1", "值班（模拟）", "duty", phone="000-0000-0001", email="duty@example.invalid", webhook="http://replaced/"
)


class Peer:
    def __init__(self, kind: str, folder: Path) -> None:
        self.process = Process.module("tests.ports.notify_peers", kind, log=folder / f"{kind}.log")
        self.port = int(self.process.wait_for_line(r"^listening on (\d+)$")[1])

    def taken(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.process.output().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module", params=["webhook", "sms", "mail"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peer(way: str, tmp_path: Path) -> Iterator[Peer]:
    peer = Peer("mail" if way == "mail" else "http", tmp_path)
    yield peer
    peer.process.close()


def make(way: str, port: int, answer: str = "200") -> tuple[Notifier, Contact]:
    """The notifier, and a contact for whom the peer answers so."""
    url = f"http://127.0.0.1:{port}/{answer}"
    if way == "webhook":
        return WebhookNotifier(KEY, timeout_s=1), replace(CONTACT, webhook=url)
    if way == "sms":
        template = {"to": "$phone", "content": "【即墨】$text", "ref": "$id"}
        return TextMessageNotifier(url, template, "a-token", ("code", "0"), timeout_s=1), CONTACT
    boxes = {"404": NO_SUCH_MAILBOX, "503": BUSY_MAILBOX}
    contact = replace(CONTACT, email=boxes.get(answer, CONTACT.email))
    return MailNotifier("127.0.0.1", port, "gateway@example.invalid", security="none", timeout_s=1), contact


async def test_a_person_is_told_what_and_by_which_key(way: str, peer: Peer) -> None:
    notifier, contact = make(way, peer.port)
    verdict = await notifier.send(contact, NOTIFY)
    await notifier.close()
    assert verdict.accepted
    [taken] = peer.taken()
    if way == "mail":
        assert taken["to"] == ["duty@example.invalid"]
        assert NOTIFY.text["zh"] in taken["text"]
        assert taken["id"] == "<incident-1.3.ring@smart-community-gateway>"
        return
    assert taken["headers"]["idempotency-key"] == NOTIFY.id
    body = json.loads(taken["body"])
    if way == "webhook":
        assert taken["headers"]["gateway-signature"] == sign(KEY, taken["body"].encode())
        assert (body["contact"], body["text"]) == ({"id": "duty-1", "name": "值班（模拟）"}, NOTIFY.text)
        assert "000-0000" not in taken["body"]
    else:
        assert taken["headers"]["authorization"] == "Bearer a-token"
        assert body == {"to": "000-0000-0001", "content": f"【即墨】{NOTIFY.text['zh']}", "ref": NOTIFY.id}


@pytest.mark.parametrize("answer", ["503", "404"])
async def test_a_refusal_says_why_and_no_number(way: str, peer: Peer, answer: str) -> None:
    notifier, contact = make(way, peer.port, answer)
    verdict = await notifier.send(contact, NOTIFY)
    await notifier.close()
    assert not verdict.accepted
    assert verdict.refused == (answer == "404")
    assert verdict.detail
    assert not any(secret in verdict.detail for secret in ("000-0000", "@", "a-token"))


@pytest.mark.parametrize("answer", ["hang", "close", "garbage", "refused"])
async def test_a_strange_answer_is_none(way: str, peer: Peer, answer: str) -> None:
    if way == "mail" or (way == "webhook" and answer in ("garbage", "refused")):
        return  # a status is a webhook's whole answer; mail has its own test
    notifier, contact = make(way, peer.port, answer)
    verdict = await notifier.send(contact, NOTIFY)
    await notifier.close()
    assert (verdict.accepted, verdict.refused) == (False, False)
    assert verdict.detail


async def test_nobody_there_is_said(way: str) -> None:
    notifier, contact = make(way, free_port())
    verdict = await notifier.send(contact, NOTIFY)
    await notifier.close()
    assert (verdict.accepted, verdict.refused) == (False, False)
    assert verdict.detail


async def test_mail_without_the_encryption_that_was_asked_for_is_not_sent(tmp_path: Path) -> None:
    peer = Peer("mail", tmp_path)
    for security in ("starttls", "tls"):
        notifier = MailNotifier("127.0.0.1", peer.port, "gateway@example.invalid", security=security, timeout_s=1)
        verdict = await notifier.send(CONTACT, NOTIFY)
        assert not verdict.accepted
    assert peer.taken() == []
    peer.process.close()


def test_a_way_reaches_those_whose_address_it_has() -> None:
    nobody = Contact("x", "x", "duty")
    ways: list[Notifier] = [
        WebhookNotifier(KEY),
        TextMessageNotifier("http://x", {}),
        MailNotifier("x", 25, "gateway@example.invalid"),
    ]
    assert [way.reaches(nobody) for way in ways] == [False, False, False]
    assert [way.reaches(CONTACT) for way in ways] == [True, True, True]
    assert WebhookNotifier(KEY, "http://x").reaches(nobody)
