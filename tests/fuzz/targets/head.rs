//! A request's head against its model. The first bytes of the input say where it is cut.

#![no_main]

#[path = "../models/mod.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod models;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (cuts, bytes) = models::split_seed(data);
    models::head::check(bytes, &cuts);
});
