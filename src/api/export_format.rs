//! Stored events as text: NDJSON, which ingestion accepts unchanged, and CSV for tables.
//!
//! One table of fields, [`FIELDS`], gives both formats their names and values.
//! NDJSON is exact. Spreadsheets run a CSV cell that begins like a formula, and a keyword may come from any visitor.
//! So a cell that begins with one of `= + - @`, their full-width forms, a tab, a line end or an apostrophe gets an
//! apostrophe in front. To read the original text, remove one leading apostrophe.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::events::{Event, EventType};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON object a line, as it would be sent.
    Ndjson,
    /// A line of names, then a line an event.
    Csv,
}

/// The columns of CSV. Those from [`METADATA`] to the last but one are fields of `metadata` in NDJSON.
const FIELDS: [&str; 14] = [
    "eventId",
    "eventType",
    "timestamp",
    "receivedAt",
    "userId",
    "sessionId",
    "componentId",
    "elementId",
    "keyword",
    "postId",
    "url",
    "referrer",
    "resultCount",
    "properties",
];
const METADATA: usize = 6;
const BYTE_ORDER_MARK: &str = "\u{feff}";
const CSV_FORMULA: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠'];

enum Cell<'e> {
    Text(Cow<'e, str>),
    Number(i64),
}

type Cells<'e> = [Option<Cell<'e>>; FIELDS.len() - 1];

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Number(number) => serializer.serialize_i64(*number),
        }
    }
}

/// The values of [`FIELDS`] without `properties`. `as_stored` includes the time of receipt, which a sender does not
/// know.
fn cells<'e>(event: &'e Event<'_>, as_stored: bool) -> Cells<'e> {
    let text = |text: &'e Option<Cow<'_, str>>| text.as_deref().map(|text| Cell::Text(text.into()));
    let owned = |text: String| Cell::Text(text.into());
    // Only the ledger knows what a toggle did.
    let event_type = if event.event_type == EventType::Toggle { "TOGGLE" } else { event.event_type.name() };
    [
        Some(owned(event.id.to_string())),
        Some(Cell::Text(event_type.into())),
        Some(owned(rfc3339_ms(event.event_time_ms))),
        as_stored.then(|| owned(rfc3339_ms(event.received_at_ms))),
        text(&event.user_id),
        text(&event.session_id),
        event.component_id.map(Cell::Number),
        text(&event.element_id),
        text(&event.keyword),
        text(&event.post_id),
        text(&event.url),
        text(&event.referrer),
        event.result_count.map(Cell::Number),
    ]
}

/// A JSON object of fields and their values. Absent values are left out.
struct Object<'e>(&'e [&'static str], &'e [Option<Cell<'e>>]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1).filter_map(|(name, cell)| Some((name, cell.as_ref()?))))
    }
}

#[derive(Serialize)]
struct Line<'e> {
    #[serde(flatten)]
    own: Object<'e>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    metadata: Object<'e>,
}

impl Object<'_> {
    fn is_empty(&self) -> bool {
        self.1.iter().all(Option::is_none)
    }
}

