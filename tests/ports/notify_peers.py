"""Real peers of the notifiers, as processes: a mail server, and an HTTP server that plays webhook and text messages.

``python -m tests.ports.notify_peers mail|http`` prints ``listening on PORT``, and a JSON line for all that it takes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.smtp import SMTP, Envelope, Session

NO_SUCH_MAILBOX = "gone@example.invalid"
BUSY_MAILBOX = "busy@example.invalid"


def say(line: object) -> None:
    print(json.dumps(line, ensure_ascii=False), flush=True)


class Mailbox:
    """Takes mail, and says what the server says in trouble for two addresses."""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == NO_SUCH_MAILBOX:
            return "550 no such mailbox"
        if address == BUSY_MAILBOX:
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        body = message.get_body()
        say({"to": envelope.rcpt_tos, "subject": str(message["Subject"]), "id": str(message["Message-ID"]),
             "text": body.get_content() if body is not None else ""})  # fmt: skip
        return "250 OK"


class Receiver(BaseHTTPRequestHandler):
    """Answers as the path says: /200, /503, /garbage, /hang, /refused (200 with code 1), /close."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        say({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.decode()})
        match self.path:
            case "/hang":
                time.sleep(30)
            case "/close":
                self.connection.close()
            case "/garbage":
                self.answer(200, b"<html>")
            case "/refused":
                self.answer(200, b'{"code": 1}')
            case path:
                self.answer(int(path.strip("/")), b'{"code": 0}')

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


async def serve_mail() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Mailbox(), hostname="127.0.0.1"), "127.0.0.1", 0)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main(kind: str) -> None:
    if kind == "mail":
        asyncio.run(serve_mail())
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
