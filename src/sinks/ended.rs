//! Why a sink's loop ends.

use crate::events::Corrupt;
use crate::journal::ReadError;
use crate::ports::StoreError;

/// Why a sink left its loop.
#[derive(Debug)]
pub enum Ended {
    /// Its own store is unreachable: try again after a pause.
    Retry(String),
    /// The ledger, which it reads, is unreachable: the same, but the ledger's follower is the one that says so.
    LedgerRetry(String),
    /// A person must look.
    Stop(String),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Ended {
        match error {
            StoreError::Retry(why) | StoreError::Cancelled(why) => Ended::Retry(why),
            // Another follower moved the watermark, or our own commit did and its reply was lost: the watermark tells.
            StoreError::Fenced { found } => Ended::Retry(format!("the watermark was moved to {found:?}")),
            StoreError::Poison(why) | StoreError::Fatal(why) => Ended::Stop(why),
        }
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Ended {
        Ended::Stop(error.to_string())
    }
}

impl From<Corrupt> for Ended {
    fn from(error: Corrupt) -> Ended {
        Ended::Stop(error.to_string())
    }
}
