//! The way of spans to the collector.

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
use rand::{Rng as _, rand_core::UnwrapErr, rngs::SysRng};
use tonic::transport::ClientTlsConfig;

use super::{EXPORT_INTERVAL, TraceSettings};
use crate::log_targets::STATE_CHANGE;

/// How many spans wait for the collector at most; more are dropped. About a megabyte.
const MOST_WAITING: usize = 2_048;
/// How many are sent at once.
const BATCH: usize = 512;
/// How long the collector may take for that.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Spans cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
#[error("traces.endpoint: {0}")]
pub struct TraceError(#[from] ExporterBuildError);

/// What spans are made by.
#[derive(Debug)]
pub(super) struct TracerHandle {
    pub tracer: SdkTracer,
    pub sample: RatioSampler,
    provider: SdkTracerProvider,
}

/// One for the process, like the log.
static TRACING: OnceLock<TracerHandle> = OnceLock::new();

/// What spans are made by; `None` where nobody wants any.
pub(super) fn active() -> Option<&'static TracerHandle> {
    TRACING.get()
}

/// Starts to export spans, if there is somewhere to. To be called on the runtime by
/// which they are sent.
///
/// # Errors
/// An endpoint that is none.
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
        fails: AtomicBool::new(false),
    };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(MOST_WAITING)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(EXPORT_INTERVAL);
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build());
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor.build())
        // Who makes a span has decided before.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource())
        .build();
    // Whoever starts twice has two of everything else, too; the first one counts.
    let _ = TRACING.set(TracerHandle {
        tracer: provider.tracer("otpd"),
        sample: RatioSampler::new(settings.sample_ratio),
        provider,
    });
    Ok(())
}

/// Sends what still waits, for as long as it may take.
pub async fn stop(limit: Duration) {
    let Some(tracing) = active() else {
        return;
    };
    // What could not be sent has its line in the log.
    let sent = tokio::task::spawn_blocking(move || tracing.provider.shutdown_with_timeout(limit));
    let _ = tokio::time::timeout(limit, sent).await;
}

/// Who tells the spans. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more, or
/// say it otherwise.
fn resource() -> Resource {
    let instance = UnwrapErr(SysRng).next_u64();
    let mut known = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{instance:016x}")),
    ];
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        known.push(KeyValue::new("host.name", host.trim().to_owned()));
    }
    let named = std::env::var("OTEL_SERVICE_NAME").ok();
    let named = named.filter(|name| !name.is_empty());
    Resource::builder()
        .with_attributes(known)
        .with_service_name(named.unwrap_or_else(|| "otpd".to_owned()))
        .build()
}

/// Sends spans, and has one line in the log for a collector that does not take them.
#[derive(Debug)]
struct LoggingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    fails: AtomicBool,
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed_before = self.fails.swap(result.is_err(), Ordering::Relaxed);
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

/// Chooses a share of requests, at the price of an addition and three multiplications.
#[derive(Debug)]
pub(super) struct RatioSampler {
    /// Whatever is below it of 2^64 possible numbers is chosen.
    threshold: u64,
    all: bool,
    next: AtomicU64,
}

impl RatioSampler {
    fn new(share: f64) -> Self {
        /// 2^64.
        const NUMBERS: f64 = 18_446_744_073_709_551_616.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is 0 to 1, and the cast saturates"
        )]
        let threshold = (share * NUMBERS) as u64;
        Self {
            threshold,
            all: share >= 1.0,
            next: AtomicU64::new(UnwrapErr(SysRng).next_u64()),
        }
    }

    /// Whether the next request is chosen.
    pub fn next(&self) -> bool {
        /// The step of SplitMix64, odd and near 2^64 by the golden ratio.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        // SplitMix64 (Steele, Lea and Flood, 2014): a counter whose bits are mixed. A
        // counter alone would choose always the same of requests that come in turns.
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
        let count = |share| {
            let sample = RatioSampler::new(share);
            (0..100_000).filter(|_| sample.next()).count()
        };
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 100_000);
        // Ten standard deviations on each side.
        let hundredth = count(0.01);
        assert!((700..1_300).contains(&hundredth), "{hundredth}");
    }
}
