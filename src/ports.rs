//! The seams: what the program asks of a ledger and of a live store. Two shipped adapters each.
//!
//! A port speaks the application's language and takes batches. Its contract is a list of numbered
//! claims in `docs/claims.md`, each with the tests that show it over every adapter
//! (`tests/contracts/claims.rs` compares). All calls block: they are made on lanes and on sink
//! threads, never in a coroutine.

mod error;
mod ledger;
mod live;
mod shared_cache;
mod snapshot;

pub use crate::journal::{Position, Watermark};
pub use error::*;
pub use ledger::*;
pub use live::*;
pub use shared_cache::*;
pub use snapshot::*;
