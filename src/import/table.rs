//! CSV: a header that names the API's fields, an event per record.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::progress::counted;
use super::records::Records;
use super::row::{Refusal, Row, Source};
use super::text::Text;
use super::times::rfc3339;

/// The API's fields, as a header may name them (in any case, with or without `_`, `-`, blanks and
/// `metadata.`), with the place and the kind of value that they have in an event.
const FIELDS: [(&str, &str, Kind); 15] = [
    ("eventid", "eventId", Kind::Text),
    ("eventtype", "eventType", Kind::Text),
    ("userid", "userId", Kind::Id),
    ("sessionid", "sessionId", Kind::Id),
    ("timestamp", "timestamp", Kind::Time),
    // What the ledger's own table calls it.
    ("eventtime", "timestamp", Kind::Time),
    ("sentat", "sentAt", Kind::Time),
    ("properties", "properties", Kind::Json),
    ("componentid", "componentId", Kind::Number),
    ("elementid", "elementId", Kind::Text),
    ("keyword", "keyword", Kind::Text),
    ("postid", "postId", Kind::Id),
    ("url", "url", Kind::Text),
    ("referrer", "referrer", Kind::Text),
    ("resultcount", "resultCount", Kind::Number),
];
/// From here on they stand in `metadata`.
const METADATA_FROM: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// Text; `42.0` is the id 42.
    Id,
    /// An integer if it looks like one; else it is sent as text, and the server says what it wants.
    Number,
    /// Milliseconds, or a time as data warehouses write it.
    Time,
    Json,
}

/// A column: its index, and that of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    index: usize,
    field: usize,
}

/// The records of a text after its header.
pub(super) struct Table {
    pub(super) records: Records,
    columns: Vec<Column>,
    /// Columns of the header, ours or not.
    width: usize,
}

impl Table {
    /// Reads the header, with which `text` begins; tells the names in it that the API does not
    /// know.
    pub(super) fn new(text: Text) -> Result<(Table, Vec<String>), String> {
        let mut records = Records::new(text);
        let mut row = Row::default();
        let found = records.next(&mut row).map_err(|e| format!("cannot read the CSV header: {e}"))?;
        if let Some(refusal) = row.refusal {
            return Err(format!("cannot read the CSV header: {}", refusal.message));
        }
        let names: Vec<String> = match found {
            true => records.fields().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect(),
            false => Vec::new(),
        };
        let (columns, unknown) = columns(&names)?;
        Ok((Table { records, columns, width: names.len() }, unknown))
    }
}

impl Source for Table {
    fn read(&mut self, row: &mut Row) -> io::Result<bool> {
        self.records.next(row)
    }

    fn write_event(&self, row: &mut Row, zone: Option<&TimeZone>, id: &dyn Fn() -> Uuid) -> Result<(), Refusal> {
        let out = &mut row.event;
        let fields: Vec<&[u8]> = self.records.fields().collect();
        if fields.len() != self.width {
            let fields = counted(fields.len() as u64, "field", "fields");
            return Err(Refusal::new("invalid_csv", format!("the record has {fields} and the header {}", self.width)));
        }
        let mut cells = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            match std::str::from_utf8(fields[column.index]).map(str::trim).map_err(|_| Refusal::not_utf8())? {
                "" => {}
                cell => cells.push((*column, cell)),
            }
        }
        let (inside, top): (Vec<_>, Vec<_>) = cells.into_iter().partition(|(column, _)| column.field >= METADATA_FROM);
        out.push(b'{');
        if !top.iter().any(|(column, _)| column.field == 0) {
            out.extend_from_slice(format!("\"eventId\":\"{}\",", id()).as_bytes());
        }
        for (column, cell) in top {
            write_field(column, cell, zone, out)?;
        }
        out.extend_from_slice(b"\"metadata\":{");
        for (column, cell) in inside {
            write_field(column, cell, zone, out)?;
        }
        out.pop_if(|last| *last == b',');
        out.extend_from_slice(b"}}");
        Ok(())
    }

    fn place(&self) -> (u64, u64) {
        (self.records.lines(), self.records.offset())
    }
}

