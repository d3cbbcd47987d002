"""One request, followed by its trace id: client, log, spans, provider."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING

from otpd import Client

from .collector import Collector, Span
from .processes import Failed, wait_until
from .world import World, token

if TYPE_CHECKING:
    from pathlib import Path

    from .gateway import Message

PHONE = "8 (916) 123-45-67"
# Of the span that calls, in this process.
CALLER_SPAN = secrets.token_hex(8)
WIDTH = 44


def run(folder: Path) -> int:
    """Follow a code from its request to its verification; the exit code."""
    trace = secrets.token_hex(16)
    traceparent = f"00-{trace}-{CALLER_SPAN}-01"
    with Collector() as collector:
        environment = {
            "OTPD_TRACES__ENDPOINT": collector.endpoint,
            # Nothing but what the caller has chosen.
            "OTPD_TRACES__SAMPLE_RATIO": "0",
        }
        with World(environment=environment) as world:
            client = Client(
                world.replicas[0].address,
                token=token("crm"),
                metadata=lambda: {"traceparent": traceparent},
            )
            with client:
                # Another request, which nobody follows.
                with world.client("shop") as other:
                    other.send("+7 916 7654321", purpose="login")
                sent = client.send(PHONE, purpose="login", region="RU")
                message = world.gateway.wait_for(sent.challenge_id, 20)
                if message is None:
                    raise Failed("the message did not arrive")
                if not client.verify(PHONE, message.code, purpose="login", region="RU"):
                    raise Failed("the code did not verify")
            # One batch for the code, one for what became of the message, one for the verdict.
            spans = collector.spans_until(trace, complete)
            wait_until(lambda: len(lines_of(world, trace)) >= 5, "the log has its lines")
            lines = lines_of(world, trace)
    check(trace, spans, message)
    text = page(traceparent, lines, spans, message)
    if message.code in text or message.to in text:
        raise Failed("the page shows a code or a recipient")
    file = folder / "following-a-request.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    raw = folder / "observability/following-a-request.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "traceparent": traceparent,
        "log": lines,
        "provider": message.headers,
        "spans": [asdict(span) for span in spans],
    }
    raw.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{len(spans)} spans, {len(lines)} lines of the log, one call of {message.provider}")
    print(f"Wrote {file} and {raw}")
    return 0


def complete(spans: list[Span]) -> bool:
    """Whether both calls and the delivery are there, with what they wrote."""
    names = [span.name for span in spans]
    calls = [name for name in names if name.endswith(("/SendOtp", "/VerifyOtp"))]
    return len(calls) == 2 and "deliver" in names and names.count("batch") >= 3


def lines_of(world: World, trace: str) -> list[str]:
    """The lines of the log that name the trace."""
    return [line for line in world.log_lines() if trace in line]


def check(trace: str, spans: list[Span], message: Message) -> None:
    """Everything hangs together, or it is no trace."""
    if not complete(spans):
        raise Failed(f"spans are missing: {[span.name for span in spans]}")
    known = {span.id for span in spans} | {CALLER_SPAN}
    strangers = [span.name for span in spans if span.parent not in known]
    if strangers:
        raise Failed(f"spans without a parent: {strangers}")
    told = message.headers.get("traceparent", "")
    [delivering] = [span for span in spans if span.name == "deliver"]
    if told != f"00-{trace}-{delivering.id}-01":
        raise Failed(f"the provider was told {told!r}")


def page(traceparent: str, lines: list[str], spans: list[Span], message: Message) -> str:
    """What happened, as a page."""
    trace = traceparent.split("-")[1]
    shown = "\n".join(lines)
    return f"""# One request, followed by its trace id

Made by `deploy/observe/run follow --write` from what happened; not written by hand. A caller
sends a code and verifies it, with the `traceparent` of its own span; otpd exports spans to a
collector (`OTPD_TRACES__ENDPOINT`), and samples nothing but what its callers chose
(`OTPD_TRACES__SAMPLE=0`). The raw output is
[observability/following-a-request.json](observability/following-a-request.json).

## 1. The caller

```python
client = Client(address, token=TOKEN, metadata=lambda: {{"traceparent": traceparent}})
sent = client.send("{PHONE}", purpose="login", region="RU")
```

The caller's trace is `{trace}`, its span `{CALLER_SPAN}`: `{traceparent}`.

## 2. The log

`docker compose logs otpd | grep {trace}` finds every line of it, on every replica, and none
of anybody else:

```
{shown}
```

## 3. The provider

The call that `{message.provider}` got, over HTTP:

```
POST /{message.provider} HTTP/1.1
traceparent: {message.headers["traceparent"]}
```

The trace is the caller's; the span `{message.headers["traceparent"].split("-")[2]}` is otpd's
`deliver`, below. So a gateway that speaks of a trace speaks of this one.

## 4. The spans

Each below the one that it is part of; milliseconds since the first one began.

```
{tree(spans)}
```

A `batch` is shared by all requests that came with it, and has a link to each; it is part of the
first one that is sampled. What a span notes: no code, no recipient, no token.

| span | notes |
|---|---|
{notes(spans)}
"""


def tree(spans: list[Span]) -> str:
    """The spans as a tree, with when they began and how long they took."""
    first = min(span.start for span in spans)
    lines = [f"{'':{WIDTH}} {'begins':>9} {'took':>9}", f"the caller's span {CALLER_SPAN}"]

    def add(parent: str, depth: int) -> None:
        for span in spans:
            if span.parent != parent:
                continue
            name = f"{'  ' * depth}{span.name}"
            begins = (span.start - first) / 1e6
            took = (span.end - span.start) / 1e6
            lines.append(f"{name:{WIDTH}} {begins:9.2f} {took:9.2f}  {span.kind} {span.id}")
            add(span.id, depth + 1)

    add(CALLER_SPAN, 1)
    return "\n".join(lines)


def notes(spans: list[Span]) -> str:
    """What each kind of span notes, once."""
    rows: dict[str, str] = {}
    for span in spans:
        noted = ", ".join(f"`{key}={value}`" for key, value in span.attributes.items())
        rows.setdefault(span.name, noted or "nothing")
    return "\n".join(f"| `{name}` | {noted} |" for name, noted in rows.items())
