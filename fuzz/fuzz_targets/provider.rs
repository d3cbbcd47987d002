//! [`otpd_fuzz::provider`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| otpd_fuzz::provider(data));
