//! The writer: takes what the cores have put in, writes one frame, syncs it once, and tells everybody. After an error of
//! a write or a sync it never touches that file again: the same frame goes into a new segment, or the appends are
//! refused until a probe succeeds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::core_buffer::{Chunk, Due, NEVER, NOW, Wait, refuse};
use super::format::{
    FRAME_HEADER_BYTES, Position, SEGMENT_HEADER_BYTES, SegmentHeader, Watermark, seal_frame, segment_name,
};
use super::recovery::{Resume, Segment};
use super::shared::{Shared, lock};
use super::storage::write_and_name;
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX};
use crate::runtime::complete;

const PROBE_PAUSE: Duration = Duration::from_secs(1);

struct Writer {
    shared: Arc<Shared>,
    /// The segment being written and the offset behind its last frame; `None` after an error.
    current: Option<(Arc<Segment>, u64)>,
    next: Position,
    frame: Vec<u8>,
    turn: usize,
}

/// Starts the writer in the last segment, so that a start needs no free space.
pub(super) fn spawn(shared: Arc<Shared>, resume: &Resume) -> io::Result<JoinHandle<()>> {
    let next = lock(&shared.end).position + 1;
    let mut writer = Writer { shared, current: None, next, frame: Vec::new(), turn: 0 };
    writer.resume(resume)?;
    Ok(crate::process::spawn("journal-writer", move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run())).is_err() {
            // Requests would wait for ever for a sync that never comes: better a restart, which recovers.
            tracing::error!("journal: its writer panicked; the process ends");
            crate::logging::flush();
            std::process::abort();
        }
    }))
}

impl Writer {
    fn run(&mut self) {
        loop {
            // Whoever is about to append gets to it first where the cores are busy: fewer, larger frames. Where they are
            // not, this returns at once: there is no timer.
            std::thread::yield_now();
            let is_closing = self.shared.is_closing();
            let due = self.due();
            // Where no segment is open, what has time is told at once whether one can be begun.
            let is_due = due <= self.shared.watch(Instant::now()) || self.current.is_none() && due != NEVER;
            if is_closing || is_due {
                let chunks = self.take_chunks();
                if !chunks.is_empty() {
                    self.commit(chunks);
                } else if is_closing {
                    return self.close_buffers();
                }
            } else if self.current.is_some() {
                self.sleep(due);
            } else if self.begin_segment().is_ok() {
                self.shared.recovered();
            } else {
                std::thread::park_timeout(PROBE_PAUSE);
            }
        }
    }

    /// Appends that passed the look at the state before it changed are told here; later ones find the buffer closed.
    fn close_buffers(&self) {
        for buffer in &self.shared.buffers {
            let mut buffer = lock(buffer);
            buffer.is_closed = true;
            refuse(buffer.chunks.drain(..));
        }
    }

    fn due(&self) -> Due {
        self.shared.buffers.iter().map(|buffer| lock(buffer).due).min().unwrap_or(NEVER)
    }

    /// Sleeps until the next frame is due, or an append that is due before, or the end. The time is set before the last look,
    /// so no append goes unnoticed.
    fn sleep(&self, until: Due) {
        self.shared.writer_parked_until.store(until, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.due() >= until && !self.shared.is_closing() {
            if until == NEVER {
                std::thread::park();
            } else {
                self.shared.stats.rests.fetch_add(1, Ordering::Relaxed);
                let left = until.saturating_sub(self.shared.watch(Instant::now()));
                std::thread::park_timeout(Duration::from_nanos(left));
            }
        }
        self.shared.writer_parked_until.store(NOW, Ordering::Relaxed);
    }

    /// As many chunks as fit into one frame, every core in its turn.
    fn take_chunks(&mut self) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let (mut bytes, mut records) = (0, 0);
        let cores = self.shared.buffers.len();
        self.turn = (self.turn + 1) % cores;
        for buffer in (0..cores).map(|i| &self.shared.buffers[(self.turn + i) % cores]) {
            let mut buffer = lock(buffer);
            while let Some(chunk) = buffer.chunks.front() {
                bytes += chunk.bytes.len();
                records += chunk.count as usize;
                if !taken.is_empty() && (bytes > FRAME_BYTES_MAX || records > FRAME_RECORDS_MAX) {
                    // What does not fit has waited long enough.
                    buffer.due = NOW;
                    return taken;
                }
                let chunk = buffer.chunks.pop_front().expect("just seen");
                assert!(buffer.pending_bytes >= chunk.bytes.len(), "more bytes are taken than are pending");
                buffer.pending_bytes -= chunk.bytes.len();
                taken.push(chunk);
            }
            buffer.due = NEVER;
        }
        taken
    }

