//! Files and streams as inputs: which format, and where their resume file and their list of refused
//! rows are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::job::{Files, Job, Opened};
use super::lines::Lines;
use super::state::{self, State, with_ending};
use super::table::Table;
use super::text::{Input, Text};
use super::{Ended, Settings, Stop};

/// What the name of a resume file ends with.
const STATE: &str = ".import-state";

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An event a line, as JSON
    Ndjson,
    /// A header that names the API's fields, an event a record
    Csv,
}

/// Imports files, or standard input for `-`, one after the other; the worst end counts. The error
/// is one line, and what comes after that file is not looked at.
pub fn import_files(
    files: &[PathBuf],
    format: Option<Format>,
    settings: &Settings,
    stop: &Arc<Stop>,
) -> Result<Ended, String> {
    let mut worst = Ended::Accepted;
    for file in files {
        let ended = import_file(file, format, settings, stop)?;
        worst = worst.max(ended);
        if ended == Ended::Interrupted {
            break;
        }
    }
    Ok(worst)
}

fn import_file(path: &Path, format: Option<Format>, settings: &Settings, stop: &Arc<Stop>) -> Result<Ended, String> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let mut input = Input::open(path, settings.resume_file.is_some())?;
    let failed = |why: String| format!("{name}: {why}");
    // Held until the import of this file is over.
    let lock = input.lock().map_err(failed)?;
    let first = input.text.begin().map_err(|e| failed(format!("cannot be read: {e}")))?;
    let format = format.map_or_else(|| guess(path, first), Ok).map_err(failed)?;
    let stem = if input.is_file() { path } else { Path::new("stdin") };
    let files = Files::of(stem, input.is_file(), settings);
    let Input { identity, text, .. } = input;
    let job = Job { name: name.clone(), identity, format: format.name(), files };
    let ended = job.run(|state| open(&name, text, format, state, &settings.time_zone), settings, stop);
    drop(lock);
    ended
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
        }
    }
}

impl Files {
    /// Those of an input with this name, as named by the user or beside it. If the resume file
    /// beside it is about another server, both have the name of the server in theirs.
    fn of(stem: &Path, is_resumable: bool, settings: &Settings) -> Files {
        let beside = |ending: &str| with_ending(stem, ending);
        let url = settings.server.normalised();
        let server: String = url.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let own = |ending: &str| with_ending(stem, &format!(".{server}{ending}"));
        let is_beside = settings.resume_file.is_none() && is_resumable;
        // A file that cannot be read is reported once it is read as the own one.
        let elsewhere = if is_beside { state::read(&beside(STATE)).ok().flatten() } else { None };
        let elsewhere = elsewhere.filter(|state| !state.is_about(&url));
        let name = |ending: &str| match elsewhere.is_some() || is_beside && own(STATE).exists() {
            true => own(ending),
            false => beside(ending),
        };
        Files {
            resume_file: settings.resume_file.clone().or_else(|| is_beside.then(|| name(STATE))),
            rejects: absolute(settings.rejects.clone().unwrap_or_else(|| name(".rejects.ndjson"))),
            elsewhere,
        }
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-')
}

fn open(name: &str, mut text: Text, format: Format, state: &State, zone: &Option<TimeZone>) -> Result<Opened, String> {
    let read = text.bytes_read();
    let place = &state.confirmed.all_before;
    let skipped = |e| format!("cannot go on after line {}: {e}", place.line);
    let source: Box<dyn super::row::Source> = match format {
        Format::Ndjson => {
            if place.row > 0 {
                text.skip_to(place.offset).map_err(skipped)?;
            }
            Box::new(Lines::new(text, place.clone(), state.namespace, zone.clone()))
        }
        Format::Csv => {
            let (mut table, unknown) = Table::new(text, state.namespace, zone.clone())?;
            if !unknown.is_empty() {
                eprintln!("{name}: warning: columns that the API does not know are left out: {}", unknown.join(", "));
            }
            table.skip_to(place).map_err(skipped)?;
            Box::new(table)
        }
    };
    Ok(Opened { source, read })
}

/// By the name without the ending of a packer, else by the first byte that is no white space.
fn guess(path: &Path, first: Option<u8>) -> Result<Format, String> {
    let is_packer =
        |ending: &&OsStr| ["gz", "gzip", "zst", "zstd"].iter().any(|packer| ending.eq_ignore_ascii_case(packer));
    let inner = match path.extension().filter(is_packer) {
        Some(_) => path.file_stem().map(Path::new).unwrap_or(path),
        None => path,
    };
    let is = |ending: &str| inner.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    let by_name = match () {
        () if is("csv") => Some(Format::Csv),
        () if is("ndjson") || is("jsonl") || is("json") => Some(Format::Ndjson),
        () => None,
    };
    match (by_name, first) {
        (Some(Format::Csv), _) => Ok(Format::Csv),
        (_, Some(b'[')) => {
            Err("is a JSON array; one event a line is wanted: jq -c '.[]' FILE | event-tracker import -".into())
        }
        (Some(format), _) => Ok(format),
        (None, Some(b'{') | None) => Ok(Format::Ndjson),
        (None, Some(_)) => Ok(Format::Csv),
    }
}

/// The same file wherever the next run is started.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format_and_else_the_first_byte() {
        for (name, first, expected) in [
            ("a.csv", b'{', Some(Format::Csv)),
            ("a.CSV.gz", b'{', Some(Format::Csv)),
            ("a.ndjson.zst", b'x', Some(Format::Ndjson)),
            ("a.jsonl", b'x', Some(Format::Ndjson)),
            ("a.log", b'{', Some(Format::Ndjson)),
            ("-", b'e', Some(Format::Csv)),
            ("a.json", b'[', None),
        ] {
            assert_eq!(guess(Path::new(name), Some(first)).ok(), expected, "{name}");
        }
        assert_eq!(guess(Path::new("-"), None), Ok(Format::Ndjson));
        assert_eq!(with_ending(Path::new("a/b.csv"), ".import-state"), Path::new("a/b.csv.import-state"));
    }
}
