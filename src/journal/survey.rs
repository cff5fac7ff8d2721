//! A look at every byte of a journal, damaged or not: what is there, what is not, what is wrong. Writes nothing; the
//! journal may be in use. Behind damage it looks for the next whole frame, which says itself what positions it holds.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use uuid::Uuid;

use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, HeaderError, Position, SEGMENT_HEADER_BYTES, SegmentHeader, Watermark, frame_in,
    segment_name, written_bytes,
};
use super::storage::{SegmentFile, Storage, if_there, read_stream};
use crate::limits::FRAME_RECORDS_MAX;

/// What a disk reads at once; what fails in it is taken for zeros.
const BLOCK_BYTES: usize = 4096;

#[derive(Default)]
pub struct Survey {
    /// What the file `stream` says; where it says nothing, what all segments say.
    pub stream: Option<Uuid>,
    pub segments: Vec<SegmentSurvey>,
    /// The last whole frame's end.
    pub end: Watermark,
    /// Bytes behind it that are no frame: a write that a crash tore, or one that is under way.
    pub torn_bytes: u64,
    /// All that is wrong, in the order of positions.
    pub findings: Vec<Finding>,
    /// Of the last segment: where its last frame begins, and all bytes of that.
    pub(super) last_frame: Option<(u64, Vec<u8>)>,
    /// A segment of a newer program, and the version of its format.
    pub(super) newer: Option<(String, u32)>,
    /// The first read that failed.
    pub(super) unread: Option<io::Error>,
}

pub struct SegmentSurvey {
    pub name: String,
    pub first: Position,
    /// By its header, as the next one.
    pub created_ms: Option<i64>,
    pub(super) stream: Option<Uuid>,
    pub size: u64,
    pub frames: u64,
    /// Whole frames that follow each other, in bytes and in positions.
    pub(super) runs: Vec<Run>,
    /// The header and the name are as they should be.
    pub(super) is_sound: bool,
    pub(super) file: Arc<dyn SegmentFile>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) first: Position,
    pub(super) last: Position,
}

/// One thing that is wrong; printed, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub what: String,
    /// Positions whose records cannot be had because of it.
    pub lost: Option<RangeInclusive<Position>>,
    /// Not damage: another journal's or a newer program's, which a salvage must not touch.
    pub is_foreign: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)?;
        match &self.lost {
            Some(lost) => write!(f, "; lost: {}", Range(lost)),
            None => Ok(()),
        }
    }
}

/// Positions as people read them.
pub struct Range<'a>(pub &'a RangeInclusive<Position>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "position {first} (1 record)"),
            (first, last) => write!(f, "positions {first} to {last} ({} records)", last - first + 1),
        }
    }
}

/// The encoded records of one whole frame.
#[derive(Debug)]
pub struct FrameRecords<'a> {
    pub first: Position,
    pub bytes: &'a [u8],
    pub count: usize,
}

impl SegmentSurvey {
    /// The last position of a whole frame in it; one before `first` where there is none.
    pub fn last(&self) -> Position {
        self.runs.last().map_or(self.first - 1, |run| run.last)
    }

    pub fn records(&self) -> u64 {
        self.runs.iter().map(|run| run.last - run.first + 1).sum()
    }

    /// Bytes of its header and whole frames.
    pub fn bytes_used(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + self.runs.iter().map(|run| run.bytes).sum::<u64>()
    }
}

impl Survey {
    /// A torn tail is not wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// No segment and no id: nothing was ever kept here.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.stream.is_none() && self.is_sound()
    }

    fn find(&mut self, name: &str, what: impl Into<String>) -> &mut Finding {
        let finding = Finding { name: name.to_owned(), what: what.into(), lost: None, is_foreign: false };
        self.findings.push(finding);
        self.findings.last_mut().expect("just pushed")
    }
}

/// An error says why the records are wrong.
pub type Visit<'v> = dyn FnMut(&FrameRecords<'_>) -> Result<(), String> + 'v;

/// Surveys the journal in `storage`, handing each whole frame to `visit` in the journal's order.
pub fn survey(storage: &dyn Storage, visit: &mut Visit<'_>) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut segments = open_all(storage, &mut survey)?;
    survey.stream = judge_stream(storage, &segments, &mut survey)?;
    segments.retain(|segment| !is_foreign(segment, &mut survey));
    for index in 0..segments.len() {
        let limit = segments.get(index + 1).map(|next| next.first);
        Walk { segment: &mut segments[index], limit, survey: &mut survey, visit }.run()?;
    }
    survey.segments = segments;
    Ok(survey)
}

