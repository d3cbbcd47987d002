//! Durations of RPCs, under the names of OpenTelemetry's semantic conventions.

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::histogram::Histogram, registry::Registry};

use super::{LATENCY_BUCKETS, RpcName, fixed_label_values, grid::CounterGrid};

/// Status codes of gRPC, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Methods with their own series, followed by the name of all others.
const METHODS: [&str; 5] = [
    "otp.v1.OtpService/SendOtp",
    "otp.v1.OtpService/VerifyOtp",
    "otp.v1.OtpService/CancelOtp",
    "otp.v1.OtpService/GetOtpStatus",
    "_OTHER",
];

/// Method of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcMethod(usize);

impl RpcMethod {
    /// Returns the method at a path, such as `/otp.v1.OtpService/SendOtp`.
    pub fn at(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or_default();
        let known = METHODS.iter().position(|method| *method == name);
        Self(known.unwrap_or(METHODS.len() - 1))
    }

    /// Returns the method of an RPC of the contract.
    pub const fn of(rpc: RpcName) -> Self {
        Self(rpc as usize)
    }

    /// Returns its full name.
    pub const fn name(self) -> &'static str {
        METHODS[self.0]
    }
}

/// Durations of calls. Clones share their counters.
#[derive(Clone, Debug)]
pub struct RpcLatency(Arc<CounterGrid<Histogram, fn() -> Histogram, 3>>);

impl RpcLatency {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self(Arc::new(CounterGrid::new(
            "rpc_server_call_duration_seconds",
            "Time from the headers of a call to those of its reply",
            [
                ("rpc_system_name", fixed_label_values(["grpc"])),
                ("rpc_method", fixed_label_values(METHODS)),
                ("rpc_response_status_code", fixed_label_values(CODES)),
            ],
            || Histogram::new(LATENCY_BUCKETS),
            registry,
        )))
    }

    /// Records a call that ended with a status code of gRPC.
    pub fn ended(&self, method: RpcMethod, code: i32, duration: Duration) {
        let series = [0, method.0, number_of_code(code)];
        self.0.at(series).observe(duration.as_secs_f64());
    }
}

fn number_of_code(code: i32) -> usize {
    /// Number of the code `UNKNOWN`, for every code that gRPC does not define.
    const UNKNOWN: usize = 2;
    let number = usize::try_from(code).ok();
    number
        .filter(|number| *number < CODES.len())
        .unwrap_or(UNKNOWN)
}

/// Returns the name of a status code of gRPC.
pub fn code_name(code: i32) -> &'static str {
    CODES[number_of_code(code)]
}
