//! Messages in JSON: reads a request, and names the field of an error.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::super::codec::{UNNAMED, field_named};
use crate::service::ServiceError;

/// Decodes a message.
///
/// # Errors
/// The field and its problem. The error never contains text from the request.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, ServiceError> {
    // serde would read an array as well, as the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let problem = "must be a JSON object, such as {\"recipient\": \"+79991234567\"}";
        return Err(ServiceError::request("request", problem));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let message = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        invalid(field_at(&path), error.inner())
    })?;
    json.end().map_err(|error| invalid("request", &error))?;
    Ok(message)
}

/// Returns the field at a path, with the field that contains its message if that is one of the
/// contract.
fn field_at(path: &str) -> &'static str {
    let ends = path.match_indices(['.', '[']).map(|(end, _)| end);
    let mut ends: Vec<usize> = ends.chain([path.len()]).collect();
    ends.truncate(2);
    let named = ends.into_iter().rev().map(|end| field_named(&path[..end]));
    let mut named = named.filter(|field| *field != UNNAMED);
    named.next().unwrap_or(UNNAMED)
}

fn invalid(field: &'static str, error: &serde_json::Error) -> ServiceError {
    let (line, column) = (error.line(), error.column());
    let problem = match error.classify() {
        Category::Data => return typed(field, &error.to_string()),
        Category::Eof => "the JSON ends too early".to_owned(),
        Category::Syntax | Category::Io => {
            format!("not valid JSON, at line {line} column {column}")
        }
    };
    ServiceError::request(field, problem)
}

