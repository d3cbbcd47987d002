//! Load on servers, and what becomes of it: what a deployment can bear, and whether it
//! keeps the rules meanwhile. It knows the servers as any caller does, by the contract.

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

/// How long the first code of each server may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the memory of processes is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A run that is to be.
#[derive(Debug)]
pub struct BenchRun {
    /// How it goes.
    pub settings: BenchSettings,
    /// Which servers it is about.
    pub targets: Vec<TargetServer>,
    /// What each call says as `authorization`.
    pub authorization: AuthorizationHeader,
    /// The processes that are watched.
    pub processes: Vec<WatchedProcess>,
    /// Where the numbers of recipients start; random, so that runs have none in common.
    pub start: u64,
    /// How its progress is told.
    pub progress: ProgressLine,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Something that was given is wrong.
    #[error("{0}")]
    Usage(String),
    /// A server is away.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        cause: String,
    },
    /// A server does not take a pair before any load.
    #[error("{address}: the first pair failed: {}", .status.message())]
    Refused {
        /// Its address.
        address: String,
        /// What it said.
        status: Box<Status>,
    },
    /// The first code was not taken.
    #[error("{address}: the code that was found did not verify: {outcome}")]
    NotVerified {
        /// The server's address.
        address: String,
        /// The verdict.
        outcome: &'static str,
    },
    /// Somebody ended it before it began.
    #[error("interrupted before the load began")]
    Interrupted,
}

impl BenchRun {
    /// Runs to the end, or until `stop` completes; what is running then is finished.
    ///
    /// # Errors
    /// Where no run is possible.
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

        let course = Arc::new(LoadPhases::new(self.settings.pairs));
        let telling = tokio::spawn(self.progress.spawn(Arc::clone(&pairs), Arc::clone(&course)));
        let load = self.load(&pairs, &course)?;
        let measured = self.drive(&course, load, stop, watch).await;
        telling.abort();
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

    /// Opens connections and logs, and tries them.
    async fn prepare(&self) -> Result<PairScenario, BenchError> {
        let settings = &self.settings;
        // Before the first code is told.
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
            wrong: PairShare::new(settings.wrong_share),
            tally: Stats::default(),
            rules: InvariantChecker::new(settings.max_attempts),
        };
        self.probe(&pairs).await?;
        Ok(pairs)
    }

    /// Takes a pair through each server, so that what is wrong is told before the run.
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

    /// All pairs, which end when the course is over.
    fn load(
        &self,
        pairs: &Arc<PairScenario>,
        course: &Arc<LoadPhases>,
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
        let (course, pairs) = (Arc::clone(course), Arc::clone(pairs));
        let (in_flight, ramp) = (self.settings.in_flight, self.settings.ramp);
        Ok(async move {
            let Some((begin, arrivals)) = arrivals else {
                return load::closed(in_flight, ramp, course, pair).await;
            };
            let not_started = |arrival: schedule::ScheduledPair| {
                if arrival.counted {
                    pairs.tally.not_started();
                }
            };
            load::open(arrivals, begin, in_flight, course, pair, not_started).await;
        })
    }

    /// Where pairs arrive at a rate: since when, and each of them.
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
            .map_err(|error| BenchError::Usage(format!("no thread: {error}")))?;
        Ok(Some((begin, arrivals)))
    }

    /// Leads the load through its phases, and measures the time that counts.
    async fn drive(
        &self,
        course: &LoadPhases,
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
            // The load starts with the first phase that has a length.
            if length.is_zero() {
                continue;
            }
            course.enter(phase);
            match end_of_phase(Some(length), &mut load, &mut stop).await {
                PhaseEnded::InTime => {}
                PhaseEnded::WithTheLoad => return MeasuredPhase::default(),
                PhaseEnded::Stopped => {
                    course.enter(LoadPhase::Stopped);
                    load.await;
                    return MeasuredPhase::default();
                }
            }
        }
        self.measure(course, load, stop, watch).await
    }

    /// The time that counts.
    async fn measure(
        &self,
        course: &LoadPhases,
        mut load: Pin<&mut impl Future<Output = ()>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        watch: ProcessWatch,
    ) -> MeasuredPhase {
        let watch = Arc::new(Mutex::new(watch));
        with(&watch, ProcessWatch::begin);
        let begin = Instant::now();
        course.enter(LoadPhase::Counted);
        let sampling = tokio::spawn(sample(Arc::clone(&watch)));
        let ended = end_of_phase(self.settings.duration, &mut load, &mut stop).await;
        let phase = match ended {
            PhaseEnded::InTime | PhaseEnded::WithTheLoad => LoadPhase::Over,
            PhaseEnded::Stopped => LoadPhase::Stopped,
        };
        let mut running = ended != PhaseEnded::WithTheLoad;
        if running && !self.settings.starts_amid_load() {
            course.enter(phase);
            load.as_mut().await;
            running = false;
        }
        let time = begin.elapsed();
        sampling.abort();
        let (processes, own_cpu_seconds) = with(&watch, ProcessWatch::end);
        course.enter(phase);
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
            "--codes: no code of {address} was told within {seconds} s; give the logs of all servers, which must write them at log_level info, and deliver by the provider `log`"
        )
    } else {
        format!(
            "{address} tells no codes; give its log by --codes FILE, where it delivers by the provider `log`, or the --token of a caller with `self_delivery`"
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
    // What was measured before a panic is still true.
    act(&mut watch.lock().unwrap_or_else(PoisonError::into_inner))
}
