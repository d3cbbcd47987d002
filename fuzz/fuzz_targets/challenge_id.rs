//! [`otpd_fuzz::challenge_id`] under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| otpd_fuzz::challenge_id(data));
