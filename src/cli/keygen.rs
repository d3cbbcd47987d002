//! `otpd keygen`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{CommandError, CommandOutcome};
use crate::{
    key_file,
    keys::{KeyRing, generate_sealing_entry, os_rng},
};

#[derive(Debug, Args)]
pub(super) struct KeygenOptions {
    /// Write the keys into this file, readable by its owner alone, instead of
    /// printing them; a file that exists is left as it is.
    #[arg(long, value_name = "FILE", conflicts_with = "seal")]
    output: Option<PathBuf>,
    /// Print only a new sealing key of this number, to be added to an existing key
    /// ring: as its last line first, on every replica, then as its first.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    seal: Option<u8>,
}

pub(super) fn keygen(options: &KeygenOptions) -> CommandOutcome {
    let random = &mut os_rng();
    match (&options.output, options.seal) {
        (Some(path), _) => {
            let created = key_file::create(path).map_err(|error| {
                CommandError::usage(format!("--output: {}: {error}", path.display()))
            })?;
            let what = if created {
                "new keys in"
            } else {
                "left as it is:"
            };
            eprintln!("{what} {}", path.display());
        }
        (None, Some(number)) => print!("{}", *generate_sealing_entry(number, random)),
        (None, None) => print!("{}", *KeyRing::generate(random)),
    }
    Ok(ExitCode::SUCCESS)
}
