use proptest::prelude::*;

use super::*;

fn canonical(written: &str, region: &str) -> Result<String, RecipientError> {
    let region = (!region.is_empty()).then(|| region.parse().expect("a region"));
    Recipient::parse(written, region).map(|recipient| recipient.as_str().to_owned())
}

/// Returns a number with blanks in it, `characters` characters long.
fn stretched(characters: usize) -> String {
    let blanks = " ".repeat(characters - "+79991234567".len());
    format!("+7{blanks}9991234567")
}

#[test]
fn written_forms_of_one_phone_are_one_recipient() {
    for written in [
        "8 (999) 123-45-67",
        "+7 999 123 45 67",
        "9991234567",
        "８９９９１２３４５６７",
        "8\u{202f}999\u{2007}123\u{3000}4567",
        &stretched(MAX_PHONE_CHARACTERS),
    ] {
        assert_eq!(
            canonical(written, "RU").as_deref(),
            Ok("+79991234567"),
            "{written}"
        );
    }
}

#[test]
fn invisible_characters_are_ignored() {
    let marks = "\u{61c}\u{200b}\u{200e}\u{200f}\u{202a}\u{202e}\u{2060}\u{2064}\u{2066}\u{feff}\u{fe0f}\u{ad}";
    for mark in marks.chars().map(String::from) {
        for (plain, region, expected) in [
            ("8 999 123-45-67", "RU", "+79991234567"),
            ("Ann@Example.com", "", "ann@example.com"),
            ("ann@почта.рф", "", "ann@xn--80a1acny.xn--p1ai"),
        ] {
            // Marks between all characters, and around them.
            let inside = plain
                .chars()
                .map(String::from)
                .collect::<Vec<_>>()
                .join(&mark);
            for written in [format!(" {marks} {plain}{marks} "), inside] {
                let read = canonical(&written, region);
                assert_eq!(read.as_deref(), Ok(expected), "{written:?}");
            }
        }
    }
    assert_eq!(canonical(marks, "RU"), Err(RecipientError::Empty));
}

#[test]
fn joiners_stay_only_in_domains_that_they_distinguish() {
    let joined = canonical("ann@نامه\u{200c}ای.com", "").unwrap();
    assert_ne!(canonical("ann@نامهای.com", "").unwrap(), joined);
    assert_eq!(canonical(&joined, "").as_deref(), Ok(joined.as_str()));
    let ascii = canonical("a\u{200d}nn@exam\u{200c}ple.com\u{200d}", "");
    assert_eq!(ascii.as_deref(), Ok("ann@example.com"));
}

#[test]
fn mexican_phone_with_old_prefix_is_the_same_recipient() {
    for (written, region) in [
        ("+52 55 1234 5678", ""),
        ("+52 1 55 1234 5678", ""),
        ("5215512345678", "MX"),
        ("55 1234 5678", "MX"),
    ] {
        let read = canonical(written, region);
        assert_eq!(read.as_deref(), Ok("+525512345678"), "{written}");
    }
    for written in [
        "+52 1 55 1234 567",
        "+52 2 55 1234 5678",
        "+52 1 000 000 0000",
    ] {
        let read = canonical(written, "");
        assert_eq!(read, Err(RecipientError::PhoneInvalid), "{written}");
    }
}

/// Both are valid in Google's metadata, which does not say which of them is a mobile
/// phone's.
#[test]
fn argentine_phone_with_and_without_9_is_two_recipients() {
    for (written, expected) in [
        ("+54 9 11 2345-6789", "+5491123456789"),
        ("011 15-2345-6789", "+5491123456789"),
        ("+54 11 2345-6789", "+541123456789"),
    ] {
        assert_eq!(canonical(written, "AR").as_deref(), Ok(expected));
    }
}

#[test]
fn longest_e164_number_is_accepted() {
    let longest = "+499912377868777";
    assert_eq!(longest.len(), "+".len() + MAX_PHONE_DIGITS);
    assert_eq!(canonical(longest, "").as_deref(), Ok(longest));
}

#[test]
fn malformed_phone_returns_its_error() {
    for (written, region, expected) in [
        ("", "RU", RecipientError::Empty),
        ("  ", "RU", RecipientError::Empty),
        ("9991234567", "", RecipientError::RegionMissing),
        ("+7999123456", "RU", RecipientError::PhoneInvalid),
        ("+0123456789", "", RecipientError::PhoneInvalid),
        ("＋0123456789", "", RecipientError::PhoneInvalid),
        ("hello", "RU", RecipientError::PhoneInvalid),
        // Germany's plan is open, but no international number is so long.
        ("+4999123778687778", "", RecipientError::PhoneInvalid),
        (
            "+7 999 123-45-67 ext. 5",
            "RU",
            RecipientError::PhoneExtension,
        ),
        ("+7999\u{0}1234567", "RU", RecipientError::ControlCharacter),
        ("+79991234567\n", "RU", RecipientError::ControlCharacter),
        (&"9".repeat(321), "RU", RecipientError::TooLong),
        (&"9".repeat(320), "RU", RecipientError::PhoneInvalid),
        (
            &stretched(MAX_PHONE_CHARACTERS + 1),
            "RU",
            RecipientError::PhoneInvalid,
        ),
        (
            "9991234567;phone-context=+7 tel:",
            "RU",
            RecipientError::PhoneInvalid,
        ),
    ] {
        assert_eq!(canonical(written, region), Err(expected), "{written:?}");
    }
}

