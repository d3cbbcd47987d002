//! Lines by which browsers and apps read a code from an SMS.

use otpd_rules::OtpCode;

/// Maximum length of a host name: RFC 1035, section 2.3.4, without the root's dot.
const MAX_HOST_BYTES: usize = 253;
/// Length of Android's hash: the first 11 characters of a digest in base64.
const HASH_LENGTH: usize = 11;

/// Lines that are appended to an SMS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Autofill {
    /// Host name of the site with the form.
    pub origin: Option<String>,
    /// Hash of the Android app that may read the code.
    pub android_hash: Option<String>,
}

/// Parses the host name of a site; empty means none. An error describes the problem.
pub(super) fn origin(host: &str) -> Result<Option<String>, &'static str> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.is_empty() {
        Ok(None)
    } else if host.len() <= MAX_HOST_BYTES && host.split('.').all(is_label) {
        Ok(Some(host.to_ascii_lowercase()))
    } else {
        Err(
            "not a host name; give only that of the site, such as example.com, without https://, port or path; write letters other than a to z in the xn-- form",
        )
    }
}

/// Parses Android's hash of an app; empty means none. An error describes the problem.
pub(super) fn android_hash(hash: &str) -> Result<Option<String>, &'static str> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if hash.is_empty() {
        Ok(None)
    } else if hash.len() == HASH_LENGTH && hash.bytes().all(is_base64) {
        Ok(Some(hash.to_owned()))
    } else {
        Err(
            "not the hash of an Android app, which is 11 letters, digits, \"+\" or \"/\", such as FA+9qCX9VSu",
        )
    }
}

impl Autofill {
    /// Appends the lines to `text`. The line for browsers is the last one, because no
    /// other may follow it.
    pub fn append(&self, text: &mut String, code: &OtpCode) {
        if let Some(hash) = &self.android_hash {
            text.push('\n');
            text.push_str(hash);
        }
        if let Some(origin) = &self.origin {
            text.push_str("\n@");
            text.push_str(origin);
            text.push_str(" #");
            text.push_str(code.expose());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autofill_domain_must_be_a_host_name() {
        assert_eq!(origin(""), Ok(None));
        for host in [
            "example.com",
            "a.b-c.example",
            "localhost",
            "xn--e1afmkfd.xn--p1ai",
        ] {
            assert_eq!(origin(host), Ok(Some(host.to_owned())));
        }
        assert_eq!(origin("Example.COM"), Ok(Some("example.com".to_owned())));
        let long = format!("{}com", "a.".repeat(126));
        for bad in [
            "https://example.com",
            "example.com/",
            "example.com:443",
            "@example.com",
            "example.com.",
            ".example.com",
            "a..b",
            "-a.com",
            "exa mple.com",
            "пример.рф",
            "example.com #1",
            "example.com\n",
            long.as_str(),
        ] {
            assert!(origin(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn app_hash_is_eleven_base64_characters() {
        assert_eq!(android_hash(""), Ok(None));
        assert_eq!(
            android_hash("FA+9qCX9VSu"),
            Ok(Some("FA+9qCX9VSu".to_owned()))
        );
        for bad in [
            "FA+9qCX9VS",
            "FA+9qCX9VSu=",
            "FA-9qCX9VSu",
            "FA+9qCX9VS ",
            "ФА+9qCX9V",
        ] {
            assert!(android_hash(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn browser_autofill_line_is_last() {
        let code = OtpCode::from_digits("012345").unwrap();
        let appended = |origin: Option<&str>, hash: Option<&str>| {
            let mut text = "Hello".to_owned();
            let autofill = Autofill {
                origin: origin.map(str::to_owned),
                android_hash: hash.map(str::to_owned),
            };
            autofill.append(&mut text, &code);
            text
        };
        assert_eq!(appended(None, None), "Hello");
        assert_eq!(
            appended(Some("example.com"), None),
            "Hello\n@example.com #012345"
        );
        assert_eq!(appended(None, Some("FA+9qCX9VSu")), "Hello\nFA+9qCX9VSu");
        assert_eq!(
            appended(Some("example.com"), Some("FA+9qCX9VSu")),
            "Hello\nFA+9qCX9VSu\n@example.com #012345"
        );
    }
}
