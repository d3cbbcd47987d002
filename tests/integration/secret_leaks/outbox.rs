//! Leak test of the outbox: messages in every state reveal no code, recipient, variable
//! or text.

use std::time::Duration;

use otpd::grpc::v1::{
    CancelOtpRequest,
    DeliveryState::{Dropped, Failed, Queued, Sending, Sent},
    SendOtpRequest,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::outbox::{
    deliveries_in,
    gateway::{Behaviour, DOWN, Gateway, TAKES},
    recipient, route, send_request, serve,
};
use crate::{
    secret_leaks::{assert_no_leak, database_places, search, text},
    support::{Database, Kind, Replica, Secrets, on_each_store},
};

const SEALED: &str = "SELECT count(*) FROM otp_message WHERE sealed IS NOT NULL";
/// Purposes, and with each how its messages fare.
const PURPOSES: [&str; 5] = ["queued", "sending", "sent", "failed", "dropped"];
/// Number of messages in each state.
const EACH: usize = 20;

async fn start(kind: Kind, gateway: &Gateway) -> (Database, Replica) {
    let mut configuration = String::from("[policy]\ncode_length = 10\n");
    for (purpose, behaviour) in [
        ("queued", DOWN),
        ("sending", Behaviour::Holds),
        ("sent", TAKES),
        ("failed", Behaviour::Answers(400, "{}")),
        ("dropped", DOWN),
    ] {
        gateway.will(purpose, behaviour);
        let keys = "timeout = \"60s\"\nmax_concurrency = 100\nbreaker_failures = 1000";
        configuration += &gateway.provider(purpose, keys);
        configuration += &route(purpose, &[purpose]);
    }
    configuration += r#"
[texts.default.en]
plain = "Greetings from the tests, {{ customer }}: {{ code }} is your code"
[texts.default.variables.customer]
required = true
"#;
    serve(kind, &configuration).await
}

/// Sends to many recipients for each purpose, and returns the secrets that must not be found.
async fn fill(replica: &Replica, gateway: &Gateway) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add("Greetings from the tests");
    for number in 0..EACH {
        for (index, purpose) in PURPOSES.into_iter().enumerate() {
            let number = index * EACH + number;
            let customer = format!("Customer-{number:04}-Jane-Doe");
            let request = SendOtpRequest {
                variables: [("customer".to_owned(), customer.clone())].into(),
                client_ip: format!("203.0.113.{number}"),
                ..send_request(number, purpose)
            };
            let sent = replica.client().send_otp(request).await;
            let sent = sent.expect("it is sent").into_inner();
            let asked = gateway.asked_for(&sent.challenge_id).await;
            assert!(asked.text.contains(&customer), "{asked:?}");
            secrets.add(&asked.code);
            secrets.add(&recipient(number)[1..]);
            secrets.add(&customer);
            if purpose == "dropped" {
                let request = CancelOtpRequest {
                    challenge_id: sent.challenge_id,
                    ..Default::default()
                };
                let cancelled = replica.client().cancel_otp(request).await;
                assert!(cancelled.expect("there is a reply").into_inner().cancelled);
            }
        }
    }
    for (index, state) in [Queued, Sending, Sent, Failed, Dropped]
        .into_iter()
        .enumerate()
    {
        for number in 0..EACH {
            let whose = (index * EACH + number, PURPOSES[index]);
            deliveries_in(replica, whose, &[state]).await;
        }
    }
    secrets
}

/// Writes a text to a place that a faulty otpd could have written to.
async fn plant(database: &Database, text: &str) {
    let statement = AssertSqlSafe(format!("UPDATE otp_message SET provider = '{text}'"));
    if database.url().starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(database.url())
            .await
            .expect("it exists");
        connection.execute(statement).await.expect("it is seeded");
        connection.close().await.expect("it is seeded");
    } else {
        let mut connection = PgConnection::connect(database.url())
            .await
            .expect("it exists");
        connection.execute(statement).await.expect("it is seeded");
        connection.close().await.expect("it is seeded");
    }
}

async fn outbox_contains_no_secrets(kind: Kind) {
    let gateway = Gateway::start().await;
    let (database, replica) = start(kind, &gateway).await;
    let secrets = fill(&replica, &gateway).await;
    // Only messages that are still to be sent have a payload, which is sealed.
    let sealed = database.number(SEALED).await;
    assert_eq!(sealed, i64::try_from(2 * EACH).expect("a few"));
    assert_no_leak(&secrets, &database_places(&database));
    assert_no_leak(&secrets, &[text("the log", &replica.log())]);

    // After all messages are final, no payload is left.
    for purpose in PURPOSES {
        gateway.will(purpose, TAKES);
    }
    // The next attempts of waiting messages are due then.
    database.advance_clock(Duration::from_secs(30)).await;
    database.wait_for_number(SEALED, 0).await;
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}");
    assert_no_leak(&secrets, &database_places(&database));
    assert_no_leak(&secrets, &[text("the log", &log)]);

    // The scanner finds a seeded code.
    let code = gateway.state().asked[0].code.clone();
    plant(&database, &code).await;
    let found = search(&database, &secrets);
    let shows = |found: &std::collections::BTreeSet<String>| {
        found.iter().any(|form| form.starts_with(&code))
    };
    assert!(found.iter().any(|(_, found)| shows(found)), "{found:?}");
}

on_each_store! {
    outbox_contains_no_secrets
}