#[test]
fn email_addresses_normalize_to_lower_case_a_label_domains() {
    for (written, expected) in [
        ("Ann.Lee+tag@Example.COM", "ann.lee+tag@example.com"),
        (" ann@example.com ", "ann@example.com"),
        ("ann@почта.рф", "ann@xn--80a1acny.xn--p1ai"),
        ("ann@XN--80A1ACNY.xn--p1ai", "ann@xn--80a1acny.xn--p1ai"),
        ("ann@ｅｘａｍｐｌｅ.com", "ann@example.com"),
    ] {
        assert_eq!(canonical(written, "").as_deref(), Ok(expected), "{written}");
    }
}

#[test]
fn malformed_address_returns_its_error() {
    let long_local_part = format!("{}@example.com", "a".repeat(65));
    for written in [
        "@example.com",
        "a..b@example.com",
        ".a@example.com",
        "a b@example.com",
        "a@b@example.com",
        "почта@example.com",
        "\"a\"@example.com",
        &long_local_part,
    ] {
        assert_eq!(
            canonical(written, ""),
            Err(RecipientError::EmailLocalPart),
            "{written}"
        );
    }
    // The longest address has 254 bytes.
    let domain = format!("{}example.com", "abcdefgh.".repeat(26));
    let local_part = "a".repeat(254 - 1 - domain.len());
    let longest = format!("{local_part}@{domain}");
    assert_eq!(canonical(&longest, "").as_deref(), Ok(longest.as_str()));
    let too_long = format!("a{longest}");
    let long_domain = format!("a@{}example.com", "abcdefgh.".repeat(29));
    for written in [
        "a@",
        "a@localhost",
        "a@example..com",
        "a@-example.com",
        "a@exam_ple.com",
        "a@example.com.",
        "a@127.0.0.1",
        "a@[127.0.0.1]",
        "a@exa mple.com",
        &long_domain,
        &too_long,
    ] {
        assert_eq!(
            canonical(written, ""),
            Err(RecipientError::EmailDomain),
            "{written}"
        );
    }
}

#[test]
fn mask_hides_three_digits_and_the_local_part() {
    for (written, masked) in [
        ("+79991234567", "+7999***4567"),
        ("+29022222", "+290***22"),
        ("+4915112345678", "+4915***5678"),
        ("ann@example.com", "a***@example.com"),
    ] {
        let recipient = Recipient::from_canonical(written.to_owned());
        assert_eq!(recipient.to_string(), masked);
        assert_eq!(format!("{recipient:?}"), format!("Recipient({masked})"));
    }
}

#[test]
fn dialling_prefix_is_the_country_calling_code() {
    for (written, prefix) in [
        ("+79991234567", Some("+7")),
        ("+12015550123", Some("+1")),
        ("+37322123456", Some("+373")),
        ("+4915112345678", Some("+49")),
        ("ann@example.com", None),
        ("+79991234567@example.com", None),
    ] {
        let recipient = Recipient::from_canonical(written.to_owned());
        assert_eq!(recipient.dialling_prefix(), prefix, "{written}");
    }
}

#[test]
fn regions_are_case_insensitive() {
    assert_eq!("ru".parse::<Region>(), "RU".parse());
    for bad in ["", "R", "RUS", "ZZ", "1A", "РФ", "001"] {
        assert_eq!(bad.parse::<Region>(), Err(RegionError), "{bad}");
    }
}

/// Numbers that are their own canonical form, in E.164.
fn canonical_numbers() -> std::collections::BTreeSet<&'static str> {
    include_str!("../../../../tests/corpus/phones.tsv")
        .lines()
        .filter_map(|line| line.split('\t').nth(2))
        .filter(|expected| expected.starts_with('+'))
        .collect()
}

#[test]
fn known_number_is_parsed_like_an_unknown_one() {
    let regions = [None, Some("RU"), Some("US"), Some("MX")];
    let regions = regions.map(|region| region.map(|region| region.parse().unwrap()));
    let numbers = canonical_numbers();
    assert!(numbers.len() > 1_000);
    for (index, number) in numbers.into_iter().enumerate() {
        let canonical = Ok(Recipient::from_canonical(number));
        let region = regions[index % regions.len()];
        for _ in 0..2 {
            assert_eq!(Recipient::parse(number, region), canonical);
        }
        for region in regions {
            assert_eq!(parse_text(number, region), canonical, "{number}");
        }
    }
}

#[test]
fn number_that_is_not_canonical_is_never_known() {
    let (written, expected) = ("+5215512345678", "+525512345678");
    for _ in 0..2 {
        assert_eq!(canonical(written, "").as_deref(), Ok(expected));
        let invalid = canonical("+7999123456", "");
        assert_eq!(invalid, Err(RecipientError::PhoneInvalid));
    }
}

proptest! {
    #[test]
    fn international_numbers_are_parsed_the_same_again(number in "\\+(1|7|44|49|52|54|39|225|800|[1-9][0-9]{0,2})[0-9]{4,11}") {
        let first = parse_text(&number, None);
        for region in [None, Some("RU"), Some("GB")] {
            let region = region.map(|region| region.parse().unwrap());
            prop_assert_eq!(Recipient::parse(&number, region), first.clone());
        }
    }

    #[test]
    fn parsing_never_panics_and_canonical_forms_are_fixed_points(written in "\\PC{0,40}|[+0-9() .-]{0,24}|[a-z.@]{1,20}") {
        for region in ["", "RU", "KZ", "US", "DE"] {
            if let Ok(once) = canonical(&written, region) {
                prop_assert_eq!(canonical(&once, ""), Ok(once));
            }
        }
    }
}
