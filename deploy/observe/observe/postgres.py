"""The throwaway PostgreSQL of scripts/with-postgres, which can be taken away for a while."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Postgres:
    """The server, with a database of its own for otpd."""

    def __init__(self) -> None:
        self._server = os.environ["TEST_POSTGRES_URL"]
        self._programs = Path(os.environ["TEST_POSTGRES_BIN"])
        self._directory = Path(self._sql("SHOW data_directory"))
        self._sql("CREATE DATABASE observed")
        self.url = self._server.rpartition("/")[0] + "/observed"

    def stop(self) -> None:
        """End it as an administrator would who is in a hurry."""
        self._control("stop", "--mode=fast")

    def start(self) -> None:
        """Bring it back on the same port."""
        port = urlsplit(self._server).port
        self._control("start", f"--options=-p {port}", f"--log={self._directory.parent}/again.log")

    def _control(self, action: str, *arguments: str) -> None:
        subprocess.run(
            [
                self._programs / "pg_ctl",
                action,
                f"--pgdata={self._directory}",
                "--silent",
                "--wait",
                *arguments,
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._directory,
            **self._owner(),
        )

    def _owner(self) -> dict[str, Any]:
        """Whoever owns the data: PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return {}
        owner = self._directory.stat()
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}

    def _sql(self, statement: str) -> str:
        done = subprocess.run(
            [
                self._programs / "psql",
                "--no-psqlrc",
                "--quiet",
                "--no-align",
                "--tuples-only",
                f"--dbname={self._server}",
                f"--command={statement}",
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()
