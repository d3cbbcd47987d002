//! Reload of the key ring: a sealing key is rotated without a restart, and no replica
//! writes codes that another cannot open.

use std::fs;

use otpd::{
    grpc::v1::VerifyOtpRequest,
    keys::{KeyRing, generate_sealing_entry, os_rng},
};

use super::{REFUSED, RELOADED, to};
use crate::support::{Database, Kind, Replica};

const BY_SIGNAL: (&str, &str) = ("OTPD_RELOAD_INTERVAL", "0s");

/// Makes both replicas read their keys again, and waits for the lines about it.
async fn hang_up(replicas: &[Replica], said: &str, count: usize) {
    for replica in replicas {
        replica.signal("HUP");
    }
    for replica in replicas {
        replica.wait_for_lines(said, count).await;
    }
}

async fn verifies(replica: &Replica, recipient: &str, code: String) -> bool {
    let typed = VerifyOtpRequest {
        recipient: recipient.to_owned(),
        code,
        ..Default::default()
    };
    let verdict = replica.client().verify_otp(typed).await;
    verdict.expect("there is an outcome").into_inner().verified
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_key_rotates_while_two_replicas_run() {
    let database = Database::new(Kind::Sqlite).await;
    let replicas = Replica::start_many_with(&database, 2, &[BY_SIGNAL]).await;
    let file = database.keys_file();
    let first = fs::read_to_string(&file).expect("it was made");
    let second = generate_sealing_entry(2, &mut os_rng()).to_string();
    let (index, one): (Vec<&str>, Vec<&str>) =
        first.lines().partition(|line| !line.starts_with("seal"));
    let ring = |keys: &[&str]| format!("{}\n{}\n", index.join("\n"), keys.join("\n"));
    let (one, two) = (one[0], second.trim_end());
    let write = |text: &str| fs::write(&file, text).expect("it is ours");

    // Steps out of order are refused, and change nothing.
    let other_index = KeyRing::generate(&mut os_rng());
    for (count, (bad, why)) in [
        (ring(&[two, one]), "keys: seal.2 is new and first"),
        (ring(&[two]), "keys: seal.2 is new and first"),
        (
            other_index.to_string(),
            "keys: the index key is another one",
        ),
        (
            "index = nonsense".to_owned(),
            "keys: keys: index is not 32 bytes of base64",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        write(&bad);
        hang_up(&replicas, REFUSED, count + 1).await;
        assert!(replicas[0].log().contains(why), "{}", replicas[0].log());
    }

    let mut earlier: Option<(String, String)> = None;
    for (round, keys) in [[one, two].as_slice(), &[two, one], &[two]]
        .into_iter()
        .enumerate()
    {
        write(&ring(keys));
        hang_up(&replicas, RELOADED, round + 1).await;
        // A value that was sealed before the step opens after it, as long as its key is there.
        if let Some((recipient, code)) = earlier.take() {
            assert!(verifies(&replicas[1], &recipient, code).await);
        }
        for (number, replica) in replicas.iter().enumerate() {
            let recipient = format!("+799900{round}000{number}");
            let sent = replica.client().send_otp(to(&recipient)).await;
            let sent = sent.expect("it is sent").into_inner();
            let code = replica.code(&sent.challenge_id).await;
            if number == 0 {
                // On the other replica, which may not have sealed anything yet.
                assert!(verifies(&replicas[1], &recipient, code).await);
            } else {
                earlier = Some((recipient, code));
            }
        }
    }
    // The first key of the current ring must still be there.
    write(&first);
    hang_up(&replicas, REFUSED, 5).await;
}
