//! Random steps of the property test.

use proptest::{collection, prelude::*};
use serde::{Deserialize, Serialize};

/// One step of a sequence. Indexes that are too large wrap around, so that any list of steps is
/// valid and a failing one can be shortened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    Send {
        whose: Whose,
        wording: u8,
        network: Option<u8>,
        id: Option<u8>,
        replica: u8,
    },
    Verify {
        whose: Whose,
        typed: Typed,
        named: Named,
        /// Number of the fields of the receipt that the request asks for.
        #[serde(default)]
        receipt: Option<u8>,
        network: Option<u8>,
        id: Option<u8>,
        replica: u8,
    },
    Cancel {
        whose: Whose,
        named: Named,
        reset: bool,
        by_challenge: bool,
        id: Option<u8>,
        replica: u8,
    },
    Status {
        whose: Whose,
        named: Named,
        by_challenge: bool,
        replica: u8,
    },
    /// Repeats the call that was made `back` calls ago.
    Again { back: u8, replica: u8 },
    /// Moves the clock forward.
    Wait { milliseconds: u32 },
    /// Moves the clock forward to a time at which a reply changes, or next to it.
    WaitUntil { whose: Whose, edge: u8, offset: i8 },
    /// Moves the clock back.
    ClockBack { milliseconds: u32 },
    /// Restarts a replica with the next stage of a rotation of the sealing key.
    Rotate,
}

/// Owner of a code.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Whose {
    pub caller: u8,
    pub purpose: u8,
    pub recipient: u8,
}

/// Submitted code.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Typed {
    Right,
    /// Code of the previous challenge.
    Previous,
    Wrong,
    TooShort,
    Malformed,
}

/// Challenge id of a request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Named {
    Nothing,
    Newest,
    Previous,
    Garbled,
    /// Id of a challenge of another caller.
    Foreign,
    /// Id of a challenge of another record of the same caller.
    OtherRecord,
}

/// Sequences of up to `max` steps, or rounds of an attacker; one step in `rotate_one_in` is a
/// [`Step::Rotate`].
pub fn sequences(max: usize, rotate_one_in: u32) -> impl Strategy<Value = Vec<Step>> {
    let part = prop_oneof![
        14 => step(rotate_one_in).prop_map(|step| vec![step]),
        1 => (any::<u8>(), prop_oneof![3 => Just(91_000), 1 => Just(25_000_000)])
            .prop_map(|(replica, milliseconds)| round(replica, milliseconds)),
    ];
    collection::vec(part, 1..=max).prop_map(|parts| parts.concat())
}

/// Waits for a new code and guesses until it is locked. Long delays and the lockout follow from
/// such rounds, which single steps produce too rarely.
fn round(replica: u8, milliseconds: u32) -> Vec<Step> {
    let whose = Whose {
        caller: 0,
        purpose: 1,
        recipient: 0,
    };
    let guess = Step::Verify {
        whose,
        typed: Typed::Wrong,
        named: Named::Nothing,
        receipt: None,
        network: None,
        id: None,
        replica,
    };
    vec![
        Step::Wait { milliseconds },
        Step::Send {
            whose,
            wording: 0,
            network: None,
            id: None,
            replica,
        },
        guess.clone(),
        guess,
        Step::Status {
            whose,
            named: Named::Nothing,
            by_challenge: false,
            replica,
        },
    ]
}

fn step(rotate_one_in: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        rotate_one_in => plain_step(),
        1 => Just(Step::Rotate),
    ]
}

fn plain_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (whose(), 0_u8..3, network(), id(), any::<u8>()).prop_map(
            |(whose, wording, network, id, replica)| {
                // Mostly the same content, so that most repetitions are of the same request.
                let wording = wording / 2;
                Step::Send { whose, wording, network, id, replica }
            }
        ),
        12 => (whose(), typed(), named(), receipt(), network(), id(), any::<u8>()).prop_map(
            |(whose, typed, named, receipt, network, id, replica)| {
                Step::Verify { whose, typed, named, receipt, network, id, replica }
            }
        ),
        2 => (whose(), named(), any::<bool>(), any::<bool>(), id(), any::<u8>()).prop_map(
            |(whose, named, reset, by_challenge, id, replica)| {
                Step::Cancel { whose, named, reset, by_challenge, id, replica }
            }
        ),
        3 => (whose(), named(), any::<bool>(), any::<u8>()).prop_map(
            |(whose, named, by_challenge, replica)| {
                Step::Status { whose, named, by_challenge, replica }
            }
        ),
        3 => (0_u8..4, any::<u8>()).prop_map(|(back, replica)| Step::Again { back, replica }),
        3 => wait().prop_map(|milliseconds| Step::Wait { milliseconds }),
        5 => (whose(), any::<u8>(), -1_i8..=1).prop_map(|(whose, edge, offset)| {
            Step::WaitUntil { whose, edge, offset }
        }),
        1 => (1_u32..4_000_000).prop_map(|milliseconds| Step::ClockBack { milliseconds }),
    ]
}

fn whose() -> impl Strategy<Value = Whose> {
    let caller = prop_oneof![32 => Just(0), 6 => Just(1), 1 => Just(2)];
    let purpose = prop_oneof![12 => Just(1), 4 => Just(0), 2 => Just(2)];
    let recipient = prop_oneof![6 => Just(0), 1 => Just(1)];
    (caller, purpose, recipient).prop_map(|(caller, purpose, recipient)| Whose {
        caller,
        purpose,
        recipient,
    })
}

fn typed() -> impl Strategy<Value = Typed> {
    prop_oneof![
        4 => Just(Typed::Right),
        8 => Just(Typed::Wrong),
        1 => Just(Typed::Previous),
        1 => Just(Typed::TooShort),
        1 => Just(Typed::Malformed),
    ]
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        8 => Just(Named::Nothing),
        8 => Just(Named::Newest),
        2 => Just(Named::Previous),
        1 => Just(Named::Garbled),
        1 => Just(Named::Foreign),
        1 => Just(Named::OtherRecord),
    ]
}

fn receipt() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![1 => Just(None), 3 => (0_u8..2).prop_map(Some)]
}

fn network() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 3 => Just(Some(0)), 1 => Just(Some(1))]
}

fn id() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 2 => (0_u8..3).prop_map(Some)]
}

fn wait() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 1_u32..60_000,
        3 => 60_000_u32..400_000,
        2 => 400_000_u32..8_000_000,
        1 => 8_000_000_u32..100_000_000,
    ]
}
