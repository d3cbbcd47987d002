"""Follows the pages of the documentation, command by command; scripts/try-docs calls it.

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

import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST_PAGE = ROOT / "docs/README.md"
LIST_BEGIN = "<!-- not run: written by UPDATE_DOCS=1 scripts/try-docs -->\n"
LIST_END = "<!-- not run: end -->"

NOT_HERE = {
    "docker": "needs Docker",
    "kubectl": "needs a cluster",
    "helm": "needs a cluster",
    "systemctl": "needs a machine with systemd",
    "journalctl": "needs a machine with systemd",
    "apt-get": "changes the machine",
    "dpkg": "changes the machine",
}
# Pages for somebody who has nothing but Rust.
NOTHING_BUT_RUST = {"docs/quick-start.md", "docs/quick-start.ru.md"}

SAMPLE_CODE = re.compile(r"(?<![\d+])443 ?883(?!\d)|\bCODE\b")
GENERATED = re.compile(r"Generated OTP: (\d+)")
# Seconds. The copy may have to be built; with --cold, with all that it needs.
PATIENCE = 3_600.0 if "--cold" in sys.argv else 300.0


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
                raise Fault(f"{self}: a console block begins with \"$ \"")
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


def not_run() -> str:
    """The list of what is not run, as docs/README.md has it."""
    rows = ["| page | command | why |", "|---|---|---|"]
    for page in pages():
        for block in blocks_of(page):
            if block.language and (reason := block.why_not()) is not None:
                first = next(it for it in block.body if not it.lstrip().startswith("#"))
                first = first.removeprefix("$ ").replace("|", "\\|").rstrip(" \\")
                link = os.path.relpath(page, "docs")
                rows.append(f"| [{page}]({link}) | `{first}` | {reason} |")
    return "\n".join(rows)


def hold_list() -> None:
    page = LIST_PAGE.read_text()
    before, rest = page.split(LIST_BEGIN)
    after = rest[rest.index(LIST_END) :]
    wanted = f"{before}{LIST_BEGIN}\n{not_run()}\n\n{after}"
    if page == wanted:
        return
    if "UPDATE_DOCS" in os.environ:
        LIST_PAGE.write_text(wanted)
        return
    raise Fault(
        "docs/README.md does not list what is not run; "
        "to rewrite it: UPDATE_DOCS=1 scripts/try-docs docs/README.md"
    )


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


def end_group(process: subprocess.Popen) -> None:
    """Ends a process and what it started, and waits until all of it is gone."""
    deadline = time.monotonic() + 30
    try:
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Terminal:
    """A command in the background, as in another terminal."""

    def __init__(self, text: str, directory: Path, environment: dict[str, str]) -> None:
        self.log = Path(tempfile.mkstemp(prefix="terminal-", dir=environment["TMPDIR"])[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def wait_for(self, what: str, is_there) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_there(self.lines()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = "\n".join(self.lines())
                raise Fault(f"{what} does not come; there is\n{log}")
            time.sleep(0.05)

    def end(self) -> None:
        end_group(self.process)


class Shell:
    """One shell for all commands of a page."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.scratch = Path(environment["TMPDIR"])
        status, told = os.pipe()
        self.status = os.fdopen(status)
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[told],
            start_new_session=True,
            text=True,
        )
        os.close(told)
        self.told = told

    def run(self, text: str) -> tuple[int, list[str]]:
        typed, output = self.scratch / "typed", self.scratch / "output"
        typed.write_text(text + "\n")
        assert self.process.stdin is not None
        self.process.stdin.write(
            f"source {typed} >{output} 2>&1 </dev/null; echo $? >&{self.told}\n"
        )
        self.process.stdin.flush()
        watch = threading.Timer(PATIENCE, os.killpg, [self.process.pid, signal.SIGKILL])
        watch.start()
        line = self.status.readline()
        watch.cancel()
        lines = output.read_text(errors="replace").splitlines()
        if not line:
            shown = "\n".join(lines)
            raise Fault(f"the shell ended at\n{text}\n{shown}")
        return int(line), lines

    def end(self) -> None:
        end_group(self.process)


