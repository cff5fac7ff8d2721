//! From the files of a directory to a journal that can be continued, or a refusal that says why.
//!
//! A segment ends where its successor's first position begins: what stands behind that was never acknowledged. A bad
//! frame with nothing valid after it in the last segment is a torn tail and is overwritten with zeros. Everything else
//! that does not fit is corruption: the journal is left as it is and the start refused.
//!
//! The last frame of the last segment may be one whose sync failed or never came: after a failed sync the kernel calls
//! its pages clean, and a later sync of the file succeeds without writing them. So what is read back proves nothing
//! about that frame. The writer writes it again in its place, with zeros over the torn tail, and syncs both before anybody
//! may read it. The same bytes in the same place harm nothing if the power fails meanwhile: a frame that was durable
//! stays what it was, and any other was never acknowledged. Every frame before it was synced before its successor was written.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::format::{
    FRAME_HEADER_BYTES, Found, FrameHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, frame_in,
    read_frame,
};
use super::storage::{SegmentFile, Storage};
use crate::limits::FRAME_RECORDS_MAX;
use crate::ports::{Position, Watermark};

/// A segment as recovery found it.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) first: Position,
    /// Since when this process knows it. Its header's time is not asked for its age: that clock may have been wrong.
    pub(super) known_since: Instant,
    pub(super) file: Arc<dyn SegmentFile>,
}

/// What a directory holds.
pub(super) struct Recovered {
    pub(super) segments: Vec<Segment>,
    pub(super) end: Watermark,
    pub(super) resume: Resume,
}

/// Where a recovered journal goes on.
pub(super) struct Resume {
    /// The position of the first record of `frame`, or the next one.
    pub(super) first: Position,
    /// The last frame, which begins at `offset`; empty if the last segment has none.
    pub(super) frame: Vec<u8>,
    /// In the last segment; `None` if there is no segment.
    pub(super) offset: Option<u64>,
    /// Bytes behind the frame that were never acknowledged.
    pub(super) torn_bytes: u64,
}

/// Where a frame stands.
struct Place {
    offset: u64,
    header: FrameHeader,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("journal: {0}")]
    Io(#[from] io::Error),
    #[error("journal: another process uses this directory (LOCK is held)")]
    Locked,
    #[error(
        "journal: {0}; nothing was changed. `event-tracker journal verify` lists all that is wrong; `event-tracker \
         journal salvage` keeps a copy and goes on with what can be read"
    )]
    Corrupt(String),
    #[error(
        "journal: {name} is of format version {version}, and this program knows versions up to {known}; nothing was \
         changed. Start the newer program that wrote it, or let that one bring its stores up to date and begin with an \
         empty directory"
    )]
    Newer { name: String, version: u32, known: u32 },
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
    let mut last_frame = None;
    for (index, segment) in segments.iter().enumerate() {
        if segment.first != end.position + 1 {
            return Err(OpenError::Corrupt(format!(
                "{} begins at {}, but the one before ends at {}: a segment is missing or cut short",
                segment.name, segment.first, end.position
            )));
        }
        let next_first = segments.get(index + 1).map(|s| s.first);
        (torn_bytes, last_frame) = check_segment(segment, next_first, &mut end)?;
    }
    let mut resume = resume(segments.last(), last_frame, end)?;
    resume.torn_bytes = torn_bytes;
    Ok(Recovered { segments, end, resume })
}

/// A last segment without a frame was begun after the frame before it was synced.
fn resume(last: Option<&Segment>, last_frame: Option<Place>, end: Watermark) -> Result<Resume, OpenError> {
    let offset = last.map(|_| SEGMENT_HEADER_BYTES as u64);
    let (Some(segment), Some(place)) = (last, last_frame) else {
        return Ok(Resume { first: end.position + 1, frame: Vec::new(), offset, torn_bytes: 0 });
    };
    let bytes = usize::try_from(place.header.frame_bytes()).expect("bounded by FRAME_BYTES_MAX");
    let mut frame = vec![0; bytes];
    segment.file.read_at(&mut frame, place.offset)?;
    match frame_in(&frame) {
        Some(header) if header == place.header => {
            Ok(Resume { first: header.first, frame, offset: Some(place.offset), torn_bytes: 0 })
        }
        _ => Err(damaged(segment, place.offset, place.header.first - 1)),
    }
}

/// The journal's id: read, or drawn and made durable where the storage is new.
pub(super) fn stream_id(storage: &dyn Storage) -> Result<Uuid, OpenError> {
    if let Some(text) = read_stream(storage)? {
        return Uuid::parse_str(text.trim()).map_err(|_| OpenError::Corrupt("the file `stream` holds no UUID".into()));
    }
    if storage.list()?.iter().any(|name| name.ends_with(".segment")) {
        return Err(OpenError::Corrupt("there are segments, but the file `stream` is missing".into()));
    }
    let stream = Uuid::new_v4();
    write_stream(storage, stream)?;
    Ok(stream)
}

