"""The way to webhooks' addresses: signed, once, and to none that lies inside."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.receivers import HttpReceivers, is_outside, sign_at
from gateway.runtime.webhooks import AddressRefused
from tests.ports.webhook_receiver import WebhookReceiver

LOOPBACK = [ip_network("127.0.0.0/8")]
AT = 1_795_435_200_123


@pytest.fixture
async def receivers() -> AsyncIterator[HttpReceivers]:
    made = HttpReceivers(LOOPBACK, timeout_s=2)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "inside",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"),
        *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:1::1"),
    ],
)
def test_what_lies_inside_is_not_sent_to(inside: str) -> None:
    assert not is_outside(ip_address(inside), ())


def test_public_addresses_are_and_what_a_setting_names() -> None:
    assert is_outside(ip_address("203.0.114.1"), ())
    assert is_outside(ip_address("2400:3200::1"), ())
    allowed = [ip_network("10.8.0.0/16")]
    assert is_outside(ip_address("10.8.1.1"), allowed)
    assert is_outside(ip_address("::ffff:10.8.1.1"), allowed)
    assert not is_outside(ip_address("10.9.1.1"), allowed)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://receiver.test/", "bad-address"),
        ("https://", "bad-address"),
        ("https://user:secret@receiver.test/", "bad-address"),
        ("https://receiver.test/#part", "bad-address"),
        ("https://receiver.test/\n", "bad-address"),
        ("https://receiver.test/" + "a" * 500, "bad-address"),
        ("https://receiver.test:0/", "bad-address"),
        ("https://169.254.169.254/latest/meta-data", "private-address"),
        ("https://10.0.0.1/", "private-address"),
        ("https://[::1]/", "private-address"),
        ("https://2130706433/", ""),
        ("https://0x7f.1/", ""),
        ("http://203.0.114.1/", "plain-http"),
        ("https://nobody.invalid/", "unknown-host"),
        ("http://127.0.0.1:9/", ""),
        ("https://203.0.114.1/", ""),
    ],
)
async def test_an_address_is_judged_before_anything_is_sent(receivers: HttpReceivers, url: str, code: str) -> None:
    if not code:
        await receivers.check(url)
        return
    with pytest.raises(AddressRefused) as refused:
        await receivers.check(url)
    assert refused.value.code == code
    if code in ("private-address", "plain-http"):
        assert (await receivers.post(url, "e/1", b"{}", [b"k"], AT)).detail.startswith(code)


async def test_the_loopback_takes_a_setting_however_it_is_written() -> None:
    strict = HttpReceivers()
    for url in ("https://localhost/", "https://127.1/", "https://2130706433/", "https://0x7f.1/"):
        with pytest.raises(AddressRefused) as refused:
            await strict.check(url)
        assert refused.value.code == "private-address", url
    await strict.close()


async def test_an_event_is_signed_over_its_time_and_its_body(receivers: HttpReceivers) -> None:
    with WebhookReceiver() as receiver:
        answer = await receivers.post(receiver.url, "e/1", b'{"id":"e/1"}', [b"new", b"old"], AT)
    [got] = receiver.got
    assert (answer.status, answer.detail) == (200, "ok")
    assert (got.id, got.at_s, got.host) == ("e/1", AT // 1000, f"127.0.0.1:{receiver.port}")
    assert got.signature == f"{sign_at(b'new', got.at_s, got.body)},{sign_at(b'old', got.at_s, got.body)}"
    assert got.is_signed_with("old")
    assert not got.is_signed_with("other")
    assert sign_at(b"new", got.at_s + 1, got.body) not in got.signature


async def test_of_an_answer_little_is_kept_and_no_redirect_is_followed(receivers: HttpReceivers) -> None:
    with WebhookReceiver(answer=lambda got: 500) as receiver:
        receiver.words = b"\x1b[31mfault\n" + b"x" * 100_000
        answer = await receivers.post(receiver.url, "e/1", b"{}", [b"k"], AT)
        assert answer.status == 500
        assert len(answer.detail) == 200
        assert answer.detail.isprintable()
        receiver.answer = lambda got: 302
        assert (await receivers.post(receiver.url, "e/2", b"{}", [b"k"], AT)).status == 302
        assert len(receiver.got) == 2


async def test_who_hangs_or_is_not_there_is_no_answer() -> None:
    impatient = HttpReceivers(LOOPBACK, timeout_s=0.2)
    with WebhookReceiver(answer=lambda got: None) as receiver:
        answer = await impatient.post(receiver.url, "e/1", b"{}", [b"k"], AT)
    assert answer == type(answer)(0, "no answer within 0.2 s")
    assert (await impatient.post(receiver.url, "e/1", b"{}", [b"k"], AT)).status == 0
    await impatient.close()


async def test_the_connection_goes_to_the_address_that_was_judged(
    receivers: HttpReceivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means something else the second time it is asked is asked once, and one that means two things of
    which one lies inside is refused."""
    asked: list[str] = []
    answers: list[list[str]] = [["127.0.0.1"], ["10.0.0.1"]]
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "rebinding.test":
            return real(host, port, *rest, **more)
        asked.append(host)
        found = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with WebhookReceiver() as receiver:
        url = f"http://rebinding.test:{receiver.port}/events"
        assert (await receivers.post(url, "e/1", b"{}", [b"k"], AT)).status == 200
        assert asked == ["rebinding.test"]
        assert receiver.got[0].host == f"rebinding.test:{receiver.port}"
        assert (await receivers.post(url, "e/2", b"{}", [b"k"], AT)).detail.startswith("private-address")
        answers.append(["127.0.0.1", "10.0.0.1"])
        assert (await receivers.post(url, "e/3", b"{}", [b"k"], AT)).detail.startswith("private-address")
        assert len(receiver.got) == 1


async def test_the_certificate_is_held_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, chain = make_certificate(tmp_path, "receiver.test")
    real = socket.getaddrinfo
    names = ("receiver.test", "other.test")

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host in names else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    receivers = HttpReceivers(LOOPBACK, timeout_s=5, verify=ssl.create_default_context(cafile=authority))
    with WebhookReceiver() as receiver:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(chain)
        receiver._server.socket = server.wrap_socket(receiver._server.socket, server_side=True)
        port = receiver.port
        assert (await receivers.post(f"https://receiver.test:{port}/e", "e/1", b"{}", [b"k"], AT)).status == 200
        refused = await receivers.post(f"https://other.test:{port}/e", "e/2", b"{}", [b"k"], AT)
        assert refused.status == 0
        assert "certificate" in refused.detail.lower()
        assert receiver.ids == ["e/1"]
    await receivers.close()


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    """A certificate that signs itself, and a file with its key, too."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "authority.pem").write_bytes(public)
    (folder / "chain.pem").write_bytes(private + public)
    return str(folder / "authority.pem"), str(folder / "chain.pem")
