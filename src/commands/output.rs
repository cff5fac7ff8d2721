//! Where a command writes: standard output, a file that has its name only once it is whole, or something else that is
//! written to as it is.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempPath;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::shutdown;

/// The exit code of an interrupted command.
pub(super) const INTERRUPTED: i32 = 130;

/// Text on its way out; compressed where the file's name ends with `.gz` or `.zst`.
pub(super) struct Output {
    coder: Coder,
    /// Where the text is until it is whole, and the name that it then gets.
    unfinished: Option<(TempPath, PathBuf)>,
}

enum Coder {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(Box<ZstdEncoder<'static, BufWriter<File>>>),
}

impl Output {
    /// `-` is standard output. A regular file or a new name is replaced by a whole file; a device, a pipe or a link is
    /// written to, and stays what it is. Files are readable by their owner alone: they hold what people did.
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        let (file, unfinished) = if path == Path::new("-") {
            (File::from(io::stdout().as_fd().try_clone_to_owned()?), None)
        } else if fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
            (File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?, None)
        } else {
            let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy();
            let prefix = format!(".{name}.");
            // A signal waits until the name of the file to remove is known.
            shutdown::hold();
            let file = tempfile::Builder::new().prefix(&prefix).suffix(".unfinished").tempfile_in(directory(path))?;
            let (file, unfinished) = file.into_parts();
            (file, Some((unfinished, path.to_owned())))
        };
        end_on_signal(unfinished.as_ref().map(|(file, _)| file.to_path_buf()))?;
        let target = BufWriter::with_capacity(256 * 1024, file);
        let coder = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Coder::Gzip(GzEncoder::new(target, Compression::default())),
            Some("zst") => Coder::Zstd(Box::new(ZstdEncoder::new(target, 0)?)),
            _ => Coder::Plain(target),
        };
        Ok(Output { coder, unfinished })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.coder {
            Coder::Plain(out) => out.write_all(bytes),
            Coder::Gzip(out) => out.write_all(bytes),
            Coder::Zstd(out) => out.write_all(bytes),
        }
    }

    /// Ends the text and gives the file its name, on the disk. Dropped before that, it leaves nothing behind.
    pub(super) fn finish(self) -> io::Result<()> {
        let buffered = match self.coder {
            Coder::Plain(out) => out,
            Coder::Gzip(out) => out.finish()?,
            Coder::Zstd(out) => out.finish()?,
        };
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        // A pipe or a device cannot be synced.
        if file.metadata()?.is_file() {
            file.sync_all()?;
        }
        let Some((unfinished, path)) = self.unfinished else { return Ok(()) };
        unfinished.persist(&path).map_err(|failed| failed.error)?;
        File::open(directory(&path))?.sync_all()
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `1 event`, `2000 events`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// At a signal: removes an unfinished file, clears the line of progress, and ends the process.
pub(super) fn end_on_signal(unfinished: Option<PathBuf>) -> io::Result<()> {
    let stop = shutdown::catch()?;
    let wait = move || {
        stop.wait();
        // It may be finished, and then has its name.
        let _ = unfinished.map(fs::remove_file);
        let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}event-tracker: interrupted");
        std::process::exit(INTERRUPTED);
    };
    std::thread::Builder::new().name("stop".into()).spawn(wait).map(drop)
}

/// How far a long command is: a line that changes on a terminal, and the total at the end.
pub(super) struct Progress {
    /// Draws nothing if standard error is no terminal.
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    pub(super) fn start() -> Progress {
        let style = ProgressStyle::with_template("{pos} events in {elapsed} ({per_sec})");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        Progress { bar: ProgressBar::no_length().with_style(style), begun: Instant::now() }
    }

    pub(super) fn add(&self, events: usize) {
        self.bar.inc(events as u64);
    }

    pub(super) fn end(self, what: &str) {
        self.bar.finish_and_clear();
        let (events, seconds) = (self.bar.position(), self.begun.elapsed().as_secs_f64());
        let rate = events as f64 / seconds.max(0.001);
        eprintln!("{what} {} in {seconds:.1} s ({rate:.0} a second)", counted(events, "event"));
    }
}
