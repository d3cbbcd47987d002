//! Targets of log lines that need special treatment, in any module.

/// Target of audit lines, marked `[OTP AUDIT]`. They are written at every level and never left out.
pub const AUDIT: &str = "otpd_audit";
/// Target of audit lines that an unauthenticated client can cause. They are aggregated by the field
/// `from`, an address, and the field `cause`, because such clients must not be able to flood the
/// log. Message: `[OTP AUDIT] …`.
pub const UNAUTHENTICATED: &str = "otpd_unauthenticated";
/// Target of lines about a change of state, such as an outage of the store. They are written once
/// per change, so they need no other limit.
pub const STATE_CHANGE: &str = "otpd_change";
/// Target of the lines in which the development provider delivers codes.
pub const CODE: &str = "otpd_code";
