//! Start of pairs: the next one when one ends, or as they arrive.

use std::{sync::Arc, thread, time::Duration};

use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use super::{
    phases::{LoadPhase, LoadPhases},
    schedule::{ArrivalSchedule, ScheduledPair},
};

/// Pair that starts.
#[derive(Clone, Copy, Debug)]
pub struct PairStart {
    /// Number that chooses the connections.
    pub lane: usize,
    /// Time from which its first call is measured.
    pub planned: Instant,
    /// True if it counts.
    pub counted: bool,
}

/// Keeps `in_flight` pairs running until the run is over; their number grows evenly over
/// the ramp. Returns after all have ended.
pub async fn closed<F: Future<Output = ()> + Send + 'static>(
    in_flight: usize,
    ramp: Duration,
    phases: Arc<LoadPhases>,
    pair: impl Fn(PairStart) -> F + Clone + Send + Sync + 'static,
) {
    let mut slots = JoinSet::new();
    for lane in 0..in_flight {
        let phases = Arc::clone(&phases);
        let pair = pair.clone();
        #[expect(clippy::cast_precision_loss, reason = "the number of slots is small")]
        let delay = ramp.mul_f64(lane as f64 / in_flight as f64);
        slots.spawn(async move {
            if !delay.is_zero() {
                select! {
                    () = sleep(delay) => {}
                    () = phases.reached(LoadPhase::Over) => return,
                }
            }
            while let Some(counted) = phases.admit() {
                let planned = Instant::now();
                pair(PairStart {
                    lane,
                    planned,
                    counted,
                })
                .await;
            }
        });
    }
    slots.join_all().await;
}

/// Starts pairs as they arrive, unless `at_most` are running: those are passed to
/// `not_started`. Returns after all have arrived and ended, or, if the run is stopped,
/// after the running ones have ended.
pub async fn open<F: Future<Output = ()> + Send + 'static>(
    mut arrivals: UnboundedReceiver<ScheduledPair>,
    begin: Instant,
    at_most: usize,
    phases: Arc<LoadPhases>,
    pair: impl Fn(PairStart) -> F,
    not_started: impl Fn(ScheduledPair),
) {
    let running = TaskTracker::new();
    let stopped = phases.reached(LoadPhase::Stopped);
    tokio::pin!(stopped);
    for lane in 0.. {
        let arrival = select! {
            biased;
            () = &mut stopped => break,
            arrival = arrivals.recv() => arrival,
        };
        let Some(arrival) = arrival else { break };
        if running.len() >= at_most {
            not_started(arrival);
            continue;
        }
        running.spawn(pair(PairStart {
            lane,
            planned: begin + arrival.planned,
            counted: arrival.counted,
        }));
    }
    running.close();
    running.wait().await;
}

