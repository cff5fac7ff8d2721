//! One process a directory: a lock on the file `LOCK` in it, which ends with the process however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::OpenError;
use super::storage::if_there;
use crate::limits::JOURNAL_LOCK_WAIT_MS;

const PAUSE: Duration = Duration::from_millis(5);

/// Held as long as it lives.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a directory that is there. Waits [`JOURNAL_LOCK_WAIT_MS`] for it: [`Lock::is_held`] of another
    /// process may have it for a moment.
    pub fn take(directory: &Path) -> Result<Lock, OpenError> {
        let file = File::options().create(true).truncate(false).write(true).open(directory.join("LOCK"))?;
        let deadline = Instant::now() + Duration::from_millis(JOURNAL_LOCK_WAIT_MS);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// A process uses the directory. Asked by taking the lock shared, and letting go of it at once: who looks never
    /// keeps a server from starting.
    pub fn is_held(directory: &Path) -> io::Result<bool> {
        let Some(file) = if_there(File::open(directory.join("LOCK")))? else { return Ok(false) };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
