"""Database of one test, with a clock that can be advanced for all replicas at once."""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path


@dataclass
class Database:
    """Separate empty database, with keys for its replicas."""

    directory: Path
    url: str
    offset: int = 0

    @staticmethod
    def sqlite(directory: Path) -> Database:
        return Database(directory, f"sqlite://{directory / 'otpd.db'}")

    @staticmethod
    def postgres(directory: Path) -> Database:
        server = os.environ["TEST_POSTGRES_URL"]
        name = f"client_{secrets.token_hex(8)}"
        _psql(server, f"CREATE DATABASE {name}")
        return Database(directory, f"{server.rpartition('/')[0]}/{name}")

    @property
    def keys(self) -> Path:
        return self.directory / "otpd.keys"

    def advance(self, seconds: float) -> None:
        """Advance the store's clock ahead of the machine's."""
        self.offset += round(seconds * 1000)
        if self.url.startswith("sqlite"):
            self._sqlite(
                "BEGIN IMMEDIATE; DROP VIEW otp_clock; CREATE VIEW otp_clock AS SELECT"
                f" CAST(round(unixepoch('now', 'subsec') * 1000) AS INTEGER) + {self.offset}"
                " AS now; COMMIT"
            )
        else:
            now = f"floor(extract(EPOCH FROM clock_timestamp()) * 1000)::bigint + {self.offset}"
            _psql(self.url, f"CREATE OR REPLACE VIEW otp_clock AS SELECT ({now})::bigint AS now")

    def now(self) -> datetime:
        """Return the time of the store's clock."""
        return datetime.now(timezone.utc) + timedelta(milliseconds=self.offset)

    def _sqlite(self, script: str) -> None:
        file = self.url.removeprefix("sqlite://")
        with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
            connection.executescript(script)


def _psql(database: str, statement: str) -> None:
    binaries = Path(os.environ["TEST_POSTGRES_BIN"])
    command = [str(binaries / "psql"), "--no-psqlrc", "--quiet", "--dbname", database]
    subprocess.run([*command, "--command", statement], check=True)
