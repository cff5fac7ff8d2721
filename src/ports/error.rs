//! Failures of stores, by what a caller can do.

use crate::journal::Watermark;

/// What a caller can do about a failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away, busy or restarting: wait and try again. Whether the call had its effect
    /// is unknown; the watermark tells.
    #[error("{0}")]
    Retry(String),
    /// The store is reachable and ended a read, because its time was over. A caller that asks for
    /// less gets an answer.
    #[error("{0}")]
    Cancelled(String),
    /// The store refuses the data itself (never its amount or its time): find the record and set it
    /// aside.
    #[error("{0}")]
    Poison(String),
    /// The store's watermark is not the batch's `from`.
    #[error("the store's watermark is {found:?}")]
    Fenced { found: Option<Watermark> },
    /// Anything else: stop following, loudly; a person must look.
    #[error("{0}")]
    Fatal(String),
}
