//! The command line: subcommands, one file each. They build the program from its parts and report to people; what they
//! do is done elsewhere.

mod check;
mod export;
mod import;
mod journal;
mod output;
mod seed;
mod serve;
mod stores;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{Log, LogFormat, Raw};

const ABOUT: &str = "\
A user-event tracker: clicks, searches, page views and likes over HTTP, safe in a local journal before they are \
answered, then exactly once in a ledger (PostgreSQL, or SQLite in the data directory) and in a live store (Redis, or \
memory).";

const EXAMPLES: &str = "\
Examples:
  event-tracker                                    embedded stores, http://127.0.0.1:8080, data in ./data
  event-tracker --listen 127.0.0.1:9000 --data-dir /var/lib/event-tracker
  DATABASE_URL=postgres://user:secret@db/events REDIS_URL=redis://cache:6379 event-tracker

  curl -H 'Content-Type: application/json' http://127.0.0.1:8080/api/events \\
    -d '{\"eventType\":\"SEARCH\",\"userId\":1,\"metadata\":{\"keyword\":\"cat\"}}'
  curl http://127.0.0.1:8080/api/search/recent/1

  event-tracker check                              what would go wrong, before it does
  event-tracker export --from 2026-11-01T00:00:00Z --event-type SEARCH --output searches.ndjson.zst
  event-tracker seed --events 100000               synthetic events for a server that runs on 127.0.0.1:8080

Every setting is a flag and an environment variable; a flag wins. Keys are no flags: the environment variable \
ADMIN_KEYS holds those for /api/export (a comma in between, at least 16 characters each), or the file that \
ADMIN_KEYS_FILE names.
Health: /healthz/live, /healthz/ready, /healthz/deps. Metrics: /metrics.
A wrong setting is one line and exit code 2; a start that fails is one line and exit code 1.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "event-tracker", version, about = ABOUT, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Raw,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take events and answer questions over HTTP (the default)
    Serve(Box<Raw>),
    /// Say what would keep a server with these settings from its work; changes nothing
    Check(Box<check::Options>),
    /// Write the ledger's events to a file or to standard output
    Export(Box<export::Options>),
    /// Make synthetic events: to a server, to a file, or straight into the ledger
    Seed(Box<seed::Options>),
    Import(Box<import::Arguments>),
    /// Look at the journal, check it, or salvage a damaged one
    Journal(journal::Arguments),
}

/// How a command ended, if not well.
enum Failure {
    /// The command line or a setting is wrong, in one line: exit code 2.
    Usage(String),
    /// It was tried and went wrong, in one line: exit code 1.
    Failed(String),
}

impl From<String> for Failure {
    fn from(line: String) -> Failure {
        Failure::Failed(line)
    }
}

/// Parses the process's arguments and does what they say.
pub fn run() -> ExitCode {
    let done = CommandLine::try_parse().map_err(|e| Failure::Usage(one_line(&e))).and_then(CommandLine::run);
    match done {
        Ok(code) => code,
        Err(Failure::Usage(line)) => {
            eprintln!("event-tracker: {line}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(line)) => {
            // The log may be off or not started: whoever typed the command must see why it ended.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{line}");
            } else {
                eprintln!("event-tracker: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

impl CommandLine {
    fn run(self) -> Result<ExitCode, Failure> {
        match self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve))) {
            Command::Serve(raw) => {
                let settings = raw.check().map_err(Failure::Usage)?;
                start_log(&settings.log);
                serve::run(&settings).map(|()| ExitCode::SUCCESS)
            }
            Command::Check(options) => check::run(*options).map(|()| ExitCode::SUCCESS),
            Command::Export(options) => export::run(*options).map(|()| ExitCode::SUCCESS),
            Command::Seed(options) => seed::run(*options).map(|()| ExitCode::SUCCESS),
            Command::Import(arguments) => import::run(&arguments),
            Command::Journal(arguments) => journal::run(arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}

fn start_log(settings: &Log) {
    // The runtime reports each socket at `info`: that is `debug` to us.
    let filter: tracing_subscriber::EnvFilter = format!("may=warn,{}", settings.directives).parse().unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match settings.format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// A wrong flag in one line; help and version are printed as they are, and end the program.
fn one_line(error: &clap::Error) -> String {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        error.exit();
    }
    let text = error.to_string();
    let sentences = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_usage(line));
    let line = sentences.filter(|line| !line.starts_with("For more")).collect::<Vec<_>>().join(" ");
    format!("{} (--help tells more)", line.trim_start_matches("error: "))
}

fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("event-tracker ")
}
