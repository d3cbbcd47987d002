"""Counts lost codes; started by `show`, which lists the requirements."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
WORKERS = 4
USERS_AT_ONCE = 32
PATIENCE = 60.0
"""Seconds after which something that must happen has not."""


class Codes:
    """The codes that were sent, by whichever program."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._news = threading.Condition()

    def read(self, line: str) -> None:
        """Look for one in a line of a log."""
        if sent := re.search(r"Generated OTP: (\d+) .*recipient=(\+\d+)", line):
            with self._news:
                self._codes[sent[2]] = sent[1]
                self._news.notify_all()

    def of(self, phone: str) -> str:
        """Wait for the code of a number."""
        with self._news:
            if not self._news.wait_for(lambda: phone in self._codes, PATIENCE):
                raise TimeoutError(f"no code was sent to {phone}")
            return self._codes[phone]


class Program:
    """A program that listens."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], codes: Codes
    ) -> None:
        self._codes = codes
        self._process = subprocess.Popen(
            command,
            cwd=HERE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._find_address(self._process.stdout)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def _find_address(self, log: Iterator[str]) -> str:
        said = []
        for line in log:
            said.append(line)
            if found := re.search(r"(?:Listening at: http://|address=)([\d.]+:\d+)", line):
                return found[1]
        raise RuntimeError("".join(said))

    def _read(self, log: Iterator[str]) -> None:
        for line in log:
            self._codes.read(line)


def gunicorn(codes: Codes, **environment: str) -> Program:
    """Start the CRM, as in production: several worker processes."""
    command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS)]
    command += ["--bind", "127.0.0.1:0", "crm.wsgi"]
    # This script is the proxy in front of it.
    return Program(command, {**os.environ, "CRM_PROXIES": "1", **environment}, codes)


class Replicas:
    """Two otpds on one store."""

    def __init__(self, directory: Path, codes: Codes) -> None:
        self._codes = codes
        self._environment = {
            "DATABASE_URL": new_database(),
            "OTPD_KEYS_FILE": str(directory / "otpd.keys"),
        }
        keygen = [os.environ["OTPD"], "keygen", "--output", str(directory / "otpd.keys")]
        subprocess.run(keygen, env={}, check=True, capture_output=True)
        self._running = [self._start("127.0.0.1:0") for _ in range(2)]
        self.addresses = ",".join(replica.address for replica in self._running)

    def _start(self, listen: str) -> Program:
        environment = {**self._environment, "OTPD_LISTEN": listen}
        return Program([os.environ["OTPD"]], environment, self._codes)

    def restart_one(self) -> None:
        """End one and start it again in the same place."""
        replica = self._running[0]
        replica.stop()
        self._running[0] = self._start(replica.address)

    def stop(self) -> None:
        """End both."""
        for replica in self._running:
            replica.stop()


def new_database() -> str:
    """Make a database in the PostgreSQL that is there."""
    server = os.environ["TEST_POSTGRES_URL"]
    psql = Path(os.environ["TEST_POSTGRES_BIN"]) / "psql"
    name = f"crm_{secrets.token_hex(8)}"
    command = [str(psql), "--no-psqlrc", "--quiet", "--dbname", server]
    subprocess.run([*command, "--command", f"CREATE DATABASE {name}"], check=True)
    return f"{server.rpartition('/')[0]}/{name}"


class Users:
    """Users who request a code and submit it correctly."""

    def __init__(self, crm: Program, codes: Codes, count: int) -> None:
        self._crm, self._codes, self._count = crm, codes, count
        self._served = threading.Semaphore(0)
        self.last_quarter = threading.Event()
        """Set when the last of them may come."""

    def lost(self) -> int:
        """Count the users whose login failed."""
        with ThreadPoolExecutor(USERS_AT_ONCE) as pool:
            return list(pool.map(self._let_in, range(self._count))).count(False)

    def wait_for(self, count: int) -> None:
        """Wait until so many have had their answer."""
        for _ in range(count):
            self._served.acquire()

    def _let_in(self, number: int) -> bool:
        phone = f"+79{number:09}"
        if number >= self._count * 3 // 4:
            self.last_quarter.wait(PATIENCE)
        address = str(ipaddress.IPv4Address("10.0.0.0") + number)
        try:
            status = self._post("send_otp", {"phone": phone}, address)
            if status != http.HTTPStatus.OK:
                return False
            answer = {"phone": phone, "otp": self._codes.of(phone)}
            return self._post("verify_otp", answer, address) == http.HTTPStatus.OK
        finally:
            self._served.release()

    def _post(self, endpoint: str, fields: dict[str, str], address: str) -> int:
        connection = http.client.HTTPConnection(self._crm.address, timeout=PATIENCE)
        headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
        connection.request("POST", f"/api/users/{endpoint}/", json.dumps(fields), headers)
        status = connection.getresponse().status
        connection.close()
        return status


def with_locmem(count: int) -> int:
    """Count the codes that the old endpoints lose."""
    codes = Codes()
    crm = gunicorn(codes, CRM_ENDPOINTS="locmem")
    try:
        users = Users(crm, codes, count)
        users.last_quarter.set()
        return users.lost()
    finally:
        crm.stop()


def with_otpd(count: int, directory: Path) -> int:
    """Count the codes that the new ones lose while one replica of otpd is restarted."""
    codes = Codes()
    replicas = Replicas(directory, codes)
    crm = gunicorn(codes, CRM_ENDPOINTS="otpd", CRM_OTPD=replicas.addresses)
    try:
        users = Users(crm, codes, count)
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(users.lost)
            users.wait_for(count // 4)
            replicas.restart_one()
            # Some of them meet the replica when it is back.
            users.last_quarter.set()
            return lost.result()
    finally:
        crm.stop()
        replicas.stop()


def main() -> int:
    """Count both ways."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    lost = with_locmem(count)
    print(f"LocMemCache, {WORKERS} gunicorn workers: {lost} of {count} codes lost", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        lost_by_otpd = with_otpd(count, Path(directory))
    print(
        f"otpd, {WORKERS} gunicorn workers, 2 replicas, one restarted:"
        f" {lost_by_otpd} of {count} codes lost"
    )
    return 1 if lost_by_otpd or not lost else 0


if __name__ == "__main__":
    sys.exit(main())
