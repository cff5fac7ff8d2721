//! A row of an input: the event that is sent for it, or why none is; and the place after it, from
//! which the next run goes on.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::times::rfc3339;
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
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.event.clear();
        self.refusal = None;
    }

    /// Takes the result of making the event. An event over its bound is refused in any case.
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

pub(super) trait Source: Send {
    /// Fills `row` with the next row; false at the end. Rows over their bound are cut, never kept
    /// whole in memory. The error is one line and final; the rows before it are good.
    fn next(&mut self, row: &mut Row) -> Result<bool, String>;
}

/// The id of a row that brings none: the same whenever this import reads it.
pub(super) fn row_id(namespace: &Uuid, row: u64) -> Uuid {
    Uuid::new_v5(namespace, &row.to_be_bytes())
}

/// Writes the event of a line of JSON as it is, but for two things: an `eventId` is put in if there
/// is none, and times that only a data warehouse writes become RFC 3339. `zone`: that of times
/// which name none.
pub(super) fn write_event(
    line: &[u8],
    zone: Option<&TimeZone>,
    id: impl FnOnce() -> Uuid,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default, rename = "eventId", deserialize_with = "even_null")]
        event_id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        timestamp: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "sentAt")]
        sent_at: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(line).map_err(|_| Refusal::not_utf8())?;
    // A derived struct would take an array of values as well.
    let Some(fields) = text.strip_prefix('{') else {
        return Err(Refusal::new("invalid_json", "an event is a JSON object"));
    };
    let named: Named<'_> = serde_json::from_str(text)
        .map_err(|e| Refusal::new("invalid_json", format!("the JSON cannot be read: {e}")))?;
    // Values that give way to others, and where they are.
    let mut others: Vec<(&str, String)> = Vec::new();
    match named.event_id.map(RawValue::get) {
        None => {
            let comma = if fields.trim_ascii_start().starts_with('}') { "" } else { "," };
            others.push((&text[1..1], format!("\"eventId\":\"{}\"{comma}", id())));
        }
        Some("null") => others.extend(named.event_id.map(|null| (null.get(), format!("\"{}\"", id())))),
        Some(_) => {}
    }
    for (name, value) in [("timestamp", named.timestamp), ("sentAt", named.sent_at)] {
        let Some(value) = value.map(RawValue::get) else { continue };
        let Ok(time) = serde_json::from_str::<&str>(value) else { continue };
        match rfc3339(time, zone).map_err(|why| Refusal::new("invalid_field", format!("{name} {why}")))? {
            Cow::Borrowed(_) => {}
            Cow::Owned(other) => others.push((value, format!("\"{other}\""))),
        }
    }
    // Each is a part of the very line.
    others.sort_by_key(|(part, _)| part.as_ptr() as usize);
    let mut rest = text;
    for (part, other) in others {
        let at = part.as_ptr() as usize - rest.as_ptr() as usize;
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(other.as_bytes());
        rest = &rest[at + part.len()..];
    }
    out.extend_from_slice(rest.as_bytes());
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
        write_event(line.as_bytes(), None, Uuid::nil, &mut out).map_err(|r| r.error)?;
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
            (
                r#"{"sentAt":"2026-11-01 1:2","timestamp":"2026-11-01 12:34:56 UTC","a":"2026-11-01 12:34:56 UTC"}"#,
                format!(
                    r#"{{"eventId":"{ID}","sentAt":"2026-11-01 1:2","timestamp":"2026-11-01T12:34:56Z","a":"2026-11-01 12:34:56 UTC"}}"#
                ),
            ),
            (
                r#"{"timestamp":"2026-11-01 00:00:00+01","eventId":null,"sentAt":1.5}"#,
                format!(r#"{{"timestamp":"2026-10-31T23:00:00Z","eventId":"{ID}","sentAt":1.5}}"#),
            ),
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
        assert_eq!(write_event(b"{\"a\":\"\xff\"}", None, Uuid::nil, &mut out).unwrap_err().error, "invalid_utf8");
    }

    #[test]
    fn the_id_of_a_row_depends_on_the_import_and_its_number() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(row_id(&a, 7), row_id(&a, 7));
        assert_ne!(row_id(&a, 7), row_id(&a, 8));
        assert_ne!(row_id(&a, 7), row_id(&b, 7));
    }
}
