//! The command line: what each command takes, and how it ends.

mod bench;
mod check;
mod client;
mod connect;
mod keygen;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::telemetry;

/// How a command ends, after sysexits(3) where that has a word for it.
mod exit {
    /// Not verified, or not serving.
    pub const NO: u8 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: u8 = 64;
    /// The server or its store does not answer.
    pub const UNAVAILABLE: u8 = 69;
    /// A fault of otpd itself.
    pub const SOFTWARE: u8 = 70;
    /// The server refused.
    pub const REFUSED: u8 = 77;
}

/// A command that did not do what it was told.
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

/// Sends one-time passwords and checks them, over gRPC.
///
/// Without a command it serves, on 127.0.0.1:50051 with an SQLite file, and prints
/// the codes in its log. Try it from another terminal:
///
///   otpd send +79991234567
///   otpd verify +79991234567 CODE
///
/// Exit codes: 0 done, 1 not verified or not serving, 64 wrong usage or
/// configuration, 69 unavailable, 77 refused.
#[derive(Debug, Parser)]
#[command(name = "otpd", version, verbatim_doc_comment, max_term_width = 100)]
struct CommandLine {
    /// The configuration file (TOML); every key is also an environment variable,
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
    /// Serve until SIGTERM; brings the database's schema up to date first.
    Serve,
    /// Bring the database's schema up to date, and end.
    Migrate,
    /// See whether everything is there that serving needs: configuration, keys,
    /// database and providers. Nothing is sent to anybody.
    Check,
    /// Ask a server whether it serves; for probes.
    Health {
        /// Which service to ask for: empty for all, "liveness" for the process alone.
        #[arg(long, default_value = "")]
        service: String,
        #[command(flatten)]
        server: connect::ServerArguments,
    },
    /// Send a code.
    Send {
        /// A phone number as people write it, or an e-mail address.
        recipient: String,
        /// sms, email, voice, whatsapp or telegram; else the recipient decides.
        #[arg(long)]
        channel: Option<client::ChannelName>,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Verify a code that somebody typed.
    Verify {
        /// The recipient, written in this or another way.
        recipient: String,
        /// What was typed.
        code: String,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Tell what is known of a recipient's code.
    Status {
        /// The recipient, written in this or another way.
        recipient: String,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// End a recipient's live code.
    Cancel {
        /// The recipient, written in this or another way.
        recipient: String,
        /// Also forget the wrong answers counted so far.
        #[arg(long)]
        reset_failures: bool,
        #[command(flatten)]
        about: OtpTarget,
    },
    /// Make new keys and print them.
    Keygen(keygen::KeygenOptions),
    /// Put load on servers, and measure: pairs of SendOtp and VerifyOtp.
    Bench(Box<bench::BenchOptions>),
}

/// What a code is about, and which server knows it.
#[derive(Debug, Args)]
struct OtpTarget {
    /// What the code is for.
    #[arg(long, default_value = "default")]
    purpose: String,
    /// The region in which a national number is read, such as RU; else the server's
    /// default.
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
            // Help and version are no mistakes, and go to standard output.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            // Nothing can be told to somebody who closed the terminal.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let outcome = run(command_line);
    telemetry::flush();
    outcome.unwrap_or_else(|failure| {
        telemetry::complain(format!("otpd: {}", failure.message));
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
        Command::Keygen(options) => keygen::keygen(&options),
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

/// Runs `work` on a runtime of its own. What blocks a thread when it is done is not waited
/// for: the system may look for a name for half a minute.
fn block_on<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| CommandError::new(exit::SOFTWARE, format!("no runtime: {error}")))?;
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
        let (tell, told) = sync_channel(1);
        let work = async move {
            let (busy, is_busy) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = busy.send(());
                let _ = tell.send(released.recv_timeout(Duration::from_secs(20)));
            });
            is_busy.await.expect("it begins");
            Ok(())
        };
        block_on(work).expect("it is done");
        release.send(()).expect("it waits for this");
        assert_eq!(told.recv(), Ok(Ok(())));
    }
}
