//! DATA_DIR before it is used: each file that the server will write must be a regular file that it may write.
//!
//! The stores would find out later: after the port is bound, and with events already accepted.

use std::ffi::CString;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;
/// The embedded ledger and the files that SQLite keeps beside it.
const LEDGER: [&str; 4] = ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite-journal"];

/// The directory itself, or the nearest one above it that exists. The error is one line that says what to do.
pub(super) fn check(data_dir: &Path) -> Result<PathBuf, String> {
    let existing = existing(data_dir)?;
    is_usable(&existing)?;
    if existing == data_dir {
        let journal = data_dir.join("journal");
        if is_there(&journal) {
            is_usable(&journal)?;
        }
        for file in files(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))? {
            can_be_written(&file)?;
        }
    }
    Ok(existing)
}

/// Files and directories that others than their owner can reach, and what to do.
pub(super) fn warning(data_dir: &Path) -> Option<String> {
    let paths = [data_dir.to_owned(), data_dir.join("journal")].into_iter().chain(files(data_dir).ok()?);
    let wide: Vec<(PathBuf, u32)> =
        paths.filter_map(|path| Some((mode(&path.metadata().ok()?), path))).filter_map(open_to_others).collect();
    let (path, mode) = wide.first()?;
    let more = if wide.len() > 1 { format!(" and {} more", wide.len() - 1) } else { String::new() };
    let whole = data_dir.display();
    Some(format!("{} (mode {mode:04o}){more} can be reached by other users: chmod -R go= {whole}", path.display()))
}

fn open_to_others((mode, path): (u32, PathBuf)) -> Option<(PathBuf, u32)> {
    (mode & OTHERS != 0).then_some((path, mode))
}

/// Takes permissions of others away from files of ours that an earlier version made. A directory that an operator made
/// stays as it is: see [`warning`].
pub(super) fn keep_private(data_dir: &Path) {
    for path in files(data_dir).unwrap_or_default() {
        let wide = path.metadata().is_ok_and(|about| mode(&about) & OTHERS != 0);
        // Of another owner: the warning tells.
        let _ = wide.then(|| std::fs::set_permissions(&path, Permissions::from_mode(0o600)));
    }
}

/// Who owns a path, and who we are.
pub(super) fn owner(path: &Path) -> String {
    let about = path.metadata().map(|about| format!("owner {}, mode {:04o}", about.uid(), mode(&about)));
    // SAFETY: reads the process's own user id.
    format!("{}; we are {}", about.unwrap_or_else(|error| error.to_string()), unsafe { libc::geteuid() })
}

fn mode(about: &Metadata) -> u32 {
    about.mode() & 0o7777
}

/// A link whose target is missing is there, too: nothing can be made in its place.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn existing(data_dir: &Path) -> Result<PathBuf, String> {
    let whole = std::path::absolute(data_dir).map_err(|error| format!("DATA_DIR {}: {error}", data_dir.display()))?;
    let found = whole.ancestors().find(|path| is_there(path)).unwrap_or(Path::new("/"));
    match found.metadata() {
        Ok(about) if about.is_dir() => Ok(if found == whole { data_dir } else { found }.to_owned()),
        Ok(_) => Err(format!("{} is no directory: choose another DATA_DIR", found.display())),
        Err(error) => Err(format!("{}: {error}: choose another DATA_DIR", found.display())),
    }
}

fn is_usable(directory: &Path) -> Result<(), String> {
    if !directory.is_dir() {
        return Err(format!("{} is no directory: move it away", directory.display()));
    }
    let path = CString::new(directory.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: the path ends with a zero byte and outlives the call.
    let refused = unsafe {
        libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::R_OK | libc::W_OK | libc::X_OK, libc::AT_EACCESS) != 0
    };
    if refused {
        let error = io::Error::last_os_error();
        return Err(cannot_be_written(directory, &error));
    }
    Ok(())
}

fn cannot_be_written(path: &Path, error: &io::Error) -> String {
    let what_to_do = match error.raw_os_error() {
        Some(libc::EROFS) => "mount it writable",
        _ => "chown it to the user of the server",
    };
    format!("{} cannot be written ({error}; {}): {what_to_do}, or choose another DATA_DIR", path.display(), owner(path))
}

/// The files that exist and that the server writes. Others are left alone, such as `lost+found` of a mounted disk.
fn files(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let ledger = LEDGER.iter().map(|name| data_dir.join(name)).filter(|path| is_there(path));
    let journal = match std::fs::read_dir(data_dir.join("journal")) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(ledger.chain(journal.into_iter().filter(|path| is_of_journal(path))).collect())
}

fn is_of_journal(path: &Path) -> bool {
    let is_segment = path.extension().is_some_and(|extension| extension == "segment" || extension == "tmp");
    is_segment || path.file_name().is_some_and(|name| name == "stream" || name == "LOCK")
}

fn can_be_written(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Ok(about) if about.is_file() => {}
        Ok(_) => return Err(format!("{} is no regular file: move it away", path.display())),
        Err(error) => return Err(format!("{}: {error}: move it away", path.display())),
    }
    // Opened, not only looked at: permissions are not all that can forbid it.
    let opened = File::options().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| cannot_be_written(path, &error))
}
