"""A receiver of webhooks: a real HTTP server on the loopback, which fails, hangs or goes away as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from gateway.adapters.receivers import sign_at


@dataclass
class Got:
    """One request, as it came."""

    id: str
    at_s: int
    signature: str
    host: str
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        return sign_at(secret.encode(), self.at_s, self.body) in self.signature.split(",")


class WebhookReceiver:
    """``answer`` says with which status an event is answered; None hangs until the receiver is closed."""

    def __init__(self, port: int = 0, answer: Callable[[Got], int | None] = lambda got: 200) -> None:
        self.got: list[Got] = []
        self.answer = answer
        self.words = b"ok"
        self._closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = self.headers
                body = self.rfile.read(int(headers["Content-Length"]))
                stamp = int(headers["Gateway-Timestamp"])
                got = Got(headers["Idempotency-Key"], stamp, headers["Gateway-Signature"], headers["Host"], body)
                status = receiver.answer(got)
                receiver.got.append(got)
                if status is None:
                    receiver._closing.wait()
                    return
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", str(len(receiver.words)))
                self.end_headers()
                self.wfile.write(receiver.words)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def ids(self) -> list[str]:
        return [got.id for got in self.got]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
