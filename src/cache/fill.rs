//! How a key is filled, and what comes of it: for the flight, and for a request.

use std::sync::Arc;

use super::local::Copy;
use super::surroundings::Lane;

#[derive(Clone, Debug)]
pub struct Filled {
    pub value: Arc<[u8]>,
    /// The state of the store that it shows, milliseconds since the epoch.
    pub as_of_ms: i64,
    /// "There is none": remembered for a moment only. An empty list is a value.
    pub is_null: bool,
}

/// Why there is no value; shared by all who wait, and for a moment by all who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// The store did not answer. Only this counts against its breaker.
    Away,
    /// A range holds more than could be read in time.
    TooLarge,
    /// A search finds more than could be read in time.
    TooBroad,
    /// Too much waits, or the store had no time for a read that is small.
    Busy,
    /// A fault of ours, such as a wrong statement.
    Internal,
}

const NAMES: [(FillError, &str); 5] = [
    (FillError::Away, "away"),
    (FillError::TooLarge, "too_large"),
    (FillError::TooBroad, "too_broad"),
    (FillError::Busy, "busy"),
    (FillError::Internal, "internal"),
];

impl FillError {
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(error, _)| *error == self).map_or("away", |(_, name)| name)
    }

    pub(super) fn of_name(name: &[u8]) -> FillError {
        NAMES.iter().find(|(_, known)| known.as_bytes() == name).map_or(FillError::Away, |(error, _)| *error)
    }
}

/// One way to fill: blocks, on its lane.
pub struct Stage {
    pub lane: Lane,
    pub run: Box<dyn FnOnce() -> Result<Filled, FillError> + Send>,
}

/// How a key is filled: the first stage that answers. Never empty.
pub struct Fill(pub Vec<Stage>);

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