/// Every segment whose place in the order is known: from its header or, where that is damaged, its name.
fn open_all(storage: &dyn Storage, survey: &mut Survey) -> io::Result<Vec<SegmentSurvey>> {
    let mut names: Vec<String> = storage.list()?.into_iter().filter(|name| name.ends_with(".segment")).collect();
    names.sort_unstable();
    let mut all: Vec<SegmentSurvey> = Vec::with_capacity(names.len());
    for name in names {
        // Removed since it was listed: the journal is in use.
        let Some(file) = if_there(storage.open(&name))? else { continue };
        let header = judge_header(&*file, &name, survey);
        let named = name.strip_suffix(".segment").and_then(|digits| digits.parse().ok()).filter(|first| *first > 0);
        let Some(first) = header.map(|h| h.first).or(named) else {
            survey.find(&name, "neither its name nor its header says where it begins; it is not used");
            continue;
        };
        let is_sound = header.is_some_and(|h| segment_name(h.first) == name);
        let (created_ms, stream) = (header.map(|h| h.created_ms), header.map(|h| h.stream));
        let runs = Vec::new();
        all.push(SegmentSurvey { name, first, created_ms, stream, size: 0, frames: 0, runs, is_sound, file });
    }
    // Of two that begin at one position the one with the right name is the journal's.
    all.sort_by_key(|segment| (segment.first, segment.name != segment_name(segment.first)));
    all.dedup_by(|again, kept| {
        let is_again = again.first == kept.first;
        if is_again {
            survey.find(&again.name, format!("it begins where {} begins; it is not used", kept.name));
        }
        is_again
    });
    Ok(all)
}

fn judge_header(file: &dyn SegmentFile, name: &str, survey: &mut Survey) -> Option<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    if let Err(error) = file.read_at(&mut bytes, 0) {
        survey.find(name, format!("its header cannot be read: {error}"));
        survey.unread.get_or_insert(error);
        return None;
    }
    match SegmentHeader::decode(&bytes) {
        Ok(header) if segment_name(header.first) != name => {
            survey.find(name, format!("its header says that it begins at {}", header.first));
            Some(header)
        }
        Ok(header) => Some(header),
        Err(HeaderError::Damaged(why)) => {
            survey.find(name, why);
            None
        }
        Err(HeaderError::Newer(version)) => {
            survey.find(name, format!("it is of format version {version}; a newer program wrote it")).is_foreign = true;
            survey.newer.get_or_insert((name.to_owned(), version));
            None
        }
    }
}

/// The journal's id: the file says it, else all headers agree on it.
fn judge_stream(storage: &dyn Storage, segments: &[SegmentSurvey], survey: &mut Survey) -> io::Result<Option<Uuid>> {
    let mut said = segments.iter().filter_map(|segment| segment.stream);
    let of_segments = said.next().filter(|first| said.all(|other| other == *first));
    let text = read_stream(storage)?;
    let of_file = text.as_deref().and_then(|text| Uuid::parse_str(text.trim()).ok());
    if of_file.is_none() && (text.is_some() || !segments.is_empty()) {
        let what = if text.is_some() { "it holds no UUID" } else { "it is missing" };
        survey.find("stream", what).is_foreign = of_segments.is_none();
    }
    Ok(of_file.or(of_segments))
}

fn is_foreign(segment: &SegmentSurvey, survey: &mut Survey) -> bool {
    let foreign = segment.stream.filter(|stream| Some(*stream) != survey.stream);
    if let Some(stream) = foreign {
        let what = format!("it belongs to journal {stream}; it is not used");
        survey.find(&segment.name, what).is_foreign = survey.stream.is_none();
    }
    foreign.is_some()
}

/// A way through one segment, from whole frame to whole frame.
struct Walk<'a> {
    segment: &'a mut SegmentSurvey,
    /// Where the next segment begins: what stands here from there on was never acknowledged.
    limit: Option<Position>,
    survey: &'a mut Survey,
    visit: &'a mut Visit<'a>,
}

