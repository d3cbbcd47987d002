//! Command `otpd keys`.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;

use super::{CommandOutcome, output, serve};

#[derive(Debug, Subcommand)]
pub(super) enum ShownKeys {
    /// Print the public keys of receipts as a JSON Web Key Set, for services that verify
    /// receipts.
    Jwks,
}

pub(super) fn keys(file: Option<&Path>, shown: &ShownKeys) -> CommandOutcome {
    let config = serve::load(file)?;
    let (keys, _) = serve::keys(&config.settings)?;
    match shown {
        ShownKeys::Jwks => output::print(keys.jwks()),
    }
    Ok(ExitCode::SUCCESS)
}
