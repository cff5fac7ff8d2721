//! The log: every line goes through a bounded queue to one thread, which alone writes to standard error.
//!
//! No worker and no writer of the journal ever waits for a reader of the log. A line that finds the queue full, or
//! that cannot be written, is dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::limits::{LOG_BYTES_MAX, LOG_FLUSH_MS, LOG_LINES_MAX};

/// The queue, once the log was started.
static QUEUE: OnceLock<Queue> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Which lines are written: levels by target.
#[derive(Clone, Debug)]
pub struct Directives(Targets);

/// Targets that log lines have. Another one would match no line, so a setting that names it is a mistake.
const TARGETS: [&str; 9] =
    ["access", "event_tracker", "may", "postgres", "r2d2", "redis", "rustls", "tokio_postgres", "ureq"];
/// Names the modules of this crate, which are targets below `event_tracker`.
const MODULES: &str = include_str!("lib.rs");

impl FromStr for Directives {
    type Err = String;

    /// `info`, or a list such as `info,event_tracker::journal=debug`.
    fn from_str(text: &str) -> Result<Directives, String> {
        // The runtime reports each socket at `info`, which is `debug` to us.
        let mut targets = Targets::new().with_target("may", LevelFilter::WARN);
        let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty()).peekable();
        if parts.peek().is_none() {
            return Err("names no level".to_owned());
        }
        for part in parts {
            targets = match part.split_once('=') {
                None => targets.with_default(level(part)?),
                Some((target, text)) => targets.with_target(known(target.trim())?, level(text.trim())?),
            };
        }
        Ok(Directives(targets))
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let wanted = text.to_ascii_lowercase();
    match wanted.as_str() {
        "off" | "error" | "warn" | "info" | "debug" | "trace" => {
            wanted.parse().map_err(|_| format!("`{text}` is no level"))
        }
        _ => Err(format!("`{text}` is none of off, error, warn, info, debug, trace")),
    }
}

fn known(target: &str) -> Result<&str, String> {
    let mut path = target.split("::");
    let is_known = match (path.next(), path.next()) {
        (Some("event_tracker"), Some(module)) => MODULES.contains(&format!("pub mod {module};")),
        (first, _) => first.is_some_and(|first| TARGETS.contains(&first)),
    };
    let why = || format!("`{target}` logs nothing: targets are event_tracker::MODULE, {}", TARGETS.join(", "));
    is_known.then_some(target).ok_or_else(why)
}

enum Message {
    Line(Box<[u8]>),
    /// Everything queued before it was written or dropped.
    Flush(Sender<()>),
}

struct Queue {
    messages: Sender<Message>,
    /// Bytes of the lines that wait.
    bytes: AtomicUsize,
}

/// Starts the log; a second call changes nothing. The error is one line.
pub fn start(directives: Directives, format: LogFormat) -> Result<(), String> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    let (messages, taken) = bounded(LOG_LINES_MAX);
    let spawned = std::thread::Builder::new().name("log".into()).spawn(move || taken.iter().for_each(write));
    spawned.map_err(|error| format!("cannot start the thread of the log: {error}"))?;
    // Only now: without the thread, lines for people are written directly.
    let _ = QUEUE.set(Queue { messages, bytes: AtomicUsize::new(0) });
    let lines = tracing_subscriber::fmt::layer().with_writer(|| QueuedLine).with_target(false).with_ansi(false);
    let lines = lines.log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(directives.0).try_init().map_err(|error| error.to_string())
}

/// Lines that were dropped since the start.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until queued lines are written, for a bounded time: a reader that reads nothing does not delay an end.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let deadline = Instant::now() + Duration::from_millis(LOG_FLUSH_MS);
    let (done, written) = bounded(1);
    if queue.messages.send_deadline(Message::Flush(done), deadline).is_ok() {
        let _ = written.recv_deadline(deadline);
    }
}

/// Flushes the log when it is dropped, however its owner ends.
pub struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// The last line of a process that cannot go on: to the log if that shows errors, else as plain text.
pub fn last_words(line: &str) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{line}");
    } else {
        tell(format_args!("event-tracker: {line}"));
    }
    flush();
}

/// A line of plain text for people. Unlike std's `eprintln`, it does not panic if it cannot be written.
pub fn tell(line: std::fmt::Arguments<'_>) {
    let text = format!("{line}\n");
    match QUEUE.get() {
        Some(queue) => queue.push(text.as_bytes()),
        None => _ = io::stderr().write_all(text.as_bytes()),
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let waiting = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = waiting.saturating_add(line.len()) <= LOG_BYTES_MAX;
        if !fits || self.messages.try_send(Message::Line(line.into())).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the formatter writes to: it hands over each line as a whole.
struct QueuedLine;

impl Write for QueuedLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get() {
            queue.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(message: Message) {
    match message {
        Message::Line(line) => {
            if let Some(queue) = QUEUE.get() {
                queue.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            if write_all(&line).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        Message::Flush(done) => _ = done.send(()),
    }
}

/// Not through std's handle: this thread may hang here, and its lock would then stop everybody who prints.
fn write_all(mut rest: &[u8]) -> io::Result<()> {
    // SAFETY: descriptor 2 is open for the whole life of a process (std opens it if it was closed), and is never closed
    // by this value.
    let mut stderr = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(libc::STDERR_FILENO) });
    while !rest.is_empty() {
        match stderr.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A parent made the pipe non-blocking: wait here for its reader, as a blocking pipe would.
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_writable(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_writable() {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one descriptor is given, which outlives the call.
    unsafe { libc::poll(&raw mut stderr, 1, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_name_levels_and_targets_that_exist() {
        for good in ["info", "WARN", "off", "info,event_tracker::journal=debug", "error, access=off", "may=trace"] {
            assert!(good.parse::<Directives>().is_ok(), "{good}");
        }
        for bad in [
            "loud",
            "",
            ",",
            "info,loud",
            "7",
            "event_tracker",
            "event_tracker=loud",
            "event_tracker=",
            "=info",
            "event_tracker::nothing=debug",
            "event-tracker=debug",
            "somebody=info",
            "event_tracker[span]=info",
        ] {
            let why = bad.parse::<Directives>().unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{bad}: {why}");
        }
    }
}
