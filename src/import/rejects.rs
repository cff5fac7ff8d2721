//! The list of what was refused and why: NDJSON beside the input, made when there is something to list.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
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
    /// wrote behind that is about rows that are sent again, and goes.
    pub(super) fn open(path: &Path, file: &str, known_bytes: Option<u64>) -> io::Result<Rejects> {
        let mut rejects = Rejects { path: path.to_owned(), file: file.to_owned(), open: None, bytes: 0 };
        if path.exists() {
            let mut existing = File::options().write(true).open(path)?;
            rejects.bytes = existing.metadata()?.len();
            if let Some(known) = known_bytes.filter(|known| *known < rejects.bytes) {
                existing.set_len(known)?;
                rejects.bytes = known;
            }
            existing.seek(SeekFrom::Start(rejects.bytes))?;
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
            self.open = Some(BufWriter::new(File::options().create(true).append(true).open(&self.path)?));
        }
        if let Some(open) = &mut self.open {
            open.write_all(&text)?;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    /// Hands what was added to the system, and a handle to sync it with.
    pub(super) fn flush(&mut self) -> io::Result<Option<File>> {
        match &mut self.open {
            Some(open) => {
                open.flush()?;
                open.get_ref().try_clone().map(Some)
            }
            None => Ok(None),
        }
    }
}
