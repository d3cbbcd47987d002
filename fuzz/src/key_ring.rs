//! Key rings as text.

use otpd::keys::KeyRing;
use otpd_rules::Timestamp;

/// Length of a run of characters that is longer than any word of an error, and shorter
/// than any key.
const RUN: usize = 16;

/// Checks that no error about a key ring shows a part of a key, and that a valid ring may
/// replace itself.
pub fn key_ring(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match KeyRing::parse(text) {
        Ok(ring) => {
            assert_eq!(
                ring.check_rotation(&ring, Timestamp::from_milliseconds(0)),
                Ok(()),
                "a ring may replace itself"
            );
            let again = KeyRing::parse(&format!("# again\n{text}\n")).expect("it is a key ring");
            assert_eq!(ring.fingerprint(), again.fingerprint());
            assert!(!has_run(&format!("{ring:?}")));
        }
        Err(error) => {
            let problem = error.to_string();
            assert!(!has_run(&problem), "{problem} may show a key");
            assert!(problem.len() < 100 && !problem.contains('\n'), "{problem}");
        }
    }
}

/// Returns true if a text has a run of base64 characters that is long enough to be from a
/// key.
fn has_run(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    text.as_bytes()
        .split(|byte| !is_base64(byte))
        .any(|run| run.len() >= RUN)
}
