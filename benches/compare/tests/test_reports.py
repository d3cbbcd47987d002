"""What programs print is read right, and what is reported follows from it."""

import io
import json
import unittest
import xml.etree.ElementTree as xml

from harness.chart import in_flight_chart, systems_chart
from harness.command import PART, as_json
from harness.goals import FIGURES, GOALS, figures, verdicts
from harness.page import number, page
from harness.postgres import fdatasync_line
from harness.processes import ProcessFailed
from harness.redis import command_calls, decode, encode
from harness.rounds import QUICK, all_systems, chosen
from harness.systems.pgbench import check_rate, parse, quantiles
from harness.tools import executable

from .figures import results, run

PGBENCH = """transaction type: full_statements.sql
number of clients: 16
number of transactions actually processed: 2190
number of failed transactions: {failed} (0.000%)
latency average = 14.612 ms
initial connection time = 31.123 ms
tps = 1095.000000 (without initial connection time)
"""


class Reading(unittest.TestCase):
    def test_pgbench(self) -> None:
        load = parse(PGBENCH.format(failed=0), 0.5)
        self.assertEqual((load.pairs, load.seconds), (2190, 2.0))
        self.assertEqual(load.details["pair_latency_microseconds"]["mean"], 14612)
        with self.assertRaises(ProcessFailed):
            parse(PGBENCH.format(failed=1), 0.5)
        with self.assertRaises(ProcessFailed):
            parse("pgbench: error", 0.5)

    def test_log_of_pgbench(self) -> None:
        lines = [f"0 {number} {number * 10} 0 1800000000 1 3" for number in range(1, 201)]
        self.assertEqual(quantiles(reversed(lines)), {"p50": 1010, "p99": 1990})
        with self.assertRaisesRegex(ProcessFailed, "no transaction"):
            quantiles([])

    def test_a_rate_that_was_not_kept_is_refused(self) -> None:
        check_rate({"pairs_per_second": 85.0}, 100)
        with self.assertRaisesRegex(ProcessFailed, "75 of 100 pairs/s"):
            check_rate({"pairs_per_second": 75.0}, 100)

    def test_redis(self) -> None:
        self.assertEqual(encode(("CONFIG", "GET", "é")),
                         "*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$2\r\né\r\n".encode())
        reply = io.BytesIO(b"*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n+PONG\r\n-ERR no\r\n")
        self.assertEqual([decode(reply), decode(reply)], ["appendfsync\nalways", "PONG"])
        with self.assertRaisesRegex(ProcessFailed, "-ERR no"):
            decode(reply)
        statistics = "# Commandstats\r\ncmdstat_setex:calls=9,usec=1\r\ncmdstat_set:calls=7,usec=5\r\n"
        self.assertEqual((command_calls(statistics, "set"), command_calls(statistics, "del")), (7, 0))

    def test_pg_test_fsync(self) -> None:
        text = ("        open_datasync                      2,6 ops/sec\n"
                "        fdatasync                        3021.300 ops/sec     331 usecs/op\n")
        self.assertEqual(fdatasync_line(text),
                         {"operations_per_second": 3021.3, "microseconds": 331})
        self.assertIsNone(fdatasync_line("fdatasync   \n"))

    def test_cargo(self) -> None:
        messages = ('{"reason":"compiler-artifact","target":{"name":"otpd"},"executable":null}\n'
                    '{"target":{"name":"compare_load"},"executable":"/x/compare_load-1"}\n')
        self.assertEqual(str(executable(messages, "compare_load")), "/x/compare_load-1")


