"""Processes are measured and ended whole, with all that they started."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harness import processes
from harness.processes import (
    Fleet, ProcessFailed, cpu_seconds, memory_bytes, parse_stat, read_stat, runs, tree, wait_until,
)

# A child that uses a good tenth of a second and ends; then its parent says so and waits.
BUSY = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c",
    "import time\\nwhile time.process_time() < 0.15: pass"])
print("done", flush=True)
time.sleep(600)
"""
# A parent that outlives being asked to end, as its child does.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


class Processes(unittest.TestCase):
    def setUp(self) -> None:
        self.fleet = Fleet()
        self.addCleanup(self.fleet.stop_all)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name) / "log"

    def started(self, script: str):
        process = self.fleet.start([sys.executable, "-c", script], log=self.log)
        wait_until(lambda: self.log.read_text().endswith("\n"), what="it", process=process,
                   log=self.log)
        return process

    def test_a_name_may_hold_anything(self) -> None:
        fields = ["S", "42", *["0"] * 9, "1", "2", "3", "4", *["0"] * 4, "77", "0"]
        stat = parse_stat("7 (a ) b (c) " + " ".join(fields))
        self.assertEqual((stat.parent, stat.ticks, stat.born), (42, 10, 77))

    def test_children_that_ended_count(self) -> None:
        process = self.started(BUSY)
        self.assertGreaterEqual(cpu_seconds([process.pid]), 0.15)
        self.assertGreater(memory_bytes([process.pid])["peak_resident_bytes"], 1_000_000)

    def test_whoever_does_not_end_is_killed_with_his_children(self) -> None:
        process = self.started(STUBBORN)
        child = int(self.log.read_text())
        born = read_stat(child).born
        self.assertEqual(tree(process.pid)[1:], [(child, born)])
        self.assertTrue(runs(child, born))
        with mock.patch.object(processes, "GRACE_SECONDS", 0.3):
            self.fleet.stop_all()
        self.assertIsNotNone(process.returncode)
        self.assertFalse(runs(child, born))

    def test_a_command_that_fails_says_why(self) -> None:
        with self.assertRaisesRegex(ProcessFailed, "ended with 3: nothing goes"):
            self.fleet.run([sys.executable, "-c", "import sys; print('nothing goes',"
                            " file=sys.stderr); sys.exit(3)"], timeout=30)


if __name__ == "__main__":
    unittest.main()
