//! Templates, conditions and the check of addresses.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    GatewayResponse, HttpSettings, HttpTable,
    condition::{MatchCount, Predicate, ReplyCondition, StatusRange},
    template::{TemplateScope, TemplateValues, ValueTemplate},
};
use crate::public_ip::is_public;
use crate::{AttemptProgress, MessageBody, OutgoingMessage};
use otpd_rules::{ChallengeId, ChallengeNonce, Channel, MessageId, OtpCode, Recipient, RecordKey};

/// Calls `use_it` with the values of a message with that text to that recipient.
fn with_values<T>(to: &str, text: &str, use_it: impl FnOnce(&TemplateValues<'_>) -> T) -> T {
    let recipient = Recipient::from_canonical(to.to_owned());
    let code = OtpCode::from_digits("481516").expect("six digits");
    let text = MessageBody {
        plain: text.to_owned(),
        subject: None,
        html: None,
    };
    let message = OutgoingMessage {
        id: MessageId([7; 16]),
        challenge_id: ChallengeId {
            key: RecordKey([9; 32]),
            nonce: ChallengeNonce([9; 16]),
        },
        recipient: &recipient,
        channel: Channel::Sms,
        code: &code,
        text: &text,
        life_left: Duration::from_millis(90_900),
        locale: "ru",
        client_ip: "2001:db8::1".parse().ok(),
        traceparent: None,
        progress: AttemptProgress::default(),
    };
    let no_bounds = (Duration::ZERO, Duration::MAX);
    use_it(&TemplateValues::new(&message, no_bounds.0, no_bounds.1))
}

fn names() -> TemplateScope {
    TemplateScope {
        secrets: [("key".to_owned(), "s e/cret".into())].into(),
        parameters: [("sender".to_owned(), "Shop {x}".to_owned())].into(),
    }
}

fn parse(text: &str) -> Result<ValueTemplate, String> {
    ValueTemplate::parse(text, &names())
}

#[test]
fn placeholders_are_replaced_and_braces_can_be_escaped() {
    for (template, expected) in [
        ("{to_e164}|{to_digits}", "+79991234567|79991234567"),
        ("{code}{ttl_seconds}", "48151690"),
        ("{client_ip} {locale}", "2001:db8::1 ru"),
        ("{message_id}", "07070707070707070707070707070707"),
        ("{secrets.key}, {parameters.sender}", "s e/cret, Shop {x}"),
        ("{{\"a\": \"{text}\"}}", "{\"a\": \"{code} & Ж\"}"),
        ("", ""),
    ] {
        let rendered = with_values("+79991234567", "{code} & Ж", |values| {
            parse(template).expect(template).render(values)
        });
        assert_eq!(rendered, expected, "{template}");
    }
}

#[test]
fn unknown_placeholder_is_reported() {
    for (template, expected) in [
        ("{to}", "{to}"),
        ("{secrets.other}", "{secrets.other}"),
        ("{parameters.other}", "{parameters.other}"),
        ("{ code }", "{ code }"),
        ("{code", "brace"),
        ("code}", "brace"),
        ("{}", "{}"),
    ] {
        let problem = parse(template).expect_err(template);
        assert!(problem.contains(expected), "{template}: {problem}");
    }
}

#[test]
fn values_are_escaped_by_context() {
    with_values("+79991234567", "a/b?c&d=~%Ж\"", |values| {
        let template = parse("/x/{text}/{secrets.key}").expect("known names");
        assert_eq!(
            template.render_in_url(values),
            "/x/a%2Fb%3Fc%26d%3D~%25%D0%96%22/s%20e%2Fcret"
        );
        assert_eq!(
            parse("/x/{text}")
                .expect("known names")
                .render_in_pointer(values),
            "/x/a~1b?c&d=~0%Ж\""
        );
    });
}

#[test]
fn conditions_compare_values_by_their_written_form() {
    let reply = json!({
        "number": 100, "text": "100", "truth": true, "nothing": null, "float": 0.5,
        "sms": { "79991234567": { "a/b~c": "OK" } },
        "list": [{ "status": "0" }],
    });
    let equals = |value: &str| Predicate::Equals(value.to_owned());
    let some = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (pointer, test, expected) in [
        ("/number", equals("100"), true),
        ("/text", equals("100"), true),
        ("/text", equals("100.0"), false),
        ("/truth", equals("true"), true),
        ("/nothing", equals(""), false),
        ("/sms/{to_digits}/a~1b~0c", equals("OK"), true),
        ("/sms/{to_e164}/a~1b~0c", equals("OK"), false),
        ("/list/0/status", equals("0"), true),
        ("/list/1/status", equals("0"), false),
        ("/number", Predicate::OneOf(some(&["1", "100"])), true),
        ("/number", Predicate::OneOf(some(&["1", "10"])), false),
        ("/number", Predicate::NotOneOf(some(&["1", "100"])), false),
        ("/number", Predicate::NotOneOf(some(&["1", "10"])), true),
        // A value that does not exist proves nothing.
        ("/absent", Predicate::NotOneOf(some(&["1"])), false),
        ("/nothing", Predicate::Present, false),
        ("/sms", Predicate::Present, true),
        ("/nothing", Predicate::Absent, true),
        ("/absent", Predicate::Absent, true),
        ("/sms", Predicate::Absent, false),
        ("/number", Predicate::GreaterThan(99.9), true),
        ("/number", Predicate::GreaterThan(100.0), false),
        ("/text", Predicate::GreaterThan(0.0), true),
        ("/float", Predicate::GreaterThan(0.4), true),
        ("/truth", Predicate::GreaterThan(0.0), false),
        ("/absent", Predicate::GreaterThan(-1.0), false),
    ] {
        let condition = ReplyCondition {
            pointer: parse(pointer).expect("known names"),
            test,
        };
        let holds = with_values("+79991234567", "", |values| condition.holds(&reply, values));
        let expected = if expected {
            MatchCount::Everywhere
        } else {
            MatchCount::Nowhere
        };
        assert_eq!(holds, expected, "{pointer} {:?}", condition.test);
    }
    let pointer = parse("/x").expect("no names");
    let test = Predicate::Present;
    let holds = ReplyCondition { pointer, test }.holds(&Value::Null, &TemplateValues::default());
    assert_eq!(holds, MatchCount::Nowhere);
}

#[test]
fn wildcard_step_matches_all_some_or_none() {
    let reply = json!({
        "all": [{ "status": "0" }, { "status": 0 }],
        "part": [{ "status": "0" }, { "status": "1" }],
        "gap": [{ "status": "0" }, {}],
        "none": [{ "status": "2" }],
        "empty": [],
        "text": "0",
        "members": { "a": { "status": 0 }, "b": { "status": 0 } },
        "nested": [{ "parts": [0, 0] }, { "parts": [0, 1] }],
        "hollow": [{ "parts": [0] }, { "parts": [] }],
        "*": { "status": 0 },
    });
    let zero = || Predicate::Equals("0".to_owned());
    for (pointer, test, expected) in [
        ("/all/*/status", zero(), MatchCount::Everywhere),
        ("/part/*/status", zero(), MatchCount::Partly),
        ("/gap/*/status", zero(), MatchCount::Partly),
        ("/none/*/status", zero(), MatchCount::Nowhere),
        ("/empty/*/status", zero(), MatchCount::Nowhere),
        ("/empty/*", Predicate::Absent, MatchCount::Everywhere),
        ("/absent/*/status", zero(), MatchCount::Nowhere),
        (
            "/absent/*/status",
            Predicate::Absent,
            MatchCount::Everywhere,
        ),
        ("/text/*", zero(), MatchCount::Nowhere),
        ("/members/*/status", zero(), MatchCount::Everywhere),
        ("/nested/*/parts/*", zero(), MatchCount::Partly),
        ("/hollow/*/parts/*", zero(), MatchCount::Partly),
        ("/all/*/status", Predicate::Present, MatchCount::Everywhere),
        ("/gap/*/status", Predicate::Absent, MatchCount::Partly),
        // A value is a step as it is written.
        ("/{text}/status", zero(), MatchCount::Everywhere),
        ("/members/{text}/status", zero(), MatchCount::Nowhere),
    ] {
        let condition = ReplyCondition {
            pointer: parse(pointer).expect("known names"),
            test,
        };
        let holds = with_values("+79991234567", "*", |values| {
            condition.holds(&reply, values)
        });
        assert_eq!(holds, expected, "{pointer} {:?}", condition.test);
    }
}

#[test]
fn status_patterns_are_single_codes_or_ranges() {
    for (text, inside, outside) in [("200", 200, 201), ("200..299", 299, 300)] {
        let statuses = StatusRange::try_from(text.to_owned()).expect(text);
        assert!(
            statuses.contain(inside) && !statuses.contain(outside),
            "{text}"
        );
    }
    for bad in ["", "2", "600", "299..200", "200..", "all", "200-299"] {
        assert!(StatusRange::try_from(bad.to_owned()).is_err(), "{bad}");
    }
}

#[test]
fn non_public_addresses_are_recognized() {
    for private in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a00:1",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
    ] {
        assert!(
            !is_public(private.parse().expect("an address")),
            "{private}"
        );
    }
    for public in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "128.0.0.1",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "2001:200::1",
        "2001:4860:4860::8888",
    ] {
        assert!(is_public(public.parse().expect("an address")), "{public}");
    }
}

