//! From the files of a directory to a journal that can be continued, or a refusal that says why.
//!
//! A segment ends where its successor's first position begins: what stands behind that was never acknowledged. A bad
//! frame with nothing valid behind it in the last segment is a torn tail and is cut (by starting the next segment
//! there). Everything else that does not fit is corruption: the journal is left as it is and the start refused.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::format::{FRAME_HEADER_BYTES, Found, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, read_frame};
use super::storage::{SegmentFile, Storage};
use crate::limits::FRAME_RECORDS_MAX;
use crate::ports::{Position, Watermark};

/// A segment as recovery found it.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) first: Position,
    pub(super) created_ms: i64,
    pub(super) file: Arc<dyn SegmentFile>,
}

/// What a directory holds.
pub(super) struct Recovered {
    pub(super) segments: Vec<Segment>,
    pub(super) end: Watermark,
    /// Bytes of a torn tail that were cut.
    pub(super) torn_bytes: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    #[error("journal: another process uses this directory (LOCK is held)")]
    Locked,
    #[error("journal: {0}; nothing was changed. Keep a copy of the directory before you do anything to it")]
    Corrupt(String),
}

pub(super) fn segment_name(first: Position) -> String {
    format!("{first:020}.segment")
}

/// Reads and checks everything. `stream` is the journal's id.
pub(super) fn recover(storage: &dyn Storage, stream: Uuid) -> Result<Recovered, OpenError> {
    let mut names: Vec<String> = storage.list()?.into_iter().filter(|n| n.ends_with(".segment")).collect();
    names.sort_unstable();
    let mut segments = Vec::with_capacity(names.len());
    for name in names {
        segments.push(open_segment(storage, name, stream)?);
    }
    let mut end = Watermark { position: segments.first().map_or(0, |s: &Segment| s.first - 1), crc: 0 };
    let mut torn_bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        if segment.first != end.position + 1 {
            return Err(OpenError::Corrupt(format!(
                "{} begins at {}, but the one before ends at {}: a segment is missing or cut short",
                segment.name, segment.first, end.position
            )));
        }
        let next_first = segments.get(index + 1).map(|s| s.first);
        torn_bytes = check_segment(segment, next_first, &mut end)?;
    }
    Ok(Recovered { segments, end, torn_bytes })
}

fn open_segment(storage: &dyn Storage, name: String, stream: Uuid) -> Result<Segment, OpenError> {
    let file = storage.open(&name)?;
    file.sync()?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let header = SegmentHeader::decode(&header).map_err(|why| OpenError::Corrupt(format!("{name}: {why}")))?;
    if header.stream != stream {
        return Err(OpenError::Corrupt(format!("{name} belongs to journal {}, not to {stream}", header.stream)));
    }
    if segment_name(header.first) != name {
        return Err(OpenError::Corrupt(format!("{name} says that it begins at {}", header.first)));
    }
    Ok(Segment { name, first: header.first, created_ms: header.created_ms, file })
}

/// Walks a segment's frames, moving `end`; returns the bytes of a torn tail.
fn check_segment(segment: &Segment, next_first: Option<Position>, end: &mut Watermark) -> Result<u64, OpenError> {
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let mut payload = Vec::new();
    loop {
        if next_first == Some(end.position + 1) {
            return Ok(0);
        }
        payload.clear();
        match read_frame(&*segment.file, offset, &mut payload)? {
            Found::Frame(header) if header.first == end.position + 1 => {
                *end = Watermark { position: header.last(), crc: header.crc };
                offset += header.frame_bytes();
            }
            Found::End | Found::Bad if next_first.is_none() => return torn_tail(segment, offset, end.position),
            _ => {
                return Err(OpenError::Corrupt(format!(
                    "{} is damaged at byte {offset}, behind position {}",
                    segment.name, end.position
                )));
            }
        }
    }
}

/// The length of the torn tail at `offset`, or corruption where a valid frame stands behind it.
fn torn_tail(segment: &Segment, offset: u64, last: Position) -> Result<u64, OpenError> {
    let size = segment.file.size()?;
    let mut rest = vec![0; usize::try_from(size - offset).expect("a segment fits into memory")];
    segment.file.read_at(&mut rest, offset)?;
    // A segment is zeros behind its end, and no frame begins with a zero length: only what was written is looked at.
    let written = written_bytes(&rest);
    for at in 1..written.min(rest.len().saturating_sub(FRAME_HEADER_BYTES)) {
        if valid_frame(&rest[at..], last) {
            return Err(OpenError::Corrupt(format!(
                "{} is damaged at byte {offset}, behind position {last}, and whole frames follow",
                segment.name
            )));
        }
    }
    Ok(written as u64)
}

/// Up to the last byte that is not zero; whole blocks of zeros are compared at once.
fn written_bytes(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let blocks = bytes.chunks(ZEROS.len());
    let Some(last) = blocks.clone().rposition(|block| *block != ZEROS[..block.len()]) else { return 0 };
    let block = &bytes[last * ZEROS.len()..bytes.len().min((last + 1) * ZEROS.len())];
    last * ZEROS.len() + block.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

fn valid_frame(bytes: &[u8], last: Position) -> bool {
    let head = bytes[..FRAME_HEADER_BYTES].try_into().expect("as long as a header");
    let Some(header) = FrameHeader::decode(head) else { return false };
    // Only positions that could follow soon: numbers by chance are cheap to rule out before the checksum.
    let plausible = header.first > last && header.first - last <= 64 * FRAME_RECORDS_MAX as u64;
    let end = FRAME_HEADER_BYTES + header.payload_bytes;
    plausible && end <= bytes.len() && crc32c::crc32c(&bytes[8..end]) == header.crc
}
