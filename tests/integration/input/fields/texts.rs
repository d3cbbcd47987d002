//! Invalid texts in a field, in each of the RPCs that have it.

use otpd::grpc::v1::{CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest};

use super::{Case, PHONE};
use crate::support::AnyRequest;

/// The same invalid value in each of the RPCs that have the field.
struct Mistake<'a> {
    field: &'static str,
    value: &'a str,
    region: &'a str,
}

impl Mistake<'_> {
    fn send(&self) -> AnyRequest {
        let mut request = SendOtpRequest {
            recipient: PHONE.to_owned(),
            region: self.region.to_owned(),
            ..Default::default()
        };
        let field = match self.field {
            "recipient" => &mut request.recipient,
            "purpose" => &mut request.purpose,
            "locale" => &mut request.locale,
            "region" => &mut request.region,
            "client_ip" => &mut request.client_ip,
            "request_id" => &mut request.request_id,
            other => unreachable!("SendOtp has no text {other}"),
        };
        self.value.clone_into(field);
        AnyRequest::Send(request)
    }

    fn verify(&self) -> AnyRequest {
        let mut request = VerifyOtpRequest {
            recipient: PHONE.to_owned(),
            code: "123456".to_owned(),
            region: self.region.to_owned(),
            ..Default::default()
        };
        let field = match self.field {
            "recipient" => &mut request.recipient,
            "purpose" => &mut request.purpose,
            "code" => &mut request.code,
            "challenge_id" => &mut request.challenge_id,
            "region" => &mut request.region,
            "client_ip" => &mut request.client_ip,
            "request_id" => &mut request.request_id,
            other => unreachable!("VerifyOtp has no text {other}"),
        };
        self.value.clone_into(field);
        AnyRequest::Verify(request)
    }

    /// CancelOtp and GetOtpStatus name a code in the same way.
    fn subject(&self) -> [AnyRequest; 2] {
        let mut request = CancelOtpRequest {
            recipient: PHONE.to_owned(),
            region: self.region.to_owned(),
            ..Default::default()
        };
        let field = match self.field {
            "recipient" => &mut request.recipient,
            "purpose" => &mut request.purpose,
            "region" => &mut request.region,
            "challenge_id" => &mut request.challenge_id,
            other => unreachable!("CancelOtp has no text {other}"),
        };
        self.value.clone_into(field);
        let status = GetOtpStatusRequest {
            recipient: request.recipient.clone(),
            purpose: request.purpose.clone(),
            region: request.region.clone(),
            challenge_id: request.challenge_id.clone(),
        };
        [AnyRequest::Cancel(request), AnyRequest::Status(status)]
    }

    /// The request of each RPC that has the field.
    fn requests(&self) -> Vec<AnyRequest> {
        let mut requests = Vec::new();
        if !matches!(self.field, "code" | "challenge_id") {
            requests.push(self.send());
        }
        if self.field != "locale" {
            requests.push(self.verify());
        }
        if matches!(
            self.field,
            "recipient" | "purpose" | "region" | "challenge_id"
        ) {
            requests.extend(self.subject());
        }
        requests
    }
}

/// Texts that are wrong in a field: (reason, field, advice, region, texts).
type Row<'a> = (
    &'static str,
    &'static str,
    &'static str,
    &'a str,
    &'a [&'a str],
);

/// Each of the texts in each of the RPCs.
pub(super) fn cases() -> Vec<Case> {
    [phones(), addresses(), names(), codes_and_ids()].concat()
}

fn each_of(rows: &[Row<'_>]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(reason, field, remedy, region, values) in rows {
        for value in values {
            let mistake = Mistake {
                field,
                value,
                region,
            };
            cases.extend(mistake.requests().into_iter().map(|request| Case {
                request,
                reason,
                field,
                remedy,
            }));
        }
    }
    cases
}

