//! What a request is shown, and what a flight comes to.

use std::sync::Arc;

use super::fill::FillError;
use super::local::Copy;

/// How an answer came about: `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// From a copy that is fresh.
    Fresh,
    /// The same; and this request has set out for an early refresh.
    Early,
    /// From a copy that has expired.
    Stale,
    /// Filled while the request waited.
    Miss,
    /// The same, without the lock: the shared cache or the holder of the lock did not answer in time.
    Direct,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            How::Fresh => "fresh",
            How::Early => "early",
            How::Stale => "stale",
            How::Miss => "miss",
            How::Direct => "direct",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Hit {
    pub copy: Arc<Copy>,
    pub how: How,
    /// Milliseconds since its fill.
    pub age_ms: u64,
}

impl Hit {
    pub(super) fn of(copy: Arc<Copy>, how: How, now_ms: u64) -> Hit {
        Hit { age_ms: copy.age_ms(now_ms), copy, how }
    }
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Hit(Hit),
    Failed(FillError),
    /// Another instance fills the key, and this was a background refresh. A request that needs the value asks again.
    Ducked,
    /// The leader ended without a result. One of the joined requests becomes the next leader.
    Died,
}
