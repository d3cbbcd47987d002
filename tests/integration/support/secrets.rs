//! Leak scanner: finds secrets in a text or file, in every encoding.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// Minimum length of a secret in bytes.
const PREFIX: usize = 5;

/// The bytes of a text in hexadecimal digits.
pub fn hex(text: &str) -> String {
    hex_of(text.as_bytes())
}

/// Bytes in hexadecimal digits.
pub fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

/// Texts that must be nowhere.
#[derive(Default)]
pub struct Secrets {
    /// The forms to search for and the secrets that they show, by their first bytes.
    needles: HashMap<[u8; PREFIX], BTreeMap<Vec<u8>, BTreeSet<String>>>,
}

impl Secrets {
    pub fn add(&mut self, secret: &str) {
        let bytes = secret.as_bytes();
        self.add_form(secret, "as it is", bytes.to_vec());
        let hex = hex(secret);
        self.add_form(secret, "in hex", hex.to_uppercase().into_bytes());
        self.add_form(secret, "in hex", hex.into_bytes());
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        self.add_form(secret, "as bytes", list.join(", ").into_bytes());
        // The base64 form of a text depends on the number of bytes before it; its last characters
        // depend on the bytes after it.
        for (before, blurred) in [(0, 0), (1, 2), (2, 3)] {
            let padded = [&[0; 2][..before], bytes].concat();
            let encoded = STANDARD_NO_PAD.encode(&padded);
            let needle = &encoded[blurred..padded.len() * 8 / 6];
            self.add_form(secret, "in base64", needle.as_bytes().to_vec());
        }
        // SQLite stores a number from 2^31 on like this.
        if let Ok(number) = secret.parse::<u64>()
            && secret.len() >= 10
        {
            let stored = number.to_be_bytes()[2..].to_vec();
            self.add_form(secret, "as a number", stored);
        }
    }

    /// Adds the secrets of `other`.
    pub fn absorb(&mut self, other: Self) {
        for (prefix, needles) in other.needles {
            let ours = self.needles.entry(prefix).or_default();
            for (bytes, shown) in needles {
                ours.entry(bytes).or_default().extend(shown);
            }
        }
    }

    fn add_form(&mut self, secret: &str, form: &'static str, bytes: Vec<u8>) {
        let prefix = *bytes.first_chunk().expect("a secret is not so short");
        let needles = self.needles.entry(prefix).or_default();
        let shown = needles.entry(bytes).or_default();
        shown.insert(format!("{secret} {form}"));
    }

    /// The secrets in a file that is no text.
    pub fn in_bytes(&self, haystack: &[u8]) -> BTreeSet<String> {
        self.find(haystack, |_, _| true)
    }

    /// The secrets in a text. Digits inside a longer hexadecimal or decimal number
    /// are not taken for a secret: among millions of them some are one by chance.
    pub fn in_text(&self, haystack: &str) -> BTreeSet<String> {
        let haystack = haystack.as_bytes();
        let in_number = |at: Option<usize>| {
            at.and_then(|at| haystack.get(at))
                .is_some_and(u8::is_ascii_hexdigit)
        };
        self.find(haystack, |start, end| {
            let number = haystack[start..end].iter().all(u8::is_ascii_digit) && end - start < 16;
            !number || !in_number(start.checked_sub(1)) && !in_number(Some(end))
        })
    }

    fn find(&self, haystack: &[u8], counts: impl Fn(usize, usize) -> bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (start, prefix) in haystack.windows(PREFIX).enumerate() {
            for (bytes, shown) in self.needles.get(prefix).into_iter().flatten() {
                let end = start + bytes.len();
                if haystack[start..].starts_with(bytes) && counts(start, end) {
                    found.extend(shown.iter().cloned());
                }
            }
        }
        found
    }
}
