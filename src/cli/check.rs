//! Command `otpd check`: checks everything that `otpd serve` needs, without sending a
//! message.

use std::{fmt::Display, path::Path, process::ExitCode};

use super::{CommandError, CommandOutcome, block_on, exit, output::print_line, serve};
use crate::{
    config::ServeConfig,
    keys::{KeyRing, os_rng},
    store::{self, RecordStore, RecordWrite, RowVersion, StoreError, WriteBatch},
};
use otpd_base::environment::Environment;
use otpd_delivery::Delivery;
use otpd_rules::{
    CallerName, Challenge, ChallengeNonce, ChallengeSecret, ChallengeState, Channel, ChannelSet,
    FailureCounter, IdempotencyLog, MessageId, OtpCode, Purpose, Recipient, Record, SendLimits,
    Timestamp,
};

/// Maximum number of purge rounds until the test record must be gone; each round removes up
/// to a thousand records.
const PURGE_ROUNDS: u32 = 1_000;
const PURGE_BATCH: u32 = 1_000;

/// Printed findings, one line each; `failed` if one of them is a failure.
#[derive(Debug, Default)]
struct CheckReport {
    failed: bool,
}

impl CheckReport {
    fn ok(subject: &str, finding: impl Display) {
        print_line!("ok      {subject}: {finding}");
    }

    fn failed(&mut self, subject: &str, problem: impl Display, remedy: &str) {
        self.failed = true;
        print_line!("FAILED  {subject}: {problem}; {remedy}");
    }
}

pub(super) fn check(file: Option<&Path>) -> CommandOutcome {
    let config = serve::load(file)?;
    let (keys, keys_origin) = serve::keys(&config.settings)?;
    let environment = match config.settings.environment {
        Environment::Development => "development",
        Environment::Production => "production",
    };
    CheckReport::ok("configuration", format!("{environment} environment"));
    CheckReport::ok("keys", keys_origin);
    let mut findings = CheckReport::default();
    if let Some(tls) = config.settings.read_tls().map_err(CommandError::usage)? {
        CheckReport::ok("tls", "the certificate and its key are read");
        for list in tls.outdated_lists() {
            findings.failed(
                "tls.client_crl",
                format!("{list} is outdated"),
                "fetch the next list of that authority",
            );
        }
    }
    block_on(async {
        let url = &config.settings.database_url;
        let store = store::open(url, &config.settings.store).map_err(CommandError::usage)?;
        let subject = format!("database, {}", serve::store_name(&config.settings));
        match try_store(&*store, &keys).await {
            Ok(()) => CheckReport::ok(&subject, "a record was written, read and purged"),
            Err(problem) => findings.failed(&subject, &problem, remedy(&problem)),
        }
        store.close().await;
        check_providers(&config.delivery, &mut findings).await;
        report_texts(&config);
        Ok(if findings.failed {
            ExitCode::from(exit::UNAVAILABLE)
        } else {
            ExitCode::SUCCESS
        })
    })
}

/// Returns the remedy for a store error.
fn remedy(problem: &StoreError) -> &'static str {
    match problem {
        StoreError::Unavailable(cause)
            if cause.contains("otp_") || cause.starts_with("there is no file") =>
        {
            "its schema does not match this version: run `otpd migrate`, or start `otpd serve`, which migrates too"
        }
        StoreError::Unavailable(_) => {
            "check that the database runs, and that DATABASE_URL names it with a user that may read and write"
        }
        StoreError::IndexKeyMismatch => "give the right OTPD_KEYS_FILE",
        _ => "see the log of the database",
    }
}

/// Writes a test record, reads it, opens its secret, and purges it.
async fn try_store(store: &dyn RecordStore, keys: &KeyRing) -> Result<(), StoreError> {
    store.probe().await?;
    store.verify_index_key(&keys.fingerprint()).await?;
    let now = store.load(&[], &[]).await?.clock.now();
    let written = test_record(keys, now);
    let changes = WriteBatch {
        records: vec![written.clone()],
        ..WriteBatch::default()
    };
    store.write(&changes).await?;
    let snapshot = store.load(&[written.key], &[]).await?;
    let read = snapshot.records.get(&written.key);
    let opened = read.map(|read| keys.open_record(&written.key, read.record.clone()));
    let opens = matches!(opened, Some(Ok(_)));
    if !opens {
        let problem = "the test record was written but could not be read";
        return Err(StoreError::Corrupt(problem.to_owned()));
    }
    for _ in 0..PURGE_ROUNDS {
        store.purge(snapshot.clock.now(), PURGE_BATCH).await?;
        if store.load(&[written.key], &[]).await?.records.is_empty() {
            return Ok(());
        }
    }
    let problem = "an expired record was not purged";
    Err(StoreError::Corrupt(problem.to_owned()))
}

/// Returns a test record that no request can refer to and that may be purged at once. Its
/// recipient is random, so that no two checks share a record.
fn test_record(keys: &KeyRing, now: Timestamp) -> RecordWrite {
    let random = &mut os_rng();
    let (caller, purpose) = (CallerName::new("otpd-check"), Purpose::default());
    let mailbox = MessageId::generate(random);
    let recipient = Recipient::from_canonical(format!("{mailbox}@check.invalid"));
    let key = keys.record_key(&caller, &recipient, &purpose);
    let mut nonce = ChallengeNonce([0; 16]);
    rand::Rng::fill_bytes(random, &mut nonce.0);
    let secret = ChallengeSecret {
        code: OtpCode::generate(6, random),
        recipient,
        is_test: false,
        channels: ChannelSet::EMPTY,
    };
    RecordWrite {
        key,
        expected: None,
        version: RowVersion::random(random),
        removable_at: now,
        limits: Vec::new(),
        record: Record {
            caller,
            purpose,
            challenge: Challenge {
                nonce,
                state: ChallengeState::Live(keys.seal(&key, &nonce, &secret, random)),
                channel: Channel::Email,
                created_at: now,
                expires_at: now,
                attempts: 0,
                sends: 0,
            },
            sent_at: now,
            failures: FailureCounter::NONE,
            send_limits: SendLimits::default(),
            memory: IdempotencyLog::default(),
            written_at: now,
        },
    }
}

async fn check_providers(delivery: &Delivery, findings: &mut CheckReport) {
    for gateway in &delivery.gateways {
        let subject = format!("provider {}", gateway.name);
        match gateway.check().await {
            Ok(seen) => CheckReport::ok(&subject, seen),
            Err(problem) => findings.failed(
                &subject,
                problem,
                &format!("see [providers.{}] and docs/providers.md", gateway.name),
            ),
        }
    }
}

/// Prints the cost of an SMS in each configured language.
fn report_texts(config: &ServeConfig) {
    for line in config.delivery.texts.report() {
        print_line!("text    {line}");
        for warning in &line.warnings {
            print_line!("warning {}: {warning}", line.key);
        }
    }
}
