//! Times of limited precision. A comparison of two such times may have either result.

/// Range that contains a time of the store's clock, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// Lower bound.
    pub earliest: i64,
    /// Upper bound.
    pub latest: i64,
}

impl TimeRange {
    /// Time before all others.
    pub const LONG_AGO: Self = Self::exact(0);

    /// Returns a range of one millisecond.
    pub const fn exact(at: i64) -> Self {
        Self {
            earliest: at,
            latest: at,
        }
    }

    /// Adds a duration.
    #[must_use]
    pub const fn plus(self, milliseconds: i64) -> Self {
        Self {
            earliest: self.earliest + milliseconds,
            latest: self.latest + milliseconds,
        }
    }

    /// Rounds down to whole seconds.
    #[must_use]
    pub const fn second(self) -> Self {
        Self {
            earliest: self.earliest.div_euclid(1_000) * 1_000,
            latest: self.latest.div_euclid(1_000) * 1_000,
        }
    }

    /// Returns the duration since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            earliest: self.earliest - earlier.latest,
            latest: self.latest - earlier.earliest,
        }
    }

    /// Returns the earlier of two times.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.min(other.latest),
        }
    }

    /// Returns true if it may be the time `at`.
    pub const fn contains(self, at: i64) -> bool {
        self.earliest <= at && at <= self.latest
    }
}

/// Source of the choices in place of what is unknown. [`explore`](Self::explore) tries every
/// combination of them.
#[derive(Debug, Default)]
pub struct Nondeterminism {
    chosen: Vec<bool>,
    /// Number of choices that were read in the current combination.
    read: usize,
}

impl Nondeterminism {
    /// Returns true if `first` is before `second`; either value if the ranges overlap.
    pub fn before(&mut self, first: TimeRange, second: TimeRange) -> bool {
        if first.latest < second.earliest {
            return true;
        }
        first.earliest < second.latest && self.either()
    }

    /// Returns false in one combination and true in another.
    pub fn either(&mut self) -> bool {
        if self.read == self.chosen.len() {
            self.chosen.push(false);
        }
        self.read += 1;
        self.chosen[self.read - 1]
    }

    /// Returns the results of `run` under all combinations.
    pub fn explore<T>(mut run: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut choices = Self::default();
        let mut results = Vec::new();
        loop {
            results.push(run(&mut choices));
            choices.chosen.truncate(choices.read);
            choices.read = 0;
            // The next combination, as in binary counting: the last false becomes true.
            let Some(last_false) = choices.chosen.iter().rposition(|chosen| !chosen) else {
                return results;
            };
            choices.chosen.truncate(last_false + 1);
            choices.chosen[last_false] = true;
        }
    }
}

#[test]
fn every_combination_is_tried_once() {
    let (exact, range) = (
        TimeRange::exact(5),
        TimeRange {
            earliest: 4,
            latest: 7,
        },
    );
    let results = Nondeterminism::explore(|choices| {
        let first = choices.before(exact, range);
        (
            first,
            first || choices.either(),
            choices.before(exact, TimeRange::exact(5)),
        )
    });
    assert_eq!(
        results,
        [
            (false, false, false),
            (false, true, false),
            (true, true, false)
        ]
    );
}
