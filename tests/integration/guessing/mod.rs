//! Simulation of guessing attacks against the real rules on a simulated clock.
//! docs/guessing.md has the results.

mod attacker;
mod attacks;
mod page;
mod victim;
mod world;

use std::{thread, time::Duration};

use otpd_rules::PurposePolicy;

use attacker::Attacker;
use attacks::Attack;
use page::Table;
use victim::Victim;
use world::{DAY, MONTH, START, Target, World, YEAR};

/// Result of an attack.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    records: usize,
    /// Wrong answers of the one record that had the most in any 30 days.
    worst_month: usize,
    /// Wrong answers in all.
    guesses: usize,
    /// The chance that one of them was right.
    chance: f64,
    messages: u32,
    /// Number of logins of the victim.
    logins: u32,
    /// Logins that the victim gave up.
    shut_out: u32,
    /// After how long the first record was locked.
    locked_after: Option<Duration>,
}

/// Lets an attack go on for so long.
fn run(attack: &Attack, policy: &PurposePolicy, duration: Duration) -> Outcome {
    policy.validate().expect("the policy is valid");
    let end = START.saturating_add(duration);
    let Attack {
        plan,
        callers,
        purposes,
        recipients,
        clients,
        ..
    } = *attack;
    let mut targets = Vec::new();
    for recipient in 0..recipients {
        for caller in 0..callers {
            targets.extend((0..purposes).map(|purpose| Target::new(caller, recipient, purpose)));
        }
    }
    let mut world = World::new(policy.clone(), targets);
    let mut attacker = Attacker::new(plan, clients, &world);
    let mut victim = plan.logins.map(|logins| Victim::new(logins.schedule));
    loop {
        match &mut victim {
            Some(victim) if victim.at <= attacker.at && victim.at < end => victim.act(&mut world),
            _ if attacker.at < end => attacker.act(&mut world),
            _ => break,
        }
    }
    outcome(&world, victim.as_ref())
}

fn outcome(world: &World, victim: Option<&Victim>) -> Outcome {
    let World {
        policy, targets, ..
    } = world;
    let values = 10_f64.powi(policy.code_length.into());
    let missing: f64 = targets
        .iter()
        .map(|target| target.logarithm_of_missing(values))
        .sum();
    let last_allowed = policy.failure_limit as usize - 1;
    let locked_at = targets
        .iter()
        .filter(|target| target.successes == 0)
        .filter_map(|target| target.judged_at.get(last_allowed))
        .min();
    Outcome {
        records: targets.len(),
        worst_month: targets.iter().map(Target::worst_month).max().unwrap_or(0),
        guesses: targets.iter().map(|target| target.judged_at.len()).sum(),
        chance: -missing.exp_m1(),
        messages: targets.iter().map(|target| target.messages).sum(),
        logins: targets.iter().map(|target| target.successes).sum(),
        shut_out: victim.map_or(0, |victim| victim.shut_out),
        locked_after: locked_at.map(|&locked_at| START.duration_until(locked_at)),
    }
}

/// The worst that any of these attacks comes to.
fn worst(
    attacks: impl IntoIterator<Item = Attack>,
    policy: &PurposePolicy,
    duration: Duration,
) -> (Attack, Outcome) {
    attacks
        .into_iter()
        .map(|attack| {
            let outcome = run(&attack, policy, duration);
            assert_bounded(&attack, policy, &outcome);
            (attack, outcome)
        })
        .max_by_key(|(_, outcome)| (outcome.guesses, u32::MAX - outcome.messages))
        .expect("there are attacks")
}

/// Checks the bound on every record in any 30 days.
fn assert_bounded(attack: &Attack, policy: &PurposePolicy, outcome: &Outcome) {
    if attack.plan.logins.is_none() && policy.failure_memory >= MONTH {
        let most = policy.failure_limit as usize;
        assert!(outcome.worst_month <= most, "{attack:?}: {outcome:?}");
    }
    // Whatever the victim does, there are no more messages, and so no more codes, than the limit on
    // sends of a record allows, and no more guesses than each code allows.
    if policy.sends_per_day > 0 {
        let codes = policy.sends_per_day * (30 + 1);
        let most = (codes * policy.max_attempts) as usize;
        assert!(outcome.worst_month <= most, "{attack:?}: {outcome:?}");
    }
}

fn with(change: impl FnOnce(&mut PurposePolicy)) -> PurposePolicy {
    let mut policy = PurposePolicy::default();
    change(&mut policy);
    policy
}

#[test]
fn attackers_get_at_most_a_hundred_attempts_per_record_in_thirty_days() {
    let policy = PurposePolicy::default();
    for attack in attacks::every_plan(policy.max_attempts) {
        let outcome = run(&attack, &policy, YEAR);
        assert_eq!(outcome.worst_month, 100, "{attack:?}: {outcome:?}");
        // A year has room for twelve locks of 30 days, and for the time before each.
        assert!(outcome.guesses <= 1_200, "{attack:?}: {outcome:?}");
        // The exact count per code and the rule of thumb differ little.
        let guesses = i32::try_from(outcome.guesses).expect("there are few");
        let rule_of_thumb = 1.0 - (1.0 - 1e-6_f64).powi(guesses);
        assert!((outcome.chance - rule_of_thumb).abs() < 1e-8);
    }
}

