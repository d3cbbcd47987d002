//! Short names of the configuration and of requests.

use otpd_delivery::text::Locale;
use otpd_rules::{CallerName, Channel, Purpose, Recipient, RecipientPattern, Region};

/// Checks that a valid name is written as it was, except for its case, and means one
/// thing.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(purpose) = Purpose::parse(text) {
        assert_eq!(
            purpose.as_str(),
            if text.is_empty() { "default" } else { text }
        );
        assert!(purpose.as_str().len() <= 32 && purpose.as_str().is_ascii());
    }
    if let Ok(locale) = Locale::parse(text) {
        assert_eq!(locale.as_str(), text.to_ascii_lowercase());
        assert_eq!(Locale::parse(locale.as_str()), Ok(locale));
    }
    if let Some(channel) = Channel::from_name(text) {
        assert_eq!(channel.to_string(), text);
    }
    if let Ok(region) = text.parse::<Region>() {
        assert_eq!(text.to_ascii_lowercase().parse(), Ok(region));
        assert_eq!(text.parse(), Ok(RecipientPattern::Region(region)));
    }
    if let Ok(destination) = text.parse::<RecipientPattern>() {
        let written = match &destination {
            RecipientPattern::All => "*",
            RecipientPattern::Email => "email",
            RecipientPattern::Prefix(prefix) => prefix,
            RecipientPattern::Region(_) => text,
        };
        assert_eq!(written, text);
        let address = Recipient::from_canonical("ann@example.com".to_owned());
        let is_of_addresses =
            matches!(destination, RecipientPattern::All | RecipientPattern::Email);
        assert_eq!(destination.contains(&address), is_of_addresses);
    }
    assert_eq!(CallerName::new(text).as_str(), text);
}
