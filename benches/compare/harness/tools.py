"""What the comparison builds and installs, all of it below target/."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .processes import Fleet, ProcessFailed

COMPARE = Path(__file__).resolve().parents[1]
# A release build with thin LTO takes minutes on a small machine.
BUILD_TIMEOUT = 3600.0
INSTALL_TIMEOUT = 900.0


@dataclass(frozen=True)
class Baseline:
    """An earlier revision of this repository, and its server if that is built already."""

    revision: str
    otpd: Path | None = None


class Tools:
    """Each is made at its first use, so that a run without a system needs none of its
    tools."""

    def __init__(
        self,
        fleet: Fleet,
        repository: Path,
        otpd: Path | None,
        unoptimized: bool = False,
        baseline: "Baseline | None" = None,
    ) -> None:
        self._fleet = fleet
        self._unoptimized = unoptimized
        self._repository = repository
        self._otpd = otpd
        self._baseline = baseline
        self._load: Path | None = None
        self._target = repository / "target/compare"

    def otpd(self) -> Path:
        """The server, as it is released: the path that was given, else it is built."""
        if self._otpd is None:
            self._otpd = self._built("dev" if self._unoptimized else "release")
        return self._otpd

    def named(self) -> "Tools":
        """The same with a server for a profiler: functions have names, and each keeps a frame
        pointer, by which the stack is found."""
        target = self._target / "profiling"
        flags = f"{os.environ.get('RUSTFLAGS', '')} -C force-frame-pointers=yes".strip()
        self._cargo(["build", "--profile=profiling", f"--target-dir={target}", "--bin", "otpd"],
                    environment={**os.environ, "RUSTFLAGS": flags})
        return Tools(self._fleet, self._repository, target / "profiling/otpd")

    def baseline(self) -> tuple[Path, Path]:
        """The server of an earlier revision, and benches/compare of that revision."""
        if self._baseline is None:
            raise ProcessFailed("name the earlier revision by --baseline")
        revision = self._baseline.revision
        commit = self._fleet.run(["git", "rev-parse", "--verify", f"{revision}^{{commit}}"],
                                 timeout=30, directory=self._repository).output.strip()
        directory = self._target / "baseline" / commit
        source = directory / "source"
        if not source.exists():
            directory.mkdir(parents=True, exist_ok=True)
            archive = directory / "source.tar"
            self._fleet.run(["git", "archive", f"--output={archive}", commit], timeout=120,
                            directory=self._repository)
            # Unpacked beside its place, so that an interruption leaves no half of it there.
            unpacked = directory / "unpacked"
            shutil.rmtree(unpacked, ignore_errors=True)
            shutil.unpack_archive(archive, unpacked)
            unpacked.rename(source)
            archive.unlink()
        return self._baseline.otpd or self._built_in(source, directory / "target"), (
            source / "benches/compare")

    def _built_in(self, source: Path, target: Path) -> Path:
        profile = "dev" if self._unoptimized else "release"
        program = target / ("debug" if self._unoptimized else "release") / "otpd"
        if not program.exists():
            self._cargo(["build", f"--profile={profile}", f"--target-dir={target}", "--bin", "otpd"],
                        directory=source)
        return program

    def load(self) -> Path:
        """The load generator of this directory, which is also the echo server."""
        if self._load is None:
            profile = "dev" if self._unoptimized else "bench"
            output = self._cargo(["bench", "--no-run", f"--profile={profile}",
                                  "--bench", "compare_load", "--message-format=json"])
            self._load = executable(output, "compare_load")
        return self._load

    def inferno(self, version: str) -> Path:
        """The program that draws flame graphs."""
        program = self._target / "inferno/bin/inferno-flamegraph"
        if not program.exists():
            say("installing inferno into target/compare")
            self._install(["cargo", "install", "inferno", "--quiet", "--locked", "--version", version,
                           "--bin", "inferno-flamegraph", "--root", self._target / "inferno"])
        return program

    def python(self) -> Path:
        """A Python that has what django/requirements.txt says."""
        requirements = COMPARE / "django/requirements.txt"
        directory = self._target / "django"
        done = directory / "requirements.txt"
        if not (done.exists() and filecmp.cmp(requirements, done, shallow=False)):
            say("installing Django into target/compare")
            shutil.rmtree(directory, ignore_errors=True)
            self._install([sys.executable, "-m", "venv", directory])
            self._install([directory / "bin/pip", "install", "--quiet", "--no-deps",
                           "--disable-pip-version-check", "--requirement", requirements])
            # Last, so that an interrupted installation is not taken for a whole one.
            shutil.copy(requirements, done)
        return directory / "bin/python"

    def redis_server(self) -> Path:
        """The program of Redis, installed where that is possible."""
        if not shutil.which("redis-server"):
            self._install(["bash", "-c", "source scripts/packages; require_redis >&2"],
                          self._repository)
        program = shutil.which("redis-server")
        if not program:
            raise ProcessFailed("redis-server was not found (on Debian: apt-get install redis-server)")
        return Path(program)

    def better_auth(self) -> Path:
        """A directory with the service and its packages."""
        source = COMPARE / "better_auth"
        directory = self._target / "better_auth"
        lock, done = source / "package-lock.json", directory / "installed.json"
        if not (done.exists() and filecmp.cmp(lock, done, shallow=False)):
            if not shutil.which("npm"):
                raise ProcessFailed("better-auth needs Node 20 and npm")
            say("installing better-auth into target/compare")
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            shutil.copy(source / "package.json", directory)
            shutil.copy(lock, directory)
            self._install(["npm", "ci", "--silent", "--ignore-scripts"], directory)
            shutil.copy(lock, done)
        shutil.copy(source / "service.mjs", directory)
        return directory

    def _built(self, profile: str) -> Path:
        self._cargo(["build", f"--profile={profile}", "--bin", "otpd"])
        directory = "debug" if profile == "dev" else profile
        return self._target_directory() / directory / "otpd"

    def _cargo(
        self,
        arguments: list[str],
        directory: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> str:
        say(f"cargo {' '.join(arguments[:2])} {arguments[-1]}")
        command = [os.environ.get("CARGO", "cargo"), *arguments, "--locked"]
        done = self._fleet.run(command, timeout=BUILD_TIMEOUT, environment=environment,
                               directory=directory or self._repository)
        return done.output

    def _target_directory(self) -> Path:
        output = self._cargo(["metadata", "--no-deps", "--format-version=1"])
        return Path(json.loads(output)["target_directory"])

    def _install(self, command: list[str | Path], directory: Path | None = None) -> None:
        self._fleet.run(command, timeout=INSTALL_TIMEOUT, directory=directory)


def executable(messages: str, name: str) -> Path:
    """Where cargo put the program of the target `name`, by its messages."""
    for line in messages.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise ProcessFailed(f"cargo built no {name}")


def say(text: str) -> None:
    """Progress, which is not a result."""
    print(f"  {text}", file=sys.stderr, flush=True)
