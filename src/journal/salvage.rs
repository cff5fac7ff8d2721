//! From a damaged journal to one that opens, with every whole frame and a [`LOST_RECORD`] at every other position:
//! stores' watermarks refer to positions and checksums, so none moves. Nothing is written into a damaged segment; a new
//! one begins where the damage begins. See "What salvage does" in docs/architecture.md.

use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::format::{
    FRAME_HEADER_BYTES, LOST_RECORD, Position, SEGMENT_HEADER_BYTES, SegmentHeader, seal_frame, segment_name,
};
use super::recovery::{OpenError, recover};
use super::storage::{Directory, Lock, Storage, if_there, read_stream, write_and_name, write_stream};
use super::survey::{Finding, Run, SegmentSurvey, Survey, survey};
use crate::clock::Clock;
use crate::limits::{FRAME_RECORDS_MAX, JOURNAL_LOST_RECORDS_MAX};

/// What a salvage is told that the journal cannot know itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Salvage {
    /// Positions from here to the first segment that is left are lost: a store still needs them.
    pub first: Option<Position>,
    /// Positions behind the journal's end up to this one were given out and are lost: a store has applied them.
    pub last: Option<Position>,
    pub allow_tmpfs: bool,
}

#[derive(Debug, Default)]
pub struct Salvaged {
    pub findings: Vec<Finding>,
    /// Positions that hold no record any more.
    pub lost: Vec<RangeInclusive<Position>>,
    /// Where everything is as it was before; `None` where nothing had to be changed.
    pub copy: Option<PathBuf>,
    pub written: Vec<String>,
    pub end: Position,
}

/// Salvages the journal in `directory`, which no process may use. Keeps a copy beside it first. Does nothing to a
/// journal that is sound, unless `wanted` names positions. `Newer` and `Corrupt`: something else than damage is wrong.
pub fn salvage(directory: &Path, wanted: Salvage, clock: &Clock) -> Result<Salvaged, OpenError> {
    Directory::look(directory)?;
    let storage = Directory::open(directory, wanted.allow_tmpfs)?;
    let _lock = Lock::take(directory)?.ok_or(OpenError::Locked)?;
    salvage_on(&storage, wanted, clock, &mut || keep_copy(directory, clock))
}

/// The same on a storage that the caller keeps others away from; `keep_copy` is called before the first change.
pub fn salvage_on(
    storage: &dyn Storage,
    wanted: Salvage,
    clock: &Clock,
    keep_copy: &mut dyn FnMut() -> io::Result<PathBuf>,
) -> Result<Salvaged, OpenError> {
    storage.sync_names()?;
    let found = survey(storage, &mut |_| Ok(()))?;
    if found.is_empty() {
        return Ok(Salvaged::default());
    }
    if let Some(finding) = found.findings.iter().find(|finding| finding.is_foreign) {
        return Err(OpenError::Corrupt(format!("{finding}; this is not for a salvage to decide")));
    }
    if found.segments.is_empty() {
        return Err(OpenError::Corrupt("there is no segment of this journal to salvage".into()));
    }
    let stream = found.stream.ok_or_else(|| OpenError::Corrupt("nothing says which journal this is".into()))?;
    let patches = patches(&found, wanted)?;
    // Not part of the journal, or not under this name.
    let is_used = |name: &str| found.segments.iter().any(|segment| segment.is_sound && segment.name == name);
    let names = storage.list()?.into_iter();
    let unused: Vec<String> = names.filter(|name| name.ends_with(".segment") && !is_used(name)).collect();
    let mut salvaged = Salvaged {
        lost: patches.iter().flat_map(Patch::lost).collect(),
        end: found.end.position.max(wanted.last.unwrap_or(0)),
        findings: found.findings.clone(),
        ..Salvaged::default()
    };
    let has_stream = read_stream(storage)?.is_some_and(|text| text.trim() == stream.to_string());
    if patches.is_empty() && unused.is_empty() && has_stream {
        return Ok(salvaged);
    }
    salvaged.copy = Some(keep_copy()?);
    if !has_stream {
        write_stream(storage, stream)?;
    }
    for patch in &patches {
        salvaged.written.push(patch.write(storage, stream, clock)?);
    }
    // They stay in the copy alone.
    for name in unused.iter().filter(|name| !salvaged.written.contains(name)) {
        storage.remove(name)?;
    }
    storage.sync_names()?;
    recover(storage)?;
    Ok(salvaged)
}

/// A segment to write: from a position on, lost ranges and frames of a damaged segment, without gaps.
struct Patch<'a> {
    first: Position,
    damaged: &'a SegmentSurvey,
    parts: Vec<Part>,
}

enum Part {
    Lost(RangeInclusive<Position>),
    /// Of the damaged segment.
    Frames(Run),
}

