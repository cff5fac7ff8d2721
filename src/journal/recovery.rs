//! From the files of a directory to a journal that can be continued, or a refusal that says why.
//!
//! What is read back proves nothing about the last frame: after a failed sync the kernel calls its pages clean, and a later
//! sync succeeds without writing them. So the writer writes it again in its place, and syncs, before anybody may read it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::format::{Position, SEGMENT_HEADER_BYTES, VERSION, Watermark, frame_in};
use super::storage::{SegmentFile, Storage, read_stream, write_stream};
use super::survey::{SegmentSurvey, survey};

/// A segment as recovery found it.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) first: Position,
    /// Since when this process knows it. Its header's time is not asked for its age: that clock may have been wrong.
    pub(super) known_since: Instant,
    pub(super) file: Arc<dyn SegmentFile>,
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

/// Reads and checks everything: a finding of the survey is a refusal. Returns the segments, the end, and how to go on.
pub(super) fn recover(storage: &dyn Storage) -> Result<(Vec<Arc<Segment>>, Watermark, Resume), OpenError> {
    let found = survey(storage, &mut |_| Ok(()))?;
    if let Some(error) = found.unread {
        return Err(error.into());
    }
    if let Some((name, version)) = found.newer {
        return Err(OpenError::Newer { name, version, known: VERSION });
    }
    if let Some(finding) = found.findings.first() {
        return Err(OpenError::Corrupt(finding.to_string()));
    }
    // A last segment without a frame was begun after the frame before it was synced.
    let begins = (!found.segments.is_empty()).then_some(SEGMENT_HEADER_BYTES as u64);
    let (offset, frame) = found.last_frame.map_or((begins, Vec::new()), |(offset, frame)| (Some(offset), frame));
    let first = frame_in(&frame).map_or(found.end.position + 1, |header| header.first);
    let resume = Resume { first, frame, offset, torn_bytes: found.torn_bytes };
    let segments = found.segments.into_iter().map(|SegmentSurvey { name, first, file, .. }| {
        file.sync()?;
        Ok(Arc::new(Segment { name, first, known_since: Instant::now(), file }))
    });
    Ok((segments.collect::<io::Result<_>>()?, found.end, resume))
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
