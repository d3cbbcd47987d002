//! Cost report of texts, for `otpd check`.

use std::fmt;

use super::{
    Locale, MessageTemplates, PurposeTemplates, PurposeTexts,
    segments::{SmsEncoding, SmsSegments, is_gsm, segments},
    validate::{ANDROID_BYTES, android_bytes},
};
use otpd_rules::Purpose;

/// Maximum number of characters outside GSM-7 that a warning names.
const MAX_NAMED: usize = 5;

/// Maximum cost of an SMS of one purpose in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportLine {
    /// Purpose of the text.
    pub purpose: Purpose,
    /// Language of the text.
    pub locale: Locale,
    /// Key of the text in the configuration.
    pub key: String,
    /// The SMS, with a sample code and variables of the maximum length.
    pub text: String,
    /// Segments of the SMS.
    pub segments: SmsSegments,
    /// Warnings, each on one line.
    pub warnings: Vec<String>,
}

impl fmt::Display for ReportLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} in {}: {} ({})",
            self.purpose, self.locale, self.segments, self.key
        )
    }
}

impl MessageTemplates {
    /// Returns the maximum cost of the SMS of every configured purpose and language.
    /// Purposes that are not configured are like `default`.
    pub fn report(&self) -> Vec<ReportLine> {
        let default = Purpose::default();
        [(&default, &self.general)]
            .into_iter()
            .chain(&self.purposes)
            .flat_map(|(purpose, texts)| {
                self.reachable(texts)
                    .map(|table| self.line(purpose, texts, table))
            })
            .collect()
    }

    fn line(
        &self,
        purpose: &Purpose,
        texts: &PurposeTexts,
        table: &PurposeTemplates,
    ) -> ReportLine {
        let text = self.sample_sms(texts, table, 'x');
        let counted = segments(&text);
        let mut warnings = Vec::new();
        if counted.count > 1 {
            warnings.push(format!(
                "costs as much as {} messages; shorten it by {} to fit one",
                counted.count,
                counted.units - counted.encoding.alone(),
            ));
        }
        warnings.extend(foreign_characters(&text));
        // The letters of the values that callers will give are not known here.
        let foreign = self.sample_sms(texts, table, 'я');
        let costs = segments(&foreign);
        if costs.count > counted.count {
            warnings.push(format!(
                "with values in other letters than those of GSM-7 it takes {costs}"
            ));
        }
        let bytes = android_bytes(&foreign);
        if texts.autofill.android_hash.is_some() && bytes > ANDROID_BYTES {
            warnings.push(format!(
                "with values in other letters than those of GSM-7 it has {bytes} bytes, and Android reads {ANDROID_BYTES}"
            ));
        }
        ReportLine {
            purpose: purpose.clone(),
            locale: table.locale.clone(),
            key: table.key.clone(),
            text,
            segments: counted,
            warnings,
        }
    }
}

/// Names the few characters that make a text UCS-2 which could be GSM-7 without them. A
/// text in another alphabet has no alternative.
fn foreign_characters(text: &str) -> Option<String> {
    if segments(text).encoding == SmsEncoding::Gsm7 {
        return None;
    }
    let letters = text.chars().filter(|letter| letter.is_alphabetic());
    let (gsm, foreign): (Vec<char>, Vec<char>) = letters.partition(|&letter| is_gsm(letter));
    if foreign.len() > gsm.len() {
        return None;
    }
    let mut named: Vec<char> = Vec::new();
    for character in text.chars().filter(|&character| !is_gsm(character)) {
        if !named.contains(&character) {
            named.push(character);
        }
    }
    let more = if named.len() > MAX_NAMED {
        " and more"
    } else {
        ""
    };
    let shown: Vec<String> = named
        .iter()
        .take(MAX_NAMED)
        .map(|&character| format!("{character:?} (U+{:04X})", u32::from(character)))
        .collect();
    Some(format!(
        "is UCS-2, with 70 instead of 160 characters a segment, because of {}{more}",
        shown.join(", ")
    ))
}
