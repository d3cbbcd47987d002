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
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

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
SLOW_COMMITS = Path(__file__).resolve().parents[1] / "slow_commits/slow_commits.c"


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
        try:
            self._launch(port, data, [], None)
        except ProcessFailed as error:
            if "Address already in use" in str(error):
                return False
            raise
        return True

    def _launch(
        self, port: int, data: Path, settings: list[str], environment: dict[str, str] | None
    ) -> None:
        log = self.directory / f"server-{port}.log"
        process = self._fleet.start(
            [self.program("postgres"), "-D", data, "-p", str(port), *settings],
            log=log, directory=self.directory, owner=self._owner, environment=environment,
        )
        self.port, self._process = port, process
        try:
            wait_until(self._answers, what="PostgreSQL", process=process, log=log)
        except ProcessFailed:
            self._fleet.stop(process)
            raise

    @contextmanager
    def slow_commits(self, milliseconds: float) -> Iterator[float]:
        """Restarts the server with a delay in each flush of its write-ahead log, until the
        end of the block. Yields the milliseconds that a lone commit then takes."""
        library = self.directory / "slow_commits.so"
        if not library.exists():
            compile_library(SLOW_COMMITS, library)
        self._restart(["-c", "wal_sync_method=fdatasync"], {
            **os.environ,
            "LD_PRELOAD": str(library),
            "COMPARE_FLUSH_MICROSECONDS": f"{milliseconds * 1000:.0f}",
        })
        try:
            measured = self._commit_milliseconds()
            if measured < milliseconds:
                raise ProcessFailed(f"a commit takes {measured:.1f} ms, not {milliseconds:g} ms: "
                                    "the delay is not in effect")
            yield measured
        finally:
            self._restart([], None)

    def _restart(self, settings: list[str], environment: dict[str, str] | None) -> None:
        assert self._process, "the server has been started"
        # The checkpoint here, so that stopping has nothing left to write.
        self.flush()
        self._fleet.stop(self._process, signal.SIGINT)
        self._launch(self.port, self.directory / "data", settings, environment)

    def _commit_milliseconds(self, commits: int = 10) -> float:
        """Returns the mean duration of commits in one session, one after the other."""
        steps = [
            "CREATE TEMPORARY TABLE started AS SELECT clock_timestamp() AS at",
            f"DO $$ BEGIN FOR i IN 1..{commits} LOOP"
            " PERFORM pg_logical_emit_message(true, 'compare', 'commit'); COMMIT;"
            " END LOOP; END $$",
            f"SELECT extract(EPOCH FROM clock_timestamp() - at) * 1000 / {commits} FROM started",
        ]
        return float(self._psql("postgres", [f"--command={step}" for step in steps], 120))

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

    def exists(self, database: str) -> bool:
        return self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{database}'") != ""

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


def compile_library(source: Path, library: Path) -> None:
    """Compiles a file of C into a library that processes can load first."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        raise ProcessFailed(f"slow commits need a C compiler; {compiler} was not found")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)


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
