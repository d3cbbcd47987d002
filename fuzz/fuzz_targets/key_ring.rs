//! [`otpd_fuzz::key_ring`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| otpd_fuzz::key_ring(data));
