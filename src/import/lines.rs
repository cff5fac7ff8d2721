//! NDJSON: an event a line.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::row::{Refusal, Row, Source};
use super::text::{Text, unmarked};
use super::times::rfc3339;
use crate::limits::EVENT_BYTES_MAX;

/// What is read of a line at most: the event and its line end.
const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX + 2;

/// The lines of a text from a place on.
pub(super) struct Lines {
    pub(super) text: Text,
    /// Lines before the next one.
    pub(super) count: u64,
}

impl Lines {
    /// Reads a line without its end. `None` at the end of the text; true where it went on past its
    /// bound.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
        let read = (&mut self.text).take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
        if read == 0 {
            return Ok(None);
        }
        self.count += 1;
        let goes_on = !line.ends_with(b"\n") && read == LINE_BYTES_MAX && self.text.skip_until(b'\n')? > 0;
        let length = line.trim_ascii_end().len();
        line.truncate(length);
        let text = line.trim_ascii_start();
        // Files that were joined bring their marks with them.
        let blank = line.len() - unmarked(text).trim_ascii_start().len();
        line.drain(..blank);
        Ok(Some(goes_on || line.len() > EVENT_BYTES_MAX))
    }
}

impl Source for Lines {
    fn read(&mut self, row: &mut Row) -> io::Result<bool> {
        loop {
            let Some(is_cut) = self.read_line(&mut row.input)? else { return Ok(false) };
            row.line = self.count;
            if is_cut {
                row.refuse_cut(Refusal::too_large());
            }
            if is_cut || !row.input.is_empty() {
                return Ok(true);
            }
        }
    }

    fn write_event(&self, row: &mut Row, zone: Option<&TimeZone>, id: &dyn Fn() -> Uuid) -> Result<(), Refusal> {
        write_event(&row.input, zone, id, &mut row.event)
    }

    fn place(&self) -> (u64, u64) {
        (self.count, self.text.offset())
    }
}

/// Writes the event of a line of JSON as it is, but for two things: an `eventId` is put in if there
/// is none, and times that only a data warehouse writes become RFC 3339.
fn write_event(line: &[u8], zone: Option<&TimeZone>, id: &dyn Fn() -> Uuid, out: &mut Vec<u8>) -> Result<(), Refusal> {
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
        write_event(line.as_bytes(), None, &Uuid::nil, &mut out).map_err(|r| r.error)?;
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
        assert_eq!(write_event(b"{\"a\":\"\xff\"}", None, &Uuid::nil, &mut out).unwrap_err().error, "invalid_utf8");
    }
}
