"""An HTTP gateway that stands for all providers, on loopback.

It reads the code of each message, as the person's phone would show it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Message:
    """What came in at a provider and was taken."""

    provider: str
    to: str
    code: str
    challenge_id: str
    headers: dict[str, str]


class Gateway:
    """Providers by their names; each takes messages until it is told not to."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: dict[str, Message] = {}
        self._down: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, provider: str) -> str:
        """Where a provider takes messages."""
        return f"http://127.0.0.1:{self._server.server_port}/{provider}"

    def break_down(self, *providers: str) -> None:
        """From now on they answer 503."""
        self._down.update(providers)

    def mend(self, *providers: str) -> None:
        """From now on they take messages again."""
        self._down.difference_update(providers)

    def wait_for(self, challenge_id: str, seconds: float) -> Message | None:
        """The newest message of a challenge, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: challenge_id in self._newest, seconds)
            return self._newest.get(challenge_id)

    def _take(self, provider: str, body: bytes, headers: dict[str, str]) -> int:
        # As a gateway in another town.
        time.sleep(random.lognormvariate(-3.3, 0.5))
        if provider in self._down:
            return 503
        wanted = json.loads(body)
        message = Message(
            provider=provider,
            to=wanted["to"],
            code=wanted["code"],
            challenge_id=wanted["challenge"],
            headers=headers,
        )
        with self._changed:
            self._newest[message.challenge_id] = message
            self._changed.notify_all()
        return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = gateway._take(self.path.strip("/"), body, headers)
                answer = b'{"ok": true}' if status == 200 else b'{"ok": false}'
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing: requests are seen in otpd's metrics."""

        return Handler
