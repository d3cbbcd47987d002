//! Test certificate authority, and connections with its certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::Replica;

/// A certificate authority.
pub struct TestCa {
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Proof {
    pub certificate: String,
    pub key: String,
}

impl TestCa {
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = parameters.self_signed(&key).expect("it is well formed");
        Self {
            certificate: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    pub fn certify(&self, name: SanType, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![name];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        change(&mut parameters);
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = parameters.signed_by(&key, &self.issuer);
        Proof {
            certificate: certificate.expect("it is well formed").pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list that revokes the certificate of that serial number.
    pub fn revoke(&self, serial: u64) -> String {
        const FAR_AHEAD: Duration = Duration::from_hours(24 * 365 * 1_000);
        self.revoke_until(serial, FAR_AHEAD)
    }

    /// Returns a revocation list that is outdated from that time after 1970 on.
    pub fn revoke_until(&self, serial: u64, next_update: Duration) -> String {
        let revoked = RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(1970, 1, 1) + next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("it is well formed");
        list.pem().expect("it is well formed")
    }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("it is ASCII"))
}

/// A connection to `replica` with that certificate, made at the first call.
pub fn secure_channel(replica: &Replica, authority: &TestCa, proof: Option<&Proof>) -> Channel {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.certificate))
        .domain_name("localhost");
    if let Some(proof) = proof {
        tls = tls.identity(Identity::from_pem(&proof.certificate, &proof.key));
    }
    Endpoint::from_shared(format!("https://{}", replica.address()))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .expect("the certificate is one")
        .connect_lazy()
}