/// What must be written so that the segments follow each other from the first position to the last.
fn patches(found: &Survey, wanted: Salvage) -> Result<Vec<Patch<'_>>, OpenError> {
    let mut patches = Vec::new();
    let damaged = &found.segments[0];
    if let Some(first) = wanted.first.filter(|first| (1..damaged.first).contains(first)) {
        patches.push(Patch { first, damaged, parts: vec![Part::Lost(first..=damaged.first - 1)] });
    }
    for (index, segment) in found.segments.iter().enumerate() {
        let limit = found.segments.get(index + 1).map(|next| next.first);
        patches.extend(patch(segment, limit.or(wanted.last.map(|last| last + 1))));
    }
    let lost: u64 = patches.iter().flat_map(Patch::lost).map(|lost| lost.end() - lost.start() + 1).sum();
    if lost > JOURNAL_LOST_RECORDS_MAX {
        return Err(OpenError::Corrupt(format!(
            "{lost} records would count as lost, more than a journal holds ({JOURNAL_LOST_RECORDS_MAX}): a position \
             that was named, or a segment's name, is wrong"
        )));
    }
    Ok(patches)
}

/// What takes over where a segment's sound beginning ends, if it does before `limit`.
fn patch(damaged: &SegmentSurvey, limit: Option<Position>) -> Option<Patch<'_>> {
    let begins_well =
        |run: &&Run| damaged.is_sound && run.offset == SEGMENT_HEADER_BYTES as u64 && run.first == damaged.first;
    let sound = damaged.runs.first().filter(begins_well);
    let first = sound.map_or(damaged.first, |run| run.last + 1);
    let gap = |from: Position, to: Position| (from < to).then(|| Part::Lost(from..=to - 1));
    let (mut parts, mut next) = (Vec::new(), first);
    for run in &damaged.runs[usize::from(sound.is_some())..] {
        parts.extend(gap(next, run.first));
        parts.push(Part::Frames(*run));
        next = run.last + 1;
    }
    parts.extend(limit.and_then(|limit| gap(next, limit)));
    // Without parts only a damaged header asks for a new file.
    (!parts.is_empty() || !damaged.is_sound).then_some(Patch { first, damaged, parts })
}

impl Patch<'_> {
    fn lost(&self) -> impl Iterator<Item = RangeInclusive<Position>> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Lost(range) => Some(range.clone()),
            Part::Frames(_) => None,
        })
    }

    /// Writes the segment, durably, and only then gives it its name.
    fn write(&self, storage: &dyn Storage, stream: Uuid, clock: &Clock) -> io::Result<String> {
        let header = SegmentHeader { stream, first: self.first, created_ms: clock.now_ms() };
        let mut bytes = header.encode().to_vec();
        for part in &self.parts {
            match part {
                Part::Lost(range) => put_lost(range, &mut bytes),
                Part::Frames(run) => {
                    let start = bytes.len();
                    bytes.resize(start + usize::try_from(run.bytes).expect("part of a segment"), 0);
                    self.damaged.file.read_at(&mut bytes[start..], run.offset)?;
                }
            }
        }
        let name = segment_name(self.first);
        let file = storage.create("salvage.tmp", bytes.len() as u64)?;
        write_and_name(storage, &*file, &bytes, "salvage.tmp", &name)?;
        Ok(name)
    }
}

fn put_lost(range: &RangeInclusive<Position>, out: &mut Vec<u8>) {
    assert!(!range.is_empty(), "a lost range without a position");
    let mut first = *range.start();
    while first <= *range.end() {
        let count = (range.end() - first + 1).min(FRAME_RECORDS_MAX as u64);
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend(LOST_RECORD.repeat(usize::try_from(count).expect("bounded by FRAME_RECORDS_MAX")));
        seal_frame(&mut frame, first, u32::try_from(count).expect("bounded by FRAME_RECORDS_MAX"));
        out.extend_from_slice(&frame);
        first += count;
    }
}

/// Everything as it is, under `journal.damaged-<time>` beside the journal; durable when this returns.
fn keep_copy(directory: &Path, clock: &Clock) -> io::Result<PathBuf> {
    let directory = std::path::absolute(directory)?;
    let parent = directory.parent().ok_or_else(|| io::Error::other("the journal has no directory above it"))?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let now = jiff::Timestamp::from_millisecond(clock.now_ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let stem = format!("{name}.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let mut names = std::iter::once(stem.clone()).chain((2..).map(|n| format!("{stem}-{n}")));
    let name = names.find(|name| !parent.join(name).exists()).expect("an endless row");
    let (copy, unfinished) = (parent.join(&name), parent.join(format!("{name}.tmp")));
    if_there(fs::remove_dir_all(&unfinished))?;
    fs::create_dir(&unfinished)?;
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != "LOCK" && Path::new(&name).extension().is_none_or(|e| e != "tmp") {
            keep_file(&entry.path(), &unfinished.join(&name))?;
        }
    }
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, &copy)?;
    File::open(parent)?.sync_all()?;
    Ok(copy)
}

fn keep_file(from: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(())
}
