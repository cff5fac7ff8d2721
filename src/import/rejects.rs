//! The list of refused rows and reasons: NDJSON, made when the first row is refused.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::batch::Refused;
use super::row::Refusal;

pub(super) struct Rejects {
    pub(super) path: PathBuf,
    /// The input's name in it.
    file: String,
    open: Option<BufWriter<File>>,
    pub(super) bytes: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    line: u64,
    #[serde(flatten)]
    refusal: &'a Refusal,
    input: &'a str,
}

impl Rejects {
    /// Appends to the file. `known_bytes`: what an earlier run of the same import has confirmed.
    /// Later bytes are about rows that are sent again, and are cut off. The error is one line, as
    /// those of the other functions.
    pub(super) fn open(path: &Path, file: &str, known_bytes: Option<u64>) -> Result<Rejects, String> {
        let mut rejects = Rejects { path: path.to_owned(), file: file.to_owned(), open: None, bytes: 0 };
        let mut open_existing = || -> io::Result<()> {
            let existing = open(path)?;
            let about = existing.metadata()?;
            if about.is_file() {
                rejects.bytes = known_bytes.map_or(about.len(), |known| known.min(about.len()));
                existing.set_len(rejects.bytes)?;
            }
            rejects.open = Some(BufWriter::new(existing));
            Ok(())
        };
        if path.exists() {
            open_existing().map_err(|e| failed(path, &e))?;
        }
        Ok(rejects)
    }

    pub(super) fn add(&mut self, refused: &Refused) -> Result<(), String> {
        let mut write = || -> io::Result<()> {
            let (input, refusal) = (String::from_utf8_lossy(&refused.input), &refused.refusal);
            let line = Line { file: &self.file, line: refused.line, refusal, input: &input };
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            let list = match &mut self.open {
                Some(list) => list,
                None => self.open.insert(BufWriter::new(open(&self.path)?)),
            };
            self.bytes += text.len() as u64;
            list.write_all(&text)
        };
        write().map_err(|e| failed(&self.path, &e))
    }

    /// Hands what was added to the system, and returns a handle to sync it with. A pipe or a device
    /// cannot be synced.
    pub(super) fn flush(&mut self) -> Result<Option<File>, String> {
        let Some(list) = &mut self.open else { return Ok(None) };
        let flush = |list: &mut BufWriter<File>| {
            list.flush()?;
            let file = list.get_ref();
            if file.metadata()?.is_file() { file.try_clone().map(Some) } else { Ok(None) }
        };
        flush(list).map_err(|e| failed(&self.path, &e))
    }
}

/// One line about a list that cannot be written.
pub(super) fn failed(path: &Path, error: &io::Error) -> String {
    format!("cannot write the list of refused rows {}: {error}", path.display())
}

/// Opens whatever the path names. A new file is for its owner alone, as it shows what people did.
fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}
