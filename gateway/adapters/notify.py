"""The ways of telling a person: a signed webhook, a gateway for text messages over HTTP, and mail over SMTP.

None of them raises for what the other side does; what they say of a failure names no number, no address and no secret.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from string import Template
from typing import Final

import httpx
import msgspec

from gateway.adapters.platform import KEY_HEADER, SIGNATURE_HEADER, sign
from gateway.core.model import Notify
from gateway.runtime.ports import Contact, Verdict

TIMEOUT_S: Final = 10.0
_ANSWER_LIMIT: Final = 16 * 1024


class WebhookNotifier:
    """POSTs JSON to the contact's own ``webhook``, or to ``url`` for all; signed as deliveries to the platform are."""

    name = "webhook"

    def __init__(self, key: bytes, url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._key = key
        self._url = url
        self._client = _make_client(timeout_s)

    def reaches(self, contact: Contact) -> bool:
        return bool(contact.webhook or self._url)

    async def send(self, contact: Contact, notify: Notify) -> Verdict:
        body = msgspec.json.encode(
            {
                "id": notify.id,
                "kind": notify.kind,
                "incident": notify.incident,
                "community": notify.community,
                "level": notify.level,
                "place": notify.place,
                "grid": notify.grid,
                "round": notify.round,
                "text": notify.text,
                "contact": {"id": contact.id, "name": contact.name},
                "expires_at": notify.expires_at,
            }
        )
        headers = {
            "Content-Type": "application/json",
            KEY_HEADER: notify.id,
            SIGNATURE_HEADER: sign(self._key, body),
        }
        return await _post(self._client, contact.webhook or str(self._url), body, headers)

    async def close(self) -> None:
        await self._client.aclose()


class TextMessageNotifier:
    """POSTs ``template`` to a gateway for text messages. ``$phone``, ``$text`` and ``$id`` in its values are filled in;
    ``ok`` (field, value) is what the JSON of a good answer holds, because such gateways answer 200 to everything."""

    name = "sms"

    def __init__(
        self,
        url: str,
        template: dict[str, str],
        token: str = "",
        ok: tuple[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._template = {field: Template(text) for field, text in template.items()}
        self._ok = ok
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._client = _make_client(timeout_s)

    def reaches(self, contact: Contact) -> bool:
        return bool(contact.phone)

    async def send(self, contact: Contact, notify: Notify) -> Verdict:
        filled = {"phone": contact.phone, "text": notify.text.get("zh", ""), "id": notify.id}
        body = msgspec.json.encode({name: text.safe_substitute(filled) for name, text in self._template.items()})
        return await _post(self._client, self._url, body, {**self._headers, KEY_HEADER: notify.id}, self._ok)

    async def close(self) -> None:
        await self._client.aclose()


class MailNotifier:
    """Sends mail over SMTP: ``security`` is ``none``, ``starttls`` or ``tls``."""

    name = "mail"

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        *,
        security: str = "starttls",
        user: str = "",
        password: str = "",
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._host, self._port, self._sender = host, port, sender
        self._security = security
        self._user, self._password = user, password
        self._context = context or ssl.create_default_context()
        self._timeout_s = timeout_s

    def reaches(self, contact: Contact) -> bool:
        return bool(contact.email)

    async def send(self, contact: Contact, notify: Notify) -> Verdict:
        message = EmailMessage()
        message["From"], message["To"] = self._sender, contact.email
        message["Subject"] = " ".join(notify.text.get("zh", notify.kind).split())[:120]
        message["Message-ID"] = f"<{notify.id.replace('/', '.')}@smart-community-gateway>"
        message["X-Incident"] = notify.incident
        message.set_content(f"{notify.text.get('zh', '')}\n\n{notify.text.get('en', '')}\n")
        try:
            async with asyncio.timeout(self._timeout_s * 2):
                return await asyncio.to_thread(self._deliver, message)
        except TimeoutError:
            return Verdict(accepted=False, refused=False, detail="no answer in time")

    def _deliver(self, message: EmailMessage) -> Verdict:
        try:
            with self._connect() as server:
                if self._security == "starttls":
                    server.starttls(context=self._context)
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code = min((code for code, _ in error.recipients.values()), default=0)
            return Verdict(accepted=False, refused=code >= 500, detail=f"the mailbox is refused ({code})")
        except smtplib.SMTPResponseException as error:
            return Verdict(accepted=False, refused=False, detail=f"SMTP {error.smtp_code}")
        except ssl.SSLError as error:
            return Verdict(accepted=False, refused=False, detail=f"TLS: {error.reason or 'failed'}")
        except (OSError, smtplib.SMTPException) as error:
            return Verdict(accepted=False, refused=False, detail=type(error).__name__)
        return Verdict(accepted=True, refused=False, detail="250")

    def _connect(self) -> smtplib.SMTP:
        if self._security == "tls":
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout_s, context=self._context)
        return smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)

    async def close(self) -> None:
        """Nothing is kept open."""


def _make_client(timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=timeout_s,
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": "smart-community-gateway", "Accept-Encoding": "identity"},
    )


async def _post(
    client: httpx.AsyncClient,
    url: str,
    body: bytes,
    headers: dict[str, str],
    ok: tuple[str, str] | None = None,
) -> Verdict:
    try:
        async with (
            asyncio.timeout(client.timeout.read or TIMEOUT_S),
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > _ANSWER_LIMIT:
                    break
    except (TimeoutError, httpx.TimeoutException):
        return Verdict(accepted=False, refused=False, detail="no answer in time")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Verdict(accepted=False, refused=False, detail=type(error).__name__)
    status = response.status_code
    if not 200 <= status < 300:
        return Verdict(accepted=False, refused=status in (400, 404, 410, 422), detail=str(status))
    if ok is not None and _read_field(bytes(answer), ok[0]) != ok[1]:
        return Verdict(accepted=False, refused=False, detail=f"{status}, but {ok[0]} is not {ok[1]}")
    return Verdict(accepted=True, refused=False, detail=str(status))


def _read_field(answer: bytes, field: str) -> str | None:
    try:
        decoded = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return str(decoded[field]) if isinstance(decoded, dict) and field in decoded else None
