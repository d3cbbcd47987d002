//! Random source of the operating system.

use rand::{rand_core::UnwrapErr, rngs::SysRng};

/// Random source of the operating system, which the rules use.
pub type SystemRandom = UnwrapErr<SysRng>;

/// Returns the random source of the operating system. It panics if the system has none, which Linux
/// rules out once it has booted: no answer is better than a guessable code.
pub fn os_rng() -> SystemRandom {
    UnwrapErr(SysRng)
}
