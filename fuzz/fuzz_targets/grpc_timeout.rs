//! [`otpd_fuzz::grpc_timeout`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| otpd_fuzz::grpc_timeout(data));
