//! Files and streams as inputs: which format, and where their resume file and their list of refused
//! rows are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::normalised;
use super::job::Job;
use super::state::{self, with_ending};
use super::text::Input;
use super::{Ended, Format, Settings, Stop};

/// What the name of a resume file ends with.
const STATE: &str = ".import-state";

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
    let failed = |why: String| format!("{name}: {why}");
    let mut input = Input::open(path, settings.resume_file.is_some())?;
    input.lock().map_err(failed)?;
    let first = input.text.begin().map_err(|e| failed(format!("cannot be read: {e}")))?;
    let format = format.map_or_else(|| guess(path, first), Ok).map_err(failed)?;
    // `_locked`: held until the import of this file is over.
    let Input { identity, text, file: _locked } = input;
    let is_file = identity.size.is_some();
    let url = normalised(&settings.server.url);
    // If the resume file beside the input is about another server, both have the server's name in theirs.
    let stem = if is_file { path } else { Path::new("stdin") };
    let server: String = url.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let own = |ending: &str| with_ending(stem, &format!(".{server}{ending}"));
    let is_beside = settings.resume_file.is_none() && is_file;
    // A file that cannot be read is reported once it is read as the own one.
    let beside = if is_beside { state::read(&with_ending(stem, STATE)).ok().flatten() } else { None };
    let elsewhere = beside.filter(|state| !state.is_about(&url));
    let name_of = |ending: &str| match elsewhere.is_some() || is_beside && own(STATE).exists() {
        true => own(ending),
        false => with_ending(stem, ending),
    };
    let rejects = settings.rejects.clone().unwrap_or_else(|| name_of(".rejects.ndjson"));
    let job = Job {
        name: &name,
        identity,
        format,
        resume_file: settings.resume_file.clone().or_else(|| is_beside.then(|| name_of(STATE))),
        // The same file wherever the next run is started.
        rejects: std::path::absolute(&rejects).unwrap_or(rejects),
        elsewhere,
        url,
        settings,
        stop,
    };
    if settings.dry_run { job.judge(text) } else { job.import(text) }.map_err(failed)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-')
}

/// By the name without the ending of a packer, else by the first byte that is no white space.
fn guess(path: &Path, first: Option<u8>) -> Result<Format, String> {
    let is_packer =
        |ending: &&OsStr| ["gz", "gzip", "zst", "zstd"].iter().any(|packer| ending.eq_ignore_ascii_case(packer));
    let inner = match path.extension().filter(is_packer) {
        Some(_) => path.file_stem().map(Path::new).unwrap_or(path),
        None => path,
    };
    let ending = inner.extension().unwrap_or_default().to_ascii_lowercase();
    match (ending.to_str(), first) {
        (Some("csv"), _) => Ok(Format::Csv),
        (_, Some(b'[')) => {
            Err("is a JSON array; one event a line is wanted: jq -c '.[]' FILE | event-tracker import -".into())
        }
        (Some("ndjson" | "jsonl" | "json"), _) | (_, Some(b'{') | None) => Ok(Format::Ndjson),
        (_, Some(_)) => Ok(Format::Csv),
    }
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
