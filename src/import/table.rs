//! CSV: a header that names the API's fields, an event a record.
//!
//! A record may go over several lines, and one with a quote that is never closed goes on to the end of the file: what
//! is kept of a record is bounded, whatever its length.

use std::io::{self, BufRead, Write};

use csv_core::ReadRecordResult;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::row::{Place, Refusal, Row, Source, row_id};
use super::text::Text;
use crate::limits::{EVENT_BYTES_MAX, IMPORT_COLUMNS_MAX};

/// The API's fields, as a header may name them (any case, with or without `_` and `metadata.`), with the place and the
/// kind of value that they have in an event.
const FIELDS: [(&str, &str, Kind); 15] = [
    ("eventid", "eventId", Kind::Text),
    ("eventtype", "eventType", Kind::Text),
    ("userid", "userId", Kind::Text),
    ("sessionid", "sessionId", Kind::Text),
    ("timestamp", "timestamp", Kind::Number),
    // What the ledger's own table calls it.
    ("eventtime", "timestamp", Kind::Number),
    ("sentat", "sentAt", Kind::Number),
    ("properties", "properties", Kind::Json),
    ("componentid", "componentId", Kind::Number),
    ("elementid", "elementId", Kind::Text),
    ("keyword", "keyword", Kind::Text),
    ("postid", "postId", Kind::Text),
    ("url", "url", Kind::Text),
    ("referrer", "referrer", Kind::Text),
    ("resultcount", "resultCount", Kind::Number),
];
/// From here on they stand in `metadata`.
const METADATA_FROM: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// A number where it looks like one; else it is sent as text, for the server to say what it wants.
    Number,
    Json,
}

/// A column: its index, and that of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    index: usize,
    field: usize,
}

/// The records of a text from a place on.
pub(super) struct Table {
    records: Records,
    columns: Vec<Column>,
    /// Columns of the header, ours or not.
    width: usize,
    rows: u64,
    namespace: Uuid,
}

impl Table {
    /// Reads the header. `text` stands at its start.
    pub(super) fn new(text: Text, namespace: Uuid) -> Result<(Table, Vec<String>), String> {
        let mut records = Records::new(text);
        let mut row = Row::default();
        let header = records.next(&mut row).map_err(|e| format!("cannot read the CSV header: {e}"))?;
        let names = match header {
            Some(Read::Whole) => records.fields().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect(),
            Some(Read::Cut) => return Err("the CSV header is too long".to_owned()),
            None => Vec::new(),
        };
        let (columns, unknown) = columns(&names)?;
        Ok((Table { records, columns, width: names.len(), rows: 0, namespace }, unknown))
    }

    /// Goes on to a place that an earlier run has reached.
    pub(super) fn skip_to(&mut self, place: &Place) -> io::Result<()> {
        if place.row > 0 {
            self.records.text.skip_to(place.offset)?;
            self.records.lines = place.line;
            self.rows = place.row;
        }
        Ok(())
    }

    fn write_event(&self, row: u64, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let fields: Vec<&[u8]> = self.records.fields().collect();
        if fields.len() != self.width {
            let message = format!("the record has {} fields and the header {}", fields.len(), self.width);
            return Err(Refusal::new("invalid_csv", message));
        }
        let is_given = |column: &&Column| !fields[column.index].is_empty();
        let (inside, top): (Vec<&Column>, Vec<&Column>) =
            self.columns.iter().filter(is_given).partition(|column| column.field >= METADATA_FROM);
        out.push(b'{');
        if !top.iter().any(|column| column.field == 0) {
            out.extend_from_slice(format!("\"eventId\":\"{}\",", row_id(&self.namespace, row)).as_bytes());
        }
        for column in top {
            write_field(*column, fields[column.index], out)?;
        }
        out.extend_from_slice(b"\"metadata\":{");
        for column in inside {
            write_field(*column, fields[column.index], out)?;
        }
        out.pop_if(|last| *last == b',');
        out.extend_from_slice(b"}}");
        Ok(())
    }
}

impl Source for Table {
    fn next(&mut self, row: &mut Row) -> Result<bool, String> {
        row.clear();
        let before = self.records.lines;
        let read = self.records.next(row).map_err(|e| format!("cannot read on behind line {before}: {e}"))?;
        let Some(read) = read else { return Ok(false) };
        let number = self.rows;
        self.rows += 1;
        row.end = Place { row: self.rows, line: self.records.lines, offset: self.records.text.offset(), key: None };
        match read {
            Read::Cut => {
                let lines = self.records.lines + 1 - row.line;
                let message = format!(
                    "the record has more than {EVENT_BYTES_MAX} bytes or {IMPORT_COLUMNS_MAX} fields and goes on for \
                     {lines} lines: is a quote not closed?"
                );
                row.refuse_cut(Refusal::new("event_too_large", message));
            }
            Read::Whole => {
                let made = self.write_event(number, &mut row.event);
                row.judge(made);
            }
        }
        Ok(true)
    }
}

