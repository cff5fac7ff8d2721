//! Where the journal's bytes are kept: a directory of files, behind a trait so that a model of crashes can stand in.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::limits::JOURNAL_LOCK_WAIT_MS;
use crate::process::{TMPFS, file_system};

/// A directory of segment files. After an error the call may have had its effect, or a part of it, or none. Only
/// contents after [`SegmentFile::sync`] and names after [`Storage::sync_names`] survive a crash. Calls block.
pub trait Storage: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file of `bytes` zeros, allocated on the disk: a full disk shows here. Replaces a file of that name.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>>;
    /// An existing file; `NotFound` where there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>>;
    /// Atomic; replaces `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; readers that have the file open keep it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renamings and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes that a process like ours may still allocate.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One file. After an error of `write_at` or `sync` its contents behind the last successful `sync` are unknown. The
/// caller does not write to it again, but for a recovery, which writes everything again that may not be durable.
pub trait SegmentFile: Send + Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `bytes` from `offset`; the number of bytes is smaller only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    fn sync(&self) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
    /// It has another name, too: a copy by links, whose contents must stay as they are.
    fn is_linked(&self) -> io::Result<bool>;
}

pub(super) fn read_stream(storage: &dyn Storage) -> io::Result<Option<String>> {
    let Some(file) = if_there(storage.open("stream"))? else { return Ok(None) };
    let mut bytes = [0; 64];
    let n = file.read_at(&mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..n]).into_owned()))
}

/// Writes the file `stream`, durably: first under a temporary name.
pub(super) fn write_stream(storage: &dyn Storage, stream: Uuid) -> io::Result<()> {
    let text = format!("{stream}\n");
    let file = storage.create("stream.tmp", text.len() as u64)?;
    write_and_name(storage, &*file, text.as_bytes(), "stream.tmp", "stream")
}

/// Begins a file with `bytes`, and gives it its name only once they are durable.
pub(super) fn write_and_name(
    storage: &dyn Storage,
    file: &dyn SegmentFile,
    bytes: &[u8],
    temporary: &str,
    name: &str,
) -> io::Result<()> {
    file.write_at(bytes, 0)?;
    file.sync()?;
    storage.rename(temporary, name)?;
    storage.sync_names()
}

/// The result of a call on a name; `None` if there is no such file.
pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// The shipped storage: files in a directory.
pub struct Directory {
    path: PathBuf,
    handle: File,
    is_read_only: bool,
}

impl Directory {
    /// Creates the directory where it is missing. tmpfs loses everything with the machine's power: it is refused
    /// unless `allow_tmpfs`.
    pub fn open(path: &Path, allow_tmpfs: bool) -> io::Result<Directory> {
        create_durably(path)?;
        let directory = Directory { path: path.to_owned(), handle: File::open(path)?, is_read_only: false };
        if !allow_tmpfs && file_system(&directory.handle)?.0 == TMPFS {
            return Err(io::Error::other(
                "the directory is on tmpfs, which loses events with the power; choose another or set ALLOW_TMPFS=true",
            ));
        }
        Ok(directory)
    }

    /// A directory that is there, to be looked at: nothing is written, files are opened for reading alone.
    pub fn look(path: &Path) -> io::Result<Directory> {
        Ok(Directory { path: path.to_owned(), handle: File::open(path)?, is_read_only: true })
    }
}

/// Creates a path and makes each new name durable: else the power could take a directory of synced files with it.
fn create_durably(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    std::fs::create_dir_all(&path)?;
    for parent in missing.iter().rev().filter_map(|new| new.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.path)?
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path.join(name))?;
        // Written, not only reserved: a sync of a reserved extent must also record that it is written now, which made
        // an fdatasync 201 µs instead of 126 µs on ext4.
        let zeros = vec![0; 1024 * 1024];
        for offset in (0..bytes).step_by(zeros.len()) {
            let length = zeros.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            file.write_all_at(&zeros[..length], offset)?;
        }
        file.sync_all()?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(!self.is_read_only).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        file_system(&self.handle).map(|(_, free_bytes)| free_bytes)
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match FileExt::read_at(self, &mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.metadata().map(|m| m.nlink() > 1)
    }
}

const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// One process a directory: a lock on the file `LOCK` in it, held as long as it lives, which ends with the process however
/// that ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, unless another process keeps it for [`JOURNAL_LOCK_WAIT_MS`]: its [`Lock::is_held`] may have it for a
    /// moment.
    pub fn take(directory: &Path) -> io::Result<Option<Lock>> {
        let file = File::options().create(true).truncate(false).write(true).open(directory.join("LOCK"))?;
        let deadline = Instant::now() + Duration::from_millis(JOURNAL_LOCK_WAIT_MS);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
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
