"""Samples are counted for the right part, also if their stack is not whole."""

import unittest
from collections import Counter

from harness.profile import BROKEN, OTHER, frame, part, sum_up, table


class Profile(unittest.TestCase):
    def test_frames_are_read_from_perf(self) -> None:
        self.assertEqual(frame("    55d0 <h2::Store as core::ops::Index>::index (/x/otpd)"),
                         "<h2::Store as core::ops::Index>::index")
        self.assertEqual(frame("    7f00 [unknown] (/lib/x86_64-linux-gnu/libc.so.6)"), "[libc.so.6]")
        self.assertEqual(frame("    7f00 [unknown] (/x/otpd)"), "[unknown]")
        self.assertEqual(frame(""), "")

    def test_the_innermost_known_function_decides(self) -> None:
        self.assertEqual(part("start_thread;tokio::run;tonic::call;h2::send;memmove"), "gRPC")
        self.assertEqual(part("start_thread;tonic::call;otpd::engine::decide"), "batcher")
        self.assertEqual(part("[unknown];_int_malloc"), "allocator")
        self.assertEqual(part("start_thread;h2::send;cfree@GLIBC_2.2.5"), "allocator")

    def test_a_stack_without_a_known_function_is_of_the_runtime_only_if_it_is_whole(self) -> None:
        self.assertEqual(part("start_thread;tokio::run;futex"), OTHER)
        self.assertEqual(part("[unknown];__lll_lock_wait_private"), BROKEN)

    def test_the_table_says_how_many_stacks_are_whole(self) -> None:
        parts = sum_up(Counter({"start_thread;h2::send": 3, "[unknown];malloc": 1}))
        found = {"parts": dict(parts), "service": 4.0, "postgres": 2.0, "load": 1.0,
                 "whole_stacks": 0.75}
        self.assertIn("| otpd: gRPC | 3.0 |", table(found))
        self.assertIn("75% of the samples are whole", table(found))


if __name__ == "__main__":
    unittest.main()
