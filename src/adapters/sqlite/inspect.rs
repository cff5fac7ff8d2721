//! What a SQLite file says about itself: for people who look after one. Changes nothing in it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::error::store_error;
use super::owner;
pub use super::owner::Owner;
use super::owner::SCHEMA_VERSION;
use super::watch::Watch;
use crate::ports::StoreError;

/// Facts, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub owner: Owner,
    /// What `PRAGMA quick_check` found; empty: the file is sound. `None`: there was not enough time to look.
    pub damage: Option<Vec<String>>,
}

/// The schema that this program writes.
pub const KNOWN_SCHEMA: i64 = SCHEMA_VERSION;

/// Why a file is refused, in one line.
pub fn refusal(owner: &Owner) -> Option<String> {
    owner::refusal(owner)
}

/// Reads the file at `path`, for at most `wait`.
pub fn inspect(path: &Path, wait: Duration) -> Result<Inspection, StoreError> {
    let connection = owner::open_to_read(path)?;
    let owner = owner::owner(&connection).map_err(store_error)?;
    let watch = Watch::start()?;
    let _guard = watch.guard(&connection, wait);
    let damage = match quick_check(&connection) {
        Ok(lines) => Some(lines),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => None,
        Err(error) => return Err(store_error(error)),
    };
    Ok(Inspection { owner, damage })
}

fn quick_check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA quick_check(5)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}
