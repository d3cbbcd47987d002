//! Marks by which the log knows lines that are not like others, whichever module writes
//! them.

/// The target of the lines that an auditor looks for, marked `[OTP AUDIT]`. They are
/// written whatever the level, and however many there are.
pub const AUDIT: &str = "otpd_audit";
/// The target of the lines that tell a change, such as that the store does not answer any
/// more: they come once for each change, so that they need no other limit.
pub const CHANGE: &str = "otpd_change";