#[test]
fn guessing_page_matches_the_results() {
    let (attacks, settings) = thread::scope(|scope| {
        let settings = scope.spawn(settings_table);
        (attacks_table(), settings.join())
    });
    let settings = settings.expect("the other half is found, too");
    page::hold_to(&[("attacks", attacks), ("settings", settings)]);
}

/// Attacks under the default policy.
fn attacks_table() -> Table {
    let mut table = Table::new(&[
        "attack",
        "records",
        "locked after",
        "messages in 30 days",
        "failed logins of the victim",
        "wrong answers per record, worst 30 days",
        "wrong answers in 30 days",
        "chance in 30 days",
        "wrong answers in a year",
        "chance in a year",
    ]);
    let policy = PurposePolicy::default();
    let attempts = policy.max_attempts;
    let mut row = |name: String, attack: &Attack, policy: &PurposePolicy| {
        let month = run(attack, policy, MONTH);
        // A year of many records takes long to simulate, and shows nothing new.
        let year = (month.records < 10).then(|| run(attack, policy, YEAR));
        let worst_month = year.map_or(month.worst_month, |year| year.worst_month);
        assert_bounded(attack, policy, &month);
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
        table.row([
            name,
            page::number(month.records),
            or_dash(month.locked_after.map(page::duration)),
            page::number(month.messages as usize),
            or_dash(attack.plan.logins.map(|_| {
                let tried = month.logins + month.shut_out;
                format!("{} of {tried}", month.shut_out)
            })),
            page::number(worst_month),
            page::number(month.guesses),
            page::chance(month.chance),
            or_dash(year.map(|year| page::number(year.guesses))),
            or_dash(year.map(|year| page::chance(year.chance))),
        ]);
    };
    for attack in attacks::on_one_record() {
        row(attack.name.clone(), &attack, &policy);
    }
    let (attack, _) = worst(attacks::every_plan(attempts), &policy, MONTH);
    let name = format!("**the best found without a login**: {}", attack.name);
    row(name, &attack, &policy);
    for (often, period) in [
        ("every 2 days", 2 * DAY),
        ("every day", DAY),
        ("every 6 hours", DAY / 4),
    ] {
        let all = attacks::around_logins(period, 1, attempts);
        let (attack, _) = worst(all, &policy, MONTH);
        let name = format!(
            "**the best found if the victim logs in {often}**: {}",
            attack.name
        );
        row(name, &attack, &policy);
        if period == DAY {
            let short = with(|policy| {
                policy.code_length = 4;
                policy.allow_short_codes = true;
            });
            row(
                "⚠ the same with codes of 4 digits".to_owned(),
                &attack,
                &short,
            );
        }
    }
    for attack in [
        attacks::on_all_purposes(2, 3),
        attacks::on_recipients(500, 1, attempts),
        attacks::on_recipients(500, 20, attempts),
    ] {
        row(attack.name.clone(), &attack, &policy);
    }
    table
}

/// Results under other policies.
fn settings_table() -> Table {
    let mut table = Table::new(&[
        "setting",
        "wrong answers per record in 30 days, no login",
        "chance",
        "the same, victim logs in daily",
        "chance",
        "500 recipients from one client IP in a day",
        "chance",
    ]);
    for (name, policy) in settings() {
        let attempts = policy.max_attempts;
        let plans = attacks::every_plan(attempts).into_iter();
        let plans = plans.filter(|attack| !attack.plan.knocks && !attack.plan.resends);
        let (_, alone) = worst(plans, &policy, MONTH);
        let around = attacks::around_logins(DAY, attempts, attempts);
        let (_, daily) = worst(around, &policy, MONTH);
        let sprayed = run(&attacks::on_recipients(500, 1, attempts), &policy, DAY);
        let outcomes = [alone, daily, sprayed];
        let cells = outcomes
            .iter()
            .flat_map(|outcome| [page::number(outcome.guesses), page::chance(outcome.chance)]);
        table.row([name.to_owned()].into_iter().chain(cells));
    }
    table
}

fn settings() -> Vec<(&'static str, PurposePolicy)> {
    vec![
        ("the defaults", PurposePolicy::default()),
        (
            "⚠ `code_length = 4`",
            with(|policy| {
                policy.code_length = 4;
                policy.allow_short_codes = true;
            }),
        ),
        ("`code_length = 8`", with(|policy| policy.code_length = 8)),
        ("`max_attempts = 3`", with(|policy| policy.max_attempts = 3)),
        (
            "`sends_per_day = 5`",
            with(|policy| policy.sends_per_day = 5),
        ),
        (
            "⚠ `sends_per_hour = 0`, `sends_per_day = 0`",
            with(|policy| {
                policy.sends_per_hour = 0;
                policy.sends_per_day = 0;
            }),
        ),
        (
            "`failure_limit = 30`",
            with(|policy| policy.failure_limit = 30),
        ),
        (
            "`failure_delay = 0s`",
            with(|policy| policy.failure_delay = Duration::ZERO),
        ),
        (
            "⚠ `failure_memory = 24h`",
            with(|policy| policy.failure_memory = DAY),
        ),
        (
            "`ip_failures_per_hour = 10`",
            with(|policy| policy.ip_failures_per_hour = 10),
        ),
    ]
}
