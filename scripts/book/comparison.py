"""Whether what came is what a page shows."""

import re


def masked(line: str, figures_differ: bool) -> str:
    """A line without what differs at each run."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME", line)
    # A challenge id is 64 letters of base64url, and may begin or end with any of them.
    line = re.sub(r"(?<![\w-])[\w-]{64}(?![\w-])|\blwUr…", "ID", line)
    line = re.sub(r"(?<![\d+])\d{6}(?!\d)", "CODE", line)
    line = re.sub(r"\d+\.\d+ ?s\b", "SECONDS", line)
    if figures_differ:
        line = re.sub(r"(?<!\+)\b\d+([.,]\d+)*", "N", line)
    return " ".join(line.split())


def fits(shown: list[str], came: list[str], figures_differ: bool = False) -> bool:
    """Whether what came is what is shown; a line of "…" is any number of lines."""
    came = [masked(line, figures_differ) for line in came if line.strip()]
    pattern = ""
    for line in shown:
        if not line.strip():
            continue
        if line.strip() == "…":
            pattern += r"(.*\n)*?"
            continue
        parts = masked(line, figures_differ).split("…")
        pattern += ".*".join(re.escape(part) for part in parts) + r"\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in came)) is not None