/// Sends each arrival at its time, until the receiver is dropped. It has a thread of its
/// own, because the runtime's timers have a resolution of a millisecond, which would be
/// in every latency.
///
/// # Errors
/// [`std::io::Error`] if no thread can be started.
pub fn pace(
    schedule: ArrivalSchedule,
    begin: Instant,
    arrivals: UnboundedSender<ScheduledPair>,
) -> std::io::Result<()> {
    let send_arrivals = move || {
        for arrival in schedule.arrivals() {
            let wait = (begin + arrival.planned).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if arrivals.send(arrival).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("bench-pace".to_owned());
    thread.spawn(send_arrivals).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        sync::mpsc::unbounded_channel,
        time::{sleep_until, timeout},
    };

    use super::*;
    use crate::schedule::tests::schedule;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs the arrivals of `schedule` against a server that stalls from its third to its
    /// fifth second, and responds at once otherwise. Returns the latencies and the number
    /// of pairs that were not started.
    async fn run(
        schedule: ArrivalSchedule,
        at_most: usize,
        stop_after: Option<Duration>,
    ) -> (Vec<Duration>, usize) {
        let begin = Instant::now();
        let (sender, arrivals) = unbounded_channel();
        tokio::spawn(async move {
            for arrival in schedule.arrivals() {
                sleep_until(begin + arrival.planned).await;
                if sender.send(arrival).is_err() {
                    return;
                }
            }
        });
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let not_started = AtomicUsize::new(0);
        let pair = |start: PairStart| {
            let latencies = Arc::clone(&latencies);
            async move {
                let second = begin.elapsed().as_secs();
                if (3..5).contains(&second) {
                    sleep_until(begin + 5 * SECOND).await;
                }
                latencies.lock().unwrap().push(start.planned.elapsed());
            }
        };
        let phases = Arc::new(LoadPhases::new(None));
        if let Some(after) = stop_after {
            let phases = Arc::clone(&phases);
            tokio::spawn(async move {
                sleep(after).await;
                phases.enter(LoadPhase::Stopped);
            });
        }
        open(arrivals, begin, at_most, phases, pair, |_| {
            not_started.fetch_add(1, Ordering::Relaxed);
        })
        .await;
        let latencies = latencies.lock().unwrap().clone();
        (latencies, not_started.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn latency_includes_queueing_while_the_server_stalls() {
        let (latencies, not_started) = run(schedule(), usize::MAX, None).await;
        assert_eq!((latencies.len(), not_started), (1_000, 0));
        // The arrivals of two seconds of ten wait, evenly from two seconds down to zero.
        let slow = latencies
            .iter()
            .filter(|latency| **latency > Duration::from_millis(5));
        assert_eq!(slow.clone().count(), 200);
        let sum: Duration = slow.sum();
        assert!(sum.abs_diff(200 * SECOND) < 2 * SECOND, "{sum:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn arrival_above_max_in_flight_is_not_started() {
        let (latencies, not_started) = run(schedule(), 50, None).await;
        assert_eq!((latencies.len(), not_started), (850, 150));
    }

    #[tokio::test(start_paused = true)]
    async fn stop_starts_nothing_and_finishes_running_pairs() {
        let stop = Some(Duration::from_millis(4_005));
        let (latencies, not_started) = run(schedule(), usize::MAX, stop).await;
        assert_eq!((latencies.len(), not_started), (401, 0));
        assert!(latencies.iter().max() >= Some(&SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_end_once_the_receiver_is_dropped() {
        let (sender, mut arrivals) = unbounded_channel();
        let endless = ArrivalSchedule {
            rate: 1e9,
            duration: None,
            ..schedule()
        };
        pace(endless, Instant::now(), sender).unwrap();
        let first = arrivals.recv().await.expect("the schedule has no end");
        assert_eq!(first.planned, Duration::ZERO);
        drop(arrivals);

        let (sender, mut arrivals) = unbounded_channel();
        let few = ArrivalSchedule {
            rate: 1e6,
            pairs: Some(3),
            ..schedule()
        };
        pace(few, Instant::now(), sender).unwrap();
        let mut received = Vec::new();
        while let Some(arrival) = arrivals.recv().await {
            received.push(arrival);
        }
        assert_eq!(received, few.arrivals().collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn concurrency_is_bounded_and_grows_during_ramp() {
        let begin = Instant::now();
        let phases = Arc::new(LoadPhases::new(None));
        let starts = Arc::new(Mutex::new(Vec::new()));
        let pair = {
            let starts = Arc::clone(&starts);
            move |start: PairStart| {
                starts
                    .lock()
                    .unwrap()
                    .push((begin.elapsed().as_secs(), start.lane));
                sleep(SECOND)
            }
        };
        let load = closed(10, 10 * SECOND, Arc::clone(&phases), pair);
        let direct = async {
            sleep(Duration::from_millis(20_500)).await;
            phases.enter(LoadPhase::Over);
        };
        tokio::join!(load, direct);
        let starts = starts.lock().unwrap();
        for second in 0..=20 {
            let running = starts.iter().filter(|(at, _)| *at == second).count();
            assert_eq!(running as u64, (second + 1).min(10), "second {second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requested_number_of_pairs_is_measured() {
        let phases = Arc::new(LoadPhases::new(Some(25)));
        let counted = Arc::new(AtomicUsize::new(0));
        let pair = {
            let counted = Arc::clone(&counted);
            move |start: PairStart| {
                counted.fetch_add(usize::from(start.counted), Ordering::Relaxed);
                sleep(SECOND)
            }
        };
        let load = closed(10, Duration::ZERO, Arc::clone(&phases), pair);
        let direct = async {
            sleep(Duration::from_millis(1_500)).await;
            phases.enter(LoadPhase::Counted);
        };
        let both = async { tokio::join!(load, direct) };
        timeout(10 * SECOND, both)
            .await
            .expect("the load ends by itself");
        assert_eq!(counted.load(Ordering::Relaxed), 25);
    }
}
