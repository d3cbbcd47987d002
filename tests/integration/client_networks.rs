//! Limits by the subnet and the site of a request's `client_ip`.

use otpd::grpc::v1::{SendOtpRequest, VerifyOtpRequest, otp_service_client::OtpServiceClient};
use tonic::{Status, transport::Channel};

use crate::support::{Database, Kind, Replica, on_each_store};

/// Sends from that address to the recipient of that number; returns the challenge id.
async fn send(
    client: &mut OtpServiceClient<Channel>,
    number: usize,
    client_ip: &str,
) -> Result<String, Status> {
    let request = SendOtpRequest {
        recipient: format!("+7999{number:07}"),
        client_ip: client_ip.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(request).await;
    sent.map(|sent| sent.into_inner().challenge_id)
}

fn is_refused_by(status: &Status, limit: &str) -> bool {
    status.message().contains(&format!("the limit {limit} is"))
}

async fn client_is_limited_by_subnet_and_site(kind: Kind) {
    let database = Database::new(kind).await;
    let settings = [
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "1"),
        ("OTPD_POLICY__IP_SITE_SENDS_PER_HOUR", "3"),
        ("OTPD_POLICY__IP_FAILURES_PER_HOUR", "1"),
        ("OTPD_POLICY__IP_SITE_FAILURES_PER_HOUR", "2"),
    ];
    let replica = Replica::start_with(&database, &settings).await;
    let mut client = replica.client();
    let mut challenges = Vec::new();
    for (number, (address, refused_by)) in [
        // Each IPv4 address behind a NAT64 gateway is one client.
        ("64:ff9b::203.0.113.7", None),
        ("64:ff9b::203.0.113.8", None),
        ("203.0.113.7", Some("ip_sends_per_hour")),
        ("::ffff:203.0.113.8", Some("ip_sends_per_hour")),
        ("2001:db8:1:1::1", None),
        ("2001:db8:1:1::2", Some("ip_sends_per_hour")),
        ("2001:db8:1:2::1", None),
        ("2001:db8:1:3::1", None),
        ("2001:db8:1:4::1", Some("ip_site_sends_per_hour")),
        ("2001:db8:2:4::1", None),
    ]
    .into_iter()
    .enumerate()
    {
        match (send(&mut client, number, address).await, refused_by) {
            (Ok(challenge_id), None) => challenges.push((number, challenge_id)),
            (Err(status), Some(limit)) if is_refused_by(&status, limit) => {}
            (outcome, _) => panic!("{address}: {outcome:?} instead of {refused_by:?}"),
        }
    }

    // Wrong answers to some of these codes.
    for ((number, challenge_id), (address, refused_by)) in challenges.into_iter().zip([
        ("2001:db8:1:1::1", None),
        ("2001:db8:1:1::2", Some("ip_failures_per_hour")),
        ("2001:db8:1:2::1", None),
        ("2001:db8:1:3::1", Some("ip_site_failures_per_hour")),
    ]) {
        let request = VerifyOtpRequest {
            recipient: format!("+7999{number:07}"),
            code: wrong(&replica.code(&challenge_id).await),
            client_ip: address.to_owned(),
            ..Default::default()
        };
        let verdict = client.verify_otp(request).await;
        match (verdict, refused_by) {
            (Ok(verdict), None) => assert!(!verdict.into_inner().verified),
            (Err(status), Some(limit)) if is_refused_by(&status, limit) => {}
            (outcome, _) => panic!("{address}: {outcome:?} instead of {refused_by:?}"),
        }
    }
}

/// Another code of the same length.
fn wrong(code: &str) -> String {
    let turned = |digit: char| if digit == '0' { '1' } else { '0' };
    code.chars().map(turned).collect()
}

on_each_store! {
    client_is_limited_by_subnet_and_site
}
