//! Tests that mostly measure: for the scripts in `perf/`, and the baselines beside the program.

mod cache;
mod reads;
mod scale;
mod stacks;
#[path = "../support/mod.rs"]
mod support;