#[test]
fn gateway_text_that_echoes_the_message_is_detected() {
    with_values("+79991234567", "Code: 481516", |values| {
        for shows in [
            "481516 is bad",
            "48-15-16",
            "bad number 8 999 123-45-67",
            "1234567",
            "Code: 481516!",
            "at 2001:DB8::1",
        ] {
            assert!(values.appear_in(shows), "{shows}");
        }
        for fine in ["21211", "PHONE_NUMBER_INVALID", "error 4567", ""] {
            assert!(!values.appear_in(fine), "{fine}");
        }
    });
    with_values("ann@example.com", "", |values| {
        assert!(values.appear_in("no ANN@example.com here"));
        assert!(!values.appear_in("21211"));
    });
}

#[test]
fn message_id_that_echoes_the_message_is_omitted() {
    let table = HttpTable {
        url: Some("https://gateway.example/".to_owned()),
        id_pointer: Some("/id".to_owned()),
        secrets: [("key".to_owned(), "s3cret".into())].into(),
        ..HttpTable::default()
    };
    let settings = HttpSettings::new(table, Duration::from_secs(5)).expect("it is sound");
    for (id, kept) in [
        ("aaaa-0042", true),
        ("to-79991234567", false),
        ("481516", false),
        ("key:S3CRET", false),
        ("2001:db8::1", false),
    ] {
        let response = GatewayResponse::new(200, json!({ "id": id }).to_string().as_bytes());
        let accepted = with_values("+79991234567", "", |values| {
            settings.outcome(&response, values)
        });
        let provider_id = accepted.expect("it is a good reply").provider_id;
        assert_eq!(provider_id.as_deref(), kept.then_some(id));
    }
}
