//! Callers, purposes and configuration of the server under test.

use std::path::Path;

use crate::{
    model::{Caller, Policy, Settings},
    support::token_digest,
};

/// The caller of most requests, with all permissions.
pub const CRM: usize = 0;

pub const DEFAULT: usize = 0;
pub const TIGHT: usize = 1;
pub const NAMED: usize = 2;

/// Everybody. Either callers come one after the other and are given the codes, or they
/// come at once and find them in the log.
pub fn settings(concurrent: bool) -> Settings {
    let crm = Caller {
        name: "crm",
        known: true,
        may_reset_failures: true,
        delivers: !concurrent,
        purposes: &[DEFAULT, TIGHT, NAMED],
    };
    // It may not have failures forgotten, nor use the last purpose.
    let shop = Caller {
        name: "shop",
        may_reset_failures: false,
        purposes: &[DEFAULT, TIGHT],
        ..crm.clone()
    };
    let stranger = Caller {
        name: "stranger",
        known: false,
        ..crm.clone()
    };
    Settings {
        callers: vec![crm, shop, stranger],
        policies: vec![Policy::DEFAULT, Policy::TIGHT, Policy::NAMED],
        concurrent,
    }
}

/// Returns the token of `caller`.
pub fn token(caller: &Caller) -> String {
    format!("token-of-{}", caller.name)
}

/// Writes the configuration of otpd into `file`.
pub fn write(settings: &Settings, file: &Path) {
    let digest = |caller: &Caller| token_digest(&token(caller));
    std::fs::write(file, settings.toml(digest)).expect("a new directory takes files");
}
