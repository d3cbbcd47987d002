//! Load generator for servers. It measures the load that a deployment bears, and checks
//! the rules of codes meanwhile. It knows the servers as any caller does, by the
//! contract.

mod code_inbox;
mod codes;
mod connection;
mod follow;
mod hot_recipients;
mod invariants;
mod load;
mod log_line;
mod phases;
mod process;
mod progress;
mod recipients;
mod report;
mod scenario;
mod schedule;
mod settings;
mod stats;
mod table;

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::mpsc,
    time::{Instant, interval},
};
use tonic::Status;

pub use connection::{AuthorizationHeader, TargetServer, was_not_sent};
pub use process::WatchedProcess;
pub use progress::ProgressLine;
pub use recipients::{MAX_CLIENT_IPS, MAX_REGIONS};
pub use report::BenchReport;
pub use settings::BenchSettings;

use codes::CodeSource;
use connection::LoadConnection;
use hot_recipients::HotRecipientLoad;
use invariants::InvariantChecker;
use load::PairStart;
use phases::{LoadPhase, LoadPhases, PhaseEnded, end_of_phase};
use process::ProcessWatch;
use recipients::RecipientSupply;
use report::MeasuredPhase;
use scenario::{PairScenario, PairShare};
use schedule::ArrivalSchedule;
use stats::Stats;

use otpd_contract::v1::VerifyOutcome;

/// Maximum time until the first code of each server.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between samples of the processes' memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Load run before its start.
#[derive(Debug)]
pub struct BenchRun {
    /// Settings of the run.
    pub settings: BenchSettings,
    /// Servers under load.
    pub targets: Vec<TargetServer>,
    /// Value of the header `authorization` of each call.
    pub authorization: AuthorizationHeader,
    /// Processes that are measured.
    pub processes: Vec<WatchedProcess>,
    /// Start of the recipients' numbers; random, so that runs have none in common.
    pub start: u64,
    /// Display of the progress.
    pub progress: ProgressLine,
}

/// Error that prevents a run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// A server cannot be reached.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Address of the server.
        address: String,
        /// Cause of the failure.
        cause: String,
    },
    /// A server refused the first pair, before any load.
    #[error("{address}: the first pair failed: {}", .status.message())]
    Refused {
        /// Address of the server.
        address: String,
        /// Status that it returned.
        status: Box<Status>,
    },
    /// The first code did not verify.
    #[error("{address}: the code that was found did not verify: {outcome}")]
    NotVerified {
        /// Address of the server.
        address: String,
        /// Outcome of the verification.
        outcome: &'static str,
    },
    /// The run was stopped before its start.
    #[error("interrupted before the load began")]
    Interrupted,
}

impl BenchRun {
    /// Runs to the end, or until `stop` completes; running pairs are finished.
    ///
    /// # Errors
    /// [`BenchError`] if no run is possible.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<BenchReport, BenchError> {
        let watch = ProcessWatch::new(self.processes.clone()).map_err(|process| {
            let WatchedProcess { name, id } = process;
            BenchError::Usage(format!("--process: {name}={id}: there is no such process"))
        })?;
        let mut stop = pin!(stop);
        let pairs = select! {
            () = &mut stop => return Err(BenchError::Interrupted),
            pairs = self.prepare() => Arc::new(pairs?),
        };

