//! NDJSON: an event a line.

use std::io::{BufRead, Read};

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::row::{Place, Refusal, Row, Source, row_id, write_event};
use super::text::{BYTE_ORDER_MARK, Text};
use crate::limits::EVENT_BYTES_MAX;

/// What is read of a line at most: the event and its line end.
const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX + 2;

/// The lines of a text from a place on.
pub(super) struct Lines {
    text: Text,
    place: Place,
    namespace: Uuid,
    /// The time zone of times that name none.
    zone: Option<TimeZone>,
}

impl Lines {
    /// Rows without an id get one of `namespace`. The text has been read up to `place`.
    pub(super) fn new(text: Text, place: Place, namespace: Uuid, zone: Option<TimeZone>) -> Lines {
        Lines { text, place, namespace, zone }
    }

    /// Reads a line without its end. `None` at the end of the text; true where it went on past its
    /// bound.
    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
        let read = (&mut self.text).take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
        if read == 0 {
            return Ok(None);
        }
        self.place.line += 1;
        let goes_on = !line.ends_with(b"\n") && read == LINE_BYTES_MAX && self.text.skip_until(b'\n')? > 0;
        let length = line.trim_ascii_end().len();
        line.truncate(length);
        let text = line.trim_ascii_start();
        // Files that were joined bring their marks with them.
        let blank = line.len() - text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii_start().len();
        line.drain(..blank);
        Ok(Some(goes_on || line.len() > EVENT_BYTES_MAX))
    }
}

impl Source for Lines {
    fn next(&mut self, row: &mut Row) -> Result<bool, String> {
        row.clear();
        loop {
            let line = self.place.line + 1;
            let read = self.read_line(&mut row.input);
            let Some(is_cut) = read.map_err(|e| format!("cannot read on after line {}: {e}", line - 1))? else {
                return Ok(false);
            };
            if row.input.is_empty() && !is_cut {
                continue;
            }
            let number = self.place.row;
            self.place.row += 1;
            self.place.offset = self.text.offset();
            row.line = line;
            row.end = self.place.clone();
            if is_cut {
                row.refuse_cut(Refusal::too_large());
            } else {
                let made =
                    write_event(&row.input, self.zone.as_ref(), || row_id(&self.namespace, number), &mut row.event);
                row.judge(made);
            }
            return Ok(true);
        }
    }
}
