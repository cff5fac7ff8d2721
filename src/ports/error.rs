//! Failures of stores, by what a caller can do.

use crate::journal::Watermark;

/// What a caller can do about a failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is unreachable or busy: try again. The watermark tells whether the call had its effect.
    #[error("{0}")]
    Retry(String),
    /// The store ended a read, because its time was over. A caller that asks for less gets an answer.
    #[error("{0}")]
    Cancelled(String),
    /// The store refuses the data itself: find the record and set it aside.
    #[error("{0}")]
    Poison(String),
    /// The store's watermark is not the batch's `from`.
    #[error("the store's watermark is {found:?}")]
    Fenced { found: Option<Watermark> },
    /// Anything else: stop following, loudly; a person must look.
    #[error("{0}")]
    Fatal(String),
}
