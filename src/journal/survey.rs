//! A look at every byte of a journal, damaged or not: what is there, what is not, what is wrong.
//!
//! A segment ends where its successor's first position begins: what stands behind that was never acknowledged. Where
//! something does not fit, a survey looks for the next whole frame, which says itself what positions it holds. Nothing is
//! written; the journal may be in use meanwhile.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use uuid::Uuid;

use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, frame_in, is_frame_behind,
    segment_name, written_bytes,
};
use super::position::{Position, Watermark};
use super::storage::{SegmentFile, Storage, read_stream};

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
    pub created_ms: Option<i64>,
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
        let (first, last) = (self.0.start(), self.0.end());
        match last - first + 1 {
            1 => write!(f, "position {first} (1 record)"),
            count => write!(f, "positions {first} to {last} ({count} records)"),
        }
    }
}

/// The encoded records of one whole frame.
#[derive(Debug)]
pub struct FrameRecords<'a> {
    pub first: Position,
    pub crc: u32,
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
    /// Nothing is wrong; a torn tail is not.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// No segment and no id: nothing was ever kept here.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.stream.is_none() && self.is_sound()
    }

    /// Positions whose records cannot be had, in order.
    pub fn lost(&self) -> Vec<RangeInclusive<Position>> {
        self.findings.iter().filter_map(|finding| finding.lost.clone()).collect()
    }

    fn find(&mut self, name: &str, what: impl Into<String>) -> &mut Finding {
        let finding = Finding { name: name.to_owned(), what: what.into(), lost: None, is_foreign: false };
        self.findings.push(finding);
        self.findings.last_mut().expect("just pushed")
    }
}

/// Looks at one frame; an error says why its records are wrong.
pub type Visit<'v> = dyn FnMut(&FrameRecords<'_>) -> Result<(), String> + 'v;

/// Surveys the journal in `storage`, handing each whole frame to `visit` in the journal's order.
pub fn survey(storage: &dyn Storage, visit: &mut Visit<'_>) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let opened = open_all(storage, &mut survey)?;
    survey.stream = judge_stream(storage, &opened, &mut survey)?;
    let mine: Vec<Opened> = opened.into_iter().filter(|o| !is_foreign(o, &mut survey)).collect();
    survey.end.position = mine.first().map_or(0, |o| o.first - 1);
    for (index, opened) in mine.iter().enumerate() {
        let limit = mine.get(index + 1).map(|next| next.first);
        let walked = Walk { opened, limit, survey: &mut survey, visit }.run()?;
        survey.segments.push(walked);
    }
    Ok(survey)
}

struct Opened {
    name: String,
    file: Arc<dyn SegmentFile>,
    first: Position,
    header: Option<SegmentHeader>,
}

