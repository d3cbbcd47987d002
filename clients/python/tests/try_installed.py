"""Sends and verifies a code with only the installed package."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator

from otpd import Client

PHONE = "+79991234567"


def main() -> None:
    """Start otpd, read the code in its log, and verify it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [os.environ["OTPD"]],
            cwd=directory,
            env={"OTPD_LISTEN": "127.0.0.1:0"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        log = iter(process.stdout)
        try:
            client = Client(find(r"address=\"?(127\.0\.0\.1:\d+)", log), timeout=60)
            client.send(PHONE)
            code = find(r"Generated OTP: (\d+)", log)
            assert client.verify(PHONE, code)
            assert not client.verify(PHONE, code)
            client.close()
        finally:
            process.kill()
    print("verified")


def find(pattern: str, lines: Iterator[str]) -> str:
    """Read the log up to a line."""
    for line in lines:
        if found := re.search(pattern, line):
            return found[1]
    raise LookupError(pattern)


if __name__ == "__main__":
    main()
