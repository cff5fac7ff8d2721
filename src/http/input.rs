//! The bytes that came and were not consumed yet, in a buffer that is lent, grows under a large
//! body and shrinks after.
//!
//! What it has beyond a lent buffer counts as body bytes in memory, which are bounded over all
//! connections.

use super::refusal::Refusal;
use super::shared::Shared;
use crate::limits::READ_BUFFER_BYTES;

#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    skipped_line_end: bool,
}

impl Input {
    pub(super) fn has_no_buffer(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn put(&mut self, buffer: Vec<u8>) {
        *self = Input { buffer, ..Input::default() };
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).buffer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// From the first byte of the request at hand.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Where the next read goes; never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.end..]
    }

    pub(super) fn came(&mut self, length: usize) {
        self.end += length;
        assert!(self.end <= self.buffer.len(), "a read of more than its room");
    }

    /// Only the request's first `length` bytes are still needed.
    pub(super) fn keep(&mut self, length: usize) {
        assert!(length <= self.end - self.start, "more bytes are kept than there are");
        self.end = self.start + length;
    }

    /// One empty line before a request is forgiven (RFC 9112, 2.2). True: nothing else is here yet.
    pub(super) fn skip_line_end(&mut self) -> bool {
        if !self.skipped_line_end {
            match &self.buffer[self.start..self.end] {
                [b'\r', b'\n', ..] => {
                    self.start += 2;
                    self.skipped_line_end = true;
                }
                [b'\r'] => self.move_to_front(),
                _ => {}
            }
        }
        if self.is_empty() {
            self.move_to_front();
        }
        self.end - self.start < 2 && matches!(&self.buffer[self.start..self.end], [] | [b'\r'])
    }

    fn move_to_front(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Sees to it that a read has room, for a request of which no more than `wanted` bytes are
    /// needed. Grows by doubling with what has come, never ahead for a length that was only
    /// declared.
    pub(super) fn make_room(&mut self, wanted: usize, shared: &Shared) -> Result<(), Refusal> {
        let fits = wanted <= self.buffer.len() - self.start;
        if self.start > 0 && (!fits || self.end == self.buffer.len()) {
            self.move_to_front();
        }
        if self.end < self.buffer.len() {
            return Ok(());
        }
        let length = (self.buffer.len() * 2).min(wanted).max(self.end + 1);
        let more = length - self.buffer.len();
        if !shared.take_body_bytes(more) {
            return Err(Refusal::BodiesFull);
        }
        self.buffer.resize(length, 0);
        Ok(())
    }

    /// The request at hand is done: its bytes go, and the memory that only they needed.
    pub(super) fn consume(&mut self, length: usize, shared: &Shared) {
        assert!(length <= self.end - self.start, "more bytes are consumed than there are");
        self.start += length;
        self.skipped_line_end = false;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.len() > READ_BUFFER_BYTES && self.end - self.start < READ_BUFFER_BYTES {
            self.move_to_front();
            shared.give_body_bytes(self.buffer.len() - READ_BUFFER_BYTES);
            self.buffer.truncate(READ_BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        } else if self.end == self.buffer.len() && self.start > 0 {
            self.move_to_front();
        }
    }

    pub(super) fn consume_all(&mut self, shared: &Shared) {
        self.consume(self.end - self.start, shared);
    }
}
