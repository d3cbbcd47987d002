"""Figures of work that was not done, or not as it should have been, are refused."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harness.measurement import Load
from harness.postgres import SLOW_COMMITS, Postgres, compile_library
from harness.processes import Fleet, ProcessFailed
from harness.redis import Redis
from harness.systems import http
from harness.tools import Tools

# Prints the milliseconds of one call of each kind.
FLUSHES = """
import os, sys, time
for flush in (os.fdatasync, os.fsync):
    with open(sys.argv[1], "wb") as file:
        started = time.monotonic()
        flush(file.fileno())
        print((time.monotonic() - started) * 1000)
"""


class SlowCommits(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.library = self.directory / "slow_commits.so"
        compile_library(SLOW_COMMITS, self.library)

    def flushes(self, delay: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "LD_PRELOAD": str(self.library),
                       "COMPARE_FLUSH_MICROSECONDS": delay}
        return subprocess.run([sys.executable, "-c", FLUSHES, self.directory / "file"],
                              env=environment, capture_output=True, text=True, check=False)

    def test_the_write_ahead_log_alone_is_delayed(self) -> None:
        log, data = (float(line) for line in self.flushes("1500000").stdout.split())
        self.assertGreaterEqual(log, 1500)
        self.assertLess(data, 1500)

    def test_without_a_delay_nothing_starts(self) -> None:
        self.assertLess(self.flushes("no").returncode, 0)

    def test_a_delay_without_an_effect_is_refused(self) -> None:
        postgres = Postgres.__new__(Postgres)
        postgres.directory = self.directory
        restarts = []
        postgres._restart = lambda settings, environment: restarts.append(environment)
        postgres._commit_milliseconds = lambda: 0.2
        with self.assertRaisesRegex(ProcessFailed, "takes 0.2 ms, not 10 ms"):
            with postgres.slow_commits(10):
                self.fail("nothing may be measured")
        self.assertEqual(restarts[0]["COMPARE_FLUSH_MICROSECONDS"], "10000")
        self.assertIsNone(restarts[1], "the server is restarted without the delay")


class Replies(unittest.TestCase):
    def redis(self, fsync: str = "always", written: str = "ok", deleted: int = 5) -> Redis:
        replies = {
            ("CONFIG", "GET", "appendonly"): "appendonly\nyes",
            ("CONFIG", "GET", "appendfsync"): f"appendfsync\n{fsync}",
            ("INFO", "persistence"): f"loading:0\r\naof_last_write_status:{written}\r\n",
            ("INFO", "commandstats"): "cmdstat_set:calls=5,usec=1\r\n"
                                      f"cmdstat_del:calls={deleted},usec=1\r\n",
        }
        patched = mock.patch.object(Redis, "_ask", lambda _, *words: replies[words])
        patched.start()
        self.addCleanup(patched.stop)
        return Redis(port=1, pid=1)

    def test_redis_that_could_lose_a_write_is_refused(self) -> None:
        self.redis().check_durable()
        with self.assertRaisesRegex(ProcessFailed, "appendfsync = everysec"):
            self.redis(fsync="everysec").check_durable()
        with self.assertRaisesRegex(ProcessFailed, "could not write"):
            self.redis(written="err").check_durable()

    def measured(self, server: Redis) -> dict:
        """Django on this server, with a load of five pairs."""

        def serve(bench, system, *_, each, **__) -> dict:
            each(Load(5, 1.0, 0.1, {}))
            return {"pairs": 5}

        bench = mock.MagicMock()
        bench.postgres.port = 1
        with mock.patch.object(http, "serve", serve), \
                mock.patch.object(http.redis, "running") as running:
            running.return_value.__enter__.return_value = server
            running.return_value.__exit__.return_value = False
            return http.Django("django-redis", "Django", 60, redis=True).run(bench)

    def test_pairs_that_redis_did_not_receive_are_refused(self) -> None:
        self.assertEqual(self.measured(self.redis()), {"pairs": 5})
        with self.assertRaisesRegex(ProcessFailed, "5 pairs, but Redis received 4 del"):
            self.measured(self.redis(deleted=4))


class EarlierRevision(unittest.TestCase):
    def test_it_must_be_named(self) -> None:
        tools = Tools(Fleet(), Path("/"), None)
        with self.assertRaisesRegex(ProcessFailed, "by --baseline"):
            tools.baseline()


if __name__ == "__main__":
    unittest.main()
