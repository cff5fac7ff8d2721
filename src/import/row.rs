//! A row of an input: the event that is sent for it, or why none is; and the place after it, from
//! which the next run goes on.

use std::borrow::Cow;
use std::io;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{EVENT_BYTES_MAX, IMPORT_SHOWN_BYTES_MAX};

/// A place between two rows of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    /// Rows before it. They number the rows: an id that is made for a row depends on nothing else.
    pub(super) row: u64,
    /// Lines before it, for people.
    pub(super) line: u64,
    /// Bytes before it, unpacked.
    pub(super) offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A tag that never changes its meaning.
    pub error: Cow<'static, str>,
    pub message: String,
}

impl Refusal {
    pub fn new(error: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Refusal {
        Refusal { error: error.into(), message: message.into() }
    }

    pub(super) fn too_large() -> Refusal {
        let message = format!("an event may have at most {EVENT_BYTES_MAX} bytes, its eventId included");
        Refusal::new("event_too_large", message)
    }

    pub(super) fn not_utf8() -> Refusal {
        Refusal::new("invalid_utf8", "the line is not UTF-8")
    }
}

/// One row. Its buffers are used again for the next.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The line that it begins in, counted from 1.
    pub(super) line: u64,
    /// The bytes of the input, for the list of refused rows; cut at its bound.
    pub(super) input: Vec<u8>,
    /// What is sent: JSON without a line break.
    pub(super) event: Vec<u8>,
    /// Why it is not sent.
    pub(super) refusal: Option<Refusal>,
    pub(super) end: Place,
}

impl Row {
    fn clear(&mut self) {
        self.input.clear();
        self.event.clear();
        self.refusal = None;
    }

    /// Refuses a row of which not all was read.
    pub(super) fn refuse_cut(&mut self, refusal: Refusal) {
        self.input.truncate(IMPORT_SHOWN_BYTES_MAX);
        self.refusal = Some(refusal);
    }
}

/// The rows of a format.
pub(super) trait Source: Send {
    /// Reads the next row: its bytes, its first line and why it is refused go into `row`. False at the
    /// end. Rows over their bound are cut, never kept whole in memory.
    fn read(&mut self, row: &mut Row) -> io::Result<bool>;

    /// Writes the event of the row that was read last. It gets an id if it brings none; `zone` is that
    /// of times which name none.
    fn write_event(&self, row: &mut Row, zone: Option<&TimeZone>, id: &dyn Fn() -> Uuid) -> Result<(), Refusal>;

    /// Lines and unpacked bytes before the next row.
    fn place(&self) -> (u64, u64);
}

/// The rows of an input from a place on.
pub(super) struct Rows {
    pub(super) source: Box<dyn Source>,
    /// Rows before the next one.
    pub(super) count: u64,
    pub(super) namespace: Uuid,
    pub(super) zone: Option<TimeZone>,
}

impl Rows {
    /// Fills `row` with the next row; false at the end. The error is one line and final; the rows
    /// before it are good.
    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, String> {
        row.clear();
        let read = self.source.read(row);
        let (line, offset) = self.source.place();
        if !read.map_err(|e| format!("cannot read on after line {line}: {e}"))? {
            return Ok(false);
        }
        let number = self.count;
        self.count += 1;
        row.end = Place { row: self.count, line, offset };
        if row.refusal.is_none() {
            let made = self.source.write_event(row, self.zone.as_ref(), &|| row_id(&self.namespace, number));
            row.refusal = match made {
                Ok(()) if row.event.len() > EVENT_BYTES_MAX => Some(Refusal::too_large()),
                other => other.err(),
            };
        }
        Ok(true)
    }
}

/// The id of a row that brings none: the same whenever this import reads it.
fn row_id(namespace: &Uuid, row: u64) -> Uuid {
    Uuid::new_v5(namespace, &row.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_row_depends_on_the_import_and_its_number() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(row_id(&a, 7), row_id(&a, 7));
        assert_ne!(row_id(&a, 7), row_id(&a, 8));
        assert_ne!(row_id(&a, 7), row_id(&b, 7));
    }
}
