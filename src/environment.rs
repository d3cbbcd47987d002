//! The environment that otpd runs in, and the proof of it that conveniences of
//! development ask for.

use serde::Deserialize;

/// Which mistakes are still harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// One machine, no callers to tell apart, codes in the log.
    #[default]
    Development,
    /// The real thing.
    Production,
}

/// Proof that the environment is development. What must not exist in production takes
/// one, so that no path of the configuration makes it there by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevelopmentOnly(());

impl Environment {
    /// The proof; `None` in production.
    pub fn development(self) -> Option<DevelopmentOnly> {
        match self {
            Self::Development => Some(DevelopmentOnly(())),
            Self::Production => None,
        }
    }
}
