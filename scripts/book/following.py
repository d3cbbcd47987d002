"""A page that is being followed."""

import re
import time
from pathlib import Path

from blocks import SAMPLE_CODE, Block, Command, Fault, blocks_of
from comparison import fits
from terminals import Shell, Terminal

GENERATED = re.compile(r"Generated OTP: (\d+)")


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
            server.wait_for("a server", lambda lines: any("Store available" in it for it in lines))
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
            found = [
                it for log in logs for it in GENERATED.findall(log.read_text(errors="replace"))
            ]
            if found and (again or len(found) > self.typed):
                self.typed = len(found)
                return found[-1]
            if time.monotonic() > deadline:
                raise Fault(f"{block}: no log has a code")
            time.sleep(0.05)
