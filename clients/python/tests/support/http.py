"""Recorded requests to the old endpoints, with their responses, as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD_ENDPOINTS = Path(__file__).parent.parent / "fixtures/old_endpoints"


@dataclass(frozen=True)
class Exchange:
    """A request and its response, with the steps before."""

    name: str
    given: str
    method: str
    path: str
    content_type: str
    body: str
    status: int
    headers: dict[str, str]
    reply: Any

    @staticmethod
    def read(file: Path) -> Exchange:
        """Read a file: the steps before, a request, a response."""
        text = file.read_text()
        before, _, after = text.partition("\nHTTP/1.1 ")
        given, request = before.split("\n", 1)
        head, _, body = request.partition("\n\n")
        line, *request_headers = head.splitlines()
        method, path, _ = line.split(" ")
        reply_head, _, reply = after.partition("\n\n")
        status_line, *reply_headers = reply_head.splitlines()
        return Exchange(
            name=file.stem,
            given=given.removeprefix("# given: "),
            method=method,
            path=path,
            content_type=fields(request_headers)["Content-Type"],
            body=body.strip("\n"),
            status=int(status_line.split(" ")[0]),
            headers=fields(reply_headers),
            reply=json.loads(reply),
        )

    @staticmethod
    def all() -> list[Exchange]:
        """Return all recordings."""
        return [Exchange.read(file) for file in sorted(OLD_ENDPOINTS.glob("*.http"))]


def fields(lines: list[str]) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines)


def shape(value: Any) -> Any:
    """Return the keys of JSON with the types of their values."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return type(value).__name__
