//! Bounds of the log's queue.

/// Log lines that wait to be written; further ones are dropped and counted.
pub const LOG_LINES_MAX: usize = 8_192;
/// … and their bytes: a few seconds of a busy access log.
pub const LOG_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long an end waits for queued log lines to be written: someone may read them slowly, or not at all.
pub const LOG_FLUSH_MS: u64 = 2_000;
