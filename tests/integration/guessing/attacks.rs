//! The simulated attacks.

use std::time::Duration;

use super::{
    attacker::{AroundLogins, Plan},
    victim::Schedule,
};

/// An attack: a plan and its targets.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: String,
    pub plan: Plan,
    pub callers: u32,
    pub purposes: u32,
    pub recipients: u32,
    /// Number of addresses.
    pub clients: u32,
}

impl Attack {
    /// An attack on one record.
    fn on_one(name: impl Into<String>, plan: Plan) -> Self {
        Self {
            name: name.into(),
            plan,
            callers: 1,
            purposes: 1,
            recipients: 1,
            clients: 1,
        }
    }
}

/// So many guesses at each code, and every wait kept.
const fn patient(guesses_per_code: u32) -> Plan {
    Plan {
        guesses_per_code,
        resends: false,
        knocks: false,
        logins: None,
    }
}

/// Attacks on one record without logins of its owner.
pub fn on_one_record() -> Vec<Attack> {
    let resending = Plan {
        resends: true,
        ..patient(4)
    };
    let knocking = Plan {
        knocks: true,
        ..patient(5)
    };
    vec![
        Attack::on_one("5 guesses per code, respects waits", patient(5)),
        Attack::on_one("4 guesses per code, then another code", patient(4)),
        Attack::on_one("1 guess per code", patient(1)),
        Attack::on_one(
            "4 guesses per code, requests each possible resend",
            resending,
        ),
        Attack::on_one("5 guesses per code, retries during waits", knocking),
    ]
}

/// All combinations of the parameters of attacks on one record without a login.
pub fn every_plan(max_attempts: u32) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for guesses_per_code in 1..=max_attempts {
        for resends in [false, true] {
            for knocks in [false, true] {
                let plan = Plan {
                    resends,
                    knocks,
                    ..patient(guesses_per_code)
                };
                let name = format!(
                    "{guesses_per_code} per code{}{}",
                    if resends { ", resends" } else { "" },
                    if knocks { ", retries during waits" } else { "" },
                );
                attacks.push(Attack::on_one(name, plan));
            }
        }
    }
    attacks
}

/// Returns attacks on one record whose owner logs in once per `period`: with every number of
/// guesses per code from `guesses_per_code` on, and with many between two logins.
pub fn around_logins(
    period: Duration,
    guesses_per_code: u32,
    max_attempts: u32,
) -> impl Iterator<Item = Attack> {
    const BETWEEN_LOGINS: [u32; 9] = [4, 9, 19, 24, 39, 49, 69, 95, 99];
    // The longest wait is over by then; or there is also a message to spare.
    const STOPS_BEFORE: [Duration; 2] = [Duration::from_mins(65), Duration::from_mins(150)];

    (guesses_per_code..=max_attempts)
        .flat_map(|per_code| BETWEEN_LOGINS.map(|guesses| (per_code, guesses)))
        .flat_map(|varied| STOPS_BEFORE.map(|stops_before| (varied, stops_before)))
        // An attacker who wastes guesses gets fewer anyway, so that one of the two is enough.
        .filter(move |((per_code, _), stops_before)| {
            *per_code == max_attempts || *stops_before == STOPS_BEFORE[1]
        })
        .map(move |((guesses_per_code, guesses), stops_before)| {
            let logins = AroundLogins {
                schedule: Schedule { period },
                guesses,
                stops_before,
                at_her_code: max_attempts - 1,
            };
            let plan = Plan {
                logins: Some(logins),
                ..patient(guesses_per_code)
            };
            let name = format!("{guesses_per_code} per code, up to {guesses} between logins");
            Attack::on_one(name, plan)
        })
}

/// Returns the same attack on each purpose of each caller.
pub fn on_all_purposes(callers: u32, purposes: u32) -> Attack {
    Attack {
        callers,
        purposes,
        ..Attack::on_one(
            format!("1 recipient, {purposes} purposes × {callers} callers, 1 client IP"),
            patient(5),
        )
    }
}

/// Returns the same attack on many recipients.
pub fn on_recipients(recipients: u32, clients: u32, max_attempts: u32) -> Attack {
    let plural = if clients == 1 { "" } else { "s" };
    Attack {
        recipients,
        clients,
        ..Attack::on_one(
            format!("{recipients} recipients, {clients} client IP{plural}"),
            patient(max_attempts),
        )
    }
}
