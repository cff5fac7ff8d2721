//! A client of the API that sends files and streams of events.
//!
//! ```text
//! file, stream ─► text (unpacked) ─► lines │ table ─► rows ─► batches ─┬─► deliveries ─► POST /api/events
//!                                                                      └─► account ─► resume file, rejects
//! ```
//! Every row is sent with an id, the same at each repeat, and the resume file says which rows were
//! answered. So after any failure the rest is sent again and counted once, as long as the server
//! remembers the ids (24 h). Memory is bounded whatever is in the input.

mod account;
mod batch;
mod client;
mod files;
mod job;
mod lines;
mod progress;
mod records;
mod rejects;
mod row;
mod state;
mod table;
mod text;
mod threads;
mod times;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use account::Stop;
pub use client::{Server, agent};
pub use files::import_files;
pub use row::Refusal;

/// What the server would say about an event: handed in, for it is the server's to know.
pub type Judge = Arc<dyn Fn(&str) -> Result<(), Refusal> + Send + Sync>;

/// What is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An event a line, as JSON
    #[default]
    Ndjson,
    /// A header that names the API's fields, an event a record
    Csv,
}

#[derive(Clone)]
pub struct Settings {
    pub server: Server,
    /// 1 keeps the order of the input.
    pub connections: usize,
    /// Rows of a request, at most.
    pub batch: usize,
    pub give_up_after: Duration,
    /// Of the only input; beside each input where not given.
    pub resume_file: Option<PathBuf>,
    /// Of all inputs; beside each input where not given.
    pub rejects: Option<PathBuf>,
    /// Ignore the resume file and begin again with new ids.
    pub again: bool,
    pub quiet: bool,
    /// That of times which name none; without it such a time is refused.
    pub time_zone: Option<TimeZone>,
    /// Judge each row, send none.
    pub dry_run: bool,
    pub judge: Judge,
}

/// How an import ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// Every row was accepted.
    Accepted,
    /// Every row was answered, and some are in the list of refused ones.
    WithRefusals,
    /// A stop was asked for; the resume file says where to go on.
    Interrupted,
}
