//! Server and model run the same random commands, and every reply must be one that the
//! rules allow. A failing sequence is reduced, stored in tests/safety_net/regressions,
//! and run first from then on.

mod command;
pub mod grpc_adapter;
mod run;
mod world;

use std::{
    cell::RefCell,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    thread,
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::{
    long_run,
    support::{Figures, Kind, asked, repository},
};
use command::{Command, sequences};
use run::{Counts, Run};
use world::{Upset, World};

/// Commands in a sequence at most.
const LONGEST: usize = 24;

/// How large a run is.
#[derive(Clone, Copy)]
struct Plan {
    sequences: u32,
    worlds: u32,
    /// One command in so many restarts a replica.
    rotate_one_in: u32,
}

impl Plan {
    /// As large as the environment asks for; else as the gate has time for.
    fn from_environment(sequences: u32) -> Self {
        let long = asked("SAFETY_NET_SEQUENCES");
        Self {
            sequences: long.unwrap_or(sequences),
            worlds: asked("SAFETY_NET_WORLDS").unwrap_or(2),
            rotate_one_in: if long.is_some() { 5_000 } else { 1_000 },
        }
    }
}

#[test]
fn responses_match_model_postgres() {
    drive(Kind::Postgres, Plan::from_environment(500));
}

#[test]
fn responses_match_model_sqlite() {
    drive(Kind::Sqlite, Plan::from_environment(500));
}

/// Drives several worlds at the same time.
fn drive(kind: Kind, plan: Plan) {
    let seed = long_run::seed();
    let mut figures = Figures::new(&format!("stateful_{kind:?}").to_lowercase(), Some(seed));
    let workers: Vec<_> = (0..plan.worlds)
        .map(|worker| thread::spawn(move || work(kind, plan, seed, worker)))
        .collect();
    let mut counts = Counts::default();
    let mut rotations = 0;
    for worker in workers {
        let (counted, rotated) = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts.sequences += counted.sequences;
        counts.calls += counted.calls;
        counts.clock_moves += counted.clock_moves;
        counts.steps_back += counted.steps_back;
        rotations += rotated;
    }
    figures.count("sequences", counts.sequences);
    figures.count("calls", counts.calls);
    figures.count("clock moves", counts.clock_moves);
    figures.count("steps back of the clock", counts.steps_back);
    figures.count("restarts with other keys", rotations);
    figures.write();
}

/// Drives one world: first through what was found before, then at random.
fn work(kind: Kind, plan: Plan, seed: u64, worker: u32) -> (Counts, u64) {
    let runtime = Runtime::new().expect("threads can be made");
    let upset = if worker.is_multiple_of(2) {
        Upset::Purges
    } else {
        Upset::StepsBack
    };
    let world = RefCell::new(runtime.block_on(World::start(kind, upset)));
    let counts = RefCell::new(Counts::default());
    let run = |commands: &[Command]| {
        let mut counts = counts.borrow_mut();
        let mut world = world.borrow_mut();
        let run = Run::new(&mut world, counts.sequences);
        runtime.block_on(run.all(commands, &mut counts))
    };
    for (name, commands) in regressions() {
        run(&commands).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
    let mut progress =
        long_run::Progress::new(format!("{kind:?} {worker}"), plan.sequences / plan.worlds);
    let progress = RefCell::new(&mut progress);
    let outcome =
        runner(plan, seed, worker).run(&sequences(LONGEST, plan.rotate_one_in), |commands| {
            progress.borrow_mut().step();
            run(&commands).map_err(TestCaseError::fail)
        });
    match outcome {
        Ok(()) => (),
        Err(TestError::Fail(difference, commands)) => {
            let kept = keep(&commands);
            let at = counts.borrow().sequences;
            panic!("difference at sequence {at}, kept as {kept}: {commands:?}\n{difference}");
        }
        Err(TestError::Abort(reason)) => panic!("gave up: {reason}"),
    }
    let rotations = world.borrow().rotations;
    (counts.into_inner(), rotations)
}

fn runner(plan: Plan, seed: u64, worker: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&worker.to_le_bytes());
    let config = Config {
        cases: plan.sequences / plan.worlds,
        // Kept as commands, which stay readable when the strategy changes.
        failure_persistence: None,
        // A seeded bug need only be found.
        max_shrink_iters: if std::env::var_os("TEST_OTPD").is_some() {
            0
        } else {
            2_000
        },
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn directory() -> PathBuf {
    repository::path("tests/safety_net/regressions")
}

/// Sequences that once showed a difference, of otpd or of the net itself.
fn regressions() -> Vec<(String, Vec<Command>)> {
    let files = fs::read_dir(directory()).expect("the directory is there");
    let mut found: Vec<_> = files
        .map(|file| file.expect("it can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let text = fs::read_to_string(&path).expect("it can be read");
            let commands = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.display().to_string(), commands)
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// Keeps a sequence to be run first from now on, unless another build of otpd stands in
/// for this one.
fn keep(commands: &[Command]) -> String {
    let text = serde_json::to_string_pretty(commands).expect("commands are plain");
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let directory = match std::env::var_os("TEST_OTPD") {
        Some(_) => std::env::temp_dir(),
        None => directory(),
    };
    let path = directory.join(format!("{:016x}.json", hasher.finish()));
    fs::write(&path, text).expect("the directory takes files");
    path.display().to_string()
}
