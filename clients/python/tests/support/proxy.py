"""Network between a client and otpd that can fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PIECE = 65_536


class Proxy:
    """A TCP proxy on a free port of loopback."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._replies_pass = threading.Event()
        self._replies_pass.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def hold_replies(self) -> None:
        """Pass requests, but no responses."""
        self._replies_pass.clear()

    def cut(self) -> None:
        """Close all connections and drop held responses; new connections work again."""
        with self._lock:
            for one in self._sockets:
                close(one)
            self._sockets.clear()
        self._replies_pass.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        close(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host, _, port = self._upstream.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                close(client)
                continue
            with self._lock:
                self._sockets |= {client, server}
            for pair in ((client, server, None), (server, client, self._replies_pass)):
                thread = threading.Thread(target=pump, args=pair, daemon=True)
                thread.start()
                self._threads.append(thread)


def pump(source: socket.socket, sink: socket.socket, gate: threading.Event | None) -> None:
    """Copy bytes in one direction while the gate is open."""
    try:
        while piece := source.recv(PIECE):
            if gate is not None:
                gate.wait()
            sink.sendall(piece)
    except OSError:
        pass
    close(source)
    close(sink)


def close(one: socket.socket) -> None:
    """Close a socket that another thread may wait for."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
