"""Name server for one name."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

A_RECORD = 1


class Names:
    """Answers on a UDP port of loopback; every name has the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # A datagram to itself, because closing the socket does not wake its reader.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while query := self._socket.recvfrom(512):
            if not query[0]:
                return
            self._socket.sendto(self._reply(query[0]), query[1])

    def _reply(self, query: bytes) -> bytes:
        # RFC 1035: a header of 12 bytes, then the question, ended by its name's last label.
        question = query[12 : query.index(b"\0", 12) + 5]
        (kind,) = struct.unpack("!H", question[-4:-2])
        addresses = self._addresses if kind == A_RECORD else ()
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        answers = [
            struct.pack("!HHHIH", 0xC00C, A_RECORD, 1, 1, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return b"".join([header, question, *answers])
