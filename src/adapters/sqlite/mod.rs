//! The embedded ledger: SQLite in the data directory, write-ahead log, synced at each commit.
//!
//! Same tables, same answers as PostgreSQL. One writer at a time, as SQLite has it; readers see snapshots and are
//! pooled. What a batch means is decided in `ledger`.

mod erase;
mod error;
mod export;
pub mod inspect;
mod maintain;
mod owner;
mod retire;
mod search;
mod sql;
mod turns;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::ledger::sql::Sql;
use crate::ledger::store::{Store, View};
use crate::limits::READ_WAIT_MS;
use crate::ports::{ExportCursor, ExportPage, ExportQuery, LedgerWriter, Post, PostSearch, StoreError};
use error::{read_error, store_error};
pub use owner::Owner;
use owner::{APPLICATION_ID, SCHEMA_VERSION};
use sql::SqliteSql;
use turns::Turns;
use watch::Watch;

const SCHEMA: &str = include_str!("schema.sql");
/// How long a lock of another connection is waited for.
const BUSY_MS_MAX: u64 = 5_000;
/// Readers that are kept open.
const READERS_KEPT: usize = 8;
/// Pages that a writer keeps in memory: likes, user hours and rollups are all over the file.
const WRITER_CACHE_KIB: i64 = 32_000;
/// … and each reader. Behind it stands the system's own cache, which all of them share: a large cache of each would be as
/// many copies of one file, of what an export has passed over above all.
const READER_CACHE_KIB: i64 = 8_000;
/// Prepared statements that a connection keeps.
const STATEMENTS_KEPT: usize = 64;
/// A read is interrupted after this, a bit before its caller stops waiting.
const READ_MS_MAX: u64 = READ_WAIT_MS - 200;

/// The durable record in one file.
pub struct SqliteLedger {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    watch: Arc<Watch>,
    turns: Arc<Turns>,
    rank_all_events: i64,
}

impl SqliteLedger {
    /// Reads whose the file is and changes nothing. `Fatal`, with what to do, if it cannot be our ledger.
    pub fn examine(path: &Path) -> Result<(), StoreError> {
        owner::examine(path)
    }

    /// Opens the file, making it and its tables where they are missing. `Fatal`, with what to do, where a newer
    /// program made it, it is another program's, or it is no database.
    pub fn open(path: &Path) -> Result<SqliteLedger, StoreError> {
        owner::examine(path)?;
        let mut connection = connect(path, READER_CACHE_KIB)?;
        keep_temporary_files_beside(path, &connection)?;
        prepare(&mut connection)?;
        let (readers, watch) = (Mutex::new(vec![connection]), Arc::new(Watch::start()?));
        let (path, turns) = (path.to_owned(), Arc::default());
        Ok(SqliteLedger { path, readers, watch, turns, rank_all_events: i64::MAX })
    }

    /// For tests: no ranking of a range with more events than this reads all its names.
    #[cfg(feature = "test-hooks")]
    pub fn ranking_all_up_to(self, events: i64) -> Self {
        Self { rank_all_events: events, ..self }
    }

    /// Runs a read in one snapshot, interrupted when it takes too long.
    fn snapshot<R>(
        &self,
        wait_ms: u64,
        job: impl FnOnce(&Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path, READER_CACHE_KIB)?,
        };
        let guard = self.watch.guard(&connection, Duration::from_millis(wait_ms));
        let result = connection.transaction().map_err(store_error).and_then(|transaction| job(&transaction));
        drop(guard);
        // A connection that failed is closed: whatever ailed it is not handed to the next.
        let answer = result?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        Ok(answer)
    }
}

impl Store for SqliteLedger {
    fn read<R: Send + 'static>(
        &self,
        view: View,
        job: impl Fn(&mut dyn Sql) -> Result<R, StoreError> + Send + Sync + 'static,
    ) -> Result<R, StoreError> {
        let wait_ms = if let View::Long(ms) = view { ms } else { READ_MS_MAX };
        self.snapshot(wait_ms, |transaction| job(&mut SqliteSql(transaction)))
    }

    fn rank_all_events_max(&self) -> i64 {
        self.rank_all_events
    }

    fn writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        let connection = connect(&self.path, WRITER_CACHE_KIB)?;
        Ok(Box::new(writer::SqliteWriter::new(connection, self.turns.clone(), self.watch.clone())))
    }

    fn find_posts(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        self.snapshot(READ_MS_MAX, |transaction| search::posts(transaction, query).map_err(read_error))
    }

    fn export_page(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        self.snapshot(READ_MS_MAX, |transaction| export::page(transaction, query, after).map_err(read_error))
    }
}

fn connect(path: &Path, cache_kib: i64) -> Result<Connection, StoreError> {
    // A connection is used by one thread at a time: no lock of SQLite's own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(store_error)?;
    keep_log(&connection);
    let set = || {
        connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // The default of rusqlite's build, said aloud: a commit is on the disk before it is answered.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Negative: KiB, not pages.
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        // The log is cut back to this after a checkpoint.
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
    };
    match set().map_err(store_error)?.as_str() {
        "wal" => Ok(connection),
        mode => Err(StoreError::Fatal(format!(
            "{}: SQLite keeps journal_mode={mode}; the file system must support a write-ahead log",
            path.display()
        ))),
    }
}

/// Leaves the write-ahead log and its index in place at the end, so that the next start needs no free space for them.
fn keep_log(connection: &Connection) {
    let mut on: std::ffi::c_int = 1;
    // SAFETY: the handle is open as long as `connection` lives; this control reads and writes one int, which outlives it.
    unsafe {
        let (handle, on) = (connection.handle(), (&raw mut on).cast());
        // It fails only for a file system without a log, which `journal_mode` reports.
        rusqlite::ffi::sqlite3_file_control(handle, c"main".as_ptr(), rusqlite::ffi::SQLITE_FCNTL_PERSIST_WAL, on);
    }
}

/// Large sorts and statements write temporary files. SQLite looks for a place in the system's directories, and there may
/// be none that can be written: they belong beside the ledger. The place is one of the process, so it is chosen once,
/// before any other connection is at work.
fn keep_temporary_files_beside(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    static CHOSEN: OnceLock<()> = OnceLock::new();
    let mut result = Ok(());
    CHOSEN.get_or_init(|| {
        let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let place = place.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        result = connection.pragma_update(None, "temp_store_directory", place).map_err(store_error);
    });
    result
}

/// Two programs that start together take turns at the lock.
fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    let found = owner::owner(&transaction).map_err(store_error)?;
    if let Some(why) = owner::refusal(&found) {
        return Err(StoreError::Fatal(why));
    }
    if found == Owner::Nobody {
        transaction.execute_batch(SCHEMA).map_err(store_error)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(store_error)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(store_error)?;
    }
    transaction.commit().map_err(store_error)
}
