//! Errors of key rings.

/// Error of a text that is not a key ring. No message shows any part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// An entry does not have the form `NAME = VALUE`.
    #[error("entry {0} is not \"index = KEY\", \"seal.NUMBER = KEY\" or \"receipt.NUMBER = KEY\"")]
    Malformed(usize),
    /// A value is not 32 bytes of base64.
    #[error("{0} is not 32 bytes of base64")]
    NotAKey(String),
    /// A value is not a key that signs receipts.
    #[error("{0} is not a P-256 key; create one with `otpd keygen --receipt NUMBER`")]
    NotAReceiptKey(String),
    /// A receipt key has an invalid instant.
    #[error("{0} has no instant after \"from\"; write one such as 2027-01-31T12:00:00Z")]
    NotAnInstant(String),
    /// Two receipt keys would sign at the same time.
    #[error(
        "{0} signs from the same instant as another receipt key; add a different \"from INSTANT\" to all but one of them"
    )]
    SameInstant(String),
    /// Two receipt keys are equal.
    #[error("{0} is the same key as another one; create one with `otpd keygen --receipt NUMBER`")]
    SameReceiptKey(String),
    /// A name occurs twice.
    #[error("{0} occurs twice; remove one of the entries")]
    Duplicate(String),
    /// A required entry is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// Error of a key ring that must not replace the present one while otpd runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// No record would be found any more.
    #[error("the index key is another one; it cannot be rotated, so keep the present one")]
    Index,
    /// Other replicas may not have the new first key.
    #[error(
        "seal.{0} is new and first, so replicas without it could not open codes that it seals; put it last, and first when every replica has it"
    )]
    NewFirst(u8),
    /// Codes that the removed key sealed are still live.
    #[error(
        "seal.{0} is missing, but codes that it sealed are still live; put another one before it, and remove it when these have expired"
    )]
    FirstGone(u8),
    /// Verifiers may not have the new receipt key when it is used.
    #[error(
        "receipt.{0} is new and would sign in less than 20 min, so services with the former keys would refuse its receipts; add a later \"from INSTANT\", or restart every replica if the former key must not be used any more"
    )]
    ReceiptKeyTooSoon(u8),
    /// Receipts of the removed receipt key are still valid.
    #[error(
        "receipt.{0} is missing, but its receipts are still valid; remove it 6 min after the instant of the next one"
    )]
    ReceiptKeyInUse(u8),
}
