//! Random source of the operating system.
//!
//! It is not buffered in the process. A call costs about 0.23 µs, so all random values of a pair of
//! `SendOtp` and `VerifyOtp` cost 1.5 µs of about 79. A generator in the process would repeat its
//! values, nonces of sealed contents among them, if two virtual machines continued from one snapshot;
//! the operating system's source is seeded again in that case.

use rand::{rand_core::UnwrapErr, rngs::SysRng};

/// Random source of the operating system, which the rules use.
pub type SystemRandom = UnwrapErr<SysRng>;

/// Returns the random source of the operating system. It panics if the system has none, which Linux
/// rules out once it has booted: no answer is better than a guessable code.
pub fn os_rng() -> SystemRandom {
    UnwrapErr(SysRng)
}
