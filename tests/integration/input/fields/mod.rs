//! Invalid fields: each is reported with the field and a remedy, without an effect on
//! others.

mod texts;

use otpd::grpc::v1::{Channel, SendOtpRequest, otp_service_client::OtpServiceClient};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{AnyRequest, Database, Kind, Refusal, Replica, with_bystanders};

const PHONE: &str = "+79990000001";

/// An invalid request with its expected error.
#[derive(Clone, Debug)]
struct Case {
    request: AnyRequest,
    reason: &'static str,
    field: &'static str,
    /// Part of the advice.
    remedy: &'static str,
}

fn channel_cases() -> Vec<Case> {
    let case = |recipient: &str, channel: i32, remedy| Case {
        request: AnyRequest::Send(SendOtpRequest {
            recipient: recipient.to_owned(),
            channel,
            ..Default::default()
        }),
        reason: "REQUEST_INVALID",
        field: "channel",
        remedy,
    };
    let mut cases = vec![case(PHONE, Channel::Email.into(), "leave it unset")];
    for number in [6, 99, -1, i32::MIN, i32::MAX] {
        cases.push(case(PHONE, number, "not a channel of this version"));
    }
    for channel in [
        Channel::Sms,
        Channel::Voice,
        Channel::Whatsapp,
        Channel::Telegram,
    ] {
        cases.push(case("ann@example.com", channel.into(), "leave it unset"));
    }
    cases
}

fn variable_cases() -> Vec<Case> {
    let long_name = "a".repeat(33);
    let long_value = "a".repeat(257);
    let case = |variables: &[(&str, &str)], remedy| Case {
        request: AnyRequest::Send(SendOtpRequest {
            recipient: PHONE.to_owned(),
            variables: variables
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            ..Default::default()
        }),
        reason: "REQUEST_INVALID",
        field: "variables",
        remedy,
    };
    let names: Vec<String> = (0..33).map(|number| format!("name{number}")).collect();
    let too_many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let mut cases = vec![case(&too_many, "at most 32")];
    for name in ["", "1a", "Name", "имя", "a-b", "a b", "a\0", &long_name] {
        cases.push(case(
            &[(name, "value")],
            "a name must be a lower-case letter",
        ));
    }
    for value in ["a\0", "a\nb", "\u{7f}", &long_value] {
        cases.push(case(&[("name", value)], "without control characters"));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_fields_are_rejected_without_affecting_others() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let channel = replica.channel();
    let cases: Vec<Case> = [texts::cases(), channel_cases(), variable_cases()].concat();
    assert!(cases.len() > 200, "{}", cases.len());

    let answers = with_bystanders(&replica, &channel, async {
        let mut calls = JoinSet::new();
        for case in cases {
            let client = OtpServiceClient::new(channel.clone());
            calls.spawn(async move { (case.clone(), case.request.call(client).await) });
        }
        calls.join_all().await
    })
    .await;

    for (case, answer) in answers {
        let status = answer.expect_err(&format!("{case:?}"));
        let refusal = Refusal::of(&status);
        assert_eq!(refusal.code, Code::InvalidArgument, "{case:?}");
        assert_eq!(
            (refusal.reason.as_str(), refusal.field.as_str()),
            (case.reason, case.field),
            "{case:?}"
        );
        assert!(refusal.remedy.contains(case.remedy), "{case:?}: {status:?}");
        assert_eq!(
            status.message(),
            format!("{}: {}", refusal.field, refusal.remedy),
            "the message alone says as much"
        );
        assert!(status.message().len() < 400, "no echo of a long text");
    }
    let codes = "SELECT COUNT(*) FROM otp_record WHERE state = 'live'";
    assert_eq!(database.number(codes).await, 0, "nothing was sent");
}
