"""Writes down which faults were tried, and what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .runbook import entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .faults import AlertSeen, Tried
    from .runbook import Looked


def page(tried: Sequence[Tried], shorter: int) -> str:
    """The page of all faults."""
    parts = [
        f"""# Faults that were tried

Made by `deploy/observe/run faults --write` from what happened; not written by hand. Two
replicas of otpd on a PostgreSQL, two SMS gateways and one for mails, people who log in, and a real
Prometheus with [the rules](../deploy/observe/prometheus/rules).

**Time is shorter here.** Every window and every `for` of the rules was divided by {shorter}, and
Prometheus scrapes and evaluates each second: what fires here after 3 s fires after a minute
where nothing is shortened. Thresholds are those of the rules, and so are 60 s of
`OtpdMessagesLate`, which is no window. Waits after wrong answers begin at 1 s instead of 30 s,
a number is shut after 20 wrong answers instead of 100, and a breaker pauses for 0.5 s instead
of 10 s.

Times are seconds since the fault began. The raw output is
[observability/faults-tried.json](observability/faults-tried.json).
"""
    ]
    parts += [fault(one) for one in tried]
    return "\n".join(parts)


def fault(tried: Tried) -> str:
    """One fault."""
    mended = tried.end - tried.start
    over = tried.recovered - tried.start
    return f"""## {tried.title}

{tried.begun} {tried.mended}

| s | what was done, and seen |
|---:|---|
{rows((f"{after:.1f}", what) for after, what in tried.done)}
| {over:.1f} | no page fires any more |

![{tried.title}]({tried.picture})

### Which alerts fired

| alert | of | severity | pending | fired | ended |
|---|---|---|---:|---:|---:|
{rows(alert_row(one) for one in tried.alerts)}

### What was measured

| | before | while it lasted | after |
|---|---:|---:|---:|
{rows((name, *map(number, values)) for name, values in tried.measures.items())}

"While it lasted" is {mended * 0.75:.0f} s after it began, "after" {over:.0f} s.

### What the log said

Each kind of line once, with how often it came. Of warnings that repeat themselves otpd writes the
first, and after ten seconds one more that tells how many were left out (`left_out`).

```
{chr(10).join(f"{one.after:7.1f} s  {one.count:4d} x  {one.line}" for one in tried.said)}
```

### What the runbook said, and what was found there

{chr(10).join(runbook_part(name, looked) for name, looked in tried.looked.items())}
{commands(tried.commands)}"""


def rows(lines: Iterable[Sequence[str]]) -> str:
    """Rows of a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def alert_row(alert: AlertSeen) -> tuple[str, ...]:
    """An alert in a table; what it is of, without what it is always of."""
    link = f"[{alert.name}](runbook.md#{alert.name.lower()})"
    return (
        link,
        alert.about,
        alert.severity,
        "" if alert.pending is None else f"{alert.pending:.0f}",
        f"{alert.fired:.0f}",
        "not yet" if alert.ended is None else f"{alert.ended:.0f}",
    )


def number(value: float | None) -> str:
    """A figure, or that there was none."""
    return "none" if value is None else f"{value:.3g}"


def runbook_part(alert: str, looked: Sequence[Looked]) -> str:
    """What the runbook told to do, and what its commands found."""
    _, _, do = entry(alert).partition("\nDo")
    advice = "Do" + do.replace("](#", "](runbook.md#")
    quoted = "\n".join(f"> {line}".rstrip() for line in advice.splitlines())
    return f"""**[{alert}](runbook.md#{alert.lower()})**

{block(looked)}{quoted}
"""


def block(looked: Sequence[Looked]) -> str:
    """Commands with what they found."""
    if not looked:
        return ""
    lines = []
    for one in looked:
        lines.append(f"$ {one.command}")
        lines += [f"    {line}" for line in one.seen]
    text = "\n".join(lines)
    return f"```\n{text}\n```\n\n"


def commands(looked: Sequence[Looked]) -> str:
    """What otpd's own commands said."""
    if not looked:
        return ""
    return f"**otpd's own commands**, in that order:\n\n{block(looked)}"
