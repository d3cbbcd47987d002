//! Self-test of the leak scanner on a scrape.

use crate::support::Secrets;

#[test]
fn leak_scanner_finds_seeded_secret_in_metrics() {
    let mut secrets = Secrets::default();
    secrets.add("+79991234567");
    secrets.add("481516");
    let clean = "otpd_requests_total{rpc=\"SendOtp\",caller=\"crm\"} 1\n";
    assert!(secrets.in_text(clean).is_empty());
    for seeded in [
        "otpd_requests_total{recipient=\"+79991234567\"} 1\n",
        "otpd_requests_total{code=\"481516\"} 1\n",
        "# HELP +79991234567\n",
    ] {
        let scrape = format!("{clean}{seeded}");
        assert_eq!(secrets.in_text(&scrape).len(), 1, "{seeded}");
    }
}
