//! Meaning of a rate limit, without the algorithm that enforces it.

use crate::TimeRange;

/// Checks that no window of time contains more calls than the burst of a limit, `count`, and
/// what is refilled within the window; for every time that each call may have had. A `count`
/// of 0 disables a limit.
///
/// # Errors
/// The first window with too many calls.
pub fn check_window(times: &[TimeRange], count: i64, period: i64) -> Result<(), String> {
    if count == 0 {
        return Ok(());
    }
    let interval = (period + count - 1) / count;
    for first in times {
        for last in times {
            let (start, end) = (first.earliest, last.latest);
            let inside = times
                .iter()
                .filter(|at| start <= at.earliest && at.latest <= end);
            let taken = i64::try_from(inside.count()).expect("less than 2^63 calls");
            if start <= end && taken > count + (end - start) / interval {
                return Err(format!("{taken} calls from {start} to {end}: {times:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn window_with_more_than_burst_and_refill_is_rejected() {
    let at = |times: &[i64]| -> Vec<_> { times.iter().map(|&at| TimeRange::exact(at)).collect() };
    assert_eq!(check_window(&at(&[0, 0, 50, 100]), 2, 100), Ok(()));
    assert!(check_window(&at(&[0, 0, 49]), 2, 100).is_err());
    assert!(check_window(&at(&[0, 0, 50, 50]), 2, 100).is_err());
    // Either time is possible, and one of them is allowed.
    let range = TimeRange {
        earliest: 49,
        latest: 50,
    };
    assert_eq!(
        check_window(&[at(&[0, 0]), vec![range]].concat(), 2, 100),
        Ok(())
    );
    assert_eq!(check_window(&at(&[0, 0, 0]), 0, 100), Ok(()));
}
