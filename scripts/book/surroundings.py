"""What a page finds around it: a copy of the checkout, a database, an empty home."""

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

from blocks import ROOT

# Pages for a machine that has only Rust.
NOTHING_BUT_RUST = {"docs/quick-start.md", "docs/quick-start.ru.md"}


def copy_checkout(destination: Path) -> None:
    """What git knows of, as it is now. What did not change keeps its time, so that it is
    not compiled anew."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    destination.mkdir(parents=True, exist_ok=True)
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
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Not where the network is the machine's own, which is up.
    with any_socket, contextlib.suppress(PermissionError):
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", up_and_running))


def pass_on(source: socket.socket, destination: socket.socket) -> None:
    try:
        while part := source.recv(65_536):
            destination.sendall(part)
    except OSError:
        pass
    finally:
        destination.close()


def offer_postgres() -> None:
    """The temporary server at the address that the pages name."""
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
            [
                os.environ["TRY_DOCS_PSQL"],
                "--no-psqlrc",
                "--quiet",
                f"--host={directory}",
                f"--port={port}",
                "--username=postgres",
                f"--command={statement}",
                "postgres",
            ],
            check=True,
            env=os.environ | {"PGOPTIONS": "-c client_min_messages=error"},
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
