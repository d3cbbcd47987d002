//! Places in traces, as callers tell them.

use otpd::traces::TraceContext;

/// How many characters the version that is written has.
const LENGTH: usize = 55;

/// What is read is told on in the one form of the version that is written.
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
    // All but the version, the flags and what is not known.
    assert_eq!(written[2..53], text[2..53]);
    assert_eq!(context.trace_id().to_string(), text[3..35]);
    let flags = u8::from_str_radix(&text[53..55], 16).expect("flags are two digits");
    assert_eq!(context.is_sampled(), flags % 2 == 1);
}
