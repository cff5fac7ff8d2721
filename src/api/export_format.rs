//! Stored events as text: NDJSON, which ingestion takes back as it is, and CSV for tables.
//!
//! NDJSON is exact. CSV is opened by spreadsheets, which run a cell that begins like a formula, and anybody on the
//! internet may have typed a keyword: so a text that begins with one of `= + - @`, their full-width forms, a tab, a
//! line end or an apostrophe gets an apostrophe in front. Whoever wants the text as it was takes one leading apostrophe
//! away.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use uuid::fmt::Hyphenated;

use crate::events::{Event, EventType};

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON object a line, as it would be sent.
    Ndjson,
    /// A line of names, then a line an event.
    Csv,
}

const CSV_COLUMNS: [&str; 14] = [
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
const BYTE_ORDER_MARK: &str = "\u{feff}";
const CSV_FORMULA: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠'];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'e> {
    event_id: &'e str,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'e str>,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata<'e>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_count: Option<i64>,
}

impl Metadata<'_> {
    fn is_empty(&self) -> bool {
        let numbers = [self.component_id, self.result_count];
        let texts = [self.element_id, self.keyword, self.post_id, self.url, self.referrer];
        numbers.iter().all(Option::is_none) && texts.iter().all(Option::is_none)
    }
}

impl Format {
    /// By its name in a query.
    pub fn from_name(name: &str) -> Option<Format> {
        match name {
            "ndjson" => Some(Format::Ndjson),
            "csv" => Some(Format::Csv),
            _ => None,
        }
    }

    /// As HTTP names it.
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
                [mark.as_bytes(), &csv_lines(|csv| csv.write_record(CSV_COLUMNS))].concat()
            }
        }
    }

    /// Events as whole lines.
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

/// Appends an event as a line of NDJSON; `as_stored` says when it came in, which who sends it does not know.
pub fn put_line(out: &mut Vec<u8>, event: &Event<'_>, as_stored: bool) {
    let mut id = [0; Hyphenated::LENGTH];
    let line = Line {
        event_id: event.id.hyphenated().encode_lower(&mut id),
        // What it became only the ledger knows.
        event_type: if event.event_type == EventType::Toggle { "TOGGLE" } else { event.event_type.name() },
        user_id: event.user_id.as_deref(),
        session_id: event.session_id.as_deref(),
        timestamp: rfc3339_ms(event.event_time_ms),
        received_at: as_stored.then(|| rfc3339_ms(event.received_at_ms)),
        metadata: Metadata {
            component_id: event.component_id,
            element_id: event.element_id.as_deref(),
            keyword: event.keyword.as_deref(),
            post_id: event.post_id.as_deref(),
            url: event.url.as_deref(),
            referrer: event.referrer.as_deref(),
            result_count: event.result_count,
        },
    };
    serde_json::to_writer(&mut *out, &line).expect("plain texts and numbers into a Vec");
    if let Some(properties) = &event.properties {
        // Behind the object's last field, as it is: parsing it again could change numbers.
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
    let number = |number: Option<i64>| number.map(|n| n.to_string()).unwrap_or_default();
    let (component, results) = (number(event.component_id), number(event.result_count));
    let properties = event.properties.as_deref().map(one_line).unwrap_or_default();
    let cells: [Cow<'_, str>; CSV_COLUMNS.len()] = [
        event.id.to_string().into(),
        event.event_type.name().into(),
        rfc3339_ms(event.event_time_ms).into(),
        rfc3339_ms(event.received_at_ms).into(),
        harmless(event.user_id.as_deref()),
        harmless(event.session_id.as_deref()),
        component.into(),
        harmless(event.element_id.as_deref()),
        harmless(event.keyword.as_deref()),
        harmless(event.post_id.as_deref()),
        harmless(event.url.as_deref()),
        harmless(event.referrer.as_deref()),
        results.into(),
        properties,
    ];
    csv.write_record(cells.iter().map(|cell| cell.as_bytes()))
}

fn harmless(text: Option<&str>) -> Cow<'_, str> {
    match text {
        Some(text) if text.starts_with(CSV_FORMULA) => Cow::Owned(format!("'{text}")),
        text => Cow::Borrowed(text.unwrap_or_default()),
    }
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
                r#"{"eventId":"00000000-0000-0000-0000-000000000001","eventType":"SEARCH","sessionId":"s","#,
                r#""timestamp":"2026-11-22T10:30:30.000Z","receivedAt":"2026-11-22T10:30:30.007Z","#,
                r#""metadata":{"keyword":"=1+1, \"고양이\"\n","resultCount":0},"properties":{"a":   1.10}}"#,
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
            assert_eq!(harmless(Some(typed)), cell);
        }
    }
}