    /// Makes the chunks durable, or fails everybody who waits for them.
    fn commit(&mut self, chunks: Vec<Chunk>) {
        let count = chunks.iter().map(|c| c.count).sum::<u32>();
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        for chunk in &chunks {
            self.frame.extend_from_slice(&chunk.bytes);
        }
        assert!((1..=FRAME_RECORDS_MAX).contains(&(count as usize)), "a frame of {count} records");
        assert!(self.frame.len() <= FRAME_HEADER_BYTES + FRAME_BYTES_MAX, "a frame of {} bytes", self.frame.len());
        let crc = seal_frame(&mut self.frame, self.next, count);
        let written = self.write_frame().or_else(|error| {
            self.fail(&error);
            self.begin_segment()?;
            self.write_frame()
        });
        match written {
            Ok(()) => {
                self.publish(chunks, count, crc);
                self.shared.recovered();
            }
            Err(error) => {
                self.fail(&error);
                self.shared.failed(&error);
                refuse(chunks);
            }
        }
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let full = |offset: u64| offset + self.frame.len() as u64 > self.shared.settings.segment_bytes;
        if self.current.as_ref().is_some_and(|(_, offset)| full(*offset)) {
            self.begin_segment()?;
        }
        let (segment, offset) = self.current.as_mut().ok_or_else(|| io::Error::other("no segment is open"))?;
        let started = Instant::now();
        segment.file.write_at(&self.frame, *offset)?;
        segment.file.sync()?;
        *offset += self.frame.len() as u64;
        let stats = &self.shared.stats;
        stats.syncs.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        stats.sync_us.fetch_add(us, Ordering::Relaxed);
        let usual = &self.shared.usual_sync_us;
        usual.store((7 * usual.load(Ordering::Relaxed)).saturating_add(us) / 8, Ordering::Relaxed);
        stats.bytes.fetch_add(self.frame.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
        if let Some((segment, offset)) = self.current.take() {
            tracing::error!(%error, segment = segment.name, offset, "journal: a write failed; going on in a new segment");
        }
    }

    /// Continues the last segment, or begins a new one. If there is no room for that, nothing to be made durable, and a
    /// segment to read, the journal is open all the same, and refuses until there is room.
    fn resume(&mut self, resume: &Resume) -> io::Result<()> {
        match self.continue_segment(resume) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "journal: the last segment cannot be continued; a new one is begun"),
        }
        match self.begin_segment_with(resume.first, &resume.frame) {
            Err(error) if resume.frame.is_empty() && resume.offset.is_some() => {
                self.shared.failed(&error);
                Ok(())
            }
            begun => begun,
        }
    }

    /// Writes the last frame again, as its sync may have failed, and zeros over the torn tail. False if there is no segment
    /// to continue, or if it is also part of a copy by links, as a salvage makes one.
    fn continue_segment(&mut self, resume: &Resume) -> io::Result<bool> {
        let last = lock(&self.shared.segments).last().cloned();
        let Some((segment, offset)) = last.zip(resume.offset) else { return Ok(false) };
        if segment.file.is_linked()? {
            return Ok(false);
        }
        let mut bytes = resume.frame.clone();
        bytes.resize(bytes.len() + usize::try_from(resume.torn_bytes).expect("part of a segment"), 0);
        if !bytes.is_empty() {
            segment.file.write_at(&bytes, offset)?;
            segment.file.sync()?;
        }
        self.current = Some((segment, offset + resume.frame.len() as u64));
        Ok(true)
    }

    /// Announces the frame: waits on followers first, so that they are known before a follower can pass them.
    fn publish(&mut self, chunks: Vec<Chunk>, count: u32, crc: u32) {
        let mut durable = Vec::new();
        let mut first = self.next;
        for chunk in chunks {
            for (at, n, wait) in chunk.waits {
                match wait {
                    Wait::Nothing | Wait::Leisure => {}
                    Wait::Durable(ticket) => durable.push(ticket),
                    Wait::Applied { pending, .. } => pending.durable(first + u64::from(at), n),
                }
            }
            first += u64::from(chunk.count);
        }
        self.next += u64::from(count);
        self.shared.stats.records.fetch_add(u64::from(count), Ordering::Relaxed);
        self.shared.publish(Watermark { position: self.next - 1, crc });
        complete(durable, true);
    }

    /// Goes on in a new segment that begins at the next position. Header under a temporary name, synced, renamed,
    /// the directory synced: only then is anything appended.
    fn begin_segment(&mut self) -> io::Result<()> {
        self.begin_segment_with(self.next, &[])
    }

    /// The same at `first`, with `frame` in it from the beginning: it has its name only once both are durable.
    fn begin_segment_with(&mut self, first: Position, frame: &[u8]) -> io::Result<()> {
        self.current = None;
        let header = SegmentHeader { stream: self.shared.stream, first, created_ms: self.shared.clock.now_ms() };
        let spare = lock(&self.shared.spare).take();
        self.shared.keeper.get().inspect(|keeper| keeper.unpark());
        let spare = spare.map_or_else(|| self.shared.make_spare(), Ok)?;
        let name = segment_name(first);
        let bytes = [&header.encode(), frame].concat();
        let begun = write_and_name(&*self.shared.storage, &*spare.file, &bytes, &spare.name, &name);
        // What is left of a spare that failed would fill the disk, one each probe.
        begun.inspect_err(|_| drop(self.shared.storage.remove(&spare.name)))?;
        let segment = Arc::new(Segment { name, first, known_since: Instant::now(), file: spare.file });
        let mut segments = lock(&self.shared.segments);
        // A segment in which nothing was ever published has the same first position, and now the same name.
        segments.retain(|s| s.first != first);
        assert!(segments.last().is_none_or(|last| last.first < first), "segments ascend");
        segments.push(segment.clone());
        drop(segments);
        self.current = Some((segment, (SEGMENT_HEADER_BYTES + frame.len()) as u64));
        Ok(())
    }
}