        let phases = Arc::new(LoadPhases::new(self.settings.pairs));
        let progress = tokio::spawn(self.progress.spawn(Arc::clone(&pairs), Arc::clone(&phases)));
        let load = self.load(&pairs, &phases)?;
        let measured = self.drive(&phases, load, stop, watch).await;
        progress.abort();
        self.progress.end();
        let counts = pairs.tally.counts().clone();
        let violations = pairs.rules.violations();
        Ok(BenchReport::new(
            self.settings,
            counts,
            violations,
            measured,
        ))
    }

    /// Opens connections and logs, and checks them.
    async fn prepare(&self) -> Result<PairScenario, BenchError> {
        let settings = &self.settings;
        // The logs are opened before the first code is sent.
        let codes = CodeSource::from_logs(&settings.codes)?;
        let mut connections = Vec::new();
        for target in self.targets.iter().cycle().take(settings.connections) {
            let connection = LoadConnection::open(target, self.authorization.clone());
            connections.push(connection.await?);
        }
        let pairs = PairScenario {
            connections,
            recipients: RecipientSupply::new(settings.regions, settings.client_ips, self.start),
            codes,
            purpose: settings.purpose.clone(),
            receipt_audience: settings.receipt_audience.clone(),
            wrong: PairShare::new(settings.wrong_share),
            tally: Stats::default(),
            rules: InvariantChecker::new(settings.max_attempts),
        };
        self.probe(&pairs).await?;
        Ok(pairs)
    }

    /// Runs a pair through each server, so that problems are found before the load.
    async fn probe(&self, pairs: &PairScenario) -> Result<(), BenchError> {
        for (target, connection) in self.targets.iter().zip(&pairs.connections) {
            let address = || target.address.clone();
            let refused = |status| BenchError::Refused {
                address: address(),
                status: Box::new(status),
            };
            let person = pairs.recipients.next();
            let request = pairs.send_request(&person);
            let reply = connection.send(request).await.map_err(refused)?;
            let Some(code) = pairs.codes.of(&reply, PROBE_TIMEOUT).await else {
                return Err(BenchError::Usage(no_code(
                    &address(),
                    pairs.codes.has_logs(),
                )));
            };
            let request = pairs.verify_request(&person, code);
            let reply = connection.verify(request).await.map_err(refused)?;
            if reply.outcome() != VerifyOutcome::Verified {
                return Err(BenchError::NotVerified {
                    address: address(),
                    outcome: scenario::outcome_name(&reply),
                });
            }
        }
        Ok(())
    }

    /// Returns the load, which ends when the run is over.
    fn load(
        &self,
        pairs: &Arc<PairScenario>,
        phases: &Arc<LoadPhases>,
    ) -> Result<impl Future<Output = ()> + use<>, BenchError> {
        let hot = self.settings.hot.map(|recipients| {
            let hot = HotRecipientLoad::new(Arc::clone(pairs), recipients);
            Arc::new(hot)
        });
        let pair = {
            let pairs = Arc::clone(pairs);
            move |start: PairStart| {
                let (pairs, hot) = (Arc::clone(&pairs), hot.clone());
                async move {
                    match hot {
                        Some(hot) => hot.run(start).await,
                        None => pairs.run(start).await,
                    }
                }
            }
        };
        let arrivals = self.arrivals()?;
        let (phases, pairs) = (Arc::clone(phases), Arc::clone(pairs));
        let (in_flight, ramp) = (self.settings.in_flight, self.settings.ramp);
        Ok(async move {
            let Some((begin, arrivals)) = arrivals else {
                return load::closed(in_flight, ramp, phases, pair).await;
            };
            let not_started = |arrival: schedule::ScheduledPair| {
                if arrival.counted {
                    pairs.tally.record_not_started();
                }
            };
            load::open(arrivals, begin, in_flight, phases, pair, not_started).await;
        })
    }

    /// Starts the arrival of pairs, if they arrive at a rate: the start time, and the
    /// arrivals.
    fn arrivals(
        &self,
    ) -> Result<Option<(Instant, mpsc::UnboundedReceiver<schedule::ScheduledPair>)>, BenchError>
    {
        let settings = &self.settings;
        let Some(rate) = settings.rate else {
            return Ok(None);
        };
        let schedule = ArrivalSchedule {
            rate,
            ramp: settings.ramp,
            warm_up: settings.warm_up,
            duration: settings.duration,
            pairs: settings.pairs,
        };
        let (sender, arrivals) = mpsc::unbounded_channel();
        let begin = Instant::now();
        load::pace(schedule, begin, sender)
            .map_err(|error| BenchError::Usage(format!("cannot start a thread: {error}")))?;
        Ok(Some((begin, arrivals)))
    }

    /// Leads the load through its phases, and measures the one that counts.
    async fn drive(
        &self,
        phases: &LoadPhases,
        load: impl Future<Output = ()>,
        stop: impl Future<Output = ()>,
        watch: ProcessWatch,
    ) -> MeasuredPhase {
        let mut load = pin!(load);
        let mut stop = pin!(stop);
        for (phase, length) in [
            (LoadPhase::Ramp, self.settings.ramp),
            (LoadPhase::WarmUp, self.settings.warm_up),
        ] {
            // The load starts with the first phase that is not empty.
            if length.is_zero() {
                continue;
            }
            phases.enter(phase);
            match end_of_phase(Some(length), &mut load, &mut stop).await {
                PhaseEnded::InTime => {}
                PhaseEnded::WithTheLoad => return MeasuredPhase::default(),
                PhaseEnded::Stopped => {
                    phases.enter(LoadPhase::Stopped);
                    load.await;
                    return MeasuredPhase::default();
                }
            }
        }
        self.measure(phases, load, stop, watch).await
    }

    /// Measures the phase that counts.
    async fn measure(
        &self,
        phases: &LoadPhases,
        mut load: Pin<&mut impl Future<Output = ()>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        watch: ProcessWatch,
    ) -> MeasuredPhase {
        let watch = Arc::new(Mutex::new(watch));
        with(&watch, ProcessWatch::begin);
        let begin = Instant::now();
        phases.enter(LoadPhase::Counted);
        let sampling = tokio::spawn(sample(Arc::clone(&watch)));
        let ended = end_of_phase(self.settings.duration, &mut load, &mut stop).await;
        let phase = match ended {
            PhaseEnded::InTime | PhaseEnded::WithTheLoad => LoadPhase::Over,
            PhaseEnded::Stopped => LoadPhase::Stopped,
        };
        let mut running = ended != PhaseEnded::WithTheLoad;
        if running && !self.settings.starts_amid_load() {
            phases.enter(phase);
            load.as_mut().await;
            running = false;
        }
        let time = begin.elapsed();
        sampling.abort();
        let (processes, own_cpu_seconds) = with(&watch, ProcessWatch::end);
        phases.enter(phase);
        if running {
            load.await;
        }
        MeasuredPhase {
            time,
            processes,
            own_cpu_seconds,
        }
    }
}

fn no_code(address: &str, has_logs: bool) -> String {
    if has_logs {
        let seconds = PROBE_TIMEOUT.as_secs();
        format!(
            "--codes: no code of {address} was logged within {seconds} s; give the logs of all servers, which must write them at log_level info, and deliver by the provider `log`"
        )
    } else {
        format!(
            "{address} returns no codes; give its log by --codes FILE, if it delivers by the provider `log`, or the --token of a caller with `self_delivery`"
        )
    }
}

async fn sample(watch: Arc<Mutex<ProcessWatch>>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    loop {
        ticks.tick().await;
        with(&watch, ProcessWatch::sample);
    }
}

fn with<T>(watch: &Mutex<ProcessWatch>, act: impl FnOnce(&mut ProcessWatch) -> T) -> T {
    // Samples that were taken before a panic are still valid.
    act(&mut watch.lock().unwrap_or_else(PoisonError::into_inner))
}
