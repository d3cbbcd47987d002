//! Key rings as text.

use otpd::keys::KeyRing;

/// Longer than any word of a complaint, and shorter than any key.
const RUN: usize = 16;

/// No complaint about a key ring shows anything of a key, and one that is read can follow
/// itself.
pub fn key_ring(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match KeyRing::parse(text) {
        Ok(ring) => {
            assert_eq!(
                ring.check_rotation(&ring),
                Ok(()),
                "a ring can follow itself"
            );
            let again = KeyRing::parse(&format!("# again\n{text}\n")).expect("it is a key ring");
            assert_eq!(ring.fingerprint(), again.fingerprint());
            assert!(!has_run(&format!("{ring:?}")));
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!has_run(&told), "{told} may show a key");
            assert!(told.len() < 100 && !told.contains('\n'), "{told}");
        }
    }
}

/// Whether a text has so many characters of base64 in a row that they may be of a key.
fn has_run(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    text.as_bytes()
        .split(|byte| !is_base64(byte))
        .any(|run| run.len() >= RUN)
}
