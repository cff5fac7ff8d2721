//! CSV records: RFC 4180, and what other programs write besides (blanks around quotes, a quote
//! inside a bare cell).
//!
//! A bad quote would make a record of all lines up to the next quote, or to the end of the file. So
//! a record that is no CSV, or longer than an event may be, costs its first line alone: reading
//! goes on at the next one. Memory is bounded, whatever the input: a record is looked at in at most
//! [`EVENT_BYTES_MAX`] bytes.

use std::io::{self, BufRead};

use memchr::{memchr, memchr2, memchr3};

use super::row::{Place, Refusal, Row};
use super::text::Text;
use crate::limits::{EVENT_BYTES_MAX, IMPORT_COLUMNS_MAX};

/// The bytes in which a record and its line end have to be.
const RECORD_BYTES_MAX: usize = EVENT_BYTES_MAX + 2;

/// Records one by one, with their fields and the lines that they are in.
pub(super) struct Records {
    text: Text,
    /// Bytes that were read and belong to no record yet: those from `at` on.
    held: Vec<u8>,
    at: usize,
    is_over: bool,
    /// The input cannot be read beyond the bytes held.
    failed: Option<io::Error>,
    /// Lines before the next record.
    lines: u64,
    fields: Fields,
}

/// The fields of one record, one after the other, and where each ends.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Why there is no record: a bad quote, or `None` for its length.
type Bad = Option<&'static str>;

impl Records {
    pub(super) fn new(text: Text) -> Records {
        let (held, fields) = (Vec::new(), Fields::default());
        Records { text, held, at: 0, is_over: false, failed: None, lines: 0, fields }
    }

    /// Goes on to a place that an earlier run has reached.
    pub(super) fn skip_to(&mut self, place: &Place) -> io::Result<()> {
        // What is held comes after the header.
        let ahead = place.offset.saturating_sub(self.offset());
        let held = (self.held.len() - self.at) as u64;
        if ahead <= held {
            self.at += ahead as usize;
        } else {
            (self.at, self.is_over) = (self.held.len(), false);
            self.text.skip_to(place.offset)?;
        }
        self.lines = place.line;
        Ok(())
    }

    /// Bytes before the next record.
    pub(super) fn offset(&self) -> u64 {
        self.text.offset() - (self.held.len() - self.at) as u64
    }

    /// Lines before the next record.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// The fields of the record that was read last.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.fields.ends.iter().scan(0, |from, end| {
            let field = &self.fields.bytes[*from..*end];
            *from = *end;
            Some(field)
        })
    }

    /// Reads the next record: its bytes, its first line and why it is refused go into `row`. False
    /// at the end.
    pub(super) fn next(&mut self, row: &mut Row) -> io::Result<bool> {
        if !self.skip_line_ends()? {
            return Ok(false);
        }
        row.line = self.lines + 1;
        self.fill();
        let window = window(&self.held[self.at..]);
        let is_all = self.is_over && self.at + window.len() == self.held.len();
        match self.fields.read(window, is_all) {
            Ok(length) => {
                row.input.extend_from_slice(window[..length].trim_ascii_end());
                self.pass(length);
                Ok(true)
            }
            Err(why) => self.failed.take().map_or_else(|| self.refuse_line(row, why), Err),
        }
    }

    /// Refuses the line that the next record begins with; without a reason, or if it is too long,
    /// for its length.
    fn refuse_line(&mut self, row: &mut Row, why: Bad) -> io::Result<bool> {
        let window = window(&self.held[self.at..]);
        let is_last = window.len() < RECORD_BYTES_MAX;
        let end = memchr2(b'\n', b'\r', window).or(is_last.then_some(window.len()));
        row.input.extend_from_slice(window[..end.unwrap_or(EVENT_BYTES_MAX)].trim_ascii_end());
        row.refuse_cut(match (end, why) {
            (Some(_), Some(why)) => Refusal::new("invalid_csv", format!("{why}; reading goes on at the next line")),
            _ => Refusal::too_large(),
        });
        match end {
            Some(end) => self.pass(end),
            None => self.skip_line()?,
        }
        Ok(true)
    }

    /// Line ends before a record belong to the one before it, or to none. False at the end of the
    /// text.
    fn skip_line_ends(&mut self) -> io::Result<bool> {
        loop {
            let length = self.held[self.at..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            self.pass(length);
            if self.at < self.held.len() {
                return Ok(true);
            }
            if self.is_over {
                return Ok(false);
            }
            self.read_more()?;
        }
    }

    /// Passes over the rest of a line of any length.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = memchr2(b'\n', b'\r', &self.held[self.at..]) {
                self.pass(end);
                return Ok(());
            }
            self.pass(self.held.len() - self.at);
            if self.is_over {
                return Ok(());
            }
            self.read_more()?;
        }
    }

    fn pass(&mut self, length: usize) {
        let passed = &self.held[self.at..self.at + length];
        self.lines += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.at += length;
    }

    /// Holds as many bytes as a record may have, or all that can be read. A failure is reported
    /// after the records before it.
    fn fill(&mut self) {
        while !self.is_over && self.failed.is_none() && self.held.len() - self.at < RECORD_BYTES_MAX {
            self.failed = self.read_more().err();
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.held.drain(..self.at);
        self.at = 0;
        let piece = self.text.fill_buf()?;
        let length = piece.len();
        self.held.extend_from_slice(piece);
        self.text.consume(length);
        self.is_over = length == 0;
        Ok(())
    }
}

