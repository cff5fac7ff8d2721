//! `import`: what was asked for on the command line, checked; the import itself is a client of the
//! server's API.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::output::INTERRUPTED;
use crate::config::{retention_ms, time_zone};
use crate::import::{Ended, Format, Judge, Refusal, Server, Settings, Stop, import_files};
use crate::limits::{
    IMPORT_CONNECTIONS, IMPORT_CONNECTIONS_MAX, IMPORT_GIVE_UP_SECS, IMPORT_GIVE_UP_SECS_MAX, IMPORT_SAVE_MS,
    REQUEST_EVENTS_MAX, RETENTION_DAYS,
};
use crate::{api, clock, shutdown};

const ABOUT: &str = "\
Send files of events to a server: NDJSON or CSV, plain, gzip or zstd, from files or standard input.

Every row is sent with an eventId, its own or one made for it, and sent again with the same one until it is answered: \
whatever breaks, it counts once. The server remembers ids for 24 h.";

const AFTER: &str = "\
Examples:
  event-tracker import clicks.ndjson searches.csv.gz
  zcat *.ndjson.gz | event-tracker import --resume-file all.import-state -
  event-tracker import --dry-run clicks.ndjson
  API_KEY=… event-tracker import --url https://events.example.org clicks.ndjson.zst

CSV: the header names the API's fields: eventType, userId, sessionId, timestamp, eventId, componentId, elementId, \
keyword, postId, url, referrer, resultCount (or metadata.componentId …), properties as JSON text. An empty field is none. \
Blanks around a field are dropped, and 42.0 is the id 42. A line with a bad quote is refused; the next one is read.

Times: RFC 3339, milliseconds, or as BigQuery and Snowflake write them (2026-11-01 12:34:56.789 UTC, … -0800). Times \
without a time zone need --source-time-zone.

Order: connections send at the same time. --connections 1 keeps the order of the input, which matters where LIKE and \
UNLIKE of the same user and post are in it.

Interrupted (Ctrl-C, kill -9, power): the same command goes on from there. The resume file holds what was confirmed and \
is written about once a second: after a kill, rows confirmed since then are sent again, with the same ids, and count once \
within 24 h. A second Ctrl-C ends at once, as a kill does. A finished import is remembered in the resume file: the same \
command sends nothing again.

The key is taken from the environment alone: API_KEY. A server with keys takes events older than its EVENT_AGE_MAX \
(7 days) only with an admin key.

Exit code: 0 every row was accepted; 1 failed; 2 wrong usage; 3 finished, but some rows were refused (see --rejects); \
130 interrupted.";

/// What is imported, and how.
#[derive(Debug, Args)]
#[command(about = "Send files of events to a server", long_about = ABOUT, after_help = AFTER)]
pub(super) struct Arguments {
    /// Files; - or none for standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The server. A proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names is used, but not for
    /// this machine or NO_PROXY
    #[arg(long, env = "TRACKER_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// What is in the files; else told by their names (.csv, .ndjson, .jsonl, .json), else by the
    /// first byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Requests at the same time
    #[arg(long, default_value_t = IMPORT_CONNECTIONS, value_name = "NUMBER", value_parser = up_to(IMPORT_CONNECTIONS_MAX))]
    connections: usize,
    /// Rows of a request, at most
    #[arg(long, default_value_t = REQUEST_EVENTS_MAX, value_name = "ROWS", value_parser = up_to(REQUEST_EVENTS_MAX))]
    batch: usize,
    /// Give up after this long without any progress
    #[arg(long, default_value_t = IMPORT_GIVE_UP_SECS, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=IMPORT_GIVE_UP_SECS_MAX))]
    give_up_after: u64,
    /// What was confirmed, by one server [default: FILE.import-state, with the name of the server
    /// in it if that is about another one; none for standard input, which cannot be resumed then]
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
    /// Where refused rows and reasons are listed, as NDJSON of file, line, error, message, input
    /// [default: FILE.rejects.ndjson]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Import it again, also if the resume file says that it is imported already: it then counts
    /// twice
    #[arg(long)]
    again: bool,
    /// The time zone of times that name none, such as `2026-11-01 12:34:56`; without it such times
    /// are refused
    #[arg(long, value_name = "NAME", value_parser = time_zone)]
    source_time_zone: Option<TimeZone>,
    /// Judge each row as the server would, and send none
    #[arg(long)]
    dry_run: bool,
    /// What --dry-run takes for the server's RETENTION_DAYS
    #[arg(long, env = "RETENTION_DAYS", default_value_t = RETENTION_DAYS, value_name = "DAYS")]
    retention_days: u32,
    /// No progress, only the last line
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let settings = arguments.settings().map_err(Failure::Usage)?;
    let stop = stop_on_signals()?;
    let standard_input = ["-".into()];
    let files = if arguments.files.is_empty() { &standard_input[..] } else { &arguments.files[..] };
    match import_files(files, arguments.format, &settings, &stop).map_err(Failure::Failed)? {
        Ended::Accepted => Ok(ExitCode::SUCCESS),
        Ended::WithRefusals => Ok(ExitCode::from(3)),
        Ended::Interrupted => Ok(ExitCode::from(INTERRUPTED as u8)),
    }
}

