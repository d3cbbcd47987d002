//! Command line: the arguments and exit codes of each command.

mod bench;
mod check;
mod client;
mod connect;
mod keygen;
mod keys;
mod output;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{config, telemetry};

/// Exit codes, after sysexits(3) if it has one for the case.
mod exit {
    /// Not verified, or not serving.
    pub const NO: u8 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: u8 = 64;
    /// The server or its store does not respond.
    pub const UNAVAILABLE: u8 = 69;
    /// A fault of otpd itself.
    pub const SOFTWARE: u8 = 70;
    /// Standard output cannot be written.
    pub const OUTPUT: u8 = 74;
    /// The server refused the request.
    pub const REFUSED: u8 = 77;
}

/// Failed command: exit code and message.
#[derive(Debug)]
struct CommandError {
    code: u8,
    message: String,
}

impl CommandError {
    fn new(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    fn usage(message: impl ToString) -> Self {
        Self::new(exit::USAGE, message)
    }
}

type CommandOutcome = Result<ExitCode, CommandError>;

/// Sends and verifies one-time passwords over gRPC.
///
/// Without a command and a configuration, otpd serves on 127.0.0.1:50051 with an
/// SQLite file and prints the codes to its log. Try it from another terminal:
///
///   otpd send +79991234567
///   otpd verify +79991234567 CODE
///
/// Exit codes: 0 success, 1 not verified or not serving, 64 wrong usage or
/// configuration, 69 unavailable, 70 internal error, 74 standard output failed,
/// 77 refused.
#[derive(Debug, Parser)]
#[command(name = "otpd", version, verbatim_doc_comment, max_term_width = 100)]
struct CommandLine {
    /// Configuration file (TOML). Every key can also be set by an environment variable,
    /// such as OTPD_LISTEN or OTPD_POLICY__CODE_TTL.
    #[arg(
        long,
        value_name = "FILE",
        env = "OTPD_CONFIG",
        global = true,
        value_parser = connect::optional_path()
    )]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Migrate the database schema, then serve until SIGTERM.
    Serve,
    /// Migrate the database schema, then exit.
    Migrate,
    /// Check configuration, keys, database and providers, without sending a message.
    Check,
    /// Print the JSON schema of the configuration file, for editors.
    ConfigSchema,
    /// Check the health of a server; for liveness and readiness probes.
    Health {
        /// Service to check: empty for readiness, "liveness" for the process only.
        #[arg(long, default_value = "")]
        service: String,
        #[command(flatten)]
        server: connect::ServerArguments,
    },
    /// Send a code.
    Send {
        /// Phone number in any common written form, or e-mail address.
        recipient: String,
        /// Channel [default: email for an e-mail address, else sms].
        #[arg(long)]
        channel: Option<client::ChannelName>,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Verify a code.
    Verify {
        /// Phone number or e-mail address, in any common written form.
        recipient: String,
        /// Code as the user entered it.
        code: String,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Show the state of a recipient's code and its deliveries.
    Status {
        /// Phone number or e-mail address, in any common written form.
        recipient: String,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Cancel a recipient's live code.
    Cancel {
        /// Phone number or e-mail address, in any common written form.
        recipient: String,
        /// Also reset the counter of failed attempts and end a lockout.
        #[arg(long)]
        reset_failures: bool,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Generate a new key ring and print it.
    Keygen(keygen::KeygenOptions),
    /// Show public parts of the configured key ring.
    Keys {
        #[command(subcommand)]
        shown: keys::ShownKeys,
    },
    /// Benchmark servers with pairs of SendOtp and VerifyOtp.
    Bench(Box<bench::BenchOptions>),
}

/// Purpose and region of a code, and the server to call.
#[derive(Debug, Args)]
struct OtpTarget {
    /// Purpose of the code.
    #[arg(long, default_value = "default")]
    purpose: String,
    /// Region for a phone number without a country code, such as RU; empty: the default
    /// of the server.
    #[arg(long, default_value = "")]
    region: String,
    #[command(flatten)]
    server: connect::ServerArguments,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version are not errors, and go to standard output.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            // If the terminal is closed, there is no way to report the failure.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let outcome = run(command_line).and_then(|code| output::check().map(|()| code));
    telemetry::flush();
    outcome.unwrap_or_else(|failure| {
        telemetry::print_error(format!("otpd: {}", failure.message));
        ExitCode::from(failure.code)
    })
}

fn run(command_line: CommandLine) -> CommandOutcome {
    let CommandLine { config, command } = command_line;
    let config = connect::non_empty(config.as_deref());
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(config),
        Command::Migrate => serve::migrate(config),
        Command::Check => check::check(config),
        Command::ConfigSchema => {
            output::print(config::SCHEMA);
            Ok(ExitCode::SUCCESS)
        }
        Command::Keygen(options) => keygen::keygen(&options),
        Command::Keys { shown } => keys::keys(config, &shown),
        Command::Bench(options) => bench::bench(*options),
        Command::Health { service, server } => client::health(&server, service),
        Command::Send {
            recipient,
            channel,
            about,
        } => client::send(about, recipient, channel),
        Command::Verify {
            recipient,
            code,
            about,
        } => client::verify(about, recipient, code),
        Command::Status { recipient, about } => client::status(about, recipient),
        Command::Cancel {
            recipient,
            reset_failures,
            about,
        } => client::cancel(about, recipient, reset_failures),
    }
}

/// Runs `work` on a new runtime. Does not wait for tasks that still block a thread at the
/// end, because a name lookup of the system may take half a minute.
fn block_on<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        CommandError::new(
            exit::SOFTWARE,
            format!("cannot start the async runtime: {error}"),
        )
    })?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{channel, sync_channel},
        time::Duration,
    };

    use super::*;

    #[test]
    fn blocked_thread_does_not_delay_exit() {
        let (release, released) = channel::<()>();
        let (report, reported) = sync_channel(1);
        let work = async move {
            let (busy, is_busy) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = busy.send(());
                let _ = report.send(released.recv_timeout(Duration::from_secs(20)));
            });
            is_busy.await.expect("the task starts");
            Ok(())
        };
        block_on(work).expect("the work succeeds");
        release.send(()).expect("the thread still waits");
        assert_eq!(reported.recv(), Ok(Ok(())));
    }
}
