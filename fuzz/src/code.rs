//! Codes as people type them.

use otpd_rules::{CodeError, OtpCode, SubmittedCode};

/// Maximum length of a code in bytes.
const MAX_BYTES: usize = 128;
/// Characters that may stand between digits.
const SEPARATORS: [&str; 10] = [
    "", " ", "-", "\u{a0}", "\u{2011}", "\u{200b}", "\u{61c}", "\u{feff}", "\u{fe0f}", "\r\n",
];

/// Checks that a code is its digits, in any script and with any blanks, hyphens and
/// invisible marks between.
pub fn code(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let typed = match SubmittedCode::parse(text) {
        Ok(typed) => typed,
        Err(error) => {
            let is_long = text.len() > MAX_BYTES;
            assert_eq!(error == CodeError::TooLong, is_long, "{error:?}");
            return;
        }
    };
    let digits = typed.expose();
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
    // Every character that is not a separator is a digit, and every digit counts.
    let numeric = text.chars().filter(|character| character.is_numeric());
    assert_eq!(digits.len(), numeric.count());
    assert_eq!(usize::try_from(typed.length()), Ok(digits.len()));

    let separator = SEPARATORS[text.len() % SEPARATORS.len()];
    let mut apart = String::from(separator);
    for digit in digits.chars() {
        apart.push(digit);
        apart.push_str(separator);
    }
    if apart.len() <= MAX_BYTES {
        let again = SubmittedCode::parse(&apart).expect("digits with separators are a code");
        assert_eq!(again.expose(), digits);
    }

    let code = OtpCode::from_digits(digits);
    assert_eq!(code.is_some(), (4..=10).contains(&digits.len()));
    if let Some(code) = code {
        assert!(code.matches(&typed), "a code matches its typed form");
        let shown = format!("{code:?} {typed:?}");
        assert!(!shown.contains(digits), "{shown} shows the code");
        let (first, rest) = digits.split_at(1);
        let other = if first == "0" { "1" } else { "0" };
        let wrong = SubmittedCode::parse(&format!("{other}{rest}")).expect("these are digits");
        assert!(!code.matches(&wrong), "another code does not match");
    }
}
