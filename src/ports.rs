//! The seams: what the program asks of a ledger, a live store and a shared cache. Their contracts are
//! the numbered claims of `docs/claims.md`, which tests show over every adapter. All calls block: they
//! are made on lanes and on sink threads, never in a coroutine.

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
