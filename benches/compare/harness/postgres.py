"""A PostgreSQL of the comparison's own, with commits that reach the disk."""

from __future__ import annotations

import grp
import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .processes import Fleet, Owner, ProcessFailed, wait_until

# Whatever is not here is PostgreSQL's default. The first three are defaults, too; they are
# what this is about.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
    "listen_addresses": "'127.0.0.1'",
}
# Below the range from which outgoing connections take their ports.
PORTS = range(20000, 32000)
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}


class Postgres:
    """The server. Every database in it is made of a template and dropped after use."""

    def __init__(self, fleet: Fleet, programs: Path, parent: Path) -> None:
        kind = file_system(parent)
        if kind in MEMORY_FILE_SYSTEMS:
            raise ProcessFailed(
                f"{parent} lies in memory ({kind}), where a commit costs nothing; "
                "name a directory on a disk by --data"
            )
        self.file_system = kind
        self._fleet = fleet
        self._programs = programs
        self._owner = unprivileged()
        self.directory = Path(tempfile.mkdtemp(prefix="otpd-compare.", dir=parent))
        self.port = 0
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Makes the cluster and waits until it takes connections."""
        if self._owner:
            os.chown(self.directory, self._owner.user, self._owner.group)
        data = self.directory / "data"
        self._fleet.run(
            [self.program("initdb"), "--pgdata", data, "--username=postgres", "--auth=trust",
             "--encoding=UTF8", "--no-locale"],
            timeout=120, directory=self.directory, owner=self._owner,
        )
        settings = "".join(f"{key} = {value}\n" for key, value in SETTINGS.items())
        with open(data / "postgresql.conf", "a", encoding="ascii") as file:
            file.write(settings + f"unix_socket_directories = '{self.directory}'\n")
        for _ in range(20):
            if self._start_on(random.choice(PORTS), data):
                return
        raise ProcessFailed("PostgreSQL found no free port")

    def _start_on(self, port: int, data: Path) -> bool:
        log = self.directory / f"server-{port}.log"
        process = self._fleet.start(
            [self.program("postgres"), "-D", data, "-p", str(port)],
            log=log, directory=self.directory, owner=self._owner,
        )
        self.port, self._process = port, process
        try:
            wait_until(self._answers, what="PostgreSQL", process=process, log=log)
        except ProcessFailed as error:
            if "Address already in use" in str(error):
                self._fleet.stop(process)
                return False
            raise
        return True

    def _answers(self) -> bool:
        asked = [self.program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def stop(self) -> None:
        """Ends the server at once, since its data are not kept, and removes them."""
        if self._process:
            self._fleet.stop(self._process, signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process from which all others of the server descend."""
        assert self._process, "the server has been started"
        return self._process.pid

    def program(self, name: str) -> Path:
        return self._programs / name

    def url(self, database: str) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, statements: str, database: str = "postgres", timeout: float = 120) -> str:
        """Runs statements, and returns what they yield: unaligned, rows by line."""
        return self._psql(database, ["--command", statements], timeout)

    def file(
        self, path: Path, database: str, timeout: float = 120, **variables: object
    ) -> str:
        """Runs a file of statements; psql puts in the variables."""
        given = [f"--set={name}={value}" for name, value in variables.items()]
        return self._psql(database, [*given, "--file", str(path)], timeout)

    def _psql(self, database: str, arguments: list[str], timeout: float) -> str:
        command = [self.program("psql"), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only",
                   "--set=ON_ERROR_STOP=1", "--dbname", self.url(database), *arguments]
        return self._fleet.run(command, timeout=timeout).output.strip()

    def create(self, database: str, template: str = "template1") -> None:
        """A new database like `template`, in place of one of that name."""
        self.drop(database)
        # By files, since a template may be large; the checkpoint that this needs has every
        # run begin alike.
        self.sql(
            f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY file_copy', timeout=3600
        )

    def drop(self, database: str) -> None:
        self.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', timeout=600)

    def flush(self) -> None:
        """Writes out what earlier work left, so that nobody pays for another's."""
        self.sql("CHECKPOINT", timeout=600)

    def version(self) -> str:
        return self.sql("SHOW server_version")

    def disk_speed(self) -> dict[str, float]:
        """What pg_test_fsync says of fdatasync, PostgreSQL's way to commit on Linux."""
        file = self.directory / "fsync-test"
        command = [self.program("pg_test_fsync"), "-s", "1", "-f", file]
        log = self.directory / "fsync.log"
        process = self._fleet.start(
            command, log=log, directory=self.directory, owner=self._owner
        )

        def told() -> bool:
            return fdatasync_line(log.read_text(errors="replace")) is not None

        try:
            wait_until(told, what="pg_test_fsync", process=process, log=log)
            # The rest of what it measures is not needed.
            return fdatasync_line(log.read_text(errors="replace")) or {}
        finally:
            self._fleet.stop(process)
            file.unlink(missing_ok=True)


def fdatasync_line(text: str) -> dict[str, float] | None:
    """The first figures for fdatasync: of one 8 kB write each."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["fdatasync"] and "usecs/op" in line:
            return {"operations_per_second": float(words[1]), "microseconds": float(words[3])}
    return None


def find_programs(repository: Path) -> Path:
    """Where PostgreSQL's programs are, by the same search as the tests'; installs them
    where it can."""
    script = ("source scripts/postgres; find_postgres || install_postgres >&2; "
              'find_postgres && echo "$POSTGRES_BIN"')
    found = subprocess.run(["bash", "-c", script], cwd=repository, check=False,
                           stdout=subprocess.PIPE, text=True)
    directory = Path(found.stdout.strip() or "/nowhere")
    for program in ("initdb", "postgres", "psql", "pgbench", "pg_test_fsync"):
        if not (directory / program).exists():
            raise ProcessFailed(f"PostgreSQL's {program} was not found")
    return directory


def unprivileged() -> Owner | None:
    """PostgreSQL refuses to run as root; who is not root runs it himself."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(user.pw_uid, grp.getgrgid(user.pw_gid).gr_gid)
    raise ProcessFailed("PostgreSQL refuses root, and there is no user postgres or nobody")


def file_system(path: Path) -> str:
    """The kind of file system that holds `path`."""
    path = path.resolve()
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, name, *_ = line.split()
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind
