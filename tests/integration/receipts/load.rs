//! Load with receipts.

use serde_json::{Value, json};

use super::{SHOP, serve};
use crate::support::{Database, Kind, otpd, run};

#[tokio::test(flavor = "multi_thread")]
async fn load_with_receipts_verifies_all_pairs() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database, 1).await.remove(0);
    let log = database.directory().join("log");
    replica.copy_log(&log);
    let (address, log) = (replica.address().to_string(), log.display().to_string());
    let bench = |token| {
        run(otpd()
            .args(["bench", "--address", &address, "--codes", &log])
            .args(["--token", token, "--receipt-audience", SHOP])
            .args(["--pairs", "50", "--warm-up", "0s", "--quiet", "--json", "-"]))
    };
    let result: Value = serde_json::from_str(&bench("crm").done()).expect("the result is JSON");
    assert_eq!(result["outcomes"]["VERIFIED"], 50, "{result:#}");
    assert_eq!(result["failures"], json!({}));
    let line = bench("kiosk").line(64);
    assert!(
        line.contains("REQUEST_INVALID: receipt.audience: "),
        "{line}"
    );
}