/// What the file `stream` says, if it is there.
pub(super) fn read_stream(storage: &dyn Storage) -> io::Result<Option<String>> {
    let file = match storage.open("stream") {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 64];
    let n = file.read_at(&mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes[..n]).into_owned()))
}

/// Writes the file `stream`, durably: first under a temporary name.
pub(super) fn write_stream(storage: &dyn Storage, stream: Uuid) -> io::Result<()> {
    let text = format!("{stream}\n");
    let file = storage.create("stream.tmp", text.len() as u64)?;
    file.write_at(text.as_bytes(), 0)?;
    file.sync()?;
    storage.rename("stream.tmp", "stream")?;
    storage.sync_names()
}

fn open_segment(storage: &dyn Storage, name: String, stream: Uuid) -> Result<Segment, OpenError> {
    let file = storage.open(&name)?;
    file.sync()?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let header = SegmentHeader::decode(&header).map_err(|error| match error {
        HeaderError::Newer(version) => OpenError::Newer { name: name.clone(), version, known: VERSION },
        HeaderError::Damaged(why) => OpenError::Corrupt(format!("{name}: {why}")),
    })?;
    if header.stream != stream {
        return Err(OpenError::Corrupt(format!("{name} belongs to journal {}, not to {stream}", header.stream)));
    }
    if segment_name(header.first) != name {
        return Err(OpenError::Corrupt(format!("{name} says that it begins at {}", header.first)));
    }
    Ok(Segment { name, first: header.first, known_since: Instant::now(), file })
}

/// Walks a segment's frames, moving `end`; returns the bytes of a torn tail, and the last frame.
fn check_segment(
    segment: &Segment,
    next_first: Option<Position>,
    end: &mut Watermark,
) -> Result<(u64, Option<Place>), OpenError> {
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let mut payload = Vec::new();
    let mut last = None;
    loop {
        if next_first == Some(end.position + 1) {
            return Ok((0, last));
        }
        payload.clear();
        match read_frame(&*segment.file, offset, &mut payload)? {
            Found::Frame(header) if header.first == end.position + 1 => {
                *end = Watermark { position: header.last(), crc: header.crc };
                last = Some(Place { offset, header });
                offset += header.frame_bytes();
            }
            Found::End | Found::Bad if next_first.is_none() => {
                return torn_tail(segment, offset, end.position).map(|torn| (torn, last));
            }
            _ => return Err(damaged(segment, offset, end.position)),
        }
    }
}

fn damaged(segment: &Segment, offset: u64, last: Position) -> OpenError {
    OpenError::Corrupt(format!("{} is damaged at byte {offset}, behind position {last}", segment.name))
}

/// The length of the torn tail at `offset`, or corruption where a valid frame stands behind it.
fn torn_tail(segment: &Segment, offset: u64, last: Position) -> Result<u64, OpenError> {
    let size = segment.file.size()?;
    let mut rest = vec![0; usize::try_from(size - offset).expect("a segment fits into memory")];
    segment.file.read_at(&mut rest, offset)?;
    // A segment is zeros behind its end, and no frame begins with a zero length: only what was written is looked at.
    let written = written_bytes(&rest);
    for at in 1..written.min(rest.len().saturating_sub(FRAME_HEADER_BYTES)) {
        if is_frame_behind(&rest[at..], last) {
            return Err(OpenError::Corrupt(format!(
                "{} is damaged at byte {offset}, behind position {last}, and whole frames follow",
                segment.name
            )));
        }
    }
    Ok(written as u64)
}

/// Up to the last byte that is not zero; whole blocks of zeros are compared at once.
pub(super) fn written_bytes(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let blocks = bytes.chunks(ZEROS.len());
    let Some(last) = blocks.clone().rposition(|block| *block != ZEROS[..block.len()]) else { return 0 };
    let block = &bytes[last * ZEROS.len()..bytes.len().min((last + 1) * ZEROS.len())];
    last * ZEROS.len() + block.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

/// A whole frame begins here, of positions that could follow `last` soon: numbers by chance are cheap to rule out
/// before the checksum.
pub(super) fn is_frame_behind(bytes: &[u8], last: Position) -> bool {
    let Some(header) = bytes.first_chunk().and_then(FrameHeader::decode) else { return false };
    let plausible = header.first > last && header.first - last <= 64 * FRAME_RECORDS_MAX as u64;
    plausible && frame_in(bytes).is_some()
}
