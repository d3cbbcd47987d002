//! Load on servers, and what becomes of it: what a deployment can bear, and whether it
//! keeps the rules meanwhile. It knows the servers as any caller does, by the contract.

mod board;
mod codes;
mod connection;
mod course;
mod follow;
mod hot;
mod load;
mod log_line;
mod pair;
mod process;
mod progress;
mod recipients;
mod report;
mod rules;
mod schedule;
mod settings;
mod table;
mod tally;

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

pub use connection::{Authorization, Target, was_not_sent};
pub use process::Process;
pub use progress::Progress;
pub use recipients::{MAX_CLIENT_IPS, MAX_REGIONS};
pub use report::Report;
pub use settings::Settings;

use codes::Codes;
use connection::Connection;
use course::{Course, Ended, Phase, end_of_phase};
use hot::Hot;
use load::Start;
use pair::{Pairs, Share};
use process::Watch;
use recipients::Recipients;
use report::Measured;
use rules::Rules;
use schedule::Schedule;
use tally::Tally;

use crate::grpc::v1::VerifyOutcome;

/// How long the first code of each server may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// How often the memory of processes is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A run that is to be.
#[derive(Debug)]
pub struct Bench {
    /// How it goes.
    pub settings: Settings,
    /// Which servers it is about.
    pub targets: Vec<Target>,
    /// What each call says as `authorization`.
    pub authorization: Authorization,
    /// The processes that are watched.
    pub processes: Vec<Process>,
    /// Where the numbers of recipients start; random, so that runs have none in common.
    pub start: u64,
    /// How its progress is told.
    pub progress: Progress,
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

impl Bench {
    /// Runs to the end, or until `stop` completes; what is running then is finished.
    ///
    /// # Errors
    /// Where no run is possible.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Report, BenchError> {
        let watch = Watch::new(self.processes.clone()).map_err(|process| {
            let Process { name, id } = process;
            BenchError::Usage(format!("--process: {name}={id}: there is no such process"))
        })?;
        let mut stop = pin!(stop);
        let pairs = select! {
            () = &mut stop => return Err(BenchError::Interrupted),
            pairs = self.prepare() => Arc::new(pairs?),
        };

        let course = Arc::new(Course::new(self.settings.pairs));
        let telling = tokio::spawn(self.progress.tell(Arc::clone(&pairs), Arc::clone(&course)));
        let load = self.load(&pairs, &course)?;
        let measured = self.direct(&course, load, stop, watch).await;
        telling.abort();
        self.progress.end();
        let counts = pairs.tally.counts().clone();
        let violations = pairs.rules.violations();
        Ok(Report::new(self.settings, counts, violations, measured))
    }

    /// Opens connections and logs, and tries them.
    async fn prepare(&self) -> Result<Pairs, BenchError> {
        let settings = &self.settings;
        // Before the first code is told.
        let codes = Codes::from_logs(&settings.codes)?;
        let mut connections = Vec::new();
        for target in self.targets.iter().cycle().take(settings.connections) {
            let connection = Connection::open(target, self.authorization.clone());
            connections.push(connection.await?);
        }
        let pairs = Pairs {
            connections,
            recipients: Recipients::new(settings.regions, settings.client_ips, self.start),
            codes,
            purpose: settings.purpose.clone(),
            wrong: Share::new(settings.wrong_share),
            tally: Tally::default(),
            rules: Rules::new(settings.max_attempts),
        };
        self.probe(&pairs).await?;
        Ok(pairs)
    }

