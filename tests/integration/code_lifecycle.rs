//! Life cycle of a code: refused sends, resends, new codes, and verify outcomes, under
//! clock jumps.

use otpd::grpc::v1::VerifyOutcome::{AttemptsExhausted, Expired, NotFound, Verified};

use crate::support::{
    Challenge::{Garbled, Newest, Previous, Unnamed},
    Database, Kind, Replica, Script,
    Step::{self, After, Back, Cancel, Dead, Live, Malformed, New, Resent, TooSoon, Verify, Wrong},
    Typed::{Mistyped, Right, TooShort},
    on_each_store,
};

const HOUR: u32 = 3_600;

/// What happens to one recipient each. The times keep a wide distance from the
/// boundaries, so that no machine is too slow; the rules' own tests hit these to the
/// millisecond.
const SCRIPTS: &[&[Step]] = &[
    // The same code again once the cool-down is over, its life and attempts as they
    // were; at once after a success.
    &[
        Dead,
        New,
        TooSoon { live: true },
        Wrong { remaining: 4 },
        Wrong { remaining: 3 },
        After(30),
        TooSoon { live: true },
        After(30),
        Live { remaining: 3 },
        Resent,
        TooSoon { live: true },
        Live { remaining: 3 },
        Wrong { remaining: 2 },
        After(60),
        Resent,
        Wrong { remaining: 1 },
        Verify(Right, Unnamed, Verified),
        Dead,
        New,
        TooSoon { live: true },
        Verify(Right, Newest, Verified),
    ],
    // A code that would die within the next cool-down is replaced.
    &[
        New,
        After(120),
        Resent,
        After(150),
        Live { remaining: 5 },
        New,
        Verify(Right, Previous, NotFound),
        Verify(Right, Newest, Verified),
    ],
    // An exhausted one too; the right code no longer helps.
    &[
        New,
        Wrong { remaining: 4 },
        Wrong { remaining: 3 },
        Wrong { remaining: 2 },
        Wrong { remaining: 1 },
        Wrong { remaining: 0 },
        Verify(Right, Unnamed, AttemptsExhausted),
        Verify(Mistyped, Newest, AttemptsExhausted),
        Verify(TooShort, Unnamed, AttemptsExhausted),
        Cancel(Unnamed, false),
        Dead,
        TooSoon { live: false },
        After(60),
        New,
        Verify(Right, Unnamed, Verified),
    ],
    // The right code as the last answer is accepted.
    &[
        New,
        Wrong { remaining: 4 },
        Wrong { remaining: 3 },
        Wrong { remaining: 2 },
        Wrong { remaining: 1 },
        Verify(Right, Unnamed, Verified),
        Verify(Right, Unnamed, NotFound),
        Verify(TooShort, Unnamed, NotFound),
        Cancel(Unnamed, false),
        New,
    ],
    // A cancelled one too; cancelling is no way around the cool-down.
    &[
        Cancel(Unnamed, false),
        New,
        Cancel(Garbled, false),
        Cancel(Newest, true),
        Dead,
        Cancel(Unnamed, false),
        Verify(Right, Unnamed, NotFound),
        Verify(TooShort, Unnamed, NotFound),
        TooSoon { live: false },
        After(60),
        New,
        Cancel(Previous, false),
        Live { remaining: 5 },
        Verify(Right, Unnamed, Verified),
    ],
    // An expired one too; that it expired is told for an hour.
    &[
        New,
        After(300),
        Verify(Right, Unnamed, Expired),
        Verify(Mistyped, Newest, Expired),
        Verify(TooShort, Unnamed, Expired),
        Verify(Right, Garbled, NotFound),
        Cancel(Unnamed, false),
        Dead,
        After(50 * 60),
        Verify(Right, Unnamed, Expired),
        After(10 * 60),
        Verify(Right, Unnamed, NotFound),
        Verify(TooShort, Newest, NotFound),
        Dead,
        New,
        After(300),
        New,
        Verify(Right, Previous, NotFound),
        Verify(Right, Unnamed, Verified),
    ],
    // Before all else a code must be there, then alive, then open, then of the right
    // length. A wrong length costs nothing.
    &[
        Verify(Right, Unnamed, NotFound),
        Verify(TooShort, Unnamed, NotFound),
        New,
        Verify(TooShort, Garbled, NotFound),
        Malformed(TooShort),
        Live { remaining: 5 },
        Wrong { remaining: 4 },
        Wrong { remaining: 3 },
        Wrong { remaining: 2 },
        Wrong { remaining: 1 },
        Malformed(TooShort),
        Wrong { remaining: 0 },
        Verify(TooShort, Unnamed, AttemptsExhausted),
        Verify(TooShort, Garbled, NotFound),
        After(300),
        Verify(TooShort, Unnamed, Expired),
        Verify(Right, Unnamed, Expired),
        After(HOUR),
        Verify(Right, Unnamed, NotFound),
    ],
    // Where the clock stepped back, whatever request notices it, the code is dead and
    // its wait begins once more, once.
    &[
        New,
        Back(2 * HOUR),
        Verify(Right, Unnamed, NotFound),
        Dead,
        TooSoon { live: false },
        After(30),
        TooSoon { live: false },
        Verify(Right, Newest, NotFound),
        After(30),
        New,
        Verify(Right, Unnamed, Verified),
    ],
    &[
        New,
        Back(2 * HOUR),
        TooSoon { live: false },
        After(30),
        TooSoon { live: false },
        After(30),
        New,
    ],
    &[
        New,
        Back(2 * HOUR),
        Cancel(Unnamed, false),
        After(30),
        Dead,
        TooSoon { live: false },
        After(30),
        New,
    ],
    &[
        New,
        Back(2 * HOUR),
        Dead,
        After(30),
        Dead,
        TooSoon { live: false },
        After(30),
        New,
    ],
    &[
        New,
        Verify(Right, Unnamed, Verified),
        Back(2 * HOUR),
        Verify(Right, Unnamed, NotFound),
        New,
        Verify(Right, Unnamed, Verified),
    ],
];

async fn code_lifecycle(kind: Kind) {
    let database = Database::new(kind).await;
    // The rules of a single code, apart from those across codes.
    let environment = [
        ("OTPD_POLICY__FAILURE_DELAY", "0s"),
        ("OTPD_POLICY__SENDS_PER_HOUR", "0"),
        ("OTPD_POLICY__SENDS_PER_DAY", "0"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    let mut script = Script::new(&database, &replica);
    for (index, steps) in SCRIPTS.iter().enumerate() {
        let recipient = format!("+7999000{index:04}");
        script.run(&recipient, steps).await;
    }
}

on_each_store! {
    code_lifecycle
}
