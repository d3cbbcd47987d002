//! Certificates: new connections see the new ones, and those that are there go on.

use std::fs;

use otpd::grpc::v1::{
    GetOtpStatusRequest, GetOtpStatusResponse, otp_service_client::OtpServiceClient,
};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::{Status, transport::Channel};

use super::Reloading;
use crate::support::{Authority, Proof, dns, secure_channel};

const REVOKED: u64 = 66;

async fn ask(channel: &Channel) -> Result<GetOtpStatusResponse, Status> {
    let request = GetOtpStatusRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let mut client = OtpServiceClient::new(channel.clone());
    let told = client.get_otp_status(request).await;
    told.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_authorities_and_revocations_are_exchanged() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = tempfile::tempdir().expect("the temporary directory takes files");
    let place = |name: &str| files.path().join(name);
    let write = |name: &str, text: &str| fs::write(place(name), text).expect("it takes files");
    let write_server = |authority: &Authority| {
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
    let connect = |server: &Authority, proof: &Proof, otpd: &Reloading| {
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
        .expect_err("nobody knows its authority");
}
