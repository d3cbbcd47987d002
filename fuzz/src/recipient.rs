//! Recipients as people write them.

use otpd_rules::{Recipient, RecipientError, RecipientPattern, Region};

/// Maximum length of a recipient in bytes.
const MAX_BYTES: usize = 320;

/// Checks that every form of a recipient has one canonical form, which is its own. The
/// input is a recipient, after a line with the region that it is read in, if there is
/// one.
pub fn recipient(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (region, written) = match text.split_once('\n') {
        Some((region, written)) => (region.parse::<Region>().ok(), written),
        None => (None, text),
    };
    let recipient = match Recipient::parse(written, region) {
        Ok(recipient) => recipient,
        Err(error) => {
            let is_long = written.len() > MAX_BYTES;
            assert_eq!(error == RecipientError::TooLong, is_long, "{error:?}");
            if region.is_some() {
                assert_ne!(error, RecipientError::RegionMissing);
            }
            return;
        }
    };
    let canonical = recipient.as_str();
    for region in [None, region] {
        let again = Recipient::parse(canonical, region);
        assert_eq!(again.as_ref(), Ok(&recipient), "{canonical} is canonical");
    }
    let framed = format!("\u{feff} \u{61c}{written}\u{a0}\u{200d}");
    if framed.len() <= MAX_BYTES {
        let again = Recipient::parse(&framed, region);
        assert_eq!(
            again.as_ref(),
            Ok(&recipient),
            "marks around it are ignored"
        );
    }
    if recipient.is_email() {
        is_canonical_address(&recipient);
    } else {
        is_canonical_number(&recipient);
    }
    if let Some(region) = region {
        let is_there = RecipientPattern::Region(region).contains(&recipient);
        assert!(
            !is_there || !recipient.is_email(),
            "an address has no region"
        );
    }
    assert!(RecipientPattern::All.contains(&recipient));
    assert_eq!(
        RecipientPattern::Email.contains(&recipient),
        recipient.is_email()
    );
}

fn is_canonical_address(recipient: &Recipient) {
    let canonical = recipient.as_str();
    assert!(canonical.is_ascii() && canonical.len() <= 254);
    assert!(!canonical.bytes().any(|byte| byte.is_ascii_uppercase()));
    assert!(!canonical.bytes().any(|byte| byte <= b' ' || byte == 0x7f));
    let (local_part, domain) = canonical.split_once('@').expect("an address has an \"@\"");
    assert!(!local_part.is_empty() && domain.contains('.') && !domain.contains('@'));
    assert_eq!(recipient.dialling_prefix(), None);
    let like_itself = RecipientPattern::Prefix(local_part.to_owned());
    assert!(
        !like_itself.contains(recipient),
        "an address is not a number"
    );
    let mask = recipient.to_string();
    assert_eq!(mask, format!("{}***@{domain}", &local_part[..1]));
}

fn is_canonical_number(recipient: &Recipient) {
    let canonical = recipient.as_str();
    let digits = canonical.strip_prefix('+').expect("a number begins with +");
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
    // E.164, clause 6: at most 15 digits.
    assert!((4..=15).contains(&digits.len()), "{canonical}");
    let prefix = recipient.dialling_prefix().expect("a number has a country");
    let prefix = RecipientPattern::Prefix(prefix.to_owned());
    assert!(prefix.contains(recipient));

    let mask = recipient.to_string();
    assert_eq!(format!("{recipient:?}"), format!("Recipient({mask})"));
    let shown = mask.bytes().filter(u8::is_ascii_digit).count();
    assert!(shown + 3 <= digits.len(), "{mask} hides less than 3 digits");
    let (head, tail) = mask.split_once("***").expect("a mask hides something");
    assert!(canonical.starts_with(head) && canonical.ends_with(tail));
}
