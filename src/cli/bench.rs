//! `otpd bench`.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use rand::Rng as _;

use super::{
    CommandError, CommandOutcome, client,
    connect::{self, AccessArguments},
    exit,
};
use crate::{
    bench::{
        BenchError, BenchReport, BenchRun, BenchSettings, MAX_CLIENT_IPS, MAX_REGIONS,
        ProgressLine, TargetServer, WatchedProcess,
    },
    keys::os_rng,
    shutdown::ShutdownSignals,
};

/// Pairs in flight where the next one starts when one ends.
const IN_FLIGHT: usize = 64;
/// The most pairs in flight where they arrive at a rate: enough for a server to stand
/// still for a while, few enough not to exhaust this process.
const IN_FLIGHT_AT_A_RATE: usize = 10_000;
/// The share of pairs with a wrong code where recipients are hammered.
const HOT_WRONG_SHARE: f64 = 0.5;

#[derive(Debug, Args)]
pub(super) struct BenchOptions {
    /// The servers, HOST:PORT or URLs, with commas between; connections go to them in
    /// turn, and a code sent through one is verified through the next [default:
    /// OTPD_LISTEN, else 127.0.0.1:50051].
    #[arg(long, value_delimiter = ',', env = "OTPD_ADDRESS", hide_env = true)]
    address: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// The servers' logs, with commas between; codes are read from the lines of the
    /// development log provider as the logs grow. Without: from the replies, where the
    /// caller delivers by itself.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    codes: Vec<PathBuf>,
    /// HTTP/2 connections, in all.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = number(1..=10_000))]
    connections: usize,
    /// Pairs in flight, in all; with --rate the most that may be [default: 64; with
    /// --rate 10000].
    #[arg(long, value_name = "NUMBER", value_parser = number(1..=1_000_000))]
    in_flight: Option<usize>,
    /// How long pairs count.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How many pairs count, instead of how long.
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pairs: Option<u64>,
    /// How long at first, after the ramp, pairs do not count.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Pairs a second that arrive evenly, whatever becomes of them; their latency counts
    /// from when they arrive. Without: the next pair starts when one ends.
    #[arg(long, value_name = "PAIRS", value_parser = positive)]
    rate: Option<f64>,
    /// How long at first the rate, or the pairs in flight, grow evenly to their goal;
    /// these pairs do not count.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    ramp: Duration,
    /// The share of pairs in which a wrong code is answered first [default: 0; with
    /// --hot 0.5].
    #[arg(long, value_name = "0..1", value_parser = share)]
    wrong_share: Option<f64>,
    /// Hammer so many recipients, instead of a new one for each pair, and hold the
    /// verdicts against the rules: no code verifies twice, no more wrong answers are
    /// judged than allowed. Refusals are then expected, and counted by their reason.
    #[arg(long, value_name = "NUMBER", value_parser = number(1..=1_000_000))]
    hot: Option<usize>,
    /// How many wrong answers the servers judge per code (policy.max_attempts).
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    max_attempts: u32,
    /// From how many addresses end users come; 0: none is told.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_CLIENT_IPS)))]
    client_ips: u32,
    /// From how many regions the phone numbers are.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = number(1..=MAX_REGIONS))]
    regions: usize,
    /// What the codes are for.
    #[arg(long, default_value = "default")]
    purpose: String,
    /// A process to watch, such as a server or PostgreSQL's first process: how much
    /// processor time it uses, with all that descend from it, and memory. May be given
    /// several times.
    #[arg(long, value_name = "NAME=PID")]
    process: Vec<WatchedProcess>,
    /// Threads of the load generator itself.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = number(1..=1_024))]
    threads: usize,
    /// Write the result as JSON into this file; `-` is standard output, and the table
    /// then goes to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do not tell how it goes.
    #[arg(long)]
    quiet: bool,
}

pub(super) fn bench(options: BenchOptions) -> CommandOutcome {
    let json = options.json.clone();
    let bench = options.prepare()?;
    let report = runtime(bench.settings.threads)?.block_on(async {
        let signals =
            ShutdownSignals::install().map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
        bench.run(signals.stop()).await.map_err(failure)
    })?;
    publish(&report, json.as_deref())?;
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NO)
    })
}

impl BenchOptions {
    fn prepare(self) -> Result<BenchRun, CommandError> {
        let mut addresses = self.address;
        addresses.retain(|address| !address.is_empty());
        if addresses.is_empty() {
            addresses.push(connect::configured_address());
        }
        if self.connections < addresses.len() {
            let count = addresses.len();
            let problem = format!("--connections: {count} servers need as many, or more");
            return Err(CommandError::usage(problem));
        }
        let targets = addresses
            .iter()
            .map(|address| {
                Ok(TargetServer {
                    address: address.clone(),
                    endpoint: self.access.endpoint(address)?,
                })
            })
            .collect::<Result<_, CommandError>>()?;
        let in_flight = self.rate.map_or(IN_FLIGHT, |_| IN_FLIGHT_AT_A_RATE);
        let wrong_share = self.hot.map_or(0.0, |_| HOT_WRONG_SHARE);
        let progress = match (self.quiet, io::stderr().is_terminal()) {
            (true, _) => ProgressLine::Quiet,
            (false, true) => ProgressLine::InPlace,
            (false, false) => ProgressLine::Lines,
        };
        Ok(BenchRun {
            targets,
            authorization: self.access.authorization()?,
            processes: self.process,
            start: os_rng().next_u64(),
            progress,
            settings: BenchSettings {
                addresses,
                codes: self.codes,
                connections: self.connections,
                in_flight: self.in_flight.unwrap_or(in_flight),
                duration: self.pairs.is_none().then_some(self.duration),
                pairs: self.pairs,
                warm_up: self.warm_up,
                ramp: self.ramp,
                rate: self.rate,
                wrong_share: self.wrong_share.unwrap_or(wrong_share),
                hot: self.hot,
                max_attempts: self.max_attempts,
                client_ips: self.client_ips,
                regions: self.regions,
                purpose: self.purpose,
                threads: self.threads,
            },
        })
    }
}

/// One thread needs no scheduler that moves work between threads.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, CommandError> {
    use tokio::runtime::Builder;

    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(exit::SOFTWARE, format!("no runtime: {error}")))
}

fn failure(error: BenchError) -> CommandError {
    let code = match &error {
        BenchError::Usage(_) => exit::USAGE,
        BenchError::Unreachable { .. } => exit::UNAVAILABLE,
        BenchError::Refused { address, status } => {
            let CommandError { code, message } = client::failure(status);
            return CommandError::new(code, format!("{address}: {message}"));
        }
        BenchError::NotVerified { .. } | BenchError::Interrupted => exit::NO,
    };
    CommandError::new(code, error)
}

fn publish(report: &BenchReport, json: Option<&Path>) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
    let to_standard_output = json.is_some_and(|path| path.as_os_str() == "-");
    if to_standard_output {
        eprint!("{report}");
        println!("{text}");
        return Ok(());
    }
    print!("{report}");
    // Not held back until after what may fail.
    let _ = io::stdout().flush();
    let Some(path) = json else { return Ok(()) };
    fs::write(path, text + "\n")
        .map_err(|error| CommandError::usage(format!("--json: {}: {error}", path.display())))
}

/// A number within bounds.
fn number(
    bounds: std::ops::RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok();
        number
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| format!("give a number from {} to {}", bounds.start(), bounds.end()))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "give a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| "give a number from 0 to 1".to_owned())
}
