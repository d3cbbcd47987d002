//! Injects faults one after the other and counts them. The duration of a fault is counted
//! in calls, so that nothing waits for a clock.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::fleet::{Fleet, REPLICAS};
use crate::dice::Dice;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Pause,
    CrashPostgres,
    CutStore,
    SlowStore,
    HoldStore,
    LoseStore,
    CutCallers,
    SlowCallers,
    LoseCallers,
    JumpWallClock,
}

impl Fault {
    /// Relative frequencies.
    const WEIGHTS: [(Self, usize); 11] = [
        (Self::Kill, 5),
        (Self::Pause, 5),
        (Self::CrashPostgres, 1),
        (Self::CutStore, 9),
        (Self::SlowStore, 4),
        (Self::HoldStore, 3),
        (Self::LoseStore, 2),
        (Self::CutCallers, 5),
        (Self::SlowCallers, 3),
        (Self::LoseCallers, 3),
        (Self::JumpWallClock, 6),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "replicas killed and restarted",
            Self::Pause => "replicas paused",
            Self::CrashPostgres => "crashes of PostgreSQL",
            Self::CutStore => "times ten cuts between replicas and database",
            Self::SlowStore => "slow networks between replica and database",
            Self::HoldStore => {
                "networks between replica and database that held back everything for a while"
            }
            Self::LoseStore => "half-open connections between replica and database",
            Self::CutCallers => "cuts between callers and replica",
            Self::SlowCallers => "slow networks between callers and replica",
            Self::LoseCallers => "half-open connections between callers and replica",
            Self::JumpWallClock => "jumps of a replica's wall clock",
        }
    }

    /// Chooses each fault once, then by weight.
    fn choose(turn: usize, dice: &mut Dice) -> Self {
        if let Some((fault, _)) = Self::WEIGHTS.get(turn) {
            return *fault;
        }
        let mut chosen = dice.below(Self::WEIGHTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in Self::WEIGHTS {
            if chosen < weight {
                return fault;
            }
            chosen -= weight;
        }
        unreachable!("the number is below the sum of the weights")
    }
}

/// Number of cuts of one fault.
const CUTS: usize = 10;

/// Number of faults by kind.
pub type Faults = BTreeMap<Fault, u64>;

/// Injects a fault about once in `every` calls, until it is dropped.
pub async fn inject_faults(
    fleet: Arc<Fleet>,
    mut dice: Dice,
    every: u64,
    faults: &std::sync::Mutex<Faults>,
) {
    for turn in 0.. {
        let fault = Fault::choose(turn, &mut dice);
        let replica = dice.below(REPLICAS);
        inject(&fleet, fault, replica, &mut dice).await;
        count(faults, fault);
        fleet.after_calls(every).await;
    }
}

fn count(faults: &std::sync::Mutex<Faults>, fault: Fault) {
    let mut counted = faults.lock().expect("lock is not poisoned");
    *counted.entry(fault).or_default() += 1;
}

/// Advances the store's clock once in `every` calls.
pub async fn pass_time(fleet: Arc<Fleet>, mut dice: Dice, every: u64) {
    const STEPS: [i64; 12] = [
        1_000, 5_000, 21_000, 21_000, 46_000, 46_000, 61_000, 61_000, 91_000, 301_000, 1_250_000,
        4_000_000,
    ];
    loop {
        fleet.after_calls(every).await;
        // The clock is moved by a write to the database, which is down now and then.
        let mut up = fleet.up.subscribe();
        if up.wait_for(|up| *up).await.is_ok() {
            fleet.advance(STEPS[dice.below(STEPS.len())]).await;
        }
    }
}

async fn inject(fleet: &Arc<Fleet>, fault: Fault, replica: usize, dice: &mut Dice) {
    let duration = 20 + u64::try_from(dice.below(40)).expect("few");
    match fault {
        Fault::Kill => {
            fleet.kill(replica);
            fleet.launch(replica);
            fleet.serves(replica).await;
        }
        Fault::Pause => {
            let start = Instant::now();
            fleet.signal(replica, "STOP");
            fleet.after_calls(duration).await;
            // Recorded before the replica continues, so that the checks know of the pause.
            let mut pauses = fleet.pauses.lock().expect("lock is not poisoned");
            pauses.push((replica, start, Instant::now()));
            drop(pauses);
            fleet.signal(replica, "CONT");
        }
        Fault::CrashPostgres => fleet.crash_postgres().await,
        // Several, so that some happen between a commit and its acknowledgement.
        Fault::CutStore => {
            for _ in 0..CUTS {
                fleet.store_network(dice.below(REPLICAS)).cut();
                fleet.after_calls(5).await;
            }
        }
        Fault::SlowStore => {
            fleet.store_network(replica).slow(true);
            fleet.after_calls(duration).await;
            fleet.store_network(replica).slow(false);
        }
        Fault::HoldStore => {
            fleet.store_network(replica).hang();
            fleet.after_calls(duration).await;
            fleet.store_network(replica).forward();
        }
        Fault::LoseStore => fleet.store_network(replica).lose(),
        Fault::CutCallers => fleet.front_network(replica).cut(),
        Fault::SlowCallers => {
            let network = fleet.front_network(replica);
            network.slow(true);
            fleet.after_calls(duration).await;
            network.slow(false);
        }
        Fault::LoseCallers => {
            let network = fleet.front_network(replica);
            network.lose();
            fleet.after_calls(duration).await;
            // Callers close such a connection after a while.
            network.cut();
        }
        Fault::JumpWallClock => {
            let days = i64::try_from(dice.below(800)).expect("few") - 400;
            let seconds = i64::try_from(dice.below(4_000)).expect("few");
            let far = if dice.percent(50) { days * 86_400 } else { 0 };
            fleet.walls.set(replica, far + seconds - 2_000);
        }
    }
}
