//! Texts of messages, as operators write them.

use std::{collections::BTreeMap, time::Duration};

use config::{Map, Value, ValueKind};
use otpd_delivery::text::{Locale, MessageTemplates, PurposeTextSettings, RenderContext};
use otpd_rules::{Channel, OtpCode, PolicySet, Purpose};

use crate::bytes::Bytes;

/// Maximum length of a rendered text.
const MAX_BYTES: usize = 2_000_000;
const CHANNELS: [Channel; 5] = [
    Channel::Sms,
    Channel::Email,
    Channel::Voice,
    Channel::WhatsApp,
    Channel::Telegram,
];

/// Checks that a valid text shows the code in every message, the same one each time, and
/// is not endless, and that an invalid one returns one line with its key.
///
/// The input is a choice, and then the plain text, that of an SMS, the subject, the HTML
/// and the value of a variable, with zeros between.
/// and the value of a variable, with zeros between.
pub fn template(data: &[u8]) {
    let mut input = Bytes(data);
    let choice = input.byte();
    let variable = table([
        ("required", (choice & 1 == 1).into()),
        ("max_length", u64::from(input.byte()).into()),
        ("allow_links", (choice & 2 == 2).into()),
    ]);
    let written = [("plain", 0), ("sms", 4), ("subject", 8), ("html", 16)];
    let written: BTreeMap<&str, String> = written
        .into_iter()
        .map(|(field, bit)| (field, bit, input.text()))
        .filter(|(_, bit, _)| choice & bit == *bit)
        .map(|(field, _, text)| (field, text))
        .collect();
    let value = input.text();
    let html_source = written.get("html").cloned().unwrap_or_default();
    let written = written
        .into_iter()
        .map(|(field, text)| (field, text.into()));
    let given = |bit: u8, text: &str| Value::from(if choice & bit == bit { text } else { "" });
    let settings = table([
        ("origin", given(32, "example.com")),
        ("android_hash", given(64, "FA+9qCX9VSu")),
        ("variables", table([("name", variable)])),
        ("en", table(written)),
    ]);
    let settings: PurposeTextSettings = settings.try_deserialize().expect("all keys are known");
    let purpose = Purpose::default();
    let settings = BTreeMap::from([(purpose.clone(), settings)]);
    let texts = match MessageTemplates::new(&Locale::default(), &settings, &PolicySet::default()) {
        Ok(texts) => texts,
        Err(error) => {
            let problem = error.to_string();
            assert!(
                problem.starts_with("texts.default."),
                "{problem} names no key"
            );
            return;
        }
    };
    let code = OtpCode::from_digits("481516").expect("these are digits");
    let variables = BTreeMap::from([("name".to_owned(), value)]);
    for channel in CHANNELS {
        for seconds in [1, 299] {
            let facts = RenderContext {
                code: &code,
                life_left: Duration::from_secs(seconds),
                variables: &variables,
            };
            let text = texts.render(&purpose, "en", channel, &facts);
            assert_eq!(text, texts.render(&purpose, "en", channel, &facts));
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    let problem = error.to_string();
                    assert!(!problem.contains("481516"), "{problem} shows the code");
                    continue;
                }
            };
            let shown: String = text.plain.chars().filter(char::is_ascii_digit).collect();
            assert!(shown.contains("481516"), "no code in {:?}", text.plain);
            assert_eq!(text.subject.is_some(), channel == Channel::Email);
            let html = text.html.as_deref().unwrap_or_default();
            let subject = text.subject.as_deref().unwrap_or_default();
            assert!(!subject.contains(['\r', '\n']), "a subject is one line");
            for part in [&text.plain, html, subject] {
                assert!(part.len() <= MAX_BYTES, "{} bytes", part.len());
            }
            is_escaped(&html_source, html);
            if channel == Channel::Sms {
                is_sms(&text.plain, choice);
            }
        }
    }
}

/// Checks that the lines for browsers and phones are in their places in an SMS.
fn is_sms(text: &str, choice: u8) {
    if choice & 32 == 32 {
        assert!(text.ends_with("\n@example.com #481516"), "{text:?}");
    }
    if choice & 64 == 64 {
        assert!(text.contains("\nFA+9qCX9VSu"), "{text:?}");
    }
}

/// Returns a table of the configuration.
fn table<'k>(keys: impl IntoIterator<Item = (&'k str, Value)>) -> Value {
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
    ValueKind::Table(keys.collect::<Map<_, _>>()).into()
}

/// Checks that values add no tags to HTML that only shows them.
fn is_escaped(source: &str, html: &str) {
    let tags = |text: &str| text.matches('<').count();
    assert!(
        source.contains('|') || source.contains("{%") || tags(html) <= tags(source),
        "{html:?} is not escaped"
    );
}
