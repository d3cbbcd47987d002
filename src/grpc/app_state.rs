//! State that requests are handled with.

use std::sync::Arc;

use crate::{auth::CallerRegistry, service::OtpService};
use otpd_rules::Region;

/// Service and configuration for requests. A reload replaces it; each request keeps the one
/// that it began with.
#[derive(Debug)]
pub struct AppState {
    /// Use cases.
    pub service: OtpService,
    /// Known callers and their credentials.
    pub callers: Arc<CallerRegistry>,
    /// Default region for phone numbers without a country code.
    pub default_region: Option<Region>,
}
