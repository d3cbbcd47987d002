//! Command `otpd bench`: options, and conversion to a benchmark run.

use std::{
    fs,
    io::{self, IsTerminal as _},
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
    output::{self, print_line},
};
use crate::{keys::os_rng, shutdown::ShutdownSignals, telemetry::print_error};
use otpd_loadgen::{
    BenchError, BenchReport, BenchRun, BenchSettings, MAX_CLIENT_IPS, MAX_REGIONS, ProgressLine,
    TargetServer, WatchedProcess,
};

/// Default number of pairs in flight without `--rate`.
const IN_FLIGHT: usize = 64;
/// Default maximum of pairs in flight with `--rate`: enough for a server to stall for a
/// while, few enough not to exhaust this process.
const IN_FLIGHT_AT_A_RATE: usize = 10_000;
/// Default share of pairs with a wrong code with `--hot`.
const HOT_WRONG_SHARE: f64 = 0.5;
/// Maximum of each duration, after which a run would rather be repeated.
const MAX_DURATION: Duration = Duration::from_hours(7 * 24);

#[derive(Debug, Args)]
pub(super) struct BenchOptions {
    /// Addresses of the servers, HOST:PORT or URLs, separated by commas. Connections are
    /// distributed over them in turn; a code sent through one server is verified through
    /// the next [default: OTPD_LISTEN, else 127.0.0.1:50051].
    #[arg(long, value_delimiter = ',', env = "OTPD_ADDRESS", hide_env = true)]
    address: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// Log files of the servers, separated by commas. Codes are read from the lines of the
    /// development log provider as the logs grow. Unset: codes are read from the replies,
    /// which requires self_delivery for the caller.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    codes: Vec<PathBuf>,
    /// Total number of HTTP/2 connections.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = number(1..=10_000))]
    connections: usize,
    /// Total number of pairs in flight; with --rate the maximum [default: 64; with --rate
    /// 10000].
    #[arg(long, value_name = "NUMBER", value_parser = number(1..=1_000_000))]
    in_flight: Option<usize>,
    /// Duration of the measurement.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Number of pairs to measure, instead of a duration.
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pairs: Option<u64>,
    /// Duration of the warm-up after the ramp; its pairs are not measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Pairs per second, started at even intervals even if earlier pairs are not complete
    /// (open loop); latency is measured from the scheduled start. Unset: a new pair starts
    /// when one completes (closed loop).
    #[arg(long, value_name = "PAIRS", value_parser = positive)]
    rate: Option<f64>,
    /// Duration of the ramp, during which the rate, or the number of pairs in flight, grows
    /// evenly to its target; its pairs are not measured.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    ramp: Duration,
    /// Share of pairs that submit a wrong code first [default: 0; with --hot 0.5].
    #[arg(long, value_name = "0..1", value_parser = share)]
    wrong_share: Option<f64>,
    /// Share this many recipients among all pairs, instead of a new recipient for each pair,
    /// and check the outcomes against the rules: no code verifies twice, and no code allows
    /// more attempts than --max-attempts. Refusals are then expected, and counted by reason.
    #[arg(long, value_name = "NUMBER", value_parser = number(1..=1_000_000))]
    hot: Option<usize>,
    /// Number of attempts that the servers allow per code (policy.max_attempts).
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    max_attempts: u32,
    /// Number of distinct client IP addresses; 0: requests have no client_ip.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_CLIENT_IPS)))]
    client_ips: u32,
    /// Number of regions of the phone numbers.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = number(1..=MAX_REGIONS))]
    regions: usize,
    /// Purpose of the codes.
    #[arg(long, default_value = "default")]
    purpose: String,
    /// Ask for a receipt for this audience with each verification, to measure what receipts
    /// cost. The caller needs it in receipt_audiences.
    #[arg(long, value_name = "AUDIENCE")]
    receipt_audience: Option<String>,
    /// Process to measure, such as a server or the first process of PostgreSQL: CPU time
    /// and memory, including all descendants. May be repeated.
    #[arg(long, value_name = "NAME=PID")]
    process: Vec<WatchedProcess>,
    /// Number of threads of the load generator.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = number(1..=1_024))]
    threads: usize,
    /// Write the result as JSON to this file; with `-` to standard output, and the table to
    /// standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do not print progress.
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
            let problem =
                format!("--connections: too few for {count} servers; give at least {count}");
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
                receipt_audience: self.receipt_audience,
                threads: self.threads,
            },
        })
    }
}

/// Builds the runtime; one thread does not need a scheduler that moves work between threads.
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
        .map_err(|error| {
            CommandError::new(
                exit::SOFTWARE,
                format!("cannot start the async runtime: {error}"),
            )
        })
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
        print_error(report.to_string().trim_end().to_owned());
        print_line!("{text}");
        return Ok(());
    }
    output::print(report);
    let Some(path) = json else { return Ok(()) };
    fs::write(path, text + "\n")
        .map_err(|error| CommandError::usage(format!("--json: {}: {error}", path.display())))
}

/// Returns a parser for a number within bounds.
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

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| "give a duration of at most 7d, such as 10s".to_owned())
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
