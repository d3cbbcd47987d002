//! Sequences of typical behaviour, which every run of the model test begins with: the life of a
//! code, required challenge ids, a limit of a client network, and receipts.

use super::step::{
    Named::{self, Foreign, Garbled, Newest, Nothing, OtherRecord, Previous},
    Step,
    Typed::{self, Right, TooShort, Wrong},
    Whose,
};
use crate::settings::{CRM, DEFAULT, NAMED, SHOP, TIGHT};

/// Returns the sequences with their names.
pub fn scenarios() -> Vec<(&'static str, Vec<Step>)> {
    [
        lives(),
        ends(),
        steps_back(),
        required_challenges(),
        limited_clients(),
        receipts(),
    ]
    .concat()
}

/// Resends, new codes, and outcomes of a code that was not cancelled.
fn lives() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "a resend repeats the code; a success ends the cool-down",
            vec![
                status(),
                send(),
                send(),
                verify(Wrong, Nothing),
                verify(Wrong, Nothing),
                wait(30),
                send(),
                wait(30),
                status(),
                send(),
                send(),
                status(),
                verify(Wrong, Nothing),
                wait(60),
                send(),
                verify(Wrong, Nothing),
                verify(Right, Nothing),
                status(),
                send(),
                send(),
                verify(Right, Newest),
            ],
        ),
        (
            "a code that expires within the next cool-down is replaced",
            vec![
                send(),
                wait(120),
                send(),
                wait(150),
                status(),
                send(),
                verify(Right, Previous),
                verify(Right, Newest),
            ],
        ),
        (
            "a correct last attempt verifies",
            [
                vec![send()],
                vec![verify(Wrong, Nothing); 4],
                vec![
                    verify(Right, Nothing),
                    verify(Right, Nothing),
                    verify(TooShort, Nothing),
                    cancel(Nothing),
                    send(),
                ],
            ]
            .concat(),
        ),
    ]
}

/// Receipts of the caller that may have them.
fn receipts() -> Vec<(&'static str, Vec<Step>)> {
    let shop = Whose {
        caller: u8::try_from(SHOP).expect("few callers"),
        ..whose()
    };
    let send = |wording| Step::Send {
        whose: shop,
        wording,
        network: None,
        id: None,
        replica: 0,
    };
    let verify = |typed, receipt, replica| Step::Verify {
        whose: shop,
        typed,
        named: Nothing,
        receipt,
        network: None,
        id: Some(0),
        replica,
    };
    vec![
        (
            "a repeated request has its receipt until that expires",
            vec![
                send(0),
                verify(Right, Some(0), 0),
                verify(Right, Some(0), 1),
                verify(Right, Some(1), 1),
                verify(Right, None, 0),
                wait(299),
                verify(Right, Some(0), 1),
                wait(2),
                verify(Right, Some(0), 0),
            ],
        ),
        (
            "a receipt names every channel of its code",
            vec![send(0), wait(60), send(1), verify(Right, Some(0), 1)],
        ),
        (
            "a wrong code has no receipt",
            vec![
                send(0),
                verify(Wrong, Some(0), 0),
                verify(Wrong, Some(0), 1),
            ],
        ),
    ]
}

/// Codes that were exhausted, cancelled or expired.
fn ends() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "an exhausted code is replaced",
            [
                vec![send()],
                vec![verify(Wrong, Nothing); 5],
                // The delay after the failed attempts is over.
                vec![
                    wait(31),
                    verify(Right, Nothing),
                    verify(Wrong, Newest),
                    verify(TooShort, Nothing),
                    cancel(Nothing),
                    status(),
                    send(),
                    wait(60),
                    send(),
                    verify(Right, Nothing),
                ],
            ]
            .concat(),
        ),
        (
            "a cancellation does not bypass the cool-down",
            vec![
                cancel(Nothing),
                send(),
                cancel(Garbled),
                cancel(Newest),
                status(),
                cancel(Nothing),
                verify(Right, Nothing),
                verify(TooShort, Nothing),
                send(),
                wait(60),
                send(),
                cancel(Previous),
                status(),
                verify(Right, Nothing),
            ],
        ),
        (
            "an expired code is reported for an hour",
            vec![
                send(),
                wait(300),
                verify(Right, Nothing),
                verify(Wrong, Newest),
                verify(TooShort, Nothing),
                verify(Right, Garbled),
                cancel(Nothing),
                status(),
                wait(50 * 60),
                verify(Right, Nothing),
                wait(10 * 60),
                verify(Right, Nothing),
                verify(TooShort, Newest),
                status(),
                send(),
                wait(300),
                send(),
                verify(Right, Previous),
                verify(Right, Nothing),
            ],
        ),
        (
            "a wrong length is reported last and consumes no attempt",
            [
                vec![
                    verify(Right, Nothing),
                    verify(TooShort, Nothing),
                    send(),
                    verify(TooShort, Garbled),
                    verify(TooShort, Nothing),
                    status(),
                ],
                vec![verify(Wrong, Nothing); 4],
                vec![
                    verify(TooShort, Nothing),
                    verify(Wrong, Nothing),
                    wait(31),
                    verify(TooShort, Nothing),
                    verify(TooShort, Garbled),
                    wait(300),
                    verify(TooShort, Nothing),
                    verify(Right, Nothing),
                    wait(3_600),
                    verify(Right, Nothing),
                ],
            ]
            .concat(),
        ),
    ]
}

