//! A row of an input: what it is sent as, or why it is not sent; and the place behind it, from where to go on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
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
    /// Where rows have keys: that of the last row before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
}

/// Why a row is not taken, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A tag that never changes its meaning.
    pub error: Cow<'static, str>,
    pub message: String,
}

impl Refusal {
    /// Of a tag and a sentence.
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
    /// As it stands in the input, for whoever looks into why it was refused; cut where it is over its bound.
    pub(super) input: Vec<u8>,
    /// What is sent: JSON without a line break.
    pub(super) event: Vec<u8>,
    /// Why it is not sent.
    pub(super) refusal: Option<Refusal>,
    pub(super) end: Place,
}

impl Row {
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.event.clear();
        self.refusal = None;
    }

    /// Takes what making the event came to; an event over its bound is refused whatever it came to.
    pub(super) fn judge(&mut self, made: Result<(), Refusal>) {
        self.refusal = match made {
            Ok(()) if self.event.len() > EVENT_BYTES_MAX => Some(Refusal::too_large()),
            other => other.err(),
        };
    }

    /// Refuses a row of which not all was read.
    pub(super) fn refuse_cut(&mut self, refusal: Refusal) {
        self.input.truncate(IMPORT_SHOWN_BYTES_MAX);
        self.refusal = Some(refusal);
    }
}

/// Where rows come from: files of two formats and tables of the predecessor.
pub(super) trait Source: Send {
    /// Fills `row` with the next row; false at the end. Rows over their bound are cut, never kept whole in memory. The
    /// error is one line and final; the rows before it are good.
    fn next(&mut self, row: &mut Row) -> Result<bool, String>;
}

/// The id of a row that brings none: the same whenever this import reads it.
pub(super) fn row_id(namespace: &Uuid, row: u64) -> Uuid {
    Uuid::new_v5(namespace, &row.to_be_bytes())
}

/// Writes the event of a line of JSON: as it is where it brings an `eventId`, with `id` where it does not.
pub(super) fn write_event(line: &[u8], id: impl FnOnce() -> Uuid, out: &mut Vec<u8>) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default, rename = "eventId", deserialize_with = "even_null")]
        event_id: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(line).map_err(|_| Refusal::not_utf8())?;
    // A derived struct would take an array of values as well.
    let Some(fields) = text.strip_prefix('{') else {
        return Err(Refusal::new("invalid_json", "an event is a JSON object"));
    };
    let named: Named<'_> = serde_json::from_str(text)
        .map_err(|e| Refusal::new("invalid_json", format!("the JSON cannot be read: {e}")))?;
    match named.event_id.map(RawValue::get) {
        None => {
            out.extend_from_slice(format!("{{\"eventId\":\"{}\"", id()).as_bytes());
            if !fields.trim_ascii_start().starts_with('}') {
                out.push(b',');
            }
            out.extend_from_slice(fields.as_bytes());
        }
        Some("null") => {
            // The parser hands out a part of the very line: `null` gives way to the id in its place.
            let at = named.event_id.map_or(0, |raw| raw.get().as_ptr() as usize - text.as_ptr() as usize);
            out.extend_from_slice(&line[..at]);
            out.extend_from_slice(format!("\"{}\"", id()).as_bytes());
            out.extend_from_slice(&line[at + "null".len()..]);
        }
        Some(_) => out.extend_from_slice(line),
    }
    Ok(())
}

/// A field that is there, be it null.
fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str) -> Result<String, Cow<'static, str>> {
        let mut out = Vec::new();
        write_event(line.as_bytes(), Uuid::nil, &mut out).map_err(|r| r.error)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_line_gets_an_id_where_it_brings_none() {
        const ID: &str = "00000000-0000-0000-0000-000000000000";
        for (line, expected) in [
            (r#"{"a":1}"#, format!(r#"{{"eventId":"{ID}","a":1}}"#)),
            ("{ }", format!(r#"{{"eventId":"{ID}" }}"#)),
            (r#"{"eventId" : null ,"a":1}"#, format!(r#"{{"eventId" : "{ID}" ,"a":1}}"#)),
            (r#"{"event\u0049d":null}"#, format!(r#"{{"event\u0049d":"{ID}"}}"#)),
            (r#"{"a":{"eventId":"x"}}"#, format!(r#"{{"eventId":"{ID}","a":{{"eventId":"x"}}}}"#)),
            (r#"{"eventId":"mine"}"#, r#"{"eventId":"mine"}"#.to_owned()),
            (r#"{"eventId":7}"#, r#"{"eventId":7}"#.to_owned()),
        ] {
            assert_eq!(written(line).unwrap(), expected);
            serde_json::from_str::<serde_json::Value>(&expected).unwrap();
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for line in ["[1]", "1", "{", r#"{"a":1}}"#, r#"{"eventId":null,"eventId":null}"#, "nonsense", r#"{"a":"\x"}"#]
        {
            assert_eq!(written(line).unwrap_err(), "invalid_json", "{line}");
        }
        let mut out = Vec::new();
        assert_eq!(write_event(b"{\"a\":\"\xff\"}", Uuid::nil, &mut out).unwrap_err().error, "invalid_utf8");
    }

    #[test]
    fn the_id_of_a_row_depends_on_the_import_and_its_number() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(row_id(&a, 7), row_id(&a, 7));
        assert_ne!(row_id(&a, 7), row_id(&a, 8));
        assert_ne!(row_id(&a, 7), row_id(&b, 7));
    }
}
