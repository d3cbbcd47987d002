//! Self-test of the leak scanner: seeded secrets are found.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::{LONG_CODES, TALKATIVE, search, talk, without_provider};
use crate::support::{Database, Kind, Replica, hex, on_each_store};

/// Runs a statement that only a faulty otpd would run.
async fn execute(database: &Database, statement: String) {
    let statement = AssertSqlSafe(statement);
    if database.url().starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(database.url())
            .await
            .expect("it exists");
        connection.execute(statement).await.expect("it is seeded");
    } else {
        let mut connection = PgConnection::connect(database.url())
            .await
            .expect("it exists");
        connection.execute(statement).await.expect("it is seeded");
    }
}

/// Returns the locations at which a search found text that starts with `secret`.
fn places<'a>(found: &'a [(String, BTreeSet<String>)], secret: &str) -> Vec<&'a str> {
    let shows = |found: &BTreeSet<String>| found.iter().any(|form| form.starts_with(secret));
    let places = found.iter().filter(|(_, found)| shows(found));
    places.map(|(place, _)| place.as_str()).collect()
}

/// The scanner finds one secret in each place.
async fn leak_scanner_finds_seeded_secret(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = Replica::start_with(&database, &[LONG_CODES, TALKATIVE]).await;
    let traffic = talk(&replica, 0..20).await;
    let codes: Vec<&str> = traffic
        .examples
        .iter()
        .map(|(code, _)| code.as_str())
        .collect();
    let recipients = traffic
        .examples
        .iter()
        .map(|(_, recipient)| recipient.as_str());
    let (addresses, numbers): (Vec<&str>, Vec<&str>) =
        recipients.partition(|recipient| recipient.contains('@'));
    let (number, local_part) = (
        &numbers[0][1..],
        addresses[0].trim_end_matches("@example.com"),
    );

    // Stored as a number, in six bytes; a smaller one takes four, which turn up by
    // chance.
    let numeric = codes
        .iter()
        .rfind(|code| code.starts_with(|first| first > '2'));
    let numeric = *numeric.expect("of many codes some are high");

    let blob = match kind {
        Kind::Postgres => format!("decode('00{}', 'hex')", hex(codes[0])),
        Kind::Sqlite => format!("x'00{}'", hex(codes[0])),
    };
    let clean = search(&database, &traffic.secrets);
    assert!(clean.iter().all(|(_, found)| found.is_empty()), "{clean:?}");
    for (column, value, secret) in [
        ("sealed", blob, codes[0]),
        ("caller", format!("'{}'", codes[1]), codes[1]),
        ("caller", format!("'{}'", hex(codes[2])), codes[2]),
        (
            "caller",
            format!("'{}'", STANDARD.encode(format!("a{}b", codes[3]))),
            codes[3],
        ),
        ("created_at", numeric.to_owned(), numeric),
        ("purpose", format!("'+{number}'"), number),
        ("purpose", format!("'{}'", hex(local_part)), local_part),
    ] {
        execute(
            &database,
            format!(
                "UPDATE otp_record SET {column} = {value} WHERE record_key IN
                 (SELECT record_key FROM otp_record WHERE state = 'live' LIMIT 1)"
            ),
        )
        .await;
        let found = search(&database, &traffic.secrets);
        let expected: &[&str] = match kind {
            Kind::Postgres => &["--format=plain", "--inserts"],
            Kind::Sqlite => &["otpd.db-wal"],
        };
        for place in expected {
            let places = places(&found, secret);
            assert!(
                places.iter().any(|found| found.ends_with(place)),
                "{column}, {secret}: {found:?}"
            );
        }
        if matches!(kind, Kind::Sqlite) {
            execute(&database, "PRAGMA wal_checkpoint(TRUNCATE)".to_owned()).await;
            let found = search(&database, &traffic.secrets);
            let places = places(&found, secret);
            assert!(
                places.iter().any(|found| found.ends_with("otpd.db")),
                "{column}, {secret}: {found:?}"
            );
        }
    }

    let log = without_provider(&replica.log());
    let clean = traffic.secrets.in_text(&log);
    assert!(clean.is_empty(), "{clean:?}");
    for line in [
        format!("INFO [OTP VERIFY] wrong code typed={}", codes[5]),
        format!(r#"{{"level":"ERROR","cause":"invalid: \"{}\""}}"#, codes[5]),
        format!(
            "ERROR [OTP] Panic message=index 7 of Recipient({:?})",
            numbers[1]
        ),
        format!("DEBUG Request {{ recipient: 8{} }}", &numbers[1][2..]),
        format!("DEBUG {:?}", codes[5].as_bytes()),
        format!("TRACE to={}", addresses[0]),
        "INFO [OTP] Request refused cause=\"+7 (985) 765-43-11 ext. 5\" is none".to_owned(),
    ] {
        let found = traffic.secrets.in_text(&format!("{log}\n{line}"));
        assert!(!found.is_empty(), "not found in {line}");
    }
}

on_each_store! {
    leak_scanner_finds_seeded_secret
}
