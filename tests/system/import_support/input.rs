//! Generated events, written in each format and packed in each way, with what the ledger has to say
//! about them.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{encode, now_ms};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ndjson,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) const FORMATS: [Format; 2] = [Format::Ndjson, Format::Csv];
pub(crate) const PACKINGS: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

const COLUMNS: &str = "eventType,sessionId,userId,timestamp,eventId,metadata.componentId,elementId,keyword,postId,url,\
    resultCount,properties";

/// Names that a CSV file has to quote, and bytes that are not ASCII.
const KEYWORDS: [&str; 5] = ["oak desk", "a, \"quoted\" one", "two\nlines", "고양이", "{\"json\":1}"];

/// Events with `sessionId` `row-0` and so on; every third brings its own id.
pub(crate) fn events(count: usize, random: &mut StdRng) -> Vec<Value> {
    events_from(0, count, random)
}

/// As [`events`], from another number on.
pub(crate) fn events_from(first: usize, count: usize, random: &mut StdRng) -> Vec<Value> {
    let now = now_ms();
    (first..first + count).map(|number| event(number, now, random)).collect()
}

fn event(number: usize, now: i64, random: &mut StdRng) -> Value {
    let name = random.random_range(1..9);
    let mut event = match random.random_range(0..4) {
        0 => json!({"eventType": "CLICK", "metadata": {"componentId": name, "elementId": "left, top"}}),
        1 => json!({"eventType": "PAGE_VIEW", "metadata": {"url": format!("/page/{name}?a=\"b\""), "postId": "p"}}),
        2 => json!({"eventType": "SEARCH", "metadata": {"keyword": KEYWORDS[name % 5], "resultCount": name - 1}}),
        _ => json!({"eventType": "LIKE", "userId": format!("u{number}"), "metadata": {"postId": format!("p{name}")}}),
    };
    event["sessionId"] = json!(format!("row-{number}"));
    if random.random_range(0..2) == 0 {
        event["timestamp"] = json!(now - random.random_range(0..3_600_000));
    }
    if number.is_multiple_of(3) {
        event["eventId"] = json!(Uuid::from_u128(random.random()).to_string());
    }
    if number.is_multiple_of(5) {
        event["properties"] = json!({"a": [1, {"b": "c, \"d\"\n"}], "n": number});
    }
    event
}

/// What a ledger shows of an event: `session_id`, `event_type` and all that was given, as text.
pub(crate) fn expected(event: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let metadata = &event["metadata"];
    let fields = [&event["sessionId"], &event["eventType"], &event["userId"]];
    let inside = ["componentId", "elementId", "keyword", "postId", "url", "resultCount"].map(|name| &metadata[name]);
    fields.into_iter().chain(inside).map(text).collect()
}

/// As [`expected`], of all rows, in the order of their sessions.
pub(crate) const STORED: &str = "SELECT session_id, event_type, user_id, component_id, element_id, keyword, post_id, url, \
     result_count FROM events ORDER BY session_id";

/// With everything that a file may have at its edges: a byte-order mark, CRLF, empty lines, no end
/// of the last line.
pub(crate) fn write(events: &[Value], format: Format, is_odd: bool) -> Vec<u8> {
    let (end, mark) = if is_odd { ("\r\n", "\u{feff}") } else { ("\n", "") };
    let mut text = mark.to_owned();
    if format == Format::Csv {
        text.push_str(COLUMNS);
        text.push_str(end);
    }
    for (number, event) in events.iter().enumerate() {
        match format {
            Format::Ndjson => text.push_str(&event.to_string()),
            Format::Csv => text.push_str(&record(event)),
        }
        text.push_str(end);
        if is_odd && number.is_multiple_of(7) {
            text.push_str(end);
        }
    }
    if is_odd {
        text.truncate(text.trim_end().len());
    }
    text.into_bytes()
}

fn record(event: &Value) -> String {
    let metadata = &event["metadata"];
    let field = |column: &str| {
        let name = column.trim_start_matches("metadata.");
        let value = if event[name].is_null() { &metadata[name] } else { &event[name] };
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            // As people write it, over several lines.
            Value::Object(_) => serde_json::to_string_pretty(value).expect("JSON"),
            other => other.to_string(),
        };
        let needs_quotes = text.contains([',', '"', '\n', '\r']);
        if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    COLUMNS.split(',').map(field).collect::<Vec<_>>().join(",")
}

/// Packed as two members or frames, one behind the other.
pub(crate) fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => [first, second].map(|part| encode("gzip", part)).concat(),
        Packing::Zstd => [first, second].map(|part| encode("zstd", part)).concat(),
    }
}

pub(crate) fn file_name(name: &str, format: Format, packing: Packing) -> String {
    let format = if format == Format::Csv { "csv" } else { "ndjson" };
    format!("{name}.{format}{}", ["", ".gz", ".zst"][packing as usize])
}
