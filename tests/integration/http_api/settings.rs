//! Table `[http_api]`: on and off, over TLS, and at a reload.

use std::{fs, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::RECIPIENT;
use crate::support::{
    Database, Kind, Replica, TestCa, dns,
    http1::{Http1, call, path, post},
    token_digest,
};

fn request() -> Vec<u8> {
    let request = format!(r#"{{"recipient":"{RECIPIENT}"}}"#);
    post(
        &path("GetOtpStatus"),
        &[("authorization", "Bearer known")],
        &request,
    )
}

/// Status of a call over HTTP/1.1; none if the connection is closed.
async fn status(replica: &Replica) -> Option<u16> {
    let mut client = Http1::connect(replica.address()).await;
    client.write(&request()).await;
    client.reply().await.map(|reply| reply.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_switches_the_api_for_new_connections() {
    let database = Database::new(Kind::Sqlite).await;
    let callers = format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    );
    let file = database.configure(&callers);
    let replica = Replica::start_with(&database, &[("OTPD_CONFIG", &file)]).await;
    assert_eq!(status(&replica).await, Some(200));
    let mut open = Http1::connect(replica.address()).await;
    open.write(&request()).await;
    assert_eq!(open.reply().await.map(|reply| reply.status), Some(200));
    for (number, (enabled, expected)) in [(false, None), (true, Some(200))].into_iter().enumerate()
    {
        database.configure(&format!("{callers}[http_api]\nenabled = {enabled}\n"));
        replica.signal("HUP");
        replica
            .wait_for_lines("Configuration reloaded", number + 1)
            .await;
        assert_eq!(status(&replica).await, expected, "{enabled}");
    }
    open.write(&request()).await;
    assert_eq!(open.reply().await.map(|reply| reply.status), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_is_negotiated_over_tls_only_if_the_api_is_on() {
    for enabled in [true, false] {
        let database = Database::new(Kind::Sqlite).await;
        let authority = TestCa::new("ours");
        let server = authority.certify(dns("localhost"), |_| {});
        let client = authority.certify(dns("crm.internal"), |_| {});
        let directory = database.directory().display().to_string();
        for (name, text) in [
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("ca.crt", &authority.certificate),
        ] {
            fs::write(format!("{directory}/{name}"), text).expect("the directory takes files");
        }
        let file = database.configure(&format!(
            "[tls]\ncertificate = \"{directory}/server.crt\"\nkey = \"{directory}/server.key\"\n\
             client_ca = \"{directory}/ca.crt\"\n\
             [callers.crm]\ncertificate_names = [\"crm.internal\"]\n\
             [http_api]\nenabled = {enabled}\n"
        ));
        let replica =
            Replica::launch(database.url(), &database, &[("OTPD_CONFIG", file.as_str())]).await;
        replica.wait_for_line("[OTP] Store available").await;
        let mut roots = RootCertStore::empty();
        let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).expect("PEM");
        roots
            .add(pem(&authority.certificate))
            .expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(client.key.as_bytes());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pem(&client.certificate)], key.expect("PEM"))
            .expect("they belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(replica.address())
            .await
            .expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        assert_eq!(stream.is_ok(), enabled);
        let Ok(mut stream) = stream else { continue };
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = post(
            &path("GetOtpStatus"),
            &[("connection", "close")],
            &format!(r#"{{"recipient":"{RECIPIENT}"}}"#),
        );
        stream.write_all(&request).await.expect("it reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("it answers");
        assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
        replica.wait_for_line("caller=crm").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_bytes_may_arrive_one_by_one() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let mut client = Http1::connect(replica.address()).await;
    for byte in request() {
        assert!(client.write(&[byte]).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await.map(|reply| reply.status), Some(200));
    // HTTP/1.0, which a proxy may use.
    let old = String::from_utf8(request())
        .expect("it is text")
        .replace("HTTP/1.1", "HTTP/1.0");
    let mut client = Http1::connect(replica.address()).await;
    client.write(old.as_bytes()).await;
    assert_eq!(client.reply().await.map(|reply| reply.status), Some(200));
    assert!(client.ends().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_that_is_off_serves_grpc_alone() {
    let database = Database::new(Kind::Sqlite).await;
    let off = [("OTPD_HTTP_API__ENABLED", "false")];
    let replica = Replica::start_with(&database, &off).await;
    assert_eq!(status(&replica).await, None);
    let on = [("OTPD_HTTP_API__ENABLED", "true")];
    let replica = Replica::start_with(&database, &on).await;
    assert_eq!(status(&replica).await, Some(200));
    let reply = call(replica.address(), "VerifyOtp", &[], "{}").await;
    assert_eq!(reply.reason(), "RECIPIENT_INVALID");
}