impl Format {
    pub fn from_name(name: &str) -> Option<Format> {
        <Format as clap::ValueEnum>::from_str(name, false).ok()
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// What comes before the first event. `with_mark`: CSV begins with a byte-order mark, by which spreadsheets know
    /// that it is UTF-8.
    pub fn head(self, with_mark: bool) -> Vec<u8> {
        match self {
            Format::Ndjson => Vec::new(),
            Format::Csv => {
                let mark = if with_mark { BYTE_ORDER_MARK } else { "" };
                [mark.as_bytes(), &csv_lines(|csv| csv.write_record(FIELDS))].concat()
            }
        }
    }

    pub fn lines(self, events: &[Event<'_>]) -> Vec<u8> {
        match self {
            Format::Ndjson => {
                let mut out = Vec::with_capacity(events.len() * 320);
                events.iter().for_each(|event| put_line(&mut out, event, true));
                out
            }
            Format::Csv => csv_lines(|csv| events.iter().try_for_each(|event| put_record(csv, event))),
        }
    }
}

/// Appends an event as a line of NDJSON; ``as_stored`: with the time of receipt.
pub fn put_line(out: &mut Vec<u8>, event: &Event<'_>, as_stored: bool) {
    let cells = cells(event, as_stored);
    let (own, metadata) = cells.split_at(METADATA);
    let line = Line { own: Object(&FIELDS, own), metadata: Object(&FIELDS[METADATA..], metadata) };
    serde_json::to_writer(&mut *out, &line).expect("plain texts and numbers into a Vec");
    if let Some(properties) = &event.properties {
        // Appended unparsed: parsing it again could change numbers.
        out.pop();
        out.extend_from_slice(b",\"properties\":");
        out.extend_from_slice(one_line(properties).as_bytes());
        out.push(b'}');
    }
    out.push(b'\n');
}

type Csv = csv::Writer<Vec<u8>>;

/// RFC 4180: CRLF, quotes where they are needed.
fn csv_lines(write: impl FnOnce(&mut Csv) -> csv::Result<()>) -> Vec<u8> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    write(&mut csv).expect("records of one length into a Vec");
    csv.into_inner().expect("a Vec takes what is left")
}

fn put_record(csv: &mut Csv, event: &Event<'_>) -> csv::Result<()> {
    for cell in cells(event, true) {
        match cell {
            Some(Cell::Text(text)) => csv.write_field(&*harmless(&text))?,
            Some(Cell::Number(number)) => csv.write_field(number.to_string())?,
            None => csv.write_field("")?,
        }
    }
    csv.write_field(&*event.properties.as_deref().map(one_line).unwrap_or_default())?;
    csv.write_record(None::<&[u8]>)
}

fn harmless(text: &str) -> Cow<'_, str> {
    if text.starts_with(CSV_FORMULA) { format!("'{text}").into() } else { text.into() }
}

/// JSON without its line ends: outside of strings they are white space, and inside they are escaped already.
fn one_line(json: &str) -> Cow<'_, str> {
    // One at a time: a search for a single byte is vectorised.
    if json.contains('\n') || json.contains('\r') {
        return Cow::Owned(json.replace(['\n', '\r'], " "));
    }
    Cow::Borrowed(json)
}

fn rfc3339_ms(ms: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event<'static> {
        Event {
            id: uuid::Uuid::from_u128(1),
            id_from_client: false,
            event_type: EventType::Search,
            user_id: None,
            session_id: Some("s".into()),
            component_id: None,
            element_id: None,
            keyword: Some("=1+1, \"고양이\"\n".into()),
            post_id: None,
            url: None,
            referrer: None,
            result_count: Some(0),
            properties: Some("{\"a\":\r\n 1.10}".into()),
            event_time_ms: 1_795_343_430_000,
            received_at_ms: 1_795_343_430_007,
        }
    }

    #[test]
    fn a_line_has_the_names_of_the_contract_and_nothing_that_is_absent() {
        let line = String::from_utf8(Format::Ndjson.lines(&[event()])).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"eventId":"00000000-0000-0000-0000-000000000001","eventType":"SEARCH","#,
                r#""timestamp":"2026-11-22T10:30:30.000Z","receivedAt":"2026-11-22T10:30:30.007Z","#,
                r#""sessionId":"s","metadata":{"keyword":"=1+1, \"고양이\"\n","resultCount":0},"properties":{"a":   1.10}}"#,
                "\n"
            )
        );
        let bare = Event { keyword: None, result_count: None, properties: None, ..event() };
        assert!(!String::from_utf8(Format::Ndjson.lines(&[bare])).unwrap().contains("metadata"));
    }

    #[test]
    fn a_cell_is_quoted_and_never_a_formula() {
        let text = String::from_utf8(Format::Csv.lines(&[event()])).unwrap();
        assert!(
            text.contains(",\"'=1+1, \"\"고양이\"\"\n\",") && text.ends_with("\"{\"\"a\"\":   1.10}\"\r\n"),
            "{text}"
        );
        assert!(Format::Csv.head(false).starts_with(b"eventId,eventType,timestamp,receivedAt,userId,"));
        for (typed, cell) in [("'a", "''a"), ("-1", "'-1"), ("＝A1", "'＝A1"), ("a=1", "a=1"), ("", "")] {
            assert_eq!(harmless(typed), cell);
        }
    }
}
