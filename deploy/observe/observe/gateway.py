"""An HTTP gateway on loopback that acts as all providers.

It reads the code of each message, as a person reads it on the phone.
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
    """An accepted message."""

    provider: str
    code: str


class Gateway:
    """Providers by name; each accepts messages until it is broken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: dict[str, Message] = {}
        self._broken: set[str] = set()
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
        """Return the URL of a provider."""
        return f"http://127.0.0.1:{self._server.server_port}/{provider}"

    def break_down(self, provider: str) -> None:
        """Answer 503 from now on."""
        self._broken.add(provider)

    def repair(self) -> None:
        """Accept messages of all providers again."""
        self._broken.clear()

    def wait_for(self, challenge_id: str, seconds: float) -> Message | None:
        """Return the newest message of a challenge, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: challenge_id in self._newest, seconds)
            return self._newest.get(challenge_id)

    def _accept(self, provider: str, body: bytes) -> bool:
        # The latency of a remote gateway.
        time.sleep(random.lognormvariate(-3.3, 0.5))
        if provider in self._broken:
            return False
        message = json.loads(body)
        with self._changed:
            self._newest[message["challenge"]] = Message(provider, message["code"])
            self._changed.notify_all()
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                accepted = gateway._accept(self.path.strip("/"), body)
                answer = json.dumps({"ok": accepted}).encode()
                self.send_response(200 if accepted else 503)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Log nothing, because otpd's metrics show the requests."""

        return Handler
