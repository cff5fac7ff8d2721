//! Failures of SQLite, as the ports name them.

use rusqlite::ErrorCode;

use crate::ports::StoreError;

/// A failure as the port names it.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
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

/// A failure of a read: a statement that was interrupted is `Cancelled`.
pub(super) fn read_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => StoreError::Cancelled(format!("SQLite: {error}")),
        _ => store_error(error),
    }
}