impl Fields {
    /// Reads one record and returns its length, its line end included. `is_all`: nothing comes after
    /// these bytes.
    fn read(&mut self, text: &[u8], is_all: bool) -> Result<usize, Bad> {
        self.bytes.clear();
        self.ends.clear();
        let mut at = 0;
        loop {
            let quote = at + blanks(&text[at..]);
            at = match text.get(quote) {
                Some(b'"') => self.quoted(text, quote + 1, is_all)?,
                _ => self.bare(text, at, is_all)?,
            };
            if self.ends.len() == IMPORT_COLUMNS_MAX {
                return Err(Some("the record has too many fields"));
            }
            self.ends.push(self.bytes.len());
            match text.get(at) {
                Some(b',') => at += 1,
                Some(b'\r') if text.get(at + 1) == Some(&b'\n') => return Ok(at + 2),
                Some(_) => return Ok(at + 1),
                None => return Ok(at),
            }
        }
    }

    /// A field without quotes around it: where it ends.
    fn bare(&mut self, text: &[u8], from: usize, is_all: bool) -> Result<usize, Bad> {
        let end = match memchr3(b',', b'\n', b'\r', &text[from..]) {
            Some(length) => from + length,
            None if is_all => text.len(),
            None => return Err(None),
        };
        self.bytes.extend_from_slice(&text[from..end]);
        Ok(end)
    }

    /// A field whose quote has opened: where its delimiter is.
    fn quoted(&mut self, text: &[u8], from: usize, is_all: bool) -> Result<usize, Bad> {
        let mut at = from;
        loop {
            let length = memchr(b'"', &text[at..]).ok_or(Some("a quote is not closed"))?;
            self.bytes.extend_from_slice(&text[at..at + length]);
            at += length + 1;
            if text.get(at) != Some(&b'"') {
                break;
            }
            self.bytes.push(b'"');
            at += 1;
        }
        at += blanks(&text[at..]);
        match text.get(at) {
            Some(b',' | b'\n' | b'\r') => Ok(at),
            Some(_) => Err(Some("text follows a closing quote")),
            None if is_all => Ok(at),
            None => Err(None),
        }
    }
}

/// The bytes in which the next record has to be.
fn window(held: &[u8]) -> &[u8] {
    &held[..held.len().min(RECORD_BYTES_MAX)]
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}