/// Every segment whose place in the order is known: from its header or, where that is damaged, its name.
fn open_all(storage: &dyn Storage, survey: &mut Survey) -> io::Result<Vec<Opened>> {
    let mut names: Vec<String> = storage.list()?.into_iter().filter(|name| name.ends_with(".segment")).collect();
    names.sort_unstable();
    let mut all: Vec<Opened> = Vec::with_capacity(names.len());
    for name in names {
        let file = match storage.open(&name) {
            Ok(file) => file,
            // Removed since it was listed: the journal is in use.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let header = judge_header(&*file, &name, survey);
        let named = name.strip_suffix(".segment").and_then(|digits| digits.parse().ok()).filter(|first| *first > 0);
        let Some(first) = header.map(|h| h.first).or(named) else {
            survey.find(&name, "neither its name nor its header says where it begins; it is not used");
            continue;
        };
        all.push(Opened { name, file, first, header });
    }
    // Of two that begin at one position the one with the right name is the journal's.
    all.sort_by_key(|o| (o.first, o.name != segment_name(o.first)));
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
fn judge_stream(storage: &dyn Storage, opened: &[Opened], survey: &mut Survey) -> io::Result<Option<Uuid>> {
    let mut said = opened.iter().filter_map(|o| o.header.map(|h| h.stream));
    let of_segments = said.next().filter(|first| said.all(|other| other == *first));
    let text = read_stream(storage)?;
    let of_file = text.as_deref().and_then(|text| Uuid::parse_str(text.trim()).ok());
    if of_file.is_none() && (text.is_some() || !opened.is_empty()) {
        let what = if text.is_some() { "it holds no UUID" } else { "it is missing" };
        let finding = survey.find("stream", what);
        finding.is_foreign = of_segments.is_none();
    }
    Ok(of_file.or(of_segments))
}

fn is_foreign(opened: &Opened, survey: &mut Survey) -> bool {
    let foreign = opened.header.filter(|header| Some(header.stream) != survey.stream);
    if let Some(header) = foreign {
        let what = format!("it belongs to journal {}; it is not used", header.stream);
        survey.find(&opened.name, what).is_foreign = survey.stream.is_none();
    }
    foreign.is_some()
}

/// A way through one segment, from whole frame to whole frame.
struct Walk<'a> {
    opened: &'a Opened,
    /// Where the next segment begins: what stands here from there on was never acknowledged.
    limit: Option<Position>,
    survey: &'a mut Survey,
    visit: &'a mut Visit<'a>,
}

impl Walk<'_> {
    fn run(mut self) -> io::Result<SegmentSurvey> {
        let bytes = self.read_whole()?;
        let header = self.opened.header;
        let mut segment = SegmentSurvey {
            name: self.opened.name.clone(),
            first: self.opened.first,
            created_ms: header.map(|h| h.created_ms),
            size: bytes.len() as u64,
            frames: 0,
            runs: Vec::new(),
            is_sound: header.is_some_and(|h| segment_name(h.first) == self.opened.name),
            file: self.opened.file.clone(),
        };
        self.survey.end.position = self.opened.first - 1;
        let mut at = SEGMENT_HEADER_BYTES.min(bytes.len());
        let mut last = None;
        while self.limit != Some(self.survey.end.position + 1) {
            match self.frame_at(&bytes, at) {
                Some(frame) if frame.first == self.survey.end.position + 1 => {
                    self.take(&bytes, at, &frame, &mut segment);
                    let end = at + FRAME_HEADER_BYTES + frame.payload_bytes;
                    last = Some(at..end);
                    at = end;
                }
                _ => match self.next_frame(&bytes, at) {
                    Some(next) => at = self.passed_over(at, next, &bytes),
                    None => {
                        self.ended(at, &bytes);
                        break;
                    }
                },
            }
        }
        if self.limit.is_none() {
            self.survey.last_frame = last.map(|frame| (frame.start as u64, bytes[frame].to_vec()));
        }
        Ok(segment)
    }

    /// All bytes; blocks that the disk does not give are zeros, and a finding.
    fn read_whole(&mut self) -> io::Result<Vec<u8>> {
        let file = &*self.opened.file;
        let mut bytes = vec![0; usize::try_from(file.size()?).expect("a segment fits into memory")];
        match file.read_at(&mut bytes, 0) {
            Ok(n) => bytes.truncate(n),
            Err(_) => {
                for (index, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
                    let offset = index * BLOCK_BYTES;
                    if let Err(error) = file.read_at(block, offset as u64) {
                        block.fill(0);
                        self.survey.find(&self.opened.name, format!("byte {offset} cannot be read: {error}"));
                        self.survey.unread.get_or_insert(error);
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// A whole frame that this segment may hold at this place of the order.
    fn frame_at(&self, bytes: &[u8], at: usize) -> Option<FrameHeader> {
        let frame = frame_in(bytes.get(at..)?)?;
        let fits = frame.first > self.survey.end.position && self.limit.is_none_or(|limit| frame.last() < limit);
        fits.then_some(frame)
    }

    fn take(&mut self, bytes: &[u8], at: usize, frame: &FrameHeader, segment: &mut SegmentSurvey) {
        let payload = &bytes[at + FRAME_HEADER_BYTES..at + FRAME_HEADER_BYTES + frame.payload_bytes];
        let records = FrameRecords { first: frame.first, crc: frame.crc, bytes: payload, count: frame.count as usize };
        if let Err(why) = (self.visit)(&records) {
            self.survey.find(&segment.name, format!("positions {} to {}: {why}", frame.first, frame.last()));
        }
        self.survey.end = Watermark { position: frame.last(), crc: frame.crc };
        segment.frames += 1;
        match segment.runs.last_mut() {
            Some(run) if run.last + 1 == frame.first && run.offset + run.bytes == at as u64 => {
                run.bytes += frame.frame_bytes();
                run.last = frame.last();
            }
            _ => {
                let (first, last) = (frame.first, frame.last());
                segment.runs.push(Run { offset: at as u64, bytes: frame.frame_bytes(), first, last });
            }
        }
    }

    /// The next place from `at` on where a frame of this segment stands.
    fn next_frame(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let end = at + written_bytes(&bytes[at..]);
        (at..end).find(|next| {
            is_frame_behind(&bytes[*next..], self.survey.end.position) && self.frame_at(bytes, *next).is_some()
        })
    }

    /// Damage in the middle: what lies between two whole frames is lost.
    fn passed_over(&mut self, at: usize, next: usize, bytes: &[u8]) -> usize {
        let expected = self.survey.end.position + 1;
        let found = frame_in(&bytes[next..]).expect("looked for it").first;
        let finding = self.survey.find(&self.opened.name, format!("bytes {at} to {next} are damaged"));
        finding.lost = (found > expected).then(|| expected..=found - 1);
        self.survey.end.position = found - 1;
        next
    }

    /// No frame follows: that is the end, or what the next segment's beginning says is missing.
    fn ended(&mut self, at: usize, bytes: &[u8]) {
        let expected = self.survey.end.position + 1;
        match self.limit {
            None if frame_in(&bytes[at..]).is_some() => {
                self.survey.find(&self.opened.name, format!("the frame at byte {at} repeats earlier positions"));
            }
            None => self.survey.torn_bytes = written_bytes(&bytes[at..]) as u64,
            Some(limit) => {
                let what = format!("damaged at byte {at}, or a segment behind it is missing");
                self.survey.find(&self.opened.name, what).lost = Some(expected..=limit - 1);
            }
        }
    }
}
