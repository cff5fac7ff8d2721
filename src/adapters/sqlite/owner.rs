//! Whose a file is, before anything is written to it. Opening a file of another program, or switching it to a
//! write-ahead log, would already change it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::store_error;
use crate::ports::StoreError;

/// `PRAGMA application_id` of our files: "EvTr".
pub(super) const APPLICATION_ID: i64 = 0x4576_5472;
/// What this program writes, as `PRAGMA user_version`.
pub(super) const SCHEMA_VERSION: i64 = 11;
const LOOK_WAIT: Duration = Duration::from_secs(2);
const FIRST_TABLE: &str = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' \
     ESCAPE '\\' ORDER BY name LIMIT 1";
/// Ours of before there was an application id: no other program has these tables.
const IS_OLD: &str = "SELECT count(*) = 3 FROM sqlite_schema WHERE type = 'table' \
     AND name IN ('watermark', 'rollup_minute', 'dead_letter')";

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It holds nothing.
    Nobody,
    /// Ours, with this version of the schema.
    Us(i64),
    /// Another program's; its first table.
    Another(String),
}

/// Opens a file to read it, without making a log or an index of one beside it.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // A log belongs to a program that runs, or that was killed: then it is read, too.
    let how = if beside(path, "-wal").exists() { "mode=ro" } else { "mode=ro&immutable=1" };
    // With an empty host: a path that begins with two slashes would name one.
    let path = std::path::absolute(path).map_err(|error| StoreError::Fatal(error.to_string()))?;
    let uri = format!("file://{}?{how}", encoded(&path));
    let connection = Connection::open_with_flags(uri, flags).map_err(store_error)?;
    connection.busy_timeout(LOOK_WAIT).map_err(store_error)?;
    Ok(connection)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A path as a part of a URI.
fn encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.map(|byte| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Whose an open file is.
pub(super) fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (id, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if id == APPLICATION_ID {
        return Ok(Owner::Us(version));
    }
    let first: Option<String> = connection.query_row(FIRST_TABLE, [], |row| row.get(0)).optional()?;
    Ok(match first {
        None if id == 0 && version == 0 => Owner::Nobody,
        None if id == 0 => Owner::Us(version),
        None => Owner::Another(format!("application_id {id}")),
        Some(_) if id == 0 && number(IS_OLD)? == 1 => Owner::Us(version),
        Some(table) => Owner::Another(table),
    })
}

/// Why a file is refused, in one line.
pub(super) fn refusal(owner: &Owner) -> Option<String> {
    match owner {
        Owner::Another(table) => Some(format!(
            "the SQLite file holds `{table}`, which is not ours: choose another DATA_DIR, or move the file away"
        )),
        Owner::Us(found) if *found > SCHEMA_VERSION => Some(format!(
            "the SQLite ledger has schema {found}, this program knows {SCHEMA_VERSION}: start the newer program, or \
             restore a copy made before it ran"
        )),
        Owner::Us(found) if *found < SCHEMA_VERSION => Some(format!(
            "the SQLite ledger has schema {found}, of before the first release: export it with the program that made \
             it, move the data directory away, and import that"
        )),
        Owner::Us(_) | Owner::Nobody => None,
    }
}

/// Reads whose the file at `path` is and changes nothing. `Fatal`, with what to do, if it cannot be our ledger.
pub(super) fn examine(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        return Ok(());
    }
    let owner = owner(&open_to_read(path)?).map_err(store_error)?;
    refusal(&owner).map_or(Ok(()), |why| Err(StoreError::Fatal(why)))
}
