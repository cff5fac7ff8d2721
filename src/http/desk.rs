//! What the connections of one worker share: buffers to lend and the date of the second.
//!
//! A connection has buffers only while it has bytes, so ten thousand idle ones cost no buffers at all. Each worker has a
//! desk of its own, in its thread: a connection never leaves its worker, and nothing here parks, so there is no lock.

use std::cell::RefCell;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use super::response::{DateLine, Shape};
use crate::limits::{LENT_BUFFERS_KEPT, READ_BUFFER_BYTES};

/// An output buffer that grew beyond this is not kept.
const OUTPUT_BYTES_KEPT: usize = 4 * READ_BUFFER_BYTES;

/// The buffers of a connection that has bytes. The default one holds no memory.
#[derive(Default)]
pub(super) struct Lent {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) held: Vec<Held>,
}

/// An answer in the output that must not leave as it is before its ticket is done.
pub(super) struct Held {
    pub(super) range: Range<usize>,
    pub(super) lines: Vec<u8>,
    pub(super) shape: Shape,
    /// Its line in the access log, if that is on.
    pub(super) logged: usize,
}

/// Placeholder; replaced before the first response.
pub(super) const UNDATED: DateLine = [b' '; 37];

struct Desk {
    spare: Vec<Lent>,
    date: DateLine,
    /// When the next second begins, in microseconds of the monotonic clock.
    date_until_us: u64,
}

thread_local! {
    static DESK: RefCell<Desk> =
        const { RefCell::new(Desk { spare: Vec::new(), date: UNDATED, date_until_us: 0 }) };
}

/// Buffers for a connection that gets bytes.
pub(super) fn lend() -> Lent {
    let spare = DESK.with_borrow_mut(|desk| desk.spare.pop());
    spare.unwrap_or_else(|| Lent {
        input: vec![0; READ_BUFFER_BYTES],
        output: Vec::with_capacity(READ_BUFFER_BYTES / 4),
        held: Vec::new(),
    })
}

/// Takes them back, empty.
pub(super) fn give_back(lent: Lent) {
    if lent.input.len() != READ_BUFFER_BYTES || lent.output.capacity() > OUTPUT_BYTES_KEPT {
        return;
    }
    DESK.with_borrow_mut(|desk| {
        if desk.spare.len() < LENT_BUFFERS_KEPT {
            desk.spare.push(lent);
        }
    });
}

/// How answers of this second start, and until when it is that of `now_us` on the monotonic clock. The wall clock is looked
/// at once a second: one that was set shows in the next.
pub(super) fn date(now_us: u64) -> (DateLine, u64) {
    DESK.with_borrow_mut(|desk| {
        if now_us >= desk.date_until_us {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            desk.date = date_line(since.as_secs());
            desk.date_until_us = now_us + 1_000_000 - u64::from(since.subsec_micros());
        }
        (desk.date, desk.date_until_us)
    })
}

fn date_line(second: u64) -> DateLine {
    let time = jiff::Timestamp::from_second(second.cast_signed()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let text = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string();
    text.as_bytes().try_into().unwrap_or(*b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n")
}

#[cfg(test)]
mod tests {
    use super::date_line;

    #[test]
    fn a_date_is_an_imf_fixdate() {
        assert_eq!(&date_line(784_111_777), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }
}