/// Returns the problem in an error of serde, without the name that the request has, which may
/// be a misplaced value.
fn typed(field: &'static str, error: &str) -> ServiceError {
    const KNOWN: &str = "`, expected one of ";
    let text = error
        .rsplit_once(" at line ")
        .map_or(error, |(text, _)| text);
    if text.starts_with("unknown field")
        && let Some(known) = text.rfind(KNOWN)
    {
        let known = &text[known + KNOWN.len()..];
        return ServiceError::request(field, format!("unknown field; the fields are {known}"));
    }
    if let Some(name) = text.strip_prefix("duplicate field ") {
        let name = name.trim_matches('`');
        let field = match field {
            UNNAMED => field_named(name),
            outer => field_named(&format!("{outer}.{name}")),
        };
        return ServiceError::request(field, "is given twice");
    }
    // A type that has no reader in `otpd_contract::json`; the text has the value.
    let is_foreign = text.starts_with("invalid") || text.starts_with("unknown");
    let problem = if is_foreign {
        "not of the type that the contract has"
    } else {
        text
    };
    ServiceError::request(field, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::v1::{
        CancelOtpRequest, Channel, Delivery, DeliveryState, GetOtpStatusResponse, SendOtpRequest,
        VerifyOtpRequest, VerifyOtpResponse,
    };

    /// Returns the field and the problem of a message that cannot be read.
    fn refused<M: DeserializeOwned>(text: &str) -> (&'static str, String) {
        match decode::<M>(text.as_bytes()) {
            Err(ServiceError::Request { field, problem }) => (field, problem),
            Err(error) => panic!("{text}: {error}"),
            Ok(_) => panic!("{text} is accepted"),
        }
    }

    #[test]
    fn both_names_of_a_field_are_read() {
        let expected = SendOtpRequest {
            recipient: "+79991234567".to_owned(),
            channel: Channel::Telegram.into(),
            client_ip: "203.0.113.7".to_owned(),
            request_id: "r".to_owned(),
            variables: [("name".to_owned(), "Ann".to_owned())].into(),
            ..Default::default()
        };
        for text in [
            r#"{"recipient":"+79991234567","channel":"CHANNEL_TELEGRAM","clientIp":"203.0.113.7","requestId":"r","variables":{"name":"Ann"}}"#,
            r#" {"recipient":"+79991234567","channel":5,"client_ip":"203.0.113.7","request_id":"r","variables":{"name":"Ann"},"locale":null,"purpose":""} "#,
        ] {
            assert_eq!(
                decode::<SendOtpRequest>(text.as_bytes()).unwrap(),
                expected,
                "{text}"
            );
        }
        let nulls = r#"{"recipient":null,"channel":null,"variables":null}"#;
        assert_eq!(
            decode::<SendOtpRequest>(nulls.as_bytes()).unwrap(),
            SendOtpRequest::default()
        );
        let switch = decode::<CancelOtpRequest>(br#"{"resetFailures":true}"#).unwrap();
        assert!(switch.reset_failures);
    }

    #[test]
    fn numbers_in_place_of_texts_are_refused_with_the_remedy() {
        for (text, field) in [
            (r#"{"recipient":"+79991234567","code":443883}"#, "code"),
            (r#"{"recipient":79991234567,"code":"443883"}"#, "recipient"),
            (r#"{"code":4.5e3}"#, "code"),
            (r#"{"challengeId":443883}"#, "challenge_id"),
            (r#"{"client_ip":1}"#, "client_ip"),
        ] {
            let (named, problem) = refused::<VerifyOtpRequest>(text);
            assert_eq!(named, field, "{text}");
            assert!(problem.contains("write it in quotes"), "{text}: {problem}");
            assert!(!problem.contains("44"), "{text}: {problem}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn unreadable_messages_are_refused_without_their_text() {
        let deep = format!("{{\"recipient\":{}{}}}", "[".repeat(500), "]".repeat(500));
        for (text, field, part) in [
            ("", "request", "must be a JSON object"),
            ("null", "request", "must be a JSON object"),
            (r#"["+79994438831"]"#, "request", "must be a JSON object"),
            (r#""+79994438831""#, "request", "must be a JSON object"),
            ("{", "request", "ends too early"),
            (r#"{"recipient":"+7999443"#, "recipient", "ends too early"),
            (r#"{"recipient":"x"} {"#, "request", "not valid JSON"),
            (r#"{"recipient":"x",}"#, "request", "not valid JSON"),
            (r"{recipient:'4438'}", "request", "not valid JSON"),
            (
                r#"{"recipient":"\ud800443"}"#,
                "recipient",
                "not valid JSON",
            ),
            (
                r#"{"+79994438831":"x"}"#,
                "request",
                "unknown field; the fields are `recipient`",
            ),
            (
                r#"{"`, expected one of 4438":"x"}"#,
                "request",
                "unknown field; the fields are `recipient`",
            ),
            (
                r#"{"recipient":"4438","recipient":"x"}"#,
                "recipient",
                "given twice",
            ),
            (
                r#"{"requestId":"4438","request_id":"x"}"#,
                "request_id",
                "given twice",
            ),
            (
                r#"{"recipient":["4438"]}"#,
                "recipient",
                "must be a JSON string",
            ),
            (
                r#"{"recipient":{"4438":"4438"}}"#,
                "recipient",
                "must be a JSON string",
            ),
            (
                r#"{"recipient":true}"#,
                "recipient",
                "must be a JSON string",
            ),
            (
                r#"{"channel":"4438"}"#,
                "channel",
                "must be one of CHANNEL_UNSPECIFIED, CHANNEL_SMS,",
            ),
            (r#"{"channel":4438.5}"#, "channel", "must be one of"),
            (r#"{"channel":44388888888}"#, "channel", "must be one of"),
            (
                r#"{"variables":["4438"]}"#,
                "variables",
                "must be a JSON object",
            ),
            (
                r#"{"variables":"4438"}"#,
                "variables",
                "must be a JSON object",
            ),
            (
                r#"{"variables":4438}"#,
                "variables",
                "must be a JSON object",
            ),
            (
                r#"{"variables":{"a":4438}}"#,
                "variables",
                "must be a JSON object",
            ),
            (
                r#"{"variables":{"a":null}}"#,
                "variables",
                "must be a JSON object",
            ),
            (
                r#"{"variables":{"a":"4438","a":"b"}}"#,
                "variables",
                "one name twice",
            ),
            (&deep, "recipient", "not valid JSON"),
        ] {
            let (named, problem) = refused::<SendOtpRequest>(text);
            assert_eq!(named, field, "{text}: {problem}");
            assert!(problem.contains(part), "{text}: {problem}");
            assert!(!problem.contains("443"), "{text}: {problem}");
        }
        let (field, problem) = refused::<CancelOtpRequest>(r#"{"resetFailures":"4438"}"#);
        assert_eq!(
            (field, &*problem),
            ("reset_failures", "must be true or false, without quotes")
        );
        let (field, _) = refused::<SendOtpRequest>("{\"recipient\":\"\u{0}\"}");
        assert_eq!(field, "recipient");
    }

    #[test]
    fn replies_have_every_value_except_unset_texts_and_times() {
        let at = Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 418_000_000,
        });
        let delivery = Delivery {
            state: DeliveryState::Sent.into(),
            channel: 99,
            created_at: at,
            ..Default::default()
        };
        let status = GetOtpStatusResponse {
            deliveries: vec![delivery],
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"live":false,"attemptsRemaining":0,"deliveries":[{"channel":99,"state":"DELIVERY_STATE_SENT","createdAt":"2023-11-14T22:13:20.418Z","attempts":0}]}"#
        );
        assert_eq!(
            serde_json::to_string(&VerifyOtpResponse::default()).unwrap(),
            r#"{"verified":false,"outcome":"VERIFY_OUTCOME_UNSPECIFIED","attemptsRemaining":0}"#
        );
    }
}
