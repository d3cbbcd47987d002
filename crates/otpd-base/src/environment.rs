//! Environment that otpd runs in, and the proof that features for development only require.

use serde::Deserialize;

/// Environment: development relaxes rules that production enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// One machine, no authentication, codes in the log.
    #[default]
    Development,
    /// Real users and providers.
    Production,
}

/// Proof that the environment is development. Constructors of features that must not exist in
/// production require it, so that no configuration can enable them there by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevelopmentOnly(());

impl Environment {
    /// Returns the proof; `None` in production.
    pub fn development(self) -> Option<DevelopmentOnly> {
        match self {
            Self::Development => Some(DevelopmentOnly(())),
            Self::Production => None,
        }
    }
}