impl Walk<'_> {
    fn run(mut self) -> io::Result<()> {
        let bytes = self.read_whole()?;
        let written = written_bytes(&bytes);
        self.segment.size = bytes.len() as u64;
        self.survey.end.position = self.segment.first - 1;
        let mut at = SEGMENT_HEADER_BYTES.min(bytes.len());
        let mut last = None;
        while self.limit != Some(self.survey.end.position + 1) {
            let Some((next, frame)) = self.next_frame(&bytes, at, written) else {
                self.ended(&bytes, at, written);
                break;
            };
            let expected = self.survey.end.position + 1;
            if (next, frame.first) != (at, expected) {
                let finding = self.survey.find(&self.segment.name, format!("bytes {at} to {next} are damaged"));
                finding.lost = (frame.first > expected).then(|| expected..=frame.first - 1);
            }
            at = next + FRAME_HEADER_BYTES + frame.payload_bytes;
            self.take(&bytes[next..at], next as u64, &frame);
            last = Some(next..at);
        }
        if self.limit.is_none() {
            self.survey.last_frame = last.map(|frame| (frame.start as u64, bytes[frame].to_vec()));
        }
        Ok(())
    }

    /// All bytes; blocks that the disk does not give are zeros, and a finding.
    fn read_whole(&mut self) -> io::Result<Vec<u8>> {
        let file = &*self.segment.file;
        let mut bytes = vec![0; usize::try_from(file.size()?).expect("a segment fits into memory")];
        if let Ok(n) = file.read_at(&mut bytes, 0) {
            bytes.truncate(n);
            return Ok(bytes);
        }
        for (index, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            let offset = index * BLOCK_BYTES;
            if let Err(error) = file.read_at(block, offset as u64) {
                block.fill(0);
                self.survey.find(&self.segment.name, format!("byte {offset} cannot be read: {error}"));
                self.survey.unread.get_or_insert(error);
            }
        }
        Ok(bytes)
    }

    fn take(&mut self, bytes: &[u8], offset: u64, frame: &FrameHeader) {
        let payload = &bytes[FRAME_HEADER_BYTES..];
        let records = FrameRecords { first: frame.first, bytes: payload, count: frame.count as usize };
        if let Err(why) = (self.visit)(&records) {
            self.survey.find(&self.segment.name, format!("positions {} to {}: {why}", frame.first, frame.last()));
        }
        self.survey.end = Watermark { position: frame.last(), crc: frame.crc };
        self.segment.frames += 1;
        match self.segment.runs.last_mut() {
            Some(run) if run.last + 1 == frame.first && run.offset + run.bytes == offset => {
                run.bytes += frame.frame_bytes();
                run.last = frame.last();
            }
            _ => {
                let (first, last) = (frame.first, frame.last());
                self.segment.runs.push(Run { offset, bytes: frame.frame_bytes(), first, last });
            }
        }
    }

    /// The next whole frame that this segment may hold, and where it begins, from `at` on.
    fn next_frame(&self, bytes: &[u8], at: usize, written: usize) -> Option<(usize, FrameHeader)> {
        let end = self.survey.end.position;
        let is_next = |frame: &FrameHeader| {
            let is_soon = frame.first > end && frame.first - end <= 64 * FRAME_RECORDS_MAX as u64;
            is_soon && self.limit.is_none_or(|limit| frame.last() < limit)
        };
        (at..written).find_map(|at| {
            // Numbers by chance are cheap to rule out before the checksum.
            bytes[at..].first_chunk().and_then(FrameHeader::decode).filter(is_next)?;
            Some((at, frame_in(&bytes[at..])?))
        })
    }

    /// No frame follows: that is the end, or what the next segment's beginning says is missing.
    fn ended(&mut self, bytes: &[u8], at: usize, written: usize) {
        let name = &self.segment.name;
        match self.limit {
            None if frame_in(&bytes[at..]).is_some() => {
                self.survey.find(name, format!("the frame at byte {at} repeats earlier positions"));
            }
            None => self.survey.torn_bytes = written.saturating_sub(at) as u64,
            Some(limit) => {
                let expected = self.survey.end.position + 1;
                let what = format!("damaged at byte {at}, or a segment behind it is missing");
                self.survey.find(name, what).lost = Some(expected..=limit - 1);
            }
        }
    }
}
