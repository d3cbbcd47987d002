//! Command `otpd keygen`.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use clap::Args;

use super::{CommandError, CommandOutcome, exit, output};
use crate::{
    key_file,
    keys::{KeyRing, generate_receipt_entry, generate_sealing_entry, os_rng},
    telemetry::print_error,
};

#[derive(Debug, Args)]
pub(super) struct KeygenOptions {
    /// Write the keys to this file, readable only by its owner, instead of printing them.
    /// An existing file is not changed.
    #[arg(long, value_name = "FILE", conflicts_with = "seal")]
    output: Option<PathBuf>,
    /// Print only a new sealing key with this number, for an existing key ring. Add it as
    /// the last line on every replica first; then move it to the first line.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    seal: Option<u8>,
    /// Print only a new receipt key with this number, for an existing key ring. Add it on
    /// every replica at least 20 minutes before its instant.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u8).range(1..),
        conflicts_with_all = ["output", "seal"]
    )]
    receipt: Option<u8>,
    /// Instant from which the receipt key signs, such as 2027-01-31T12:00:00Z. Not for the
    /// first one.
    #[arg(long, value_name = "INSTANT", requires = "receipt", value_parser = humantime::parse_rfc3339)]
    from: Option<SystemTime>,
}

pub(super) fn keygen(options: &KeygenOptions) -> CommandOutcome {
    if let Some(number) = options.receipt {
        let entry = generate_receipt_entry(number, options.from);
        let entry = entry.map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
        output::print(&*entry);
        return Ok(ExitCode::SUCCESS);
    }
    let random = &mut os_rng();
    match (&options.output, options.seal) {
        (Some(path), _) => {
            let created = key_file::create(path).map_err(|error| {
                CommandError::usage(format!("--output: {}: {error}", path.display()))
            })?;
            let path = path.display();
            if created {
                print_error(format!("new keys written to {path}"));
            } else {
                print_error(format!("{path} exists and was not changed"));
            }
        }
        (None, Some(number)) => output::print(&*generate_sealing_entry(number, random)),
        (None, None) => output::print(&*KeyRing::generate(random)),
    }
    Ok(ExitCode::SUCCESS)
}
