"""What a page of the documentation has to be run.

Blocks of `sh` are commands. Blocks of `console` are commands behind "$ ", and what they
print. They are run in the order of the page, in one shell, in a copy of the checkout.
Comments right above a block say what else there is to know:

<!-- not run: REASON -->            listed in docs/README.md instead
<!-- in the background until: TEXT -->   another terminal; goes on when TEXT is printed
<!-- the log says -->               a block without a language: lines of that terminal
<!-- beside a server -->            `otpd serve` runs from here on; `: NAME=VALUE …` for it
<!-- fails -->                      the last command ends with another status than 0
<!-- figures differ -->             numbers are not compared

Commands that begin with a program of NOT_HERE are not run, and listed. In a command CODE,
and the book's sample code, stand for the code in the newest log. What differs at each run
(ids, times, codes) is not compared; "…" stands for anything.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

NOT_HERE = {
    "docker": "needs Docker",
    "kubectl": "needs a cluster",
    "helm": "needs a cluster",
    "systemctl": "needs a machine with systemd",
    "journalctl": "needs a machine with systemd",
    "apt-get": "changes the machine",
    "dpkg": "changes the machine",
}

SAMPLE_CODE = re.compile(r"(?<![\d+])443 ?883(?!\d)|\bCODE\b")


class Fault(Exception):
    """A page does not do what it says."""


@dataclass
class Command:
    """What is typed, and what the page shows of the answer."""

    text: str
    shown: list[str] | None = None


@dataclass
class Block:
    """A fenced block and the comments above it."""

    page: str
    line: int
    language: str
    body: list[str]
    remarks: dict[str, str] = field(default_factory=dict)

    def commands(self) -> list[Command]:
        if self.language != "console":
            text = "\n".join(self.body)
            # A code may be that of a command above it, so these go one by one.
            apart = re.split(r"(?<!\\)\n", text) if SAMPLE_CODE.search(text) else [text]
            return [Command(it) for it in apart]
        found: list[Command] = []
        continued = False
        for line in self.body:
            if continued:
                found[-1].text += "\n" + line
            elif line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif found:
                found[-1].shown.append(line)
            else:
                raise Fault(f'{self}: a console block begins with "$ "')
            continued = (continued or line.startswith("$ ")) and line.endswith("\\")
        return found

    def why_not(self) -> str | None:
        """The reason for which it is not run."""
        if "not run" in self.remarks:
            return self.remarks["not run"]
        for command in self.commands():
            for line in command.text.splitlines():
                words = [it for it in line.split() if not re.match(r"sudo$|[A-Z_]+=", it)]
                if words and words[0] in NOT_HERE:
                    return NOT_HERE[words[0]]
        return None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Every block of commands of a page, and those of its logs that are to be compared."""
    found = []
    remarks: dict[str, str] = {}
    block = None
    for number, line in enumerate((ROOT / page).read_text().splitlines(), start=1):
        if block is not None:
            if line.strip() == "```":
                if block.language in {"sh", "console", "bash", "shell"} or block.remarks:
                    found.append(block)
                block = None
            else:
                block.body.append(line)
            continue
        if line.startswith("```"):
            block = Block(page, number, line[3:].strip(), [], remarks)
            remarks = {}
        elif remark := re.fullmatch(r"<!-- ([^:]*)(?:: (.*))? -->", line.strip()):
            remarks[remark[1]] = remark[2] or ""
        elif line.strip():
            remarks = {}
    return found


def pages() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return listed.stdout.split()
