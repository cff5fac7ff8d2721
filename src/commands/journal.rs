//! `journal`: what is in the journal of a data directory, whether it is sound, and how a damaged one goes on.
//!
//! `inspect` and `verify` only read, also while a server runs. `salvage` changes the journal and needs its lock.

pub(super) mod records;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::counted;
use crate::api::rfc3339;
use crate::clock::Clock;
use crate::journal::{Directory, Lock, Position, Range, Salvage, Salvaged, Survey, Visit, salvage, survey};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show segments, end and torn tail, or the records; only reads, also while a server runs
    Inspect(Inspect),
    /// Check every checksum and decode every record: exit code 0 if the journal is sound, else 1 and a line a finding
    Verify(Place),
    /// Keep a copy of a damaged journal, then make it open again with every whole frame; no server may run
    Salvage(SalvageArguments),
}

/// Whose journal.
#[derive(Debug, Args)]
struct Place {
    /// The server's data directory; its journal is in `journal` there
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    place: Place,
    /// Print records instead, one JSON object a line, with the API's field names; FROM and TO are positions, inclusive
    #[arg(long, num_args = 0..=1, default_missing_value = "..", value_name = "FROM..TO", value_parser = positions)]
    records: Option<RangeInclusive<Position>>,
    /// For machines: one JSON object
    #[arg(long, conflicts_with = "records")]
    json: bool,
}

#[derive(Debug, Args)]
struct SalvageArguments {
    #[command(flatten)]
    place: Place,
    /// Positions from here to the oldest segment that is left count as lost: for a store that still needs them
    #[arg(long, value_name = "POSITION")]
    first: Option<Position>,
    /// Positions up to here count as given out: for a store that is ahead of what is left of the journal
    #[arg(long, value_name = "POSITION")]
    last: Option<Position>,
    /// Allow the journal on tmpfs
    #[arg(long, env = "ALLOW_TMPFS", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    allow_tmpfs: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match arguments.action {
        Action::Inspect(inspect) => inspect.run(&mut out),
        Action::Verify(place) => verify(&place, &mut out),
        Action::Salvage(arguments) => arguments.run(&mut out),
    };
    match out.flush().and(done) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        // A line of this command.
        Err(error) if error.kind() == ErrorKind::Other => Err(Failure::Failed(error.to_string())),
        done => done.map_err(|error| Failure::Failed(format!("journal: {error}"))),
    }
}

/// `serve --salvage`: the same, told to the log.
pub(super) fn salvage_at_start(directory: &Path, allow_tmpfs: bool) -> Result<(), String> {
    let wanted = Salvage { allow_tmpfs, ..Salvage::default() };
    let salvaged = salvage(directory, wanted, &Clock::System).map_err(|e| format!("{e} ({})", directory.display()))?;
    let Some(copy) = &salvaged.copy else {
        tracing::info!("journal: nothing to salvage");
        return Ok(());
    };
    for finding in &salvaged.findings {
        tracing::warn!("journal: {finding}");
    }
    for lost in &salvaged.lost {
        tracing::error!(first = lost.start(), last = lost.end(), "journal: records are lost");
    }
    tracing::warn!(copy = %copy.display(), end = salvaged.end, "journal: salvaged; all is kept as it was in the copy");
    Ok(())
}

/// `FROM..TO`, either of which may be missing, or one position.
fn positions(text: &str) -> Result<RangeInclusive<Position>, String> {
    let number = |part: &str, missing: Position| {
        if part.is_empty() { Ok(missing) } else { part.parse().map_err(|_| format!("`{part}` is no position")) }
    };
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from, 1)?..=number(to.trim_start_matches('='), Position::MAX)?),
        None => number(text, 1).map(|position| position..=position),
    }
}

impl Place {
    fn journal(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// The survey, and whether a server runs on it.
    fn survey(&self, visit: &mut Visit<'_>) -> io::Result<(Survey, bool)> {
        let directory = self.journal();
        let failed = |error: io::Error| io::Error::other(format!("journal: {error} ({})", directory.display()));
        let storage = Directory::look(&directory).map_err(failed)?;
        let found = survey(&storage, visit).map_err(failed)?;
        let is_live = Lock::is_held(&directory).map_err(failed)?;
        Ok((found, is_live))
    }
}

impl Inspect {
    fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(positions) = &self.records {
            return print_records(&self.place, positions, out);
        }
        let (found, is_live) = self.place.survey(&mut records::check)?;
        if self.json { writeln!(out, "{}", as_json(&found, is_live)) } else { print_survey(&found, is_live, out) }
    }
}

fn print_records(place: &Place, positions: &RangeInclusive<Position>, out: &mut dyn Write) -> io::Result<()> {
    let mut written = Ok(());
    place.survey(&mut |frame| {
        if written.is_ok() {
            written = records::print(frame, positions, out);
        }
        Ok(())
    })?;
    written
}

