//! Events of a request against their model, and through the journal's bytes.

#![no_main]

#[path = "../models/mod.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod models;

libfuzzer_sys::fuzz_target!(|text: &str| models::events::check_text(text));
