//! The embedded ledger: SQLite in the data directory, write-ahead log, synced at each commit.
//!
//! Same tables, same answers as PostgreSQL. One writer at a time, as SQLite has it; readers see snapshots and are
//! pooled. What a batch means is decided in `ledger_fold`.

mod edges;
mod erase;
mod export;
mod fold;
pub mod inspect;
mod maintain;
mod open_day;
mod owner;
mod rankings;
mod read;
mod retire;
mod search;
mod turns;
mod user_sets;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use uuid::Uuid;

use crate::ledger_fold::{RankPlan, days_within_hours, few_events, plan_rank, skip_hidden};
use crate::limits::{READ_WAIT_MS, SNAPSHOT_MS_MAX};
use crate::ports::{
    Belongings, CountFilter, Erasure, ExportCursor, ExportPage, ExportQuery, Ledger, LedgerWriter, Likes, Position,
    Post, PostSearch, Ranked, RankingQuery, SeriesPoint, SeriesQuery, Snapshot, StoreError, TopQuery, Verdicts,
    Watermark,
};
use owner::APPLICATION_ID;
pub use owner::Owner;
use turns::Turns;
use watch::Watch;

const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_VERSION: i64 = 9;
/// How long a lock of another connection is waited for.
const BUSY_MS_MAX: u64 = 5_000;
/// Readers that are kept open.
const READERS_KEPT: usize = 8;
/// Pages that the writer keeps in memory: a batch touches rollups all over the file.
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
    fn read<R>(
        &self,
        wait_ms: u64,
        job: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<R, StoreError> {
        self.try_read(wait_ms, job)?.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => StoreError::Cancelled(format!("SQLite: {error}")),
            _ => store_error(error),
        })
    }

    /// A read for which being interrupted is an answer: `None`.
    fn read_in_time<R>(
        &self,
        job: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<Option<R>, StoreError> {
        match self.try_read(READ_MS_MAX, job)? {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(None),
            result => result.map(Some).map_err(store_error),
        }
    }

    fn try_read<R>(
        &self,
        wait_ms: u64,
        job: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<rusqlite::Result<R>, StoreError> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path, READER_CACHE_KIB)?,
        };
        let guard = self.watch.guard(&connection, Duration::from_millis(wait_ms));
        let result = connection.transaction().and_then(|transaction| job(&transaction));
        drop(guard);
        // A connection that failed is closed: whatever ailed it is not handed to the next.
        if result.is_err() {
            return Ok(result);
        }
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        Ok(result)
    }
}

impl Ledger for SqliteLedger {
    fn open_writer(&self) -> Result<Box<dyn LedgerWriter>, StoreError> {
        let connection = connect(&self.path, WRITER_CACHE_KIB)?;
        Ok(Box::new(writer::SqliteWriter::new(connection, self.turns.clone(), self.watch.clone())))
    }

    fn watermark(&self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::watermark(transaction, stream))
    }

    fn verdicts(&self, stream: Uuid, after: Position, up_to: Position) -> Result<Option<Verdicts>, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::verdicts(transaction, stream, after, up_to))
    }

    fn erasure(&self, stream: Uuid, position: Position) -> Result<Erasure, StoreError> {
        self.read(READ_MS_MAX, |transaction| erase::erasure(transaction, stream, position.cast_signed()))
    }

    fn belongings(&self, user_id: &str, limit: usize) -> Result<Belongings, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(READ_MS_MAX, |transaction| erase::of_user(transaction, user_id, limit))
    }

    fn count(&self, filter: &CountFilter) -> Result<u64, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::count(transaction, filter))
    }

    fn top(&self, query: &TopQuery, now_ms: i64, zone: &TimeZone) -> Result<Vec<(String, f64)>, StoreError> {
        let plan = plan_rank(query, now_ms, zone);
        let few = few_events(query.limit).min(self.rank_all_events);
        self.read(READ_MS_MAX, |transaction| {
            if !query.parts.iter().any(|(dimension, _)| dimension.names_posts()) {
                return read::top(transaction, query, &plan, now_ms, few);
            }
            let first = |transaction: &mut &rusqlite::Transaction<'_>, limit| {
                let (query, plan) = (TopQuery { limit, ..query.clone() }, RankPlan { limit, ..plan.clone() });
                read::top(transaction, &query, &plan, now_ms, few).map(Some)
            };
            Ok(skip_hidden(&mut { transaction }, query.limit, first, read::hidden)?.unwrap_or_default())
        })
    }

    fn ranking(&self, query: &RankingQuery, now_ms: i64) -> Result<Option<Ranked>, StoreError> {
        let few = few_events(query.limit).min(self.rank_all_events);
        self.read_in_time(|transaction| {
            if !query.parts.iter().any(|(dimension, _)| dimension.names_posts()) {
                return rankings::ranking(transaction, query, now_ms, few);
            }
            let first = |transaction: &mut &rusqlite::Transaction<'_>, limit| {
                rankings::ranking(transaction, &RankingQuery { limit, ..query.clone() }, now_ms, few).map(Some)
            };
            Ok(skip_hidden(&mut { transaction }, query.limit, first, read::hidden)?.unwrap_or_default())
        })
    }

    fn series(&self, query: &SeriesQuery) -> Result<Option<Vec<SeriesPoint>>, StoreError> {
        self.read_in_time(|transaction| rankings::series(transaction, query))
    }

    fn users(&self, from_ms: i64, to_ms: i64) -> Result<Option<u64>, StoreError> {
        self.read_in_time(|transaction| rankings::users(transaction, from_ms, to_ms))
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::recent(transaction, user_id, now_ms))
    }

    fn snapshot(&self, now_ms: i64, zone: &TimeZone) -> Result<Snapshot, StoreError> {
        let days = days_within_hours(zone, now_ms);
        self.read(SNAPSHOT_MS_MAX, |transaction| read::snapshot(transaction, now_ms, &days))
    }

    fn likes(&self, post_id: &str, user_id: Option<&str>) -> Result<Likes, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::likes(transaction, post_id, user_id))
    }

    fn post(&self, post_id: &str) -> Result<Option<Post>, StoreError> {
        self.read(READ_MS_MAX, |transaction| read::post(transaction, post_id))
    }

    fn search(&self, query: &PostSearch) -> Result<Vec<Post>, StoreError> {
        self.read(READ_MS_MAX, |transaction| search::posts(transaction, query))
    }

    fn export(&self, query: &ExportQuery, after: Option<ExportCursor>) -> Result<ExportPage, StoreError> {
        self.read(READ_MS_MAX, |transaction| export::page(transaction, query, after))
    }

    fn dead_letters(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM dead_letter";
        self.read(READ_MS_MAX, |transaction| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)))
            .map(i64::cast_unsigned)
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

/// A failure as the port names it.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn store_error(error: rusqlite::Error) -> StoreError {
    let text = format!("SQLite: {error}");
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => StoreError::Retry(text),
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TooBig
            | ErrorCode::TypeMismatch
            | ErrorCode::ParameterOutOfRange,
        ) => StoreError::Poison(text),
        _ => StoreError::Fatal(text),
    }
}