/// The columns that the API knows, and the names of the others.
fn columns(names: &[String]) -> Result<(Vec<Column>, Vec<String>), String> {
    let mut columns: Vec<Column> = Vec::new();
    let mut unknown = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let folded = name.to_ascii_lowercase().replace('_', "");
        let folded = folded.strip_prefix("metadata.").unwrap_or(&folded);
        let Some(field) = FIELDS.iter().position(|(known, ..)| *known == folded) else {
            unknown.push(name.clone());
            continue;
        };
        let is_same = |column: &&Column| FIELDS[column.field].1 == FIELDS[field].1;
        if let Some(before) = columns.iter().find(is_same) {
            return Err(format!(
                "two columns of the CSV header mean {}: `{}`, `{name}`",
                FIELDS[field].1, names[before.index]
            ));
        }
        columns.push(Column { index, field });
    }
    if !columns.iter().any(|column| FIELDS[column.field].1 == "eventType") {
        let known: Vec<&str> = FIELDS.iter().map(|(_, name, _)| *name).collect();
        return Err(format!("the CSV header has no column eventType; the fields are {}", known.join(", ")));
    }
    Ok((columns, unknown))
}

/// `"name":value,`
fn write_field(column: Column, value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (_, name, kind) = FIELDS[column.field];
    let value = std::str::from_utf8(value).map_err(|_| Refusal::not_utf8())?;
    let written = match kind {
        Kind::Number if is_integer(value.trim()) => write!(out, "\"{name}\":{},", value.trim()),
        Kind::Number | Kind::Text => write!(out, "\"{name}\":{},", serde_json::Value::from(value)),
        Kind::Json => {
            serde_json::from_str::<&RawValue>(value)
                .map_err(|e| Refusal::new("invalid_field", format!("{name} cannot be read as JSON: {e}")))?;
            // Between tokens a line break is as good as a blank, and inside of strings there is none.
            write!(out, "\"{name}\":{},", value.replace(['\n', '\r'], " "))
        }
    };
    written.map_err(|e| Refusal::new("invalid_csv", e.to_string()))
}

/// A number that JSON would take: no leading zeros, at most 18 digits.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !has_leading_zero
}

enum Read {
    Whole,
    /// More than is kept of a record.
    Cut,
}

/// Records one by one, with their fields and the lines they stand in.
struct Records {
    text: Text,
    parser: csv_core::Reader,
    /// Lines before the place where the text stands.
    lines: u64,
    fields: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Records {
    fn new(text: Text) -> Records {
        let fields = vec![0; EVENT_BYTES_MAX];
        let ends = vec![0; IMPORT_COLUMNS_MAX];
        Records { text, parser: csv_core::Reader::new(), lines: 0, fields, ends, count: 0 }
    }

    /// Reads the next record: its raw bytes and first line into `row`.
    fn next(&mut self, row: &mut Row) -> io::Result<Option<Read>> {
        row.input.clear();
        self.skip_line_ends()?;
        row.line = self.lines + 1;
        let (mut written, mut ended, mut is_cut) = (0, 0, false);
        loop {
            let piece = self.text.fill_buf()?;
            let (result, read, wrote, ends) =
                self.parser.read_record(piece, &mut self.fields[written..], &mut self.ends[ended..]);
            self.lines += piece[..read].iter().filter(|b| **b == b'\n').count() as u64;
            is_cut |= row.input.len() + read > EVENT_BYTES_MAX + 1;
            if !is_cut {
                row.input.extend_from_slice(&piece[..read]);
            }
            self.text.consume(read);
            (written, ended) = (written + wrote, ended + ends);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => (written, is_cut) = (0, true),
                ReadRecordResult::OutputEndsFull => (ended, is_cut) = (0, true),
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => break,
            }
        }
        self.count = ended;
        let length = row.input.trim_ascii_end().len();
        row.input.truncate(length);
        Ok(Some(if is_cut { Read::Cut } else { Read::Whole }))
    }

    /// Line ends before a record belong to the one before it, or to none.
    fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            let piece = self.text.fill_buf()?;
            let length = piece.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            if length == 0 {
                return Ok(());
            }
            self.lines += piece[..length].iter().filter(|b| **b == b'\n').count() as u64;
            self.text.consume(length);
        }
    }

    /// Those of the record that was read last, where it was whole.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let ends = &self.ends[..self.count];
        ends.iter().scan(0, |from, end| {
            let field = &self.fields[*from..*end];
            *from = *end;
            Some(field)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> Vec<String> {
        header.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_header_may_name_fields_as_the_api_or_the_ledger_does() {
        for header in ["eventType,metadata.postId", "event_type,post_id", "EVENTTYPE,postId"] {
            let (found, unknown) = columns(&names(header)).unwrap();
            let found: Vec<&str> = found.iter().map(|column| FIELDS[column.field].1).collect();
            assert_eq!((found, unknown.len()), (vec!["eventType", "postId"], 0), "{header}");
        }
        assert_eq!(columns(&names("eventType,received_at")).unwrap().1, ["received_at"]);
        assert!(columns(&names("eventType,keyword,metadata.keyword")).unwrap_err().contains("keyword"));
        assert!(columns(&names("eventType,timestamp,event_time")).unwrap_err().contains("timestamp"));
        assert!(columns(&names("userId")).unwrap_err().contains("eventType"));
    }

    #[test]
    fn integers_are_what_json_takes() {
        for (text, expected) in [
            ("0", true),
            ("-7", true),
            ("1767225600000", true),
            ("007", false),
            ("", false),
            ("-", false),
            ("1e3", false),
        ] {
            assert_eq!(is_integer(text), expected, "{text}");
        }
    }
}
