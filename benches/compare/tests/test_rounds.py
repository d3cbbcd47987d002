"""Rounds that scatter are repeated, within a bound, with the systems of their ratios."""

import unittest
from dataclasses import dataclass, field
from unittest import mock

from harness import rounds
from harness.page import page
from harness.rounds import repeat_scattered, run_rounds
from harness.scatter import scatter, with_partners

from .figures import results, run


@dataclass
class System:
    """A system that reaches these rates, one a round."""

    name: str
    rates: list
    runs: int = field(default=0)

    def run(self, bench) -> dict:
        rate = self.rates[min(self.runs, len(self.rates) - 1)]
        self.runs += 1
        return run(rate)


class Rounds(unittest.TestCase):
    def setUp(self) -> None:
        patched = mock.patch.object(rounds, "say")
        patched.start()
        self.addCleanup(patched.stop)
        self.bench = mock.MagicMock()

    def test_scatter_is_of_the_planned_number_of_rounds_nearest_to_the_median(self) -> None:
        self.assertEqual(scatter([90, 100, 110], 3), 0.2)
        self.assertEqual(scatter([90, 100, 110, 300], 3), 20 / 105)

    def test_partners_are_those_of_the_ratios(self) -> None:
        self.assertEqual(with_partners({"pgbench-bare-16"}),
                         {"pgbench-bare-16", "otpd-postgres-256"})
        self.assertEqual(with_partners({"better-auth"}), {"better-auth"})

    def test_systems_that_scatter_run_again_with_their_partners(self) -> None:
        unsteady = System("pgbench-bare-16", [100, 200, 100, 100])
        partner, steady = System("otpd-postgres-256", [100]), System("better-auth", [50])
        systems, found = [unsteady, partner, steady], []
        run_rounds(self.bench, systems, 3, found)
        repeated = repeat_scattered(self.bench, systems, 3, 3, found)
        self.assertEqual(repeated, {"pgbench-bare-16": {"before": 1, "after": 0, "rounds": 4}})
        self.assertEqual((unsteady.runs, partner.runs, steady.runs), (4, 4, 3))
        self.assertEqual(set(found[3]), {"pgbench-bare-16", "otpd-postgres-256"})
        self.assertIn("- pgbench-bare-16: 100%, after 4 rounds 0%",
                      page(results(found, scatter=repeated)))

    def test_further_rounds_are_bounded(self) -> None:
        systems, found = [System("better-auth", [100, 200, 300, 400, 500, 600])], []
        run_rounds(self.bench, systems, 2, found)
        repeated = repeat_scattered(self.bench, systems, 2, 1, found)
        self.assertEqual(len(found), 3)
        self.assertGreater(repeated["better-auth"]["after"], 0.25)

    def test_steady_systems_have_no_further_rounds(self) -> None:
        systems, found = [System("better-auth", [100, 110])], []
        run_rounds(self.bench, systems, 2, found)
        self.assertEqual(repeat_scattered(self.bench, systems, 2, 3, found), {})
        self.assertEqual(len(found), 2)


if __name__ == "__main__":
    unittest.main()
