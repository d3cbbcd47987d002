//! Server and model run the same random steps, and every reply must be one that the rules
//! allow. A failing sequence is reduced, stored in tests/safety_net/regressions, and run first
//! from then on.

pub mod grpc_adapter;
mod run;
mod scenarios;
mod step;
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
use run::{Counts, Run};
use scenarios::scenarios;
use step::{Step, sequences};
use world::{ClockMode, World};

/// Maximum number of steps in a sequence.
const MAX_STEPS: usize = 24;

/// Size of a run.
#[derive(Clone, Copy)]
struct Plan {
    sequences: u32,
    worlds: u32,
    /// One step in this number restarts a replica.
    rotate_one_in: u32,
}

impl Plan {
    /// Returns the size that the environment requests, or that of the gate.
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
    run_worlds(Kind::Postgres, Plan::from_environment(500));
}

#[test]
fn responses_match_model_sqlite() {
    run_worlds(Kind::Sqlite, Plan::from_environment(500));
}

/// Runs several worlds at the same time.
fn run_worlds(kind: Kind, plan: Plan) {
    let seed = long_run::seed();
    let mut figures = Figures::new(&format!("stateful_{kind:?}").to_lowercase(), Some(seed));
    let workers: Vec<_> = (0..plan.worlds)
        .map(|worker| thread::spawn(move || run_world(kind, plan, seed, worker)))
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

/// Runs one world: first the stored sequences, then random ones.
fn run_world(kind: Kind, plan: Plan, seed: u64, worker: u32) -> (Counts, u64) {
    let runtime = Runtime::new().expect("the system has threads left");
    let clock_mode = if worker.is_multiple_of(2) {
        ClockMode::Forward
    } else {
        ClockMode::StepsBack
    };
    let world = RefCell::new(runtime.block_on(World::start(kind, clock_mode)));
    let counts = RefCell::new(Counts::default());
    let run = |steps: &[Step]| {
        let mut counts = counts.borrow_mut();
        let mut world = world.borrow_mut();
        let run = Run::new(&mut world, counts.sequences);
        runtime.block_on(run.all(steps, &mut counts))
    };
    let stored = regressions().into_iter();
    let typical = scenarios().into_iter();
    for (name, steps) in typical
        .map(|(name, steps)| (name.to_owned(), steps))
        .chain(stored)
    {
        run(&steps).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
    let mut progress =
        long_run::Progress::new(format!("{kind:?} {worker}"), plan.sequences / plan.worlds);
    let progress = RefCell::new(&mut progress);
    let outcome =
        runner(plan, seed, worker).run(&sequences(MAX_STEPS, plan.rotate_one_in), |steps| {
            progress.borrow_mut().step();
            run(&steps).map_err(TestCaseError::fail)
        });
    match outcome {
        Ok(()) => (),
        Err(TestError::Fail(difference, steps)) => {
            let file = store(&steps);
            let at = counts.borrow().sequences;
            panic!("difference at sequence {at}, stored in {file}: {steps:?}\n{difference}");
        }
        Err(TestError::Abort(reason)) => panic!("aborted: {reason}"),
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
        // Stored as steps, which stay readable if the strategy changes.
        failure_persistence: None,
        // A seeded bug is only found, not reduced.
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

/// Returns the sequences that once showed a difference, by a fault of otpd or of the model.
fn regressions() -> Vec<(String, Vec<Step>)> {
    let files = fs::read_dir(directory()).expect("the directory exists");
    let mut found: Vec<_> = files
        .map(|file| file.expect("the directory is readable").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let text = fs::read_to_string(&path).expect("the file is readable");
            let steps = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.display().to_string(), steps)
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// Stores a sequence, to be run first from now on; in the temporary directory if another build
/// of otpd is tested.
fn store(steps: &[Step]) -> String {
    let text = serde_json::to_string_pretty(steps).expect("steps are plain data");
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let directory = match std::env::var_os("TEST_OTPD") {
        Some(_) => std::env::temp_dir(),
        None => directory(),
    };
    let path = directory.join(format!("{:016x}.json", hasher.finish()));
    fs::write(&path, text).expect("the directory is writable");
    path.display().to_string()
}
