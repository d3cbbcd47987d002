//! Reload of certificates: new connections use the new ones, and existing ones continue
//! if their client certificate is still accepted.

use std::{fs, path::Path, time::Duration};

use otpd::grpc::v1::{
    GetOtpStatusRequest, GetOtpStatusResponse, otp_service_client::OtpServiceClient,
};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::{Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::Reloading;
use crate::support::{Proof, TestCa, dns, secure_channel};

const REVOKED: u64 = 66;

async fn ask(channel: &Channel) -> Result<GetOtpStatusResponse, Status> {
    let request = GetOtpStatusRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let mut client = OtpServiceClient::new(channel.clone());
    let status = client.get_otp_status(request).await;
    status.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_replaces_certificates_authorities_and_revocation_lists() {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let files = tempfile::tempdir().expect("the temporary directory takes files");
    let place = |name: &str| files.path().join(name);
    let write = |name: &str, text: &str| fs::write(place(name), text).expect("it takes files");
    let write_server = |authority: &TestCa| {
        let Proof { certificate, key } = authority.certify(dns("localhost"), |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        write("server.crt", &certificate);
        write("server.key", &key);
    };
    write_server(&old);
    write("ca.crt", &old.certificate);
    write("ca.crl", &old.revoke(1));
    let directory = files.path().display();
    let configuration = format!(
        "[tls]\ncertificate = \"{directory}/server.crt\"\nkey = \"{directory}/server.key\"\n\
         client_ca = \"{directory}/ca.crt\"\nclient_crl = \"{directory}/ca.crl\"\n\
         [callers.crm]\ncertificate_names = [\"crm.internal\"]\n"
    );
    let mut otpd = Reloading::start(&configuration).await;
    let crm = old.certify(dns("crm.internal"), |parameters| {
        parameters.serial_number = Some(REVOKED.into());
    });
    let connect = |server: &TestCa, proof: &Proof, otpd: &Reloading| {
        secure_channel(&otpd.replica, server, Some(proof))
    };
    let early = connect(&old, &crm, &otpd);
    ask(&early).await.expect("it is a caller");
    ask(&connect(&new, &crm, &otpd))
        .await
        .expect_err("the server is of the old authority");

    // Another certificate of the server, in the middle of which it is looked at.
    let before = fs::read_to_string(place("server.key")).expect("it was written");
    write_server(&new);
    write("server.key", &before);
    let line = otpd.refuse(&configuration).await;
    assert!(line.contains("tls.key"), "{line}");
    write_server(&new);
    let line = otpd.hang_up().await;
    for name in ["server.crt", "server.key"] {
        assert!(line.contains(name), "{line}");
    }
    assert!(!line.contains("ca.crt"), "{line}");
    ask(&early).await.expect("its connection goes on");
    ask(&connect(&new, &crm, &otpd))
        .await
        .expect("the server is of the new authority");
    ask(&connect(&old, &crm, &otpd))
        .await
        .expect_err("and no more of the old one");

    // The caller's certificate is revoked.
    write("ca.crl", &old.revoke(REVOKED));
    otpd.hang_up().await;
    ask(&connect(&new, &crm, &otpd))
        .await
        .expect_err("it is revoked");
    // Another authority of callers.
    write("ca.crt", &new.certificate);
    write("ca.crl", &new.revoke(1));
    otpd.hang_up().await;
    let successor = new.certify(dns("crm.internal"), |_| {});
    ask(&connect(&new, &successor, &otpd))
        .await
        .expect("it is a caller");
    ask(&connect(&new, &crm, &otpd))
        .await
        .expect_err("its authority is unknown");
}

/// Writes the files of a server whose callers authenticate by certificates of `authority`, and the
/// configuration that names them.
fn configure(directory: &Path, authority: &TestCa, list: &str) -> String {
    let server = authority.certify(dns("localhost"), |_| {});
    for (name, text) in [
        ("server.crt", server.certificate.as_str()),
        ("server.key", &server.key),
        ("ca.crt", &authority.certificate),
        ("ca.crl", list),
    ] {
        fs::write(directory.join(name), text).expect("the directory takes files");
    }
    let directory = directory.display();
    format!(
        "[tls]\ncertificate = \"{directory}/server.crt\"\nkey = \"{directory}/server.key\"\n\
         client_ca = \"{directory}/ca.crt\"\nclient_crl = \"{directory}/ca.crl\"\n\
         [callers.crm]\ncertificate_names = [\"crm.internal\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_certificate_closes_its_connections() {
    let authority = TestCa::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory takes files");
    let mut otpd =
        Reloading::start(&configure(files.path(), &authority, &authority.revoke(1))).await;
    let certify = |serial: u64| {
        authority.certify(dns("crm.internal"), |parameters| {
            parameters.serial_number = Some(serial.into());
        })
    };
    let revoked = certify(REVOKED);
    let (revoked, revoked_health, good) = (
        secure_channel(&otpd.replica, &authority, Some(&revoked)),
        secure_channel(&otpd.replica, &authority, Some(&revoked)),
        secure_channel(&otpd.replica, &authority, Some(&certify(2))),
    );
    ask(&revoked).await.expect("it is a caller");
    ask(&good).await.expect("it is a caller");
    // Something that runs without an end keeps its connection.
    let watched = HealthClient::new(revoked_health.clone())
        .watch(HealthCheckRequest::default())
        .await;
    let mut watched = watched.expect("health answers").into_inner();
    watched.message().await.expect("health answers");

    fs::write(files.path().join("ca.crl"), authority.revoke(REVOKED)).expect("it takes files");
    otpd.hang_up().await;
    for channel in [&revoked, &revoked_health] {
        ask(channel).await.expect_err("it is revoked");
    }
    ask(&good).await.expect("it is a caller");
    let line = otpd
        .replica
        .wait_for_line("[OTP AUDIT] Client certificate no longer accepted")
        .await;
    assert!(line.contains("Revoked"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_revocation_list_is_reported_on_load_and_later() {
    const OUTDATED: &str = "[OTP] Revocation list is outdated";
    let authority = TestCa::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory takes files");
    let beginning_of_2021 = Duration::from_hours(24 * 18_628);
    let list = authority.revoke_until(1, beginning_of_2021);
    let mut otpd = Reloading::start(&configure(files.path(), &authority, &list)).await;
    let line = otpd.replica.wait_for_line(OUTDATED).await;
    assert!(
        line.contains("CN=ours") && line.contains("next_update=2021-01-01"),
        "{line}"
    );

    // One that becomes outdated while otpd runs.
    let now = Duration::from_secs(rustls::pki_types::UnixTime::now().as_secs());
    let list = authority.revoke_until(1, now + Duration::from_secs(3));
    fs::write(files.path().join("ca.crl"), list).expect("it takes files");
    otpd.hang_up().await;
    otpd.replica.wait_for_lines(OUTDATED, 2).await;
}
