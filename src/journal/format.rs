//! The journal's bytes: segment headers and frames, version 1, little endian. docs/architecture.md has the tables.
//! Magic, version and checksum of a header stand in the same places in every version, so that an older program can tell
//! a newer format from damage. One frame is written per sync, so nothing valid can stand behind a torn one.

use std::io;

use uuid::Uuid;

use super::storage::SegmentFile;
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX, SEGMENT_BYTES};

/// The sequence number of a record, without gaps, from the birth of its journal; the first is 1, 0 is "none yet".
pub type Position = u64;

/// How far a store has followed a journal: the last record applied and the CRC32C of the frame that
/// ends there (0 at position 0), which tells a copied or foreign journal from this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    pub position: Position,
    pub crc: u32,
}

const MAGIC: &[u8; 8] = b"ETJOURNL";
/// The format that this program writes. It reads this one and, once there is one, the one before.
pub(super) const VERSION: u32 = 1;
/// Stands for a record that is lost: a length of 1, and a kind without a body that nothing else has.
pub const LOST_RECORD: [u8; 5] = [1, 0, 0, 0, 255];
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const FRAME_HEADER_BYTES: usize = 20;

const _: () = assert!((FRAME_BYTES_MAX + FRAME_HEADER_BYTES + SEGMENT_HEADER_BYTES) < SEGMENT_BYTES as usize);

pub(super) fn segment_name(first: Position) -> String {
    format!("{first:020}.segment")
}

/// What is wrong with a segment's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It is whole, and of a version that this program does not know.
    Newer(u32),
    /// It cannot be believed.
    Damaged(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) stream: Uuid,
    pub(super) first: Position,
    pub(super) created_ms: i64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(self.stream.as_bytes());
        bytes[28..36].copy_from_slice(&self.first.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<SegmentHeader, HeaderError> {
        if &bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged("it does not begin like a journal segment"));
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(HeaderError::Damaged("its header's checksum is wrong"));
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderError::Newer(version));
        }
        let stream = Uuid::from_bytes(bytes[12..28].try_into().expect("16 bytes"));
        Ok(SegmentHeader { stream, first: u64_at(bytes, 28), created_ms: u64_at(bytes, 36).cast_signed() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) payload_bytes: usize,
    pub(super) crc: u32,
    pub(super) first: Position,
    pub(super) count: u32,
}

impl FrameHeader {
    pub(super) fn last(&self) -> Position {
        self.first + u64::from(self.count) - 1
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.payload_bytes) as u64
    }

    /// A header whose numbers are within their bounds; whether its checksum holds is another question.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<FrameHeader> {
        let header = FrameHeader {
            payload_bytes: u32_at(bytes, 0) as usize,
            crc: u32_at(bytes, 4),
            first: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
        };
        let bounded = (1..=FRAME_BYTES_MAX).contains(&header.payload_bytes)
            && (1..=FRAME_RECORDS_MAX).contains(&(header.count as usize));
        bounded.then_some(header)
    }
}

/// Fills in the header of a frame whose payload stands behind `FRAME_HEADER_BYTES` free bytes; returns its checksum.
pub(super) fn seal_frame(frame: &mut [u8], first: Position, count: u32) -> u32 {
    assert!(first > 0 && count > 0 && frame.len() > FRAME_HEADER_BYTES, "an empty frame");
    let payload_bytes = u32::try_from(frame.len() - FRAME_HEADER_BYTES).expect("bounded by FRAME_BYTES_MAX");
    frame[..4].copy_from_slice(&payload_bytes.to_le_bytes());
    frame[8..16].copy_from_slice(&first.to_le_bytes());
    frame[16..20].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Reads the frame at `offset`, appending its payload to `payload`; `None` where no whole one stands.
pub(super) fn read_frame(
    file: &dyn SegmentFile,
    offset: u64,
    payload: &mut Vec<u8>,
) -> io::Result<Option<FrameHeader>> {
    let mut head = [0; FRAME_HEADER_BYTES];
    file.read_at(&mut head, offset)?;
    let Some(header) = FrameHeader::decode(&head) else { return Ok(None) };
    let start = payload.len();
    payload.resize(start + header.payload_bytes, 0);
    let read = file.read_at(&mut payload[start..], offset + FRAME_HEADER_BYTES as u64)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), &payload[start..]);
    if read < header.payload_bytes || crc != header.crc {
        payload.truncate(start);
        return Ok(None);
    }
    Ok(Some(header))
}

/// Reads only the header of the frame at `offset`; `None` where there is none.
pub(super) fn read_frame_header(file: &dyn SegmentFile, offset: u64) -> io::Result<Option<FrameHeader>> {
    let mut head = [0; FRAME_HEADER_BYTES];
    file.read_at(&mut head, offset)?;
    Ok(FrameHeader::decode(&head))
}

/// A whole frame at the beginning of `bytes`, if there is one.
pub(super) fn frame_in(bytes: &[u8]) -> Option<FrameHeader> {
    let header = FrameHeader::decode(bytes.first_chunk()?)?;
    let frame = bytes.get(8..FRAME_HEADER_BYTES + header.payload_bytes)?;
    (crc32c::crc32c(frame) == header.crc).then_some(header)
}

/// Up to the last byte that is not zero; whole blocks of zeros are compared at once.
pub(super) fn written_bytes(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let blocks = bytes.chunks(ZEROS.len());
    let Some(last) = blocks.clone().rposition(|block| *block != ZEROS[..block.len()]) else { return 0 };
    let block = &bytes[last * ZEROS.len()..bytes.len().min((last + 1) * ZEROS.len())];
    last * ZEROS.len() + block.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