    /// Takes a pair through each server, so that what is wrong is told before the run.
    async fn probe(&self, pairs: &Pairs) -> Result<(), BenchError> {
        for (target, connection) in self.targets.iter().zip(&pairs.connections) {
            let address = || target.address.clone();
            let refused = |status| BenchError::Refused {
                address: address(),
                status: Box::new(status),
            };
            let person = pairs.recipients.next();
            let request = pairs.send_request(&person);
            let reply = connection.send(request).await.map_err(refused)?;
            let Some(code) = pairs.codes.of(&reply, PROBE_PATIENCE).await else {
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
                    outcome: pair::outcome_name(&reply),
                });
            }
        }
        Ok(())
    }

    /// All pairs, which end when the course is over.
    fn load(
        &self,
        pairs: &Arc<Pairs>,
        course: &Arc<Course>,
    ) -> Result<impl Future<Output = ()> + use<>, BenchError> {
        let hot = self.settings.hot.map(|recipients| {
            let hot = Hot::new(Arc::clone(pairs), recipients);
            Arc::new(hot)
        });
        let pair = {
            let pairs = Arc::clone(pairs);
            move |start: Start| {
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
            let not_started = |arrival: schedule::Arrival| {
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
    ) -> Result<Option<(Instant, mpsc::UnboundedReceiver<schedule::Arrival>)>, BenchError> {
        let settings = &self.settings;
        let Some(rate) = settings.rate else {
            return Ok(None);
        };
        let schedule = Schedule {
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
    async fn direct(
        &self,
        course: &Course,
        load: impl Future<Output = ()>,
        stop: impl Future<Output = ()>,
        watch: Watch,
    ) -> Measured {
        let mut load = pin!(load);
        let mut stop = pin!(stop);
        for (phase, length) in [
            (Phase::Ramp, self.settings.ramp),
            (Phase::WarmUp, self.settings.warm_up),
        ] {
            // The load starts with the first phase that has a length.
            if length.is_zero() {
                continue;
            }
            course.enter(phase);
            match end_of_phase(Some(length), &mut load, &mut stop).await {
                Ended::InTime => {}
                Ended::WithTheLoad => return Measured::default(),
                Ended::Stopped => {
                    course.enter(Phase::Stopped);
                    load.await;
                    return Measured::default();
                }
            }
        }
        self.measure(course, load, stop, watch).await
    }

    /// The time that counts.
    async fn measure(
        &self,
        course: &Course,
        mut load: Pin<&mut impl Future<Output = ()>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        watch: Watch,
    ) -> Measured {
        let watch = Arc::new(Mutex::new(watch));
        with(&watch, Watch::begin);
        let begin = Instant::now();
        course.enter(Phase::Counted);
        let sampling = tokio::spawn(sample(Arc::clone(&watch)));
        let ended = end_of_phase(self.settings.duration, &mut load, &mut stop).await;
        let phase = match ended {
            Ended::InTime | Ended::WithTheLoad => Phase::Over,
            Ended::Stopped => Phase::Stopped,
        };
        let mut running = ended != Ended::WithTheLoad;
        if running && !self.settings.starts_amid_load() {
            course.enter(phase);
            load.as_mut().await;
            running = false;
        }
        let time = begin.elapsed();
        sampling.abort();
        let (processes, own_cpu_seconds) = with(&watch, Watch::end);
        course.enter(phase);
        if running {
            load.await;
        }
        Measured {
            time,
            processes,
            own_cpu_seconds,
        }
    }
}

fn no_code(address: &str, has_logs: bool) -> String {
    if has_logs {
        let seconds = PROBE_PATIENCE.as_secs();
        format!(
            "--codes: no code of {address} was told within {seconds} s; give the logs of all servers, which must write them at log_level info, and deliver by the provider `log`"
        )
    } else {
        format!(
            "{address} tells no codes; give its log by --codes FILE, where it delivers by the provider `log`, or the --token of a caller that `delivers` by itself"
        )
    }
}

async fn sample(watch: Arc<Mutex<Watch>>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    loop {
        ticks.tick().await;
        with(&watch, Watch::sample);
    }
}

fn with<T>(watch: &Mutex<Watch>, act: impl FnOnce(&mut Watch) -> T) -> T {
    // What was measured before a panic is still true.
    act(&mut watch.lock().unwrap_or_else(PoisonError::into_inner))
}