fn print_survey(found: &Survey, is_live: bool, out: &mut dyn Write) -> io::Result<()> {
    let Some(stream) = found.stream else {
        for finding in &found.findings {
            writeln!(out, "! {finding}")?;
        }
        return writeln!(out, "no journal was begun here");
    };
    writeln!(out, "stream    {stream}")?;
    writeln!(out, "server    {}", if is_live { "running: what follows goes on changing" } else { "none" })?;
    writeln!(out, "end       position {}, checksum {:08x}", found.end.position, found.end.crc)?;
    match found.torn_bytes {
        0 => {}
        bytes if is_live => writeln!(out, "tail      being written: {}", counted(bytes, "byte"))?,
        bytes => {
            writeln!(out, "tail      torn: {}, never acknowledged; the next start cuts it", counted(bytes, "byte"))?
        }
    }
    writeln!(out, "\nsegment                       first to last               frames   records  bytes used  created")?;
    for segment in &found.segments {
        let span = match segment.last() {
            last if last < segment.first => format!("{} -", segment.first),
            last => format!("{} to {last}", segment.first),
        };
        let created = segment.created_ms.map_or_else(|| "unknown".to_owned(), rfc3339);
        let (name, frames) = (&segment.name, segment.frames);
        let (records, used) = (segment.records(), segment.bytes_used());
        writeln!(out, "{name}  {span:<24} {frames:>9} {records:>9} {used:>11}  {created}  {}", state(found, segment))?;
    }
    for finding in &found.findings {
        writeln!(out, "! {finding}")?;
    }
    Ok(())
}

fn state(found: &Survey, segment: &crate::journal::SegmentSurvey) -> &'static str {
    let is_last = found.segments.last().is_some_and(|last| last.name == segment.name);
    match found.findings.iter().any(|finding| finding.name == segment.name) {
        true => "damaged",
        false if is_last => "last",
        false => "closed",
    }
}

fn as_json(found: &Survey, is_live: bool) -> Value {
    let segments = found.segments.iter().map(|segment| {
        json!({
            "name": segment.name, "first": segment.first, "last": segment.last(), "frames": segment.frames,
            "records": segment.records(), "bytesUsed": segment.bytes_used(), "size": segment.size,
            "created": segment.created_ms.map(rfc3339), "state": state(found, segment),
        })
    });
    let ranges = |lost: Option<&RangeInclusive<Position>>| lost.map(|r| json!({"first": r.start(), "last": r.end()}));
    let findings = found
        .findings
        .iter()
        .map(|finding| json!({"file": finding.name, "what": finding.what, "lost": ranges(finding.lost.as_ref())}));
    json!({
        "stream": found.stream.map(|stream| stream.to_string()), "live": is_live, "end": found.end.position,
        "checksum": found.end.crc, "tornBytes": found.torn_bytes, "segments": segments.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn verify(place: &Place, out: &mut dyn Write) -> io::Result<()> {
    let (found, is_live) = place.survey(&mut records::check)?;
    for finding in &found.findings {
        writeln!(out, "{finding}")?;
    }
    if !found.is_sound() {
        return Err(io::Error::other(format!("journal: {}", counted(found.findings.len() as u64, "finding"))));
    }
    let frames: u64 = found.segments.iter().map(|segment| segment.frames).sum();
    let records: u64 = found.segments.iter().map(|segment| segment.records()).sum();
    let [segments, frames, records] =
        [(found.segments.len() as u64, "segment"), (frames, "frame"), (records, "record")]
            .map(|(n, one)| counted(n, one));
    let end = found.end.position;
    let torn = match found.torn_bytes {
        0 => String::new(),
        bytes => format!(", and a tail of {}", counted(bytes, "byte")),
    };
    let live = if is_live { "; a server is writing it" } else { "" };
    writeln!(out, "sound: {segments}, {frames}, {records}, end {end}{torn}{live}")
}

impl SalvageArguments {
    fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        let wanted = Salvage { first: self.first, last: self.last, allow_tmpfs: self.allow_tmpfs };
        let directory = self.place.journal();
        let failed = |e| io::Error::other(format!("{e} ({})", directory.display()));
        let salvaged = salvage(&directory, wanted, &Clock::System).map_err(failed)?;
        print_salvaged(&salvaged, out)
    }
}

fn print_salvaged(salvaged: &Salvaged, out: &mut dyn Write) -> io::Result<()> {
    for finding in &salvaged.findings {
        writeln!(out, "found: {finding}")?;
    }
    let Some(copy) = &salvaged.copy else {
        return writeln!(out, "nothing was changed: nothing in the journal can be repaired, or needs to be");
    };
    for lost in &salvaged.lost {
        writeln!(out, "lost: {}", Range(lost))?;
    }
    for name in &salvaged.written {
        writeln!(out, "written: {name}")?;
    }
    let lost: u64 = salvaged.lost.iter().map(|lost| lost.end() - lost.start() + 1).sum();
    writeln!(out, "as it was: {}", copy.display())?;
    writeln!(out, "salvaged: end {}, lost: {}; stores go on from where they are", salvaged.end, counted(lost, "record"))
}
