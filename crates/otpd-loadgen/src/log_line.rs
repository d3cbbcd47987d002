//! Log line of the development log provider, which contains a code.

use memchr::memmem;

/// Marker of the line; the code follows it.
pub const MARK: &[u8] = b"Generated OTP: ";

/// Name of the field with the challenge id, in text and in JSON.
const CHALLENGE: &[u8] = b"challenge_id";

/// Code in a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedCode<'a> {
    /// Challenge of the code.
    pub challenge_id: &'a str,
    /// The code.
    pub code: &'a str,
}

/// Parses a line of the log, in its text or its JSON form; `None` if it has no code. A
/// prefix of the line, such as the name of a container, is ignored.
pub fn read(line: &[u8]) -> Option<LoggedCode<'_>> {
    let code = memmem::find(line, MARK)? + MARK.len();
    let id = memmem::find(line, CHALLENGE)? + CHALLENGE.len();
    let logged = LoggedCode {
        challenge_id: leading(after_separator(&line[id..])?, is_id),
        code: leading(&line[code..], |byte| byte.is_ascii_digit()),
    };
    (!logged.challenge_id.is_empty() && !logged.code.is_empty()).then_some(logged)
}

/// Returns the bytes after `=` or `":"`, also if there are a terminal's colours between.
fn after_separator(bytes: &[u8]) -> Option<&[u8]> {
    let separator = memchr::memchr2(b'=', b':', bytes)?;
    let mut rest = &bytes[separator + 1..];
    loop {
        rest = match rest.first()? {
            b'"' | b' ' => &rest[1..],
            // Colour, such as ESC [0m.
            0x1b => &rest[memchr::memchr(b'm', rest)? + 1..],
            _ => return Some(rest),
        };
    }
}

/// Returns true for characters of base64url, in which ids are written.
fn is_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn leading(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> &str {
    let end = bytes.iter().position(|&byte| !belongs(byte));
    // Matching bytes are ASCII.
    std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Option<LoggedCode<'_>> = Some(LoggedCode {
        challenge_id: "lwUr5T_Czq0-n50l",
        code: "044388",
    });

    #[test]
    fn code_is_parsed_from_every_line_format() {
        for line in [
            "2026-11-22T11:19:28.418Z  INFO [OTP] Generated OTP: 044388 challenge_id=lwUr5T_Czq0-n50l recipient=+79991234567",
            "otpd-1  | 2026-11-22T11:19:28.418Z  INFO [OTP] Generated OTP: 044388 challenge_id=lwUr5T_Czq0-n50l recipient=+79991234567\r",
            "[OTP] Generated OTP: 044388 \u{1b}[3mchallenge_id\u{1b}[0m\u{1b}[2m=\u{1b}[0mlwUr5T_Czq0-n50l \u{1b}[3mrecipient\u{1b}[0m=a@b.c",
            r#"{"timestamp":"2026-11-22T11:19:28.418Z","level":"INFO","message":"[OTP] Generated OTP: 044388","challenge_id":"lwUr5T_Czq0-n50l","recipient":"+79991234567"}"#,
            r#"{"challenge_id": "lwUr5T_Czq0-n50l", "message": "[OTP] Generated OTP: 044388"}"#,
            "[OTP] Generated OTP: 044388 challenge_id=lwUr5T_Czq0-n50l",
        ] {
            assert_eq!(read(line.as_bytes()), TOLD, "{line:?}");
        }
    }

    #[test]
    fn other_lines_contain_no_code() {
        for line in [
            "",
            "[OTP] OTP queued recipient=+7999***4567 channel=sms challenge_id=lwUr",
            "[OTP] Generated OTP: 044388",
            "[OTP] Generated OTP: 044388 challenge_id",
            "[OTP] Generated OTP: 044388 challenge_id=",
            "[OTP] Generated OTP:  challenge_id=lwUr",
            "[OTP] Generated OTP: \u{1b}[0m challenge_id=\u{1b}[0",
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line:?}");
        }
    }
}
