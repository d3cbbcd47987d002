//! Detection of texts that phones and mail programs show as links.

/// Returns true for full stops that phones and browsers accept in a host name.
fn is_stop(character: char) -> bool {
    matches!(
        character,
        '.' | '\u{2024}' | '\u{3002}' | '\u{FE52}' | '\u{FF0E}' | '\u{FF61}'
    )
}

/// Returns true if a phone or a mail program might show a link. It does for a scheme, for
/// an IPv4 address, and for a full stop between a letter or digit and a word of two or
/// more letters, as in a host name or an address. "J. Smith", "1.500" and "12.05.2026"
/// are no links.
pub(super) fn looks_like_link(value: &str) -> bool {
    const SCHEMES: [&str; 6] = [
        "mailto:",
        "tel:",
        "sms:",
        "javascript:",
        "data:",
        "vbscript:",
    ];
    // Programs that read host names ignore joiners and variation selectors.
    let text: String = value
        .chars()
        .filter(|&character| {
            !matches!(character, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
        })
        .flat_map(char::to_lowercase)
        .collect();
    text.contains("://")
        || text.contains("：//")
        || SCHEMES.iter().any(|scheme| text.contains(scheme))
        || text.split(char::is_whitespace).any(has_host)
}

fn has_host(word: &str) -> bool {
    let characters: Vec<char> = word.chars().collect();
    let mut numbers = 1;
    for (position, &character) in characters.iter().enumerate() {
        if !is_stop(character) {
            continue;
        }
        let before = position
            .checked_sub(1)
            .is_some_and(|before| characters[before].is_alphanumeric());
        let after = &characters[position + 1..];
        let is_word_of_two = after.first().is_some_and(|first| first.is_alphabetic())
            && after
                .get(1)
                .is_some_and(|second| second.is_alphanumeric() || *second == '-');
        if before && is_word_of_two {
            return true;
        }
        numbers += usize::from(before && after.first().is_some_and(|first| first.is_numeric()));
    }
    numbers >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_distinguished_from_names_sums_and_dates() {
        for link in [
            "https://a",
            "HTTP://A",
            "evil.com",
            "see evil.com/now!",
            "EVIL.COM",
            "www.a.b-c",
            "xn--e1afmkfd.xn--p1ai",
            "пример.рф",
            "a@b.example",
            "mailto:a",
            "JavaScript:alert(1)",
            "evil\u{200d}.\u{200d}com",
            "evil。com",
            "ｅｖｉｌ．ｃｏｍ",
            "evil․com",
            "10.0.0.1",
            "http://10.0.0.1/",
            "1.2.3.4:80",
            "(evil.com)",
            "t.me/evil",
            "a.co1",
            "a.c-d",
        ] {
            assert!(looks_like_link(link), "{link}");
        }
        for other in [
            "",
            "Anna Maria",
            "J. R. Smith",
            "J.R.",
            "Smith, J.",
            "1.500,00 €",
            "1.234.567",
            "12.05.2026",
            "18:30",
            "50%",
            "ООО «Ромашка»",
            "O'Brien-Müller",
            "…",
            "Ltd.",
            "и т. д.",
        ] {
            assert!(!looks_like_link(other), "{other}");
        }
    }
}
