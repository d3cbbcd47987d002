//! Callers that authenticate by the certificate of their connection.

use std::{fs, path::Path, sync::Arc};

use otpd::grpc::v1::otp_service_client::OtpServiceClient;
use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::{RECIPIENT, lines, send_request, status_request};
use crate::support::{
    Authorization, Database, Kind, Proof, Refusal, Replica, TestCa, audited, dns, secure_channel,
    token_digest,
};

const REFUSED: &str = "[OTP AUDIT] TLS handshake failed";
const REVOKED: u64 = 66;

/// A server that takes certificates of `authority`, and tokens of one caller.
async fn serve(database: &Database, authority: &TestCa) -> Replica {
    let server = authority.certify(dns("localhost"), |_| {});
    let directory = database.directory();
    let file = |name: &str, text: &str| {
        let path: &Path = &directory.join(name);
        fs::write(path, text).expect("the directory takes files");
        path.display().to_string()
    };
    let configuration = database.configure(&format!(
        r#"
[tls]
certificate = "{}"
key = "{}"
client_ca = "{}"
client_crl = "{}"
[callers.crm]
certificate_names = ["crm.internal"]
[callers.shop]
certificate_names = ["spiffe://example/shop"]
[callers.proxied]
token_sha256 = ["{}"]
"#,
        file("server.crt", &server.certificate),
        file("server.key", &server.key),
        file("ca.crt", &authority.certificate),
        file("ca.crl", &authority.revoke(REVOKED)),
        token_digest("known"),
    ));
    let environment = [("OTPD_CONFIG", configuration.as_str())];
    let replica = Replica::launch(database.url(), database, &environment).await;
    replica.wait_for_line("[OTP] Store available").await;
    replica
}

/// Returns the TLS error with which the server ends a handshake with that certificate.
async fn alert(replica: &Replica, authority: &TestCa, proof: &Proof) -> AlertDescription {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.certificate.as_bytes());
    let root = root.expect("it is PEM");
    roots.add(root).expect("it is an authority");
    let certificate = CertificateDer::from_pem_slice(proof.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(proof.key.as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate.expect("it is PEM")],
            key.expect("it is PEM"),
        )
        .expect("the key is that of the certificate");
    let stream = TcpStream::connect(replica.address())
        .await
        .expect("it listens");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    let error = match connected {
        Ok(mut stream) => {
            let error = stream.read_u8().await.expect_err("the server says no");
            // A client that still sends must be able to read the alert, so nothing that it
            // sends is answered with a reset.
            let (mut socket, _) = stream.into_inner();
            for _ in 0..64 {
                socket.write_all(&[0; 64]).await.expect("no reset");
            }
            error
        }
        Err(error) => error,
    };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_authenticates_the_caller_it_names() {
    let database = Database::new(Kind::Sqlite).await;
    let authority = TestCa::new("ours");
    let replica = serve(&database, &authority).await;
    let crm = authority.certify(dns("crm.internal"), |_| {});
    let uri = |name: &str| SanType::URI(name.try_into().expect("it is ASCII"));
    let shop = authority.certify(uri("spiffe://example/shop"), |_| {});
    let client =
        |proof: Option<&Proof>| OtpServiceClient::new(secure_channel(&replica, &authority, proof));

    let sent = client(Some(&crm))
        .send_otp(send_request(RECIPIENT, ""))
        .await;
    let sent = sent.expect("it is a caller").into_inner();
    replica.code(&sent.challenge_id).await;
    for (proof, live) in [(&crm, true), (&shop, false)] {
        let reply = client(Some(proof))
            .get_otp_status(status_request(RECIPIENT))
            .await;
        assert_eq!(reply.expect("it is a caller").into_inner().live, live);
    }

    // A name of no caller, the name of a caller without certificates, and names of callers in the
    // other form.
    for name in [
        dns("unknown.internal"),
        dns("proxied"),
        uri("crm.internal"),
        dns("spiffe://example/shop"),
    ] {
        let stranger = authority.certify(name, |_| {});
        let refused = client(Some(&stranger))
            .get_otp_status(status_request(RECIPIENT))
            .await;
        let refusal = Refusal::of(&refused.expect_err("it is refused"));
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::Unauthenticated, "CALLER_UNKNOWN")
        );
    }
    let nobody = client(None).get_otp_status(status_request(RECIPIENT)).await;
    assert_eq!(
        nobody.expect_err("it is refused").code(),
        Code::Unauthenticated
    );
    // A token takes precedence over the certificate of a proxy.
    for (token, code) in [
        ("Bearer known", Code::Ok),
        ("Bearer wrong", Code::Unauthenticated),
    ] {
        let channel = secure_channel(&replica, &authority, Some(&crm));
        let authorization = Authorization::new(Some(token));
        let mut client = OtpServiceClient::with_interceptor(channel, authorization);
        let reply = client.get_otp_status(status_request(RECIPIENT)).await;
        let reply = reply.map(|reply| assert!(!reply.into_inner().live));
        assert_eq!(
            reply.map_or_else(|status| status.code(), |()| Code::Ok),
            code
        );
    }
    let log = replica.stop().await.1;
    let of_nobody = "no caller has this client certificate";
    assert_eq!(
        audited(&log, "Authentication failed", of_nobody),
        4,
        "{log}"
    );
    assert_eq!(audited(&log, "Authentication failed", ""), 6, "{log}");
    assert_eq!(lines(&log, REFUSED).len(), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_certificate_fails_the_handshake_with_one_log_line() {
    let database = Database::new(Kind::Sqlite).await;
    let authority = TestCa::new("ours");
    let replica = serve(&database, &authority).await;
    let name = || dns("crm.internal");
    let of_others = TestCa::new("ours").certify(name(), |_| {});
    let expired = authority.certify(name(), |certificate| {
        certificate.not_after = date_time_ymd(2020, 1, 1);
        certificate.not_before = date_time_ymd(2019, 1, 1);
    });
    let early = authority.certify(name(), |certificate| {
        certificate.not_before = date_time_ymd(3000, 1, 1);
    });
    let revoked = authority.certify(name(), |certificate| {
        certificate.serial_number = Some(REVOKED.into());
    });
    let for_servers = authority.certify(name(), |certificate| {
        certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });

    let mut refused = 0;
    for (proof, expected, why) in [
        (&of_others, AlertDescription::DecryptError, "BadSignature"),
        (&expired, AlertDescription::CertificateExpired, "expired"),
        (
            &early,
            AlertDescription::CertificateExpired,
            "not valid yet",
        ),
        (&revoked, AlertDescription::CertificateRevoked, "Revoked"),
        (
            &for_servers,
            AlertDescription::UnsupportedCertificate,
            "usage",
        ),
    ] {
        let alert = alert(&replica, &authority, proof).await;
        refused += 1;
        let is_refusal = |line: &str| line.contains(REFUSED) && line.contains(why);
        let line = replica.wait_for_newest_line(is_refusal).await;
        assert_eq!(alert, expected, "{line}");
        assert!(line.contains("from=127.0.0.1:"), "{line}");
    }
    // No call succeeds over such a connection.
    for proof in [&of_others, &expired, &revoked] {
        let mut client = OtpServiceClient::new(secure_channel(&replica, &authority, Some(proof)));
        client
            .send_otp(send_request(RECIPIENT, ""))
            .await
            .expect_err("it is refused");
    }
    let log = replica.stop().await.1;
    let audited = audited(&log, "TLS handshake failed", "");
    assert_eq!(audited, refused + 3, "{log}");
    assert!(!log.contains("Request received"), "{log}");
}