/// After a step back of the clock the code is dead and the cool-down starts once more, once,
/// for each request that may be the first one after it.
fn steps_back() -> Vec<(&'static str, Vec<Step>)> {
    let after_step_back = |first: Vec<Step>| {
        [
            vec![send(), back(7_200)],
            first,
            vec![
                wait(30),
                send(),
                verify(Right, Newest),
                wait(30),
                send(),
                verify(Right, Nothing),
            ],
        ]
        .concat()
    };
    vec![
        (
            "a verification after a step back",
            after_step_back(vec![verify(Right, Nothing), status(), send()]),
        ),
        ("a send after a step back", after_step_back(vec![send()])),
        (
            "a cancellation after a step back",
            after_step_back(vec![cancel(Nothing)]),
        ),
        (
            "a status after a step back",
            after_step_back(vec![status()]),
        ),
        (
            "a step back after a success",
            vec![
                send(),
                verify(Right, Nothing),
                back(7_200),
                verify(Right, Nothing),
                send(),
                verify(Right, Nothing),
            ],
        ),
    ]
}

/// A purpose that requires a challenge id: only the one of the code verifies.
fn required_challenges() -> Vec<(&'static str, Vec<Step>)> {
    let named = |step| of_purpose(NAMED, step);
    let of = |caller, purpose, recipient| Step::Send {
        whose: Whose {
            caller,
            purpose,
            recipient,
        },
        wording: 0,
        network: None,
        id: None,
        replica: 0,
    };
    vec![(
        "a required challenge id must be the one of the code",
        vec![
            named(send()),
            named(verify(Right, Nothing)),
            // Valid ids of another recipient, purpose and caller.
            of(index(CRM), index(NAMED), 1),
            named(verify(Right, OtherRecord)),
            of(index(CRM), index(DEFAULT), 0),
            named(verify(Right, OtherRecord)),
            of(index(CRM) + 1, index(DEFAULT), 0),
            named(verify(Right, Foreign)),
            named(verify(Right, Garbled)),
            named(status()),
            wait(60),
            named(send()),
            named(verify(Right, Newest)),
            // The id of a used code does not verify the next one.
            named(send()),
            named(verify(Right, Previous)),
            named(cancel(Nothing)),
        ],
    )]
}

/// Failed attempts of a client network: three are allowed, and so are those of other clients.
fn limited_clients() -> Vec<(&'static str, Vec<Step>)> {
    let from_network = |mut step: Step| {
        if let Step::Verify { network, .. } = &mut step {
            *network = Some(0);
        }
        of_purpose(TIGHT, step)
    };
    let wrong = from_network(verify(Wrong, Nothing));
    vec![(
        "failed attempts of a client network are limited",
        vec![
            of_purpose(TIGHT, send()),
            wrong.clone(),
            wrong.clone(),
            // The delay and the cool-down are over.
            wait(46),
            of_purpose(TIGHT, send()),
            wrong.clone(),
            wrong,
            of_purpose(TIGHT, verify(Wrong, Nothing)),
        ],
    )]
}

fn of_purpose(purpose: usize, mut step: Step) -> Step {
    if let Step::Send { whose, .. }
    | Step::Verify { whose, .. }
    | Step::Cancel { whose, .. }
    | Step::Status { whose, .. } = &mut step
    {
        whose.purpose = index(purpose);
    }
    step
}

fn index(number: usize) -> u8 {
    u8::try_from(number).expect("few callers and purposes")
}

const fn whose() -> Whose {
    Whose {
        caller: 0,
        purpose: 0,
        recipient: 0,
    }
}

const fn send() -> Step {
    Step::Send {
        whose: whose(),
        wording: 0,
        network: None,
        id: None,
        replica: 0,
    }
}

/// The other replica verifies.
const fn verify(typed: Typed, named: Named) -> Step {
    Step::Verify {
        whose: whose(),
        typed,
        named,
        receipt: None,
        network: None,
        id: None,
        replica: 1,
    }
}

const fn cancel(named: Named) -> Step {
    Step::Cancel {
        whose: whose(),
        named,
        reset: false,
        by_challenge: false,
        id: None,
        replica: 0,
    }
}

const fn status() -> Step {
    Step::Status {
        whose: whose(),
        named: Nothing,
        by_challenge: false,
        replica: 1,
    }
}

const fn wait(seconds: u32) -> Step {
    Step::Wait {
        milliseconds: seconds * 1_000,
    }
}

const fn back(seconds: u32) -> Step {
    Step::ClockBack {
        milliseconds: seconds * 1_000,
    }
}