/// Phone numbers that are none.
fn phones() -> Vec<Case> {
    let long = "9".repeat(10_240);
    each_of(&[
        (
            "RECIPIENT_INVALID",
            "recipient",
            "give a phone number or an e-mail address",
            "RU",
            &["", "   ", "\u{a0}\u{2003}"],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "control character; remove it",
            "",
            &[
                "+7999\u{0}1234567",
                "+7999\t1234567",
                "\n+79991234567",
                "a\u{7f}@example.com",
                "\u{85}",
            ],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "at most 320 bytes",
            "RU",
            &[&long],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "extension",
            "RU",
            &[
                "+7 999 123-45-67 ext. 5",
                "tel:+79991234567;ext=5",
                "8 (999) 123-45-67 доб. 5",
            ],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "give e.g. +79991234567 or name@example.com",
            "RU",
            &[
                "+7999123456",
                "+799912345678",
                "hello",
                "+",
                "112",
                "+999 12345678",
                "example.com",
                "🙂",
            ],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "or give its region",
            "",
            &["9991234567", "8 (999) 123-45-67", "89991234567"],
        ),
    ])
}

/// E-mail addresses that are none.
fn addresses() -> Vec<Case> {
    let long_local_part = format!("{}@example.com", "a".repeat(65));
    let long_domain = format!("a@{}com", "abcdefgh.".repeat(30));
    each_of(&[
        (
            "RECIPIENT_INVALID",
            "recipient",
            "the part of the e-mail address before the \"@\"",
            "",
            &[
                "@example.com",
                "a..b@example.com",
                ".a@example.com",
                "a b@example.com",
                "почта@example.com",
                "a@b@example.com",
                "\"a\"@example.com",
                "Ann <ann@example.com>",
                &long_local_part,
            ],
        ),
        (
            "RECIPIENT_INVALID",
            "recipient",
            "the domain of the e-mail address",
            "",
            &[
                "a@",
                "a@localhost",
                "a@example..com",
                "a@-example.com",
                "a@127.0.0.1",
                "a@[127.0.0.1]",
                "a@exa mple.com",
                "a@example.com.",
                &long_domain,
            ],
        ),
    ])
}

/// Names of things that are none.
fn names() -> Vec<Case> {
    let long = "9".repeat(10_240);
    let purpose_33 = "a".repeat(33);
    each_of(&[
        (
            "PURPOSE_INVALID",
            "purpose",
            "a small letter and then",
            "",
            &[
                "Login",
                "1a",
                "-a",
                "a b",
                "a.b",
                "логин",
                "a\0",
                " login",
                &purpose_33,
                &long,
            ],
        ),
        (
            "REQUEST_INVALID",
            "region",
            "give e.g. RU",
            "",
            &["ZZ", "R", "RUS", "РФ", "R\0", "7", "001", &long],
        ),
        (
            "REQUEST_INVALID",
            "locale",
            "give e.g. \"ru\"",
            "",
            &[
                "r",
                "1",
                "en_GB",
                "en-",
                "-en",
                "русский",
                "ru\n",
                "en-toolongasubtag",
                &long,
            ],
        ),
    ])
}

/// Texts as people type them, and as programs pass them on.
fn codes_and_ids() -> Vec<Case> {
    let long = "9".repeat(10_240);
    let request_id_129 = "r".repeat(129);
    let challenge_id_257 = "c".repeat(257);
    each_of(&[
        (
            "REQUEST_INVALID",
            "client_ip",
            "give e.g. 203.0.113.7",
            "",
            &[
                "localhost",
                "1.2.3",
                "1.2.3.256",
                "::g",
                "1.2.3.4:80",
                " 1.2.3.4",
                "1.2.3.0/24",
                "[::1]",
                &long,
            ],
        ),
        (
            "REQUEST_INVALID",
            "request_id",
            "at most 128 visible ASCII characters",
            "",
            &["a b", " ", "a\t", "ключ", "a\0", &request_id_129, &long],
        ),
        (
            "CODE_MALFORMED",
            "code",
            "give the digits",
            "",
            &["", "   ", "--", "\u{200b}"],
        ),
        (
            "CODE_MALFORMED",
            "code",
            "a code has",
            "",
            &[
                "abcdef",
                "12345a",
                "12.34",
                "½",
                "12\u{7}34",
                "12\u{0}56",
                "١٢٣x",
                &long,
            ],
        ),
        (
            "REQUEST_INVALID",
            "challenge_id",
            "at most 256 visible ASCII characters",
            "",
            &["ключ", "a b", "a\0", "\u{7f}", &challenge_id_257, &long],
        ),
    ])
}
