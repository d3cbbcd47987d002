"""Follows the pages of the documentation, command by command; scripts/try-docs calls it."""

import signal
import sys
import tempfile
import time
from pathlib import Path

from blocks import ROOT, Fault, pages
from following import Page
from listing import hold_list, not_run
from surroundings import copy_checkout, environment_of, offer_postgres, start_loopback

# Always the same place, so that cargo knows what it built there before.
CHECKOUT = ROOT / "target/docs/checkout"


def follow(page: str, cold: bool) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="otpd-docs-", ignore_cleanup_errors=True) as scratch:
        checkout = Path(scratch, "checkout") if cold else CHECKOUT
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
    for page in chosen:
        follow(page, cold)


if __name__ == "__main__":
    # So that what was started ends, too, when this is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("try-docs: ended"))
    try:
        main(sys.argv[1:])
    except Fault as fault:
        sys.exit(f"try-docs: {fault}")
