//! The command line: subcommands, one file each. They build the program from its parts and report to people; what they
//! do is done elsewhere.

mod check;
mod data_dir;
mod export;
mod failure;
mod import;
mod journal;
mod mistake;
mod output;
mod seed;
mod serve;
mod stores;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Log, Raw};
use crate::{logging, process, shutdown};
use failure::Failure;

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

Every setting is a flag and an environment variable; a flag wins. --help --all also shows the limits of the HTTP \
server. Keys are no flags: the environment variables \
INGEST_KEYS, WRITE_KEYS, READ_KEYS and ADMIN_KEYS hold them (commas in between, at least 16 characters each), or the \
files that INGEST_KEYS_FILE and so on name.
Health: /healthz/live, /healthz/ready, /healthz/deps. Metrics: /metrics.
A wrong setting is one line and exit code 2; a start that fails is one line and exit code 1.";

const ALL: &str = "--help --all also shows the limits of the HTTP server.";

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
    #[command(after_help = ALL)]
    Serve(Box<Raw>),
    /// Check the configuration and the environment (read-only)
    #[command(after_help = ALL)]
    Check(Box<check::Options>),
    /// Write the ledger's events to a file or to standard output
    Export(Box<export::Options>),
    /// Make synthetic events: to a server or to a file
    Seed(Box<seed::Options>),
    Import(Box<import::Arguments>),
    /// Look at the journal, check it, or salvage a damaged one
    Journal(journal::Arguments),
}

pub fn run() -> ExitCode {
    shutdown::hold();
    shutdown::hold_hangups();
    process::keep_files_private();
    process::refuse_huge_pages();
    let _flush = logging::FlushAtEnd;
    let settings = mistake::Settings::of(&CommandLine::command());
    settings.tidy_environment();
    let (arguments, shows_all) = without_all(std::env::args_os());
    let parser = adapted(CommandLine::command(), shows_all);
    let parsed = parser.try_get_matches_from(arguments).and_then(|matches| CommandLine::from_arg_matches(&matches));
    let done = match parsed {
        Ok(command_line) => command_line.run(),
        Err(error) => Err(Failure::Parser(error)),
    };
    let line = match done {
        Ok(code) => return code,
        Err(Failure::Failed(line)) => {
            logging::last_words(&line);
            return ExitCode::FAILURE;
        }
        Err(Failure::Usage(line)) => settings.of_check(line),
        Err(Failure::Parser(error)) => settings.of_parser(&error),
    };
    mistake::report(&line);
    ExitCode::from(2)
}

/// The arguments without the `--all` of a help, and whether it was there.
fn without_all(arguments: impl Iterator<Item = OsString>) -> (Vec<OsString>, bool) {
    let arguments: Vec<OsString> = arguments.collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let shows_all = has("--all") && (has("--help") || has("-h"));
    (arguments.into_iter().filter(|argument| !shows_all || argument != "--all").collect(), shows_all)
}

/// Rarely used settings are hidden from both forms of help, unless all are asked for. A negative
/// number is the value of a flag, so that its error names the flag.
fn adapted(command: clap::Command, shows_all: bool) -> clap::Command {
    let command = command.mut_args(|argument| {
        let is_hidden = argument.is_hide_short_help_set() && !shows_all;
        let argument = argument.hide_short_help(is_hidden).hide_long_help(is_hidden);
        let takes_values = argument.get_action().takes_values();
        argument.allow_negative_numbers(takes_values)
    });
    command.mut_subcommands(|command| adapted(command, shows_all))
}

impl CommandLine {
    fn run(self) -> Result<ExitCode, Failure> {
        let command = self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)));
        if !matches!(command, Command::Serve(_)) {
            shutdown::release();
            shutdown::release_hangups();
        }
        match command {
            Command::Serve(raw) => {
                // Before the first file is opened: a stop is heard from here on.
                let stop = shutdown::catch().map_err(|e| Failure::Failed(format!("cannot catch signals: {e}")))?;
                let settings = raw.check().map_err(Failure::Usage)?;
                let Log { directives, format } = settings.log.clone();
                logging::start(directives, format).map_err(Failure::Failed)?;
                serve::run(&settings, stop).map(|()| ExitCode::SUCCESS)
            }
            Command::Check(options) => check::run(*options).map(|()| ExitCode::SUCCESS),
            Command::Export(options) => export::run(&options).map(|()| ExitCode::SUCCESS),
            Command::Seed(options) => seed::run(&options).map(|()| ExitCode::SUCCESS),
            Command::Import(arguments) => import::run(&arguments),
            Command::Journal(arguments) => journal::run(arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}
