//! Evaluation of the guard against SMS pumping: simulated honest traffic and attacks, against
//! the rule of `otpd-rules` and against fixed thresholds. `./check long guard` runs it whole and
//! writes docs/guard.md; the tests run a short form.

pub mod attacks;
pub mod evaluation;
pub mod guarded;
mod plot;
pub mod random;
pub mod report;
pub mod simulation;
#[cfg(test)]
mod tests;
pub mod thresholds;
pub mod traffic;
pub mod world;
