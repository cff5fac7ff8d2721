//! The list of what was refused and why: NDJSON beside the input, made when there is something to list.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::batch::Refused;

/// The list, written to its end.
pub(super) struct Rejects {
    path: PathBuf,
    /// The input's name in it.
    file: String,
    open: Option<BufWriter<File>>,
    bytes: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    line: u64,
    error: &'a str,
    message: &'a str,
    input: &'a str,
}

impl Rejects {
    /// Adds to what the file holds. `known_bytes`: what an earlier run of the same import knows to be good; what it
    /// wrote after that is about rows that are sent again, and is cut off.
    pub(super) fn open(path: &Path, file: &str, known_bytes: Option<u64>) -> io::Result<Rejects> {
        let mut rejects = Rejects { path: path.to_owned(), file: file.to_owned(), open: None, bytes: 0 };
        if path.exists() {
            let existing = open(path)?;
            let about = existing.metadata()?;
            if about.is_file() {
                rejects.bytes = known_bytes.map_or(about.len(), |known| known.min(about.len()));
                existing.set_len(rejects.bytes)?;
                // Earlier versions made it for everybody. A failure leaves it as its owner wants it.
                let _ = existing.set_permissions(Permissions::from_mode(0o600));
            }
            rejects.open = Some(BufWriter::new(existing));
        }
        Ok(rejects)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn add(&mut self, refused: &Refused) -> io::Result<()> {
        let input = String::from_utf8_lossy(&refused.input);
        let (error, message) = (&*refused.refusal.error, &*refused.refusal.message);
        let mut text =
            serde_json::to_vec(&Line { file: &self.file, line: refused.line, error, message, input: &input })?;
        text.push(b'\n');
        if self.open.is_none() {
            self.open = Some(BufWriter::new(open(&self.path)?));
        }
        if let Some(open) = &mut self.open {
            open.write_all(&text)?;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    /// Hands what was added to the system, and a handle to sync it with. A pipe or a device cannot be synced.
    pub(super) fn flush(&mut self) -> io::Result<Option<File>> {
        match &mut self.open {
            Some(open) => {
                open.flush()?;
                let file = open.get_ref();
                if file.metadata()?.is_file() { file.try_clone().map(Some) } else { Ok(None) }
            }
            None => Ok(None),
        }
    }
}

/// To add to it, whatever it is; a new file is for its owner alone, as it shows what people did.
fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}
