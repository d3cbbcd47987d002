//! Instants known only as precisely as a caller can know them; some comparisons may
//! therefore have either result.

/// An instant of the store's clock, in milliseconds since the Unix epoch, that lies
/// somewhere from `earliest` to `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    pub earliest: i64,
    pub latest: i64,
}

impl Moment {
    /// Long before anything.
    pub const LONG_AGO: Self = Self::exact(0);

    pub const fn exact(at: i64) -> Self {
        Self {
            earliest: at,
            latest: at,
        }
    }

    pub const fn plus(self, milliseconds: i64) -> Self {
        Self {
            earliest: self.earliest + milliseconds,
            latest: self.latest + milliseconds,
        }
    }

    /// How far it is from `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            earliest: self.earliest - earlier.latest,
            latest: self.latest - earlier.earliest,
        }
    }

    pub fn min(self, other: Self) -> Self {
        Self {
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.min(other.latest),
        }
    }

    pub const fn contains(self, at: i64) -> bool {
        self.earliest <= at && at <= self.latest
    }
}

/// Chooses a value for each unknown, one combination at a time.
#[derive(Debug, Default)]
pub struct Doubt {
    chosen: Vec<bool>,
    asked: usize,
}

impl Doubt {
    /// Whether `first` is before `second`; either if they overlap.
    pub fn before(&mut self, first: Moment, second: Moment) -> bool {
        if first.latest < second.earliest {
            return true;
        }
        first.earliest < second.latest && self.either()
    }

    /// Yes in one way, no in another.
    pub fn either(&mut self) -> bool {
        if self.asked == self.chosen.len() {
            self.chosen.push(false);
        }
        self.asked += 1;
        self.chosen[self.asked - 1]
    }

    /// Returns the results of `answer` under all combinations.
    pub fn every_way<T>(mut answer: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut doubt = Self::default();
        let mut answers = Vec::new();
        loop {
            answers.push(answer(&mut doubt));
            doubt.chosen.truncate(doubt.asked);
            doubt.asked = 0;
            // The next way: as in counting, the last "no" becomes a "yes".
            let Some(last_no) = doubt.chosen.iter().rposition(|yes| !yes) else {
                return answers;
            };
            doubt.chosen.truncate(last_no + 1);
            doubt.chosen[last_no] = true;
        }
    }
}

#[test]
fn every_combination_is_tried_once() {
    let (sure, unsure) = (
        Moment::exact(5),
        Moment {
            earliest: 4,
            latest: 7,
        },
    );
    let ways = Doubt::every_way(|doubt| {
        let first = doubt.before(sure, unsure);
        (
            first,
            first || doubt.either(),
            doubt.before(sure, Moment::exact(5)),
        )
    });
    assert_eq!(
        ways,
        [
            (false, false, false),
            (false, true, false),
            (true, true, false)
        ]
    );
}
