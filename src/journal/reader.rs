//! Reading back what is durable, in order, as whole frames.

use std::sync::Arc;
use std::time::Duration;

use super::format::{
    FrameHeader, LOST_RECORD, Position, SEGMENT_HEADER_BYTES, Watermark, read_frame, read_frame_header,
};
use super::recovery::Segment;
use super::shared::{Shared, lock};

/// Why a follower cannot go on; each stops it loudly.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("journal: {0}")]
    Io(#[from] std::io::Error),
    #[error(
        "the store has followed this journal to {store}, but it ends at {end}: an older copy was restored. \
         `event-tracker journal salvage --last {store}` makes it go on behind that"
    )]
    Ahead { store: Position, end: Position },
    #[error("the records behind {0} are no longer in the journal")]
    Gone(Position),
    #[error("the store's checksum at {0} is not the journal's: this is another journal, or a copy of it")]
    Foreign(Position),
    #[error("the journal is damaged behind {0}")]
    Damaged(Position),
}

/// Records of whole frames, encoded, one after the other.
#[derive(Debug, Default)]
pub struct Frames {
    pub from: Watermark,
    pub to: Watermark,
    pub bytes: Vec<u8>,
}

impl Frames {
    pub fn count(&self) -> usize {
        usize::try_from(self.to.position - self.from.position).unwrap_or(usize::MAX)
    }
}

/// A position in the journal from which one follower reads on.
pub struct Reader {
    shared: Arc<Shared>,
    at: Watermark,
    segment: Arc<Segment>,
    offset: u64,
    /// Records of the next frame that the store is past already: only among lost ones.
    passed: usize,
}

impl Reader {
    pub(super) fn open(shared: Arc<Shared>, from: Watermark) -> Result<Reader, ReadError> {
        let end = lock(&shared.end).position;
        if from.position > end {
            return Err(ReadError::Ahead { store: from.position, end });
        }
        let offset = SEGMENT_HEADER_BYTES as u64;
        let Some(segment) = segment_holding(&shared, from.position) else {
            // The frame that ends at `from` may be gone already while all behind it is there.
            let segment = segment_holding(&shared, from.position + 1).ok_or(ReadError::Gone(from.position))?;
            return Ok(Reader { shared, at: from, segment, offset, passed: 0 });
        };
        // Walk to the frame that ends at `from`; the frame before the segment is of no use.
        let at = Watermark { position: segment.first - 1, crc: 0 };
        let mut reader = Reader { shared, at, segment, offset, passed: 0 };
        while reader.at.position < from.position {
            let header = read_frame_header(&*reader.segment.file, reader.offset)?;
            let header = header.filter(|h| h.first == reader.at.position + 1);
            let header = header.ok_or(ReadError::Damaged(reader.at.position))?;
            let ends_here = Watermark { position: header.last(), crc: header.crc } == from;
            if header.last() >= from.position && !ends_here {
                return reader.among_lost(&header, from);
            }
            reader.at = Watermark { position: header.last(), crc: header.crc };
            reader.offset += header.frame_bytes();
        }
        if reader.at == from { Ok(reader) } else { Err(ReadError::Foreign(from.position)) }
    }

    /// The store stands in or at the end of the frame at hand, and no frame of that checksum ends there. That is
    /// another journal, unless the frame stands for records that are lost: then nothing can be compared any more, and
    /// what is behind the store's position goes on being behind it.
    fn among_lost(mut self, header: &FrameHeader, from: Watermark) -> Result<Reader, ReadError> {
        let mut payload = Vec::new();
        let found = read_frame(&*self.segment.file, self.offset, &mut payload)?;
        if found.is_none() || !payload.chunks(LOST_RECORD.len()).all(|r| r == LOST_RECORD) {
            return Err(ReadError::Foreign(from.position));
        }
        tracing::error!(
            position = from.position,
            "journal: a store stands where records were lost; going on behind it, its checksum cannot be compared"
        );
        self.at = from;
        if header.last() == from.position {
            self.offset += header.frame_bytes();
        } else {
            self.passed = usize::try_from(from.position + 1 - header.first).expect("within a frame");
        }
        Ok(self)
    }

    pub fn at(&self) -> Watermark {
        self.at
    }

    /// How many records are durable behind the reader's position.
    pub fn behind(&self) -> u64 {
        self.shared.end_position.load(std::sync::atomic::Ordering::Acquire).saturating_sub(self.at.position)
    }

    /// Waits until something is durable behind the reader's position or the journal closes, at most `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let is_waiting = |end: &mut Watermark| end.position <= self.at.position && !self.shared.is_closing();
        drop(self.shared.end_moved.wait_timeout_while(lock(&self.shared.end), timeout, is_waiting));
    }

    /// The next whole frames up to `records_max` records and `bytes_max` bytes (always at least one frame), none
    /// behind `up_to`. `None`: there is nothing.
    pub fn next(&mut self, up_to: Position, records_max: usize, bytes_max: usize) -> Result<Option<Frames>, ReadError> {
        let end = self.shared.end_position.load(std::sync::atomic::Ordering::Acquire).min(up_to);
        let mut frames = Frames { from: self.at, to: self.at, bytes: Vec::new() };
        while self.at.position < end {
            if self.at_next_segment() {
                continue;
            }
            let header = read_frame_header(&*self.segment.file, self.offset)?;
            let header = header.ok_or_else(|| self.missing())?;
            let too_large = frames.count() + header.count as usize > records_max
                || frames.bytes.len() + header.payload_bytes > bytes_max;
            if header.last() > end || frames.count() > 0 && too_large {
                break;
            }
            let before = frames.bytes.len();
            match read_frame(&*self.segment.file, self.offset, &mut frames.bytes)? {
                Some(header) if header.first + self.passed as u64 == self.at.position + 1 => {
                    frames.bytes.drain(before..before + self.passed * LOST_RECORD.len());
                    self.passed = 0;
                    assert!(self.at.position < header.last() && header.last() <= end, "positions ascend to the end");
                    self.at = Watermark { position: header.last(), crc: header.crc };
                    self.offset += header.frame_bytes();
                    frames.to = self.at;
                }
                _ => return Err(ReadError::Damaged(self.at.position)),
            }
        }
        Ok((frames.count() > 0).then_some(frames))
    }

    /// Nothing stands where the next frame should: its segment was removed, or the file is damaged.
    fn missing(&self) -> ReadError {
        let next = self.at.position + 1;
        let is_gone = lock(&self.shared.segments).first().is_some_and(|first| first.first > next);
        if is_gone { ReadError::Gone(self.at.position) } else { ReadError::Damaged(self.at.position) }
    }

    /// Moves to the segment that begins at the next position, where there is one.
    fn at_next_segment(&mut self) -> bool {
        let next = self.at.position + 1;
        let begins = |segment: &Arc<Segment>| segment.first == next && !Arc::ptr_eq(segment, &self.segment);
        let Some(segment) = segment_holding(&self.shared, next).filter(begins) else { return false };
        self.segment = segment;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        true
    }
}

/// The segment that holds the record at `position`, or would.
fn segment_holding(shared: &Shared, position: Position) -> Option<Arc<Segment>> {
    let segments = lock(&shared.segments);
    segments.iter().rev().find(|s| s.first <= position).cloned()
}
