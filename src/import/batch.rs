//! Rows of one request, or a few: bounded by their number and by the server's bound for a body.

use std::ops::Range;

use super::row::{Place, Refusal, Row};
use crate::limits::BODY_BYTES_MAX;

/// Rows between two places, each sent or refused.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Rows of the input before this batch.
    pub(super) from: u64,
    pub(super) end: Place,
    /// What is sent, one a line.
    body: Vec<u8>,
    inputs: Vec<u8>,
    rows: Vec<Sent>,
    pub(super) refused: Vec<Refused>,
}

#[derive(Debug)]
struct Sent {
    line: u64,
    event: Range<usize>,
    input: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Refused {
    pub(super) line: u64,
    pub(super) refusal: Refusal,
    pub(super) input: Vec<u8>,
}

impl Batch {
    /// Adds a row; the caller has asked [`Batch::has_room`] before.
    pub(super) fn add(&mut self, row: &mut Row) {
        if self.is_empty() {
            self.from = row.end.row - 1;
        }
        self.end.clone_from(&row.end);
        if let Some(refusal) = row.refusal.take() {
            self.refused.push(Refused { line: row.line, refusal, input: std::mem::take(&mut row.input) });
            return;
        }
        let (event, input) = (self.body.len(), self.inputs.len());
        self.body.extend_from_slice(&row.event);
        self.inputs.extend_from_slice(&row.input);
        self.rows.push(Sent { line: row.line, event: event..self.body.len(), input: input..self.inputs.len() });
        self.body.push(b'\n');
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.refused.is_empty()
    }

    /// Does a row fit into it, and stay within `events_max`?
    pub(super) fn has_room(&self, row: &Row, events_max: usize) -> bool {
        let bytes = self.body.len() + row.event.len() + 1;
        let refused: usize = self.refused.iter().map(|refused| refused.input.len()).sum();
        let inputs = self.inputs.len() + refused + row.input.len();
        let count = self.rows.len() + self.refused.len();
        self.is_empty() || count < events_max && bytes <= BODY_BYTES_MAX && inputs <= BODY_BYTES_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The lines of the first and last row that is sent.
    pub(super) fn lines(&self) -> (u64, u64) {
        (self.rows.first().map_or(0, |row| row.line), self.rows.last().map_or(0, |row| row.line))
    }

    /// The body of a request with these rows, at least one.
    pub(super) fn body(&self, rows: &Range<usize>) -> &[u8] {
        &self.body[self.rows[rows.start].event.start..self.rows[rows.end - 1].event.end]
    }

    /// The server refuses one of the rows that were sent.
    pub(super) fn refuse(&mut self, index: usize, refusal: Refusal) {
        let Sent { line, input, .. } = &self.rows[index];
        self.refused.push(Refused { line: *line, refusal, input: self.inputs[input.clone()].to_vec() });
    }
}
