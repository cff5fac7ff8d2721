//! The real program and its parts while stores, disks, clocks and processes fail: nothing is lost or counted twice.

mod crash;
mod erasure;
mod exactly_once;
mod faults;
mod instances;
mod kept;
mod salvage;
mod same_answers;
#[path = "../support/mod.rs"]
mod support;