/// The columns that the API knows, and the names of the others.
fn columns(names: &[String]) -> Result<(Vec<Column>, Vec<String>), String> {
    let mut columns: Vec<Column> = Vec::new();
    let mut unknown = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let folded = name.to_ascii_lowercase().replace(['_', '-', ' '], "");
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
    if let ([header], Some(other)) = (names, names.iter().find_map(|name| name.chars().find(|c| ";\t|".contains(*c)))) {
        return Err(format!("the CSV header `{header}` has no commas: separate fields by `,`, not by {other:?}"));
    }
    if !columns.iter().any(|column| FIELDS[column.field].1 == "eventType") {
        let mut known: Vec<&str> = FIELDS.iter().map(|(_, name, _)| *name).collect();
        known.dedup();
        return Err(format!("the CSV header has no column eventType; the fields are {}", known.join(", ")));
    }
    Ok((columns, unknown))
}

/// `"name":value,`
fn write_field(column: Column, cell: &str, zone: Option<&TimeZone>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (_, name, kind) = FIELDS[column.field];
    let written = match kind {
        Kind::Number | Kind::Time if is_integer(without_fraction(cell)) => {
            write!(out, "\"{name}\":{},", without_fraction(cell))
        }
        Kind::Time => {
            let time = rfc3339(cell, zone).map_err(|why| Refusal::new("invalid_field", format!("{name} {why}")))?;
            write!(out, "\"{name}\":{},", serde_json::Value::from(time))
        }
        Kind::Id => write!(out, "\"{name}\":{},", serde_json::Value::from(without_fraction(cell))),
        Kind::Number | Kind::Text => write!(out, "\"{name}\":{},", serde_json::Value::from(cell)),
        Kind::Json => {
            serde_json::from_str::<&RawValue>(cell)
                .map_err(|e| Refusal::new("invalid_field", format!("{name} cannot be read as JSON: {e}")))?;
            // Between tokens a line break is as good as a blank, and inside of strings there is
            // none.
            write!(out, "\"{name}\":{},", cell.replace(['\n', '\r'], " "))
        }
    };
    written.map_err(|e| Refusal::new("invalid_csv", e.to_string()))
}

/// `42` of `42.0`, as pandas writes an integer if another one in its column is missing; other text
/// as it is.
fn without_fraction(text: &str) -> &str {
    text.strip_suffix(".0").filter(|digits| is_integer(digits)).unwrap_or(text)
}

/// An integer that JSON would take. Its size is for the server to judge.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !has_leading_zero
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> Vec<String> {
        header.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_header_may_name_fields_as_the_api_or_the_ledger_does() {
        for header in ["eventType,metadata.postId", "event_type,post_id", "EVENTTYPE,post-id", "Event Type,Post ID"] {
            let (found, unknown) = columns(&names(header)).unwrap();
            let found: Vec<&str> = found.iter().map(|column| FIELDS[column.field].1).collect();
            assert_eq!((found, unknown.len()), (vec!["eventType", "postId"], 0), "{header}");
        }
        assert_eq!(columns(&names("eventType,received_at")).unwrap().1, ["received_at"]);
        assert!(columns(&names("eventType,keyword,metadata.keyword")).unwrap_err().contains("keyword"));
        assert!(columns(&names("eventType,timestamp,event_time")).unwrap_err().contains("timestamp"));
        assert!(columns(&names("eventType;userId")).unwrap_err().contains("not by ';'"));
        assert!(columns(&names("userId")).unwrap_err().contains("eventType"));
    }

    #[test]
    fn integers_are_what_json_takes() {
        for (text, expected) in [
            ("0", true),
            ("-7", true),
            ("9223372036854775807", true),
            ("007", false),
            ("", false),
            ("-", false),
            ("1e3", false),
        ] {
            assert_eq!(is_integer(text), expected, "{text}");
        }
    }

    #[test]
    fn only_digits_with_one_zero_as_their_fraction_become_an_integer() {
        for (text, expected) in [("42.0", "42"), ("-3.0", "-3"), ("0.0", "0")] {
            assert_eq!(without_fraction(text), expected);
        }
        for text in ["12e5", "42.00", "1.5", "a.0", ".0", "007.0", "1.0.0", "4 2.0"] {
            assert_eq!(without_fraction(text), text);
        }
    }
}
