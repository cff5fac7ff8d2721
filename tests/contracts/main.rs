//! The contract suites of the ports, each run over every adapter, and the table of their claims.

mod claims;
mod ledger;
mod live;
mod shared_cache;
#[path = "../support/mod.rs"]
mod support;
