//! Standard output of the commands. A closed pipe, such as that of `otpd status … | head -1`, is
//! no error: the exit code then still is the outcome of the command.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
    sync::OnceLock,
};

use super::{CommandError, exit};

/// First error of standard output.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints text to standard output.
pub(super) fn print(text: impl fmt::Display) {
    let mut output = io::stdout().lock();
    let written = write!(output, "{text}").and_then(|()| output.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // A further error has the same cause.
        let _ = FAILED.set(error);
    }
}

/// Prints a line to standard output, with the arguments of [`format!`].
macro_rules! print_line {
    ($($arguments:tt)*) => {
        $crate::cli::output::print(format_args!("{}\n", format_args!($($arguments)*)))
    };
}
pub(super) use print_line;

/// Checks that all text was printed.
///
/// # Errors
/// The error of standard output, such as a full disk.
pub(super) fn check() -> Result<(), CommandError> {
    FAILED.get().map_or(Ok(()), |error| {
        let message =
            format!("standard output: {error}; the output is incomplete, repeat the command");
        Err(CommandError::new(exit::OUTPUT, message))
    })
}
