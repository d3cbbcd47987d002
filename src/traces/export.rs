//! Export of spans to the collector.

use std::{
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
        SpanExporter,
    },
};
use rand::Rng as _;
use tonic::transport::ClientTlsConfig;

use super::{EXPORT_INTERVAL, TraceSettings};
use crate::system_random::os_rng;
use otpd_base::log_targets::STATE_CHANGE;

/// Maximum number of spans that wait for the collector; further ones are dropped. About a megabyte.
const MAX_QUEUED: usize = 2_048;
/// Maximum number of spans that are sent at once.
const MAX_BATCH: usize = 512;
/// Maximum duration of one export.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Error of an invalid export configuration.
#[derive(Debug, thiserror::Error)]
#[error("traces.endpoint: {0}")]
pub struct TraceError(#[from] ExporterBuildError);

/// Tracer of the process, with its sampler.
#[derive(Debug)]
pub(super) struct TracerHandle {
    pub tracer: SdkTracer,
    pub sample: RatioSampler,
    provider: SdkTracerProvider,
}

/// Single tracer of the process, like the log.
static TRACING: OnceLock<TracerHandle> = OnceLock::new();

/// Returns the tracer, or `None` if no export is configured.
pub(super) fn active() -> Option<&'static TracerHandle> {
    TRACING.get()
}

/// Starts the export of spans if it is configured. Must be called on the runtime that sends them.
///
/// # Errors
/// [`TraceError`] if the endpoint is not valid.
pub fn start(settings: &TraceSettings) -> Result<(), TraceError> {
    let Some(endpoint) = &settings.endpoint else {
        return Ok(());
    };
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(TIMEOUT);
    if endpoint.starts_with("https://") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
    }
    let exporter = LoggingExporter {
        exporter: exporter.build()?,
        is_failing: AtomicBool::new(false),
    };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(EXPORT_INTERVAL);
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build());
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor.build())
        // The decision was made before the span is created.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource())
        .build();
    // After a second start in the same process, the first tracer stays.
    let _ = TRACING.set(TracerHandle {
        tracer: provider.tracer("otpd"),
        sample: RatioSampler::new(settings.sample_ratio),
        provider,
    });
    Ok(())
}

/// Sends the spans that still wait, within `limit`.
pub async fn stop(limit: Duration) {
    let Some(tracing) = active() else {
        return;
    };
    // The exporter logs a failure.
    let sent = tokio::task::spawn_blocking(move || tracing.provider.shutdown_with_timeout(limit));
    let _ = tokio::time::timeout(limit, sent).await;
}

/// Returns the attributes of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to
/// them or replace them.
fn resource() -> Resource {
    let instance = os_rng().next_u64();
    let mut attributes = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{instance:016x}")),
    ];
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        attributes.push(KeyValue::new("host.name", host.trim().to_owned()));
    }
    let name = std::env::var("OTEL_SERVICE_NAME").ok();
    let name = name.filter(|name| !name.is_empty());
    Resource::builder()
        .with_attributes(attributes)
        .with_service_name(name.unwrap_or_else(|| "otpd".to_owned()))
        .build()
}

/// Exporter that logs once when the collector starts to refuse spans, and once when it accepts them
/// again.
#[derive(Debug)]
struct LoggingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed_before = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(cause) if !failed_before => {
                tracing::warn!(target: STATE_CHANGE, %cause, "[OTP] Trace export failing; spans dropped");
            }
            Ok(()) if failed_before => tracing::info!("[OTP] Trace export recovered"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sampler of a ratio of requests. A decision costs an addition and three multiplications.
#[derive(Debug)]
pub(super) struct RatioSampler {
    /// Bound of the sampled numbers among 2^64 possible ones.
    threshold: u64,
    all: bool,
    next: AtomicU64,
}

impl RatioSampler {
    fn new(ratio: f64) -> Self {
        /// 2^64.
        const NUMBERS: f64 = 18_446_744_073_709_551_616.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio is 0 to 1, and the cast saturates"
        )]
        let threshold = (ratio * NUMBERS) as u64;
        Self {
            threshold,
            all: ratio >= 1.0,
            next: AtomicU64::new(os_rng().next_u64()),
        }
    }

    /// Returns whether the next request is sampled.
    pub fn next(&self) -> bool {
        /// Step of SplitMix64: odd, and near 2^64 divided by the golden ratio.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        // SplitMix64 (Steele, Lea and Flood, 2014): a counter whose bits are mixed. A counter alone
        // would always sample the same of alternating requests.
        let mut number = self.next.fetch_add(STEP, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        self.all || number < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_ratio_is_respected() {
        let count = |ratio| {
            let sampler = RatioSampler::new(ratio);
            (0..100_000).filter(|_| sampler.next()).count()
        };
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 100_000);
        // Ten standard deviations on each side.
        let hundredth = count(0.01);
        assert!((700..1_300).contains(&hundredth), "{hundredth}");
    }
}