class Reporting(unittest.TestCase):
    def verdict(self, beginning: str, *rounds: dict, **others):
        found = verdicts(results(list(rounds), **others))
        return next(one for one in found if beginning in one.goal.text)

    def test_a_ratio_is_of_each_round_by_itself(self) -> None:
        # Of the medians it would be 5; the rounds say 10, 2 and 3.
        rounds = [{"otpd-postgres-256": run(ours), "pgbench-full-16": run(theirs)}
                  for ours, theirs in ((1000, 100), (500, 250), (300, 100))]
        verdict = self.verdict("full work", *rounds)
        self.assertEqual((verdict.value, verdict.reached), (3, False))

    def test_rounds_in_which_a_system_failed_are_left_out(self) -> None:
        good = {"otpd-postgres-256": run(900), "pgbench-full-16": run(200)}
        bad = {"otpd-postgres-256": run(900), "pgbench-full-16": {"failed": "no"}}
        self.assertEqual(self.verdict("full work", good, bad).values, [4.5])
        self.assertIsNone(self.verdict("full work", bad).reached)

    def test_below_a_goal_is_said_as_plainly_as_above_it(self) -> None:
        rounds = [{"otpd-postgres-256": run(300), "pgbench-full-16": run(100),
                   "pgbench-bare-16": run(100), "better-auth": {"failed": "no Node"}}]
        text = page(results(rounds, churn={"failed": "cut short"}))
        self.assertIn("| 3.00 × | – | ≥ 3.30 × (stretch 4.00) | – | **not reached** |", text)
        self.assertIn("| 3.00 × | – | ≥ 1.20 × | – | reached |", text)
        self.assertIn("- better-auth, round 1: failed: no Node", text)
        self.assertIn("- churn: failed: cut short", text)

    def test_what_is_kept_makes_the_same_page(self) -> None:
        rounds = [{"otpd-postgres-256": run(300), "better-auth": {"failed": "a"},
                   "django-60": {"failed": "b"}}]
        found = results(rounds, versions={"b": "1", "a": "2"})
        self.assertEqual(page(json.loads(as_json(found))), page(found))

    def test_cpu_is_of_service_and_database(self) -> None:
        rounds = [{"otpd-postgres-256": run(300, 20, 30), "django-60": run(3, 4000, 1000)}]
        self.assertEqual(self.verdict("CPU per pair, service and database: Django", *rounds).value,
                         100)

    def test_the_last_kept_run_is_beside_the_present_one(self) -> None:
        rounds = [{"otpd-postgres-256": run(400), "pgbench-full-16": run(100)}]
        kept = figures(results([{"otpd-postgres-256": run(200), "pgbench-full-16": run(100)}]))
        self.assertEqual(kept[GOALS[0].text], 2)
        self.assertIn("| 4.00 × | – | ≥ 3.30 × (stretch 4.00) | 2.00 × | reached |",
                      page(results(rounds, last=kept)))

    def test_figures_need_the_systems_that_goals_name(self) -> None:
        everything = {system.name: run(100, milliseconds=1) for system in all_systems()}
        everything["otpd-start"] = {"start_seconds": [0.01]}
        for goal in (*GOALS, *FIGURES):
            alone = {name: everything[name] for name in goal.needs}
            self.assertEqual(len(goal.values([alone])), 1, goal.text)
            for name in goal.needs:
                without = {other: done for other, done in alone.items() if other != name}
                self.assertEqual(goal.values([without]), [], goal.text)

    def test_slow_commits_have_a_table(self) -> None:
        rounds = [{"slow-10-otpd-256": {**run(9000), "clients": 256, "commit_milliseconds": 10.2},
                   "slow-10-django-60": {**run(200), "clients": 16, "commit_milliseconds": 10.4}}]
        self.assertIn("| 10 ms | 10.3 ms | 9,000 | – | 200 (16) | – |", page(results(rounds)))

    def test_cpu_time_by_calls_in_flight_has_a_table(self) -> None:
        rounds = [{"otpd-postgres-1024": run(9000, 34, 20), "echo": run(50_000, 17)}]
        self.assertIn("| 1,024 | 34 | 20 | 5 | 59 | 2.0 × |", page(results(rounds)))

    def test_numbers_have_three_digits(self) -> None:
        told = [number(value) for value in (0, 0.8, 4.567, 45.67, 456.7, 4567.8)]
        self.assertEqual(told, ["0", "0.80", "4.57", "45.7", "457", "4,568"])

    def test_charts_are_whole(self) -> None:
        rounds = [{system.name: run(100) for system in all_systems()}]
        for chart in (systems_chart(results(rounds)), in_flight_chart(results(rounds)),
                      systems_chart(results([{}])), in_flight_chart(results([{}]))):
            xml.fromstring(chart)

    def test_the_part_between_the_marks_is_replaced(self) -> None:
        text = "a\n<!-- comparison: by run -->\nold\n<!-- comparison: end -->\nb\n"
        replaced = PART.sub(lambda ends: f"{ends[1]}new\n{ends[2]}", text)
        self.assertEqual(replaced, text.replace("old", "new"))


class Choosing(unittest.TestCase):
    def names(self, *arguments) -> list[str]:
        return [system.name for system in chosen(*arguments)]

    def test_names_and_patterns(self) -> None:
        self.assertEqual(self.names(["echo", "django-*"], False, False),
                         ["django-0", "django-60", "django-lean-60", "django-redis", "echo"])
        with self.assertRaisesRegex(ValueError, "no system is called ech"):
            chosen(["ech"], False, False)

    def test_the_forms(self) -> None:
        self.assertEqual(set(self.names([], True, False)), set(QUICK))
        self.assertNotIn("otpd-large", self.names([], False, False))
        self.assertIn("otpd-large", self.names([], False, True))
        self.assertNotIn("pgbench-functions-16", self.names([], False, True))
        self.assertNotIn("otpd-baseline-sqlite-256", self.names([], False, True))
        self.assertIn("otpd-baseline-sqlite-256", self.names([], False, False, True))
        self.assertEqual(set(self.names([], True, False, True)) - set(QUICK),
                         {"otpd-baseline-postgres-256", "otpd-baseline-sqlite-256"})


if __name__ == "__main__":
    unittest.main()