class Page:
    """A page that is being followed."""

    def __init__(self, name: str, checkout: Path, environment: dict[str, str]) -> None:
        self.name, self.checkout, self.environment = name, checkout, environment
        self.shell = Shell(checkout, environment)
        self.terminals: list[Terminal] = []
        self.ran = 0
        self.typed = 0  # codes that had been made when one was typed last

    def follow(self) -> None:
        try:
            for block in blocks_of(self.name):
                if block.why_not() is None:
                    self.run(block)
        finally:
            self.shell.end()
            for terminal in self.terminals:
                terminal.end()

    def run(self, block: Block) -> None:
        remarks = block.remarks
        if "beside a server" in remarks:
            settings = dict(it.split("=", 1) for it in remarks["beside a server"].split())
            # The checkout's own directory, in which the shell began.
            server = Terminal("exec otpd serve", self.checkout, self.environment | settings)
            self.terminals.append(server)
            server.wait_for("a server", lambda lines: any("Store answers" in it for it in lines))
        if not block.language:
            if "the log says" in remarks:
                self.compare_log(block)
            return
        if "in the background until" in remarks:
            text = remarks["in the background until"]
            terminal = Terminal("\n".join(block.body), self.checkout, self.environment)
            self.terminals.append(terminal)
            terminal.wait_for(text, lambda lines: any(text in line for line in lines))
            self.ran += 1
            return
        commands = block.commands()
        for command in commands:
            last = command is commands[-1]
            self.run_command(block, command, may_fail=last and "fails" in remarks)

    def run_command(self, block: Block, command: Command, may_fail: bool) -> None:
        text = command.text
        if SAMPLE_CODE.search(text):
            text = SAMPLE_CODE.sub(self.newest_code(block, again=may_fail), text)
        status, lines = self.shell.run(text)
        self.ran += 1
        came = "\n".join(lines)
        if (status != 0) != may_fail:
            raise Fault(f"{block}: status {status} of\n{text}\n{came}")
        differ = "figures differ" in block.remarks
        if command.shown and not fits(command.shown, lines, differ):
            shown = "\n".join(command.shown)
            raise Fault(f"{block}: {text}\nis shown to print\n{shown}\nand prints\n{came}")

    def compare_log(self, block: Block) -> None:
        terminal = self.terminals[-1]

        def is_there(lines: list[str]) -> bool:
            # The time and the level in front are of no matter to a page.
            found = [line[line.find("[OTP") :] for line in lines if "[OTP" in line]
            return all(any(fits([it], [line]) for line in found) for it in block.body)

        terminal.wait_for(f"{block}: what is shown of the log", is_there)

    def newest_code(self, block: Block, again: bool) -> str:
        """The newest code; unless it is typed again, one that was not typed before."""
        deadline = time.monotonic() + 10
        while True:
            logs = [terminal.log for terminal in self.terminals]
            logs += self.checkout.rglob("*.log")
            logs.sort(key=lambda log: log.stat().st_mtime_ns)
            found = [it for log in logs for it in GENERATED.findall(log.read_text(errors="replace"))]
            if found and (again or len(found) > self.typed):
                self.typed = len(found)
                return found[-1]
            if time.monotonic() > deadline:
                raise Fault(f"{block}: no log has a code")
            time.sleep(0.05)


def copy_checkout(destination: Path) -> None:
    """What git knows of, as it is now. What did not change keeps its time, so that it is
    not compiled anew."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    names = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    for path in destination.rglob("*"):
        if path.is_file() and str(path.relative_to(destination)) not in names:
            path.unlink()
    for name in names:
        there = destination / name
        if there.exists() and there.read_bytes() == (ROOT / name).read_bytes():
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, there)


def start_loopback() -> None:
    """A new network has its loopback down."""
    set_flags, up_and_running = 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", up_and_running))
        except PermissionError:
            pass  # the machine's own network, which is up


def pass_on(source: socket.socket, destination: socket.socket) -> None:
    try:
        while part := source.recv(65_536):
            destination.sendall(part)
    except OSError:
        pass
    finally:
        destination.close()


def offer_postgres() -> None:
    """The throwaway server at the address that the pages name."""
    directory, port = os.environ["TRY_DOCS_POSTGRES"], os.environ["TRY_DOCS_POSTGRES_PORT"]
    listener = socket.create_server(("127.0.0.1", 5432))

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{directory}/.s.PGSQL.{port}")
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    for statement in ("CREATE ROLE otpd LOGIN", "CREATE DATABASE otpd OWNER otpd"):
        subprocess.run(
            ["psql", "--no-psqlrc", "--quiet", f"--host={directory}", f"--port={port}",
             "--username=postgres", f"--command={statement}", "postgres"],
            check=True, env=os.environ | {"PGOPTIONS": "-c client_min_messages=error"},
        )


def environment_of(page: str, scratch: Path, cold: bool) -> dict[str, str]:
    """An empty home, and in the PATH what the page takes for granted."""
    home, programs, temporary = scratch / "home", scratch / "programs", scratch / "tmp"
    for directory in (home, programs, temporary):
        directory.mkdir()
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    rustup = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
    if page not in NOTHING_BUT_RUST:
        (programs / "otpd").symlink_to(os.environ["OTPD"])
        (programs / "grpcurl").symlink_to(os.environ["TRY_DOCS_GRPCURL"])
    target = scratch / "target" if cold else ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    return {
        "HOME": str(home),
        "PATH": f"{programs}:{cargo}/bin:/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        # Rust's own, for it is taken for granted; and what is downloaded already.
        "CARGO_HOME": str(cargo),
        "RUSTUP_HOME": str(rustup),
        "CARGO_NET_OFFLINE": "true",
        "CARGO_TARGET_DIR": str(target),
    }


def follow(page: str, checkout: Path, cold: bool) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="otpd-docs-", ignore_cleanup_errors=True) as scratch:
        copy_checkout(checkout)
        environment = environment_of(page, Path(scratch), cold)
        followed = Page(page, checkout, environment)
        followed.follow()
    if followed.ran:
        print(f"{page}: {followed.ran} commands, {time.monotonic() - started:.1f} s", flush=True)


def main(arguments: list[str]) -> None:
    if arguments == ["--list"]:
        print(not_run())
        return
    cold = "--cold" in arguments
    chosen = [it for it in arguments if it != "--cold"] or pages()
    hold_list()
    start_loopback()
    offer_postgres()
    # Always the same, so that cargo knows what it built there before.
    checkout = ROOT / "target/docs/checkout"
    checkout.mkdir(parents=True, exist_ok=True)
    for page in chosen:
        follow(page, checkout, cold)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Fault as fault:
        sys.exit(f"try-docs: {fault}")
