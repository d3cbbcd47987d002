//! Callers, purposes and configuration of the server under test.

use std::path::Path;

use otpd_model::{Caller, Policy, Settings};

use crate::support::token_digest;
/// The caller of most requests, with all permissions.
pub const CRM: usize = 0;
/// The caller that has receipts.
pub const SHOP: usize = 1;

pub const DEFAULT: usize = 0;
pub const TIGHT: usize = 1;
pub const NAMED: usize = 2;

/// Returns the settings. Callers either make calls one after the other, and the first of them
/// receives the codes, or make calls at the same time and read the codes from the log.
pub fn settings(concurrent: bool) -> Settings {
    let crm = Caller {
        name: "crm",
        is_configured: true,
        may_reset_failures: true,
        self_delivery: !concurrent,
        receipts: false,
        purposes: &[DEFAULT, TIGHT, NAMED],
    };
    // It may not reset failures, nor use the last purpose. Its codes are in the log.
    let shop = Caller {
        name: "shop",
        may_reset_failures: false,
        self_delivery: false,
        receipts: !concurrent,
        purposes: &[DEFAULT, TIGHT],
        ..crm.clone()
    };
    let stranger = Caller {
        name: "stranger",
        is_configured: false,
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
    std::fs::write(file, settings.toml(digest)).expect("the directory is writable");
}
