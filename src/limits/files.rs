//! Bounds of what moves events in and out of files: `export` and `import`.

// ---- export ----

/// Rows of one page of an export.
pub const EXPORT_PAGE_ROWS_MAX: usize = 1_000;
/// … and of one whose rows are large, or not known yet.
pub const EXPORT_PAGE_ROWS_MIN: usize = 64;
/// What a page should hold; where small rows are followed by large ones, one page is larger (at most 13 KiB a row).
pub const EXPORT_PAGE_BYTES: usize = 1024 * 1024;
/// A page that has found nothing after this comes back empty, so that its caller can look around.
pub const EXPORT_PAGE_MS: u64 = 150;
/// A page of PostgreSQL looks at a slice of time that takes about this long to read.
pub const EXPORT_SLICE_MS: u64 = 60;
/// The slice that an export begins with.
pub const EXPORT_FIRST_SLICE_MS: i64 = 60_000;
/// A slice is not longer than this.
pub const EXPORT_SLICE_MS_MAX: i64 = 86_400_000;
/// A page is sent in pieces of this size: each is copied once.
pub const EXPORT_PIECE_BYTES: usize = 64 * 1024;
/// Exports over HTTP at once; further ones are refused (503): reads have the rest of the lane.
pub const EXPORTS_MAX: usize = 2;
/// Tries at one page, with growing pauses in between, before an export is cut.
pub const EXPORT_TRIES_MAX: u32 = 4;

// ---- import ----

/// Connections of an import (`--connections`).
pub const IMPORT_CONNECTIONS_MAX: usize = 64;
/// Their default.
pub const IMPORT_CONNECTIONS: usize = 4;
/// Columns of a CSV file.
pub const IMPORT_COLUMNS_MAX: usize = 256;
/// What the list of refused rows shows of a row that is over its bound.
pub const IMPORT_SHOWN_BYTES_MAX: usize = 1_000;
/// What is read of a resume file: at most a range per connection.
pub const IMPORT_STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The resume file is written this often: what was confirmed since then is sent again after a kill, with its ids.
pub const IMPORT_SAVE_MS: u64 = 1_000;
/// How often the bar moves, and a stop is looked for.
pub const IMPORT_TICK_MS: u64 = 50;
/// TCP and TLS to the server.
pub const IMPORT_CONNECT_MS_MAX: u64 = 5_000;
/// A request and its answer; longer than the server waits for anything.
pub const IMPORT_REQUEST_MS_MAX: u64 = 60_000;
/// An answer that lists every row of a batch as refused is far smaller.
pub const IMPORT_ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A `Retry-After` is honoured up to this.
pub const IMPORT_RETRY_AFTER_MS_MAX: u64 = 60_000;
/// Without any progress for this long an import gives up (`--give-up-after`).
pub const IMPORT_GIVE_UP_SECS: u64 = 600;
/// … at most: the server must still know the ids of what is sent again.
pub const IMPORT_GIVE_UP_SECS_MAX: u64 = 23 * 3_600;
