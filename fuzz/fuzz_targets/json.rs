//! [`otpd_fuzz::json`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| otpd_fuzz::json(data));
