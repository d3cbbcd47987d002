//! Trace contexts of callers.

use otpd::traces::TraceContext;

/// Number of characters of the version that otpd writes.
const LENGTH: usize = 55;

/// Checks that a valid context is passed on in the one form that otpd writes.
pub fn traceparent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(context) = TraceContext::parse(text) else {
        return;
    };
    let written = context.traceparent();
    assert_eq!(written.len(), LENGTH);
    assert_eq!(TraceContext::parse(&written), Some(context));
    // Everything but the version, the flags and unknown fields.
    assert_eq!(written[2..53], text[2..53]);
    assert_eq!(context.trace_id().to_string(), text[3..35]);
    let flags = u8::from_str_radix(&text[53..55], 16).expect("flags are two digits");
    assert_eq!(context.is_sampled(), flags % 2 == 1);
}
