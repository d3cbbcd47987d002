//! Messages that a replica cannot route with its configuration: it leaves them to other
//! replicas while their codes are live.

use std::{fs, time::Duration};

use otpd::grpc::v1::DeliveryState::{Queued, Sent};

use super::{
    EVERY_LINE, OFTEN,
    gateway::{DOWN, Gateway, TAKES},
    route, send_request,
};
use crate::support::{Database, Kind, Replica, otpd, run, token_digest};

const STATES: [(&str, &str); 2] = [
    (
        "waiting",
        "SELECT count(*) FROM otp_message WHERE state IN ('queued', 'sending')",
    ),
    (
        "dropped",
        "SELECT count(*) FROM otp_message WHERE state = 'dropped'",
    ),
];

/// Part of the configuration that the reclaiming replica lacks.
#[derive(Clone, Copy, Debug)]
enum Lacks {
    Caller,
    Route,
    SealingKey,
}

/// Replicas that know a message, and replicas that do not.
struct Fleet {
    database: Database,
    knowing: [String; 2],
    ignorant: [String; 2],
}

impl Fleet {
    async fn new(kind: Kind, gateway: &Gateway, lacks: Lacks) -> Self {
        let database = Database::new(kind).await;
        let [crm, shop] = ["crm", "shop"].map(|name| {
            let digest = token_digest(name);
            format!("[callers.{name}]\ntoken_sha256 = [\"{digest}\"]\n")
        });
        let provider = gateway.provider("only", "breaker_failures = 1000");
        let [payment, login] = ["payment", "login"].map(|purpose| route(purpose, &["only"]));
        let knowing = format!("{crm}{shop}{provider}{payment}{login}");
        let ignorant = match lacks {
            Lacks::Caller => format!("{crm}{provider}{payment}{login}"),
            Lacks::Route => format!("{crm}{shop}{provider}{login}"),
            Lacks::SealingKey => knowing.clone(),
        };
        let old_keys = database.keys_file();
        let new_keys = database.directory().join("new.keys");
        let ring = fs::read_to_string(&old_keys).expect("the ring was made");
        let (head, rest) = ring.split_once("seal.1").expect("it has a sealing key");
        let key = run(otpd().args(["keygen", "--seal", "2"])).done();
        fs::write(&new_keys, format!("{head}{key}seal.1{rest}")).expect("the directory takes it");
        let path = |path: &std::path::Path| path.to_str().expect("a test's path").to_owned();
        let write = |name: &str, text: String| {
            let file = database.directory().join(name);
            fs::write(&file, text).expect("the directory takes files");
            path(&file)
        };
        let all_keys = path(&new_keys);
        let keys = match lacks {
            Lacks::SealingKey => path(&old_keys),
            Lacks::Caller | Lacks::Route => all_keys.clone(),
        };
        Self {
            knowing: [write("knowing.toml", knowing), all_keys],
            ignorant: [write("ignorant.toml", ignorant), keys],
            database,
        }
    }

    async fn start(&self, [file, keys]: &[String; 2]) -> Replica {
        let environment = [
            ("OTPD_CONFIG", file.as_str()),
            ("OTPD_KEYS_FILE", keys.as_str()),
            OFTEN,
            EVERY_LINE,
        ];
        Replica::start_with(&self.database, &environment).await
    }

    /// Leaves a message behind that no provider takes yet, and that is due.
    async fn leave_a_message(&self, gateway: &Gateway, number: usize) {
        gateway.will("only", DOWN);
        let replica = self.start(&self.knowing).await;
        let request = send_request(number, "payment");
        let sent = replica.client_of("shop").send_otp(request).await;
        let sent = sent.expect("it is sent").into_inner();
        gateway.asked_for(&sent.challenge_id).await;
        replica.stop().await;
    }

    async fn count(&self, state: &str) -> i64 {
        let query = STATES.iter().find(|(name, _)| *name == state);
        self.database.number(query.expect("a known state").1).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_message_is_left_to_other_replicas_while_its_code_is_live() {
    for (kind, lacks, cause) in [
        (
            Kind::Postgres,
            Lacks::Caller,
            "its caller is not configured here",
        ),
        (
            Kind::Sqlite,
            Lacks::Route,
            "no route leads to a provider for it",
        ),
        (Kind::Postgres, Lacks::SealingKey, "not in the key ring"),
    ] {
        let gateway = Gateway::start().await;
        let fleet = Fleet::new(kind, &gateway, lacks).await;
        fleet.leave_a_message(&gateway, 0).await;
        fleet.database.advance_clock(Duration::from_mins(1)).await;
        gateway.will("only", TAKES);
        let ignorant = fleet.start(&fleet.ignorant).await;
        let is_verdict = |line: &str| line.contains("[OTP] Message ");
        let verdict = ignorant.wait_for_newest_line(is_verdict).await;
        assert!(
            verdict.contains("Message left to other replicas"),
            "{verdict}"
        );
        assert!(verdict.contains(cause), "{verdict}");
        assert!(!ignorant.log().contains("dead"), "{}", ignorant.log());
        assert_eq!(fleet.count("waiting").await, 1, "{lacks:?}");

        // A replica that knows it sends it, beside the other one.
        let knowing = fleet.start(&fleet.knowing).await;
        let done = super::deliveries_of(&knowing, "shop", (0, "payment"), &[Sent]).await;
        assert_eq!(done.last().map(|last| last.provider.as_str()), Some("only"));
        knowing.stop().await;

        // Once its code has expired, that makes no difference any more.
        fleet.leave_a_message(&gateway, 1).await;
        fleet.database.advance_clock(Duration::from_mins(10)).await;
        ignorant
            .wait_for_line("[OTP] Message dropped: code expired or used")
            .await;
        let (_, dropped) = STATES[1];
        fleet.database.wait_for_number(dropped, 1).await;
        assert_eq!(fleet.count("waiting").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_messages_do_not_block_others() {
    // More than are taken over at once.
    const FOREIGN: usize = 40;
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let gateway = Gateway::start().await;
        gateway.will("only", DOWN);
        let fleet = Fleet::new(kind, &gateway, Lacks::Route).await;
        let replica = fleet.start(&fleet.knowing).await;
        let purposes = std::iter::repeat_n("payment", FOREIGN).chain(["login"]);
        for (number, purpose) in purposes.enumerate() {
            let request = send_request(number, purpose);
            let sent = replica.client_of("shop").send_otp(request).await;
            sent.expect("it is sent");
            super::deliveries_of(&replica, "shop", (number, purpose), &[Queued]).await;
        }
        replica.stop().await;
        fleet.database.advance_clock(Duration::from_mins(1)).await;
        gateway.will("only", TAKES);
        let ignorant = fleet.start(&fleet.ignorant).await;
        super::deliveries_of(&ignorant, "shop", (FOREIGN, "login"), &[Sent]).await;
        let waiting = i64::try_from(FOREIGN).expect("a few");
        assert_eq!(fleet.count("waiting").await, waiting);
    }
}
