//! A look at a journal that nobody has open: what recovery would find, without changing a byte.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::recovery::{OpenError, recover};
use super::storage::{SegmentFile, Storage};
use crate::ports::Position;

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// No journal was ever here.
    Absent,
    /// A process has it open.
    Locked,
    Sound {
        stream: Uuid,
        end: Position,
        segments: usize,
        /// Bytes behind the end that were never acknowledged.
        torn_bytes: u64,
    },
}

/// Reads the journal in `directory`.
pub fn inspect(directory: &Path) -> Result<Inspection, OpenError> {
    let text = match std::fs::read_to_string(directory.join("stream")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Inspection::Absent),
        Err(error) => return Err(error.into()),
    };
    let stream =
        Uuid::parse_str(text.trim()).map_err(|_| OpenError::Corrupt("the file `stream` holds no UUID".into()))?;
    // Shared and for the time of reading: a server that starts meanwhile says that the directory is in use.
    let Some(_lock) = share_lock(directory)? else { return Ok(Inspection::Locked) };
    let found = recover(&ReadOnly(directory.to_owned()), stream)?;
    let (end, segments) = (found.end.position, found.segments.len());
    Ok(Inspection::Sound { stream, end, segments, torn_bytes: found.torn_bytes })
}

fn share_lock(directory: &Path) -> io::Result<Option<File>> {
    // A copy may have been made without the lock's file.
    let file = File::open(directory.join("LOCK")).or_else(|_| File::open(directory))?;
    // SAFETY: flock takes an open descriptor and keeps nothing.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0 {
        return Ok(Some(file));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

/// A directory that cannot be changed through this.
struct ReadOnly(PathBuf);

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading"))
}

impl Storage for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.0)?
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn SegmentFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(ReadOnlyFile(File::open(self.0.join(name))?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

struct ReadOnlyFile(File);

impl SegmentFile for ReadOnlyFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        SegmentFile::read_at(&self.0, bytes, offset)
    }

    /// Nothing was written.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        SegmentFile::size(&self.0)
    }
}
