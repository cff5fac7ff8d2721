//! Where a command writes: standard output, a file that has its name only once it is whole, or something else that is
//! written to as it is.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::shutdown;

/// The exit code of an interrupted command.
pub(super) const INTERRUPTED: i32 = 130;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Text on its way out; compressed where the file's name ends with `.gz` or `.zst`.
pub(super) struct Output {
    coder: Coder,
    path: Option<PathBuf>,
}

enum Coder {
    Plain(BufWriter<Target>),
    Gzip(GzEncoder<BufWriter<Target>>),
    Zstd(Box<ZstdEncoder<'static, BufWriter<Target>>>),
}

enum Target {
    Standard(Stdout),
    /// Beside the file that it becomes, readable by its owner alone: it holds what people did.
    File(NamedTempFile),
    /// A device, a pipe or a link: it is written to, and stays what it is.
    Other(File),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Standard(stdout) => stdout.write(bytes),
            Target::File(file) => file.write(bytes),
            Target::Other(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Standard(stdout) => stdout.flush(),
            Target::File(file) => file.flush(),
            Target::Other(file) => file.flush(),
        }
    }
}

impl Target {
    /// Only a regular file or a new name is replaced by a whole file.
    fn open(path: &Path) -> io::Result<Target> {
        if fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
            let open = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
            end_on_signal(None)?;
            return Ok(Target::Other(open));
        }
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy();
        let prefix = format!(".{name}.");
        // A signal waits until the name of the file to remove is known.
        shutdown::hold();
        let file = tempfile::Builder::new().prefix(&prefix).suffix(".unfinished").tempfile_in(directory(path))?;
        end_on_signal(Some(file.path().to_owned()))?;
        Ok(Target::File(file))
    }
}

impl Output {
    /// `-` is standard output.
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        if path == Path::new("-") {
            end_on_signal(None)?;
            return Ok(Output { coder: Coder::Plain(BufWriter::new(Target::Standard(io::stdout()))), path: None });
        }
        let target = BufWriter::with_capacity(256 * 1024, Target::open(path)?);
        let coder = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Coder::Gzip(GzEncoder::new(target, Compression::default())),
            Some("zst") => Coder::Zstd(Box::new(ZstdEncoder::new(target, 0)?)),
            _ => Coder::Plain(target),
        };
        Ok(Output { coder, path: Some(path.to_owned()) })
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
        let mut target = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        target.flush()?;
        match (target, self.path) {
            (Target::File(file), Some(path)) => {
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|failed| failed.error)?;
                File::open(directory(&path))?.sync_all()
            }
            // A pipe or a device cannot be synced.
            (Target::Other(file), _) if file.metadata()?.is_file() => file.sync_all(),
            _ => Ok(()),
        }
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

/// How far a long command is, once a second, where a person looks on.
pub(super) struct Progress {
    stderr: Option<Stderr>,
    begun: Instant,
    told: Instant,
    /// Events so far.
    pub(super) events: u64,
}

impl Progress {
    pub(super) fn start() -> Progress {
        let stderr = Some(io::stderr()).filter(IsTerminal::is_terminal);
        Progress { stderr, begun: Instant::now(), told: Instant::now(), events: 0 }
    }

    pub(super) fn add(&mut self, events: usize) {
        self.events += events as u64;
        if self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let line = self.summary();
        if let Some(stderr) = &mut self.stderr {
            // Nobody there to read it is no failure of the work.
            let _ = write!(stderr, "\r{line} \x1b[K");
        }
    }

    /// Events, seconds and their rate.
    pub(super) fn summary(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.events as f64 / seconds.max(0.001);
        format!("{} in {seconds:.1} s ({rate:.0} a second)", counted(self.events, "event"))
    }

    /// The last word, on standard error.
    pub(super) fn end(mut self, what: &str) {
        let line = self.summary();
        let clear = if self.stderr.take().is_some() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{what} {line}");
    }
}
