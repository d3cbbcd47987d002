//! No certificate authorities, in the place of the crate of this name.
//!
//! sqlx adds the authorities of that crate to those that a URL names by `sslrootcert`, so
//! that a certificate of any public authority would do for a database with a private one;
//! with `sslmode=verify-ca`, which checks no name, anybody can get such a certificate. With
//! this crate sqlx trusts what it is given, as libpq does. Nothing else in otpd uses it.

use rustls_pki_types::TrustAnchor;

/// The authorities: none.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] = &[];
