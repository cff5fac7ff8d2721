//! How a key is filled, and what a fill brings.

use std::sync::Arc;

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
