//! Sinks: threads that follow the journal and apply it to a store, exactly once.
//!
//! Owns when to read, wait, retry and stop; leaves how to apply to the adapters. A sink acts on its store's watermark
//! alone: behind the journal it applies the rest; ahead of it, or on another checksum, it stops, loudly. The live sink
//! follows the ledger: it reads the same journal up to the ledger's watermark, with the ledger's verdicts.

mod handover;
mod housekeeping;
mod ledger;
mod level;
mod live;
mod status;
mod steady;

pub use handover::Handover;
pub use housekeeping::Housekeeping;
pub use ledger::{LedgerFollower, LedgerSink};
pub use level::Level;
pub use live::{LiveFollower, LiveSink};
pub use status::{SinkState, SinkStatus};
pub use steady::{Steady, Trust, agreed_ms};

use std::time::Duration;

use rand::RngExt;

use crate::journal::ReadError;
use crate::limits::{RETRY_MS_MAX, RETRY_MS_MIN};
use crate::ports::StoreError;

/// How long a step waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// For something to do, and a little for a larger batch: how a sink's own thread goes.
    Patient,
    /// Not at all: what is there is taken. For a caller that decides itself when the next step is due.
    AtOnce,
}

/// Why a sink left its loop.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to.
    Asked,
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
            // Somebody else moved the watermark, or a commit of ours whose reply was lost: the watermark tells.
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

impl From<crate::events::Corrupt> for Ended {
    fn from(error: crate::events::Corrupt) -> Ended {
        Ended::Stop(error.to_string())
    }
}

/// Pauses between tries: exponential, with full jitter over the upper half, so that instances spread.
struct Backoff {
    next_ms: u64,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next_ms: RETRY_MS_MIN }
    }

    fn pause(&mut self) -> Duration {
        let pause_ms = rand::rng().random_range(self.next_ms / 2..=self.next_ms);
        self.next_ms = (self.next_ms * 2).min(RETRY_MS_MAX);
        Duration::from_millis(pause_ms)
    }

    fn reset(&mut self) {
        self.next_ms = RETRY_MS_MIN;
    }
}

/// Runs `follow` until it is asked to end or must stop; pauses and tries again while a store is unreachable.
fn supervise(status: &SinkStatus, mut follow: impl FnMut() -> Ended) {
    let mut backoff = Backoff::new();
    loop {
        let before = status.position();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut follow))
            .unwrap_or_else(|_| Ended::Stop("the sink panicked; the log has the place".into()));
        match ended {
            Ended::Asked => return,
            Ended::Stop(why) => {
                status.stopped(&why);
                return;
            }
            Ended::Retry(_) | Ended::LedgerRetry(_) => {
                if status.position() != before {
                    backoff.reset();
                }
                status.retrying(&ended);
                status.sleep(backoff.pause());
            }
        }
        if status.is_stopping() {
            return;
        }
    }
}
