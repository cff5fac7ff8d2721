//! Query strings and path segments against their model.

#![no_main]

#[path = "../models/mod.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod models;

libfuzzer_sys::fuzz_target!(|text: &str| models::query::check(text));