impl Arguments {
    fn settings(&self) -> Result<Settings, String> {
        if self.files.is_empty() && std::io::stdin().is_terminal() {
            return Err("give a FILE, or - to type events".to_owned());
        }
        if self.resume_file.is_some() && self.files.len() > 1 {
            return Err("--resume-file is about one input: give one file".to_owned());
        }
        let key = std::env::var("API_KEY").ok().filter(|key| !key.is_empty());
        let server = Server { url: self.url.trim_end_matches('/').to_owned(), key };
        server.check()?;
        self.check_files()?;
        Ok(Settings {
            server,
            connections: self.connections,
            batch: self.batch,
            give_up_after: Duration::from_secs(self.give_up_after),
            resume_file: self.resume_file.clone(),
            rejects: self.rejects.clone(),
            again: self.again,
            quiet: self.quiet,
            time_zone: self.source_time_zone.clone(),
            dry_run: self.dry_run,
            judge: judge(retention_ms(self.retention_days)?),
        })
    }

    /// An output must not be an input, nor the same file as the other output.
    fn check_files(&self) -> Result<(), String> {
        let written = [("--resume-file", &self.resume_file), ("--rejects", &self.rejects)];
        for (name, path) in written {
            if let Some(path) = path
                && self.files.iter().any(|file| is_same_file(file, path))
            {
                return Err(format!("{name} {} is an input", path.display()));
            }
        }
        match (&self.resume_file, &self.rejects) {
            (Some(state), Some(list)) if is_same_file(state, list) => {
                Err("--resume-file and --rejects must be two files".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    match (id(one), id(other)) {
        (Some(one), Some(other)) => one == other,
        _ => std::path::absolute(one).ok() == std::path::absolute(other).ok(),
    }
}

fn up_to(max: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=max as u64)
}

fn judge(retention_ms: i64) -> Judge {
    Arc::new(move |event| {
        let now_ms = clock::Clock::System.now_ms();
        api::judge_event(event, now_ms, retention_ms).map_err(|(tag, message)| Refusal::new(tag, message))
    })
}

/// The first signal lets batches under way come to their end, the second ends at once. If no row is
/// under way (it waits for input, or for a database), the first one ends it soon.
fn stop_on_signals() -> Result<Arc<Stop>, Failure> {
    let stop = Arc::new(Stop::default());
    let asked = stop.clone();
    let signals = shutdown::catch().map_err(|e| Failure::Failed(format!("cannot catch signals: {e}")))?;
    let wait = move || {
        signals.wait();
        asked.clear_bar();
        eprintln!("event-tracker: stopping; another signal ends at once");
        asked.ask();
        thread::sleep(Duration::from_millis(IMPORT_SAVE_MS));
        if !asked.is_sending.load(Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
    };
    let spawned = thread::Builder::new().name("stop".into()).spawn(wait);
    spawned.map_err(|e| Failure::Failed(format!("a thread for signals: {e}")))?;
    Ok(stop)
}
