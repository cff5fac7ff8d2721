//! An event as clients send it, and how it becomes an [`Event`]: the one place where input is judged.
//!
//! Wire types are lenient (any JSON type may stand in a field) so that a wrong one is answered with the field's name
//! and what to do about it; strings borrow from the body wherever they hold no escapes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use uuid::Uuid;

use super::json_guard::{Refusal, check_depth, check_object};
use crate::events::{Event, EventType};
use crate::limits::{
    ELEMENT_BYTES_MAX, EVENT_BYTES_MAX, EVENT_FUTURE_MS_MAX, ID_BYTES_MAX, JSON_DEPTH_MAX, JSON_REASON_BYTES_MAX,
    KEYWORD_BYTES_MAX, PROPERTIES_BYTES_MAX, SENT_AT_BYTES_MAX, SESSION_BYTES_MAX, URL_BYTES_MAX,
};

/// Why an event is not taken: a tag that never changes its meaning, a sentence, and the fields concerned.
#[derive(Debug, PartialEq)]
pub(super) struct Rejection {
    pub(super) tag: &'static str,
    pub(super) message: String,
    pub(super) fields: BTreeMap<&'static str, String>,
}

impl Rejection {
    /// Without a field.
    pub(super) fn new(tag: &'static str, message: impl Into<String>) -> Rejection {
        Rejection { tag, message: message.into(), fields: BTreeMap::new() }
    }

    /// About one field: `reason` completes the sentence that the field's name begins.
    pub(super) fn of_field(tag: &'static str, field: &'static str, reason: impl Into<String>) -> Rejection {
        let reason = reason.into();
        let message = format!("{field} {reason}");
        Rejection { tag, message, fields: BTreeMap::from([(field, reason)]) }
    }
}

/// When a request came in and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    pub(super) now_ms: i64,
    pub(super) retention_ms: i64,
    /// `sentAt` of the envelope, for rows without their own.
    pub(super) sent_at_ms: Option<i64>,
}

/// Any scalar; arrays and objects are kept as what they are not: a value.
#[derive(Debug, Default)]
pub(super) enum Scalar<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i128),
    Number(f64),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(v)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(v.to_owned())))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(v))
    }
    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Absent)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// The fields of an event, and of the envelope `{"events":[…]}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct WireEvent<'a> {
    #[serde(borrow)]
    event_type: Scalar<'a>,
    #[serde(borrow)]
    user_id: Scalar<'a>,
    #[serde(borrow)]
    session_id: Scalar<'a>,
    #[serde(borrow)]
    event_id: Scalar<'a>,
    #[serde(borrow)]
    timestamp: Scalar<'a>,
    #[serde(borrow)]
    sent_at: Scalar<'a>,
    #[serde(borrow, deserialize_with = "object_or_null")]
    metadata: Option<WireMetadata<'a>>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) events: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object in `metadata`")]
struct WireMetadata<'a> {
    #[serde(borrow)]
    component_id: Scalar<'a>,
    #[serde(borrow)]
    element_id: Scalar<'a>,
    #[serde(borrow)]
    keyword: Scalar<'a>,
    #[serde(borrow)]
    post_id: Scalar<'a>,
    #[serde(borrow)]
    url: Scalar<'a>,
    #[serde(borrow)]
    referrer: Scalar<'a>,
    #[serde(borrow)]
    result_count: Scalar<'a>,
}

fn object_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WireMetadata<'de>>, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Option<WireMetadata<'de>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object in `metadata`")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            WireMetadata::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Object)
}

/// Parses the JSON of one event (or envelope), bounded in size and nesting.
pub(super) fn parse(text: &str) -> Result<WireEvent<'_>, Rejection> {
    // One level of the event's own, and `properties` may have all of theirs below it.
    check_depth(text, JSON_DEPTH_MAX + 1).map_err(too_deep)?;
    // A derived struct would take an array of values as well.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Rejection::new("invalid_json", "an event is a JSON object"));
    }
    serde_json::from_str(text).map_err(|e| bad_json(&e))
}

pub(super) fn bad_json(error: &serde_json::Error) -> Rejection {
    // serde repeats a string that it did not expect.
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(JSON_REASON_BYTES_MAX));
    Rejection::new("invalid_json", format!("the JSON cannot be read: {reason}"))
}

pub(super) fn too_deep(_: Refusal) -> Rejection {
    Rejection::new("nesting_too_deep", format!("JSON may be nested at most {JSON_DEPTH_MAX} levels deep"))
}

/// Parses and judges one event of a request.
pub(super) fn event<'a>(
    text: &'a str,
    receipt: Receipt,
    new_id: impl FnOnce() -> Uuid,
) -> Result<Event<'a>, Rejection> {
    if text.len() > EVENT_BYTES_MAX {
        let message = format!("an event may have at most {EVENT_BYTES_MAX} bytes");
        return Err(Rejection::new("event_too_large", message));
    }
    parse(text)?.into_event(receipt, new_id)
}

/// What `POST /api/events` would say about an event at this time: the tag and the sentence of a refusal.
pub fn judge_event(text: &str, now_ms: i64, retention_ms: i64) -> Result<(), (&'static str, String)> {
    let judged = event(text, Receipt { now_ms, retention_ms, sent_at_ms: None }, Uuid::nil);
    judged.map(|_| ()).map_err(|rejection| (rejection.tag, rejection.message))
}

impl<'a> WireEvent<'a> {
    /// The event, or what is wrong with it.
    pub(super) fn into_event(self, receipt: Receipt, new_id: impl FnOnce() -> Uuid) -> Result<Event<'a>, Rejection> {
        let event_type = event_type(self.event_type)?;
        let metadata = self.metadata.unwrap_or_default();
        let (client_id, event_time_ms) =
            (event_id(self.event_id)?, event_time(&self.timestamp, &self.sent_at, receipt)?);
        let event = Event {
            id: client_id.unwrap_or_else(new_id),
            id_from_client: client_id.is_some(),
            event_type,
            user_id: id("userId", self.user_id)?,
            session_id: text("sessionId", self.session_id, SESSION_BYTES_MAX)?,
            component_id: integer("metadata.componentId", &metadata.component_id, 1)?,
            element_id: text("metadata.elementId", metadata.element_id, ELEMENT_BYTES_MAX)?,
            keyword: keyword(metadata.keyword)?,
            post_id: id("metadata.postId", metadata.post_id)?,
            url: text("metadata.url", metadata.url, URL_BYTES_MAX)?,
            referrer: text("metadata.referrer", metadata.referrer, URL_BYTES_MAX)?,
            result_count: integer("metadata.resultCount", &metadata.result_count, 0)?,
            properties: properties(self.properties)?,
            event_time_ms,
            received_at_ms: receipt.now_ms,
        };
        if event.user_id.is_none() && event.session_id.is_none() {
            return Err(Rejection::of_field("missing_field", "userId", "is required (or sessionId)"));
        }
        match event_type.strategy().missing(&event) {
            Some((field, reason)) => Err(Rejection::of_field("missing_field", field, reason)),
            None => Ok(event),
        }
    }
}

fn event_type(value: Scalar<'_>) -> Result<EventType, Rejection> {
    const KNOWN: &str = "must be one of CLICK, PAGE_VIEW, SEARCH, LIKE, UNLIKE";
    match value {
        Scalar::Absent => Err(Rejection::of_field("missing_field", "eventType", "is required")),
        Scalar::Text(name) => {
            EventType::from_name(&name).ok_or_else(|| Rejection::of_field("unknown_event_type", "eventType", KNOWN))
        }
        _ => Err(Rejection::of_field("unknown_event_type", "eventType", KNOWN)),
    }
}

pub(super) fn event_id(value: Scalar<'_>) -> Result<Option<Uuid>, Rejection> {
    let id = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Text(text) if text.len() == 36 => Uuid::try_parse(&text).ok(),
        _ => None,
    };
    id.map(Some).ok_or_else(|| Rejection::of_field("invalid_field", "eventId", "must be a UUID"))
}

/// What scripts send where they had nothing to send.
const PLACEHOLDERS: [&str; 5] = ["", "undefined", "null", "[object Object]", "NaN"];

/// A user's or post's id: opaque text, or an integer as its decimal form.
pub(super) fn id<'a>(field: &'static str, value: Scalar<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
    let reason = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Integer(number) => return Ok(Some(Cow::Owned(number.to_string()))),
        Scalar::Text(text) => match id_fault(&text) {
            None => return Ok(Some(text)),
            Some(reason) => reason,
        },
        _ => "must be an integer or a string",
    };
    Err(Rejection::of_field("invalid_field", field, reason))
}

/// What is wrong with an id, if anything.
pub(super) fn id_fault(text: &str) -> Option<&'static str> {
    if PLACEHOLDERS.contains(&text) {
        return Some("is a placeholder, not an id: leave the field out where there is none");
    }
    if text.len() > ID_BYTES_MAX {
        return Some("must have 1 to 128 bytes");
    }
    text.chars().any(char::is_control).then_some("must have no control characters")
}

/// Text of 1 to `bytes_max` bytes; the empty string is no value.
pub(super) fn text<'a>(
    field: &'static str,
    value: Scalar<'a>,
    bytes_max: usize,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let reason = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Text(text) if text.is_empty() => return Ok(None),
        Scalar::Text(text) if text.len() > bytes_max => format!("must have at most {bytes_max} bytes"),
        Scalar::Text(text) if text.contains('\0') => "must not contain U+0000".into(),
        Scalar::Text(text) => return Ok(Some(text)),
        _ => "must be a string".into(),
    };
    Err(Rejection::of_field("invalid_field", field, reason))
}

fn keyword(value: Scalar<'_>) -> Result<Option<Cow<'_, str>>, Rejection> {
    const FIELD: &str = "metadata.keyword";
    let Scalar::Text(typed) = value else { return text(FIELD, value, KEYWORD_BYTES_MAX) };
    let normal = normal_keyword(typed);
    match normal.len() {
        1..=KEYWORD_BYTES_MAX if normal.contains('\0') => {
            Err(Rejection::of_field("invalid_field", FIELD, "must not contain U+0000"))
        }
        1..=KEYWORD_BYTES_MAX => Ok(Some(normal)),
        _ => Err(Rejection::of_field("invalid_field", FIELD, "must have 1 to 200 bytes after trimming")),
    }
}

/// Trimmed, NFC.
pub(super) fn normal_keyword(typed: Cow<'_, str>) -> Cow<'_, str> {
    let trimmed = typed.trim();
    if trimmed.is_ascii() || is_nfc_quick(trimmed.chars()) == IsNormalized::Yes {
        match typed {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        }
    } else {
        Cow::Owned(trimmed.nfc().collect())
    }
}

fn integer(field: &'static str, value: &Scalar<'_>, min: i64) -> Result<Option<i64>, Rejection> {
    match value {
        Scalar::Absent => Ok(None),
        Scalar::Integer(number) => {
            let number = i64::try_from(*number).ok().filter(|n| *n >= min);
            number.map(Some).ok_or_else(|| out_of_range(field, min))
        }
        _ => Err(out_of_range(field, min)),
    }
}

fn out_of_range(field: &'static str, min: i64) -> Rejection {
    Rejection::of_field("invalid_field", field, format!("must be an integer, {min} or more"))
}

fn properties(value: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Rejection> {
    let Some(raw) = value.map(RawValue::get).filter(|raw| *raw != "null") else { return Ok(None) };
    let refuse = |reason: &str| Err(Rejection::of_field("invalid_field", "properties", reason));
    if !raw.starts_with('{') {
        return refuse("must be an object");
    }
    if raw.len() > PROPERTIES_BYTES_MAX {
        return refuse("must have at most 8192 bytes");
    }
    match check_object(raw, JSON_DEPTH_MAX) {
        Ok(()) => Ok(Some(Cow::Borrowed(raw))),
        Err(Refusal::Depth) => refuse("must be nested at most 32 levels deep"),
        Err(Refusal::Nul) => refuse("must not contain U+0000"),
        Err(Refusal::Surrogate) => refuse("must not contain unpaired surrogates"),
    }
}

/// `timestamp + (received - sentAt)`: the client's clock corrected by ours; clamped to the present.
fn event_time(timestamp: &Scalar<'_>, sent_at: &Scalar<'_>, receipt: Receipt) -> Result<i64, Rejection> {
    let Some(timestamp) = moment("timestamp", timestamp)? else {
        moment("sentAt", sent_at)?;
        return Ok(receipt.now_ms);
    };
    let sent_at = moment("sentAt", sent_at)?.or(receipt.sent_at_ms);
    let skew = sent_at.map_or(0, |sent| receipt.now_ms.saturating_sub(sent));
    let at = timestamp.saturating_add(skew);
    if at > receipt.now_ms.saturating_add(EVENT_FUTURE_MS_MAX) {
        return Ok(receipt.now_ms);
    }
    if at < receipt.now_ms.saturating_sub(receipt.retention_ms) {
        let reason = format!("is older than the {} days that are kept", receipt.retention_ms / 86_400_000);
        return Err(Rejection::of_field("too_old", "timestamp", reason));
    }
    Ok(at)
}

/// The envelope's `sentAt`, as JSON.
pub(super) fn sent_at(json: &[u8]) -> Result<Option<i64>, Rejection> {
    let value = if json.len() <= SENT_AT_BYTES_MAX { serde_json::from_slice(json).ok() } else { None };
    moment("sentAt", &value.unwrap_or(Scalar::Other))
}

pub(super) fn moment(field: &'static str, value: &Scalar<'_>) -> Result<Option<i64>, Rejection> {
    let at = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Integer(ms) => i64::try_from(*ms).ok(),
        // Browsers' high-resolution clocks give fractions of a millisecond.
        Scalar::Number(ms) if ms.is_finite() && ms.abs() < 1e15 => Some(*ms as i64),
        Scalar::Text(text) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond),
        _ => None,
    };
    let reason = "must be RFC 3339 or milliseconds since 1970";
    at.map(Some).ok_or_else(|| Rejection::of_field("invalid_field", field, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: Receipt = Receipt { now_ms: 1_800_000_000_000, retention_ms: 400 * 86_400_000, sent_at_ms: None };

    fn judge(json: &str) -> Result<Event<'_>, Rejection> {
        event(json, RECEIPT, || Uuid::from_u128(7))
    }

    fn tag_and_field(json: &str) -> (&'static str, &'static str) {
        let rejection = judge(json).unwrap_err();
        (rejection.tag, rejection.fields.keys().next().copied().unwrap_or(""))
    }

    #[test]
    fn ids_may_be_integers_and_are_kept_as_text() {
        let event = judge(r#"{"eventType":"click","userId":42,"metadata":{"componentId":7,"postId":"p"}}"#).unwrap();
        assert_eq!(event.user_id.as_deref(), Some("42"));
        assert_eq!((event.component_id, event.post_id.as_deref()), (Some(7), Some("p")));
        assert!(!event.id_from_client);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (json, tag, field) in [
            (r#"{"userId":1}"#, "missing_field", "eventType"),
            (r#"{"eventType":"TOGGLE","userId":1}"#, "unknown_event_type", "eventType"),
            (r#"{"eventType":"CLICK","userId":1}"#, "missing_field", "metadata.componentId"),
            (r#"{"eventType":"SEARCH","userId":1,"metadata":{}}"#, "missing_field", "metadata.keyword"),
            (r#"{"eventType":"SEARCH","metadata":{"keyword":"a"}}"#, "missing_field", "userId"),
            (r#"{"eventType":"SEARCH","userId":1,"metadata":{"keyword":"  "}}"#, "invalid_field", "metadata.keyword"),
            (r#"{"eventType":"CLICK","userId":"undefined","metadata":{"componentId":1}}"#, "invalid_field", "userId"),
            (r#"{"eventType":"CLICK","userId":1.5,"metadata":{"componentId":1}}"#, "invalid_field", "userId"),
            (r#"{"eventType":"CLICK","userId":"a\u0000","metadata":{"componentId":1}}"#, "invalid_field", "userId"),
            (
                r#"{"eventType":"CLICK","userId":1,"metadata":{"componentId":0}}"#,
                "invalid_field",
                "metadata.componentId",
            ),
            (r#"{"eventType":"CLICK","userId":1,"metadata":{"url":"\u0000"}}"#, "invalid_field", "metadata.url"),
            (
                r#"{"eventType":"CLICK","userId":1,"eventId":"x","metadata":{"componentId":1}}"#,
                "invalid_field",
                "eventId",
            ),
            (r#"{"eventType":"CLICK","userId":1,"timestamp":1,"metadata":{"componentId":1}}"#, "too_old", "timestamp"),
            (r#"{"eventType":"LIKE","userId":1}"#, "missing_field", "metadata.postId"),
            (
                r#"{"eventType":"CLICK","userId":1,"properties":[],"metadata":{"componentId":1}}"#,
                "invalid_field",
                "properties",
            ),
        ] {
            assert_eq!(tag_and_field(json), (tag, field), "{json}");
        }
        assert_eq!(judge("{").unwrap_err().tag, "invalid_json");
        assert_eq!(judge("[]").unwrap_err().tag, "invalid_json");
        assert_eq!(judge(r#"{"eventType":"CLICK","userId":1,"metadata":[1]}"#).unwrap_err().tag, "invalid_json");
        assert_eq!(judge(r#"{"eventType":"CLICK","userId":1,"metadata":null}"#).unwrap_err().tag, "missing_field");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert_eq!(judge(&deep).unwrap_err().tag, "nesting_too_deep");
    }

    #[test]
    fn times_are_corrected_by_the_clients_own_clock_and_clamped() {
        let at = |fields: &str| {
            let json = format!(r#"{{"eventType":"CLICK","userId":1,"metadata":{{"componentId":1}},{fields}}}"#);
            judge(&json).unwrap().event_time_ms - RECEIPT.now_ms
        };
        assert_eq!(at(r#""timestamp":1799999999000"#), -1_000);
        assert_eq!(at(r#""timestamp":1700000000000,"sentAt":1700000005000"#), -5_000);
        assert_eq!(at(r#""timestamp":1800000061000"#), 0);
        assert_eq!(at(r#""timestamp":1800000060000"#), 60_000);
        assert_eq!(at(r#""timestamp":"2027-01-15T08:00:00Z""#), 0);
    }

    #[test]
    fn keywords_are_trimmed_and_nfc() {
        let event = judge(r#"{"eventType":"SEARCH","userId":1,"metadata":{"keyword":" cafe\u0301 "}}"#).unwrap();
        assert_eq!(event.keyword.as_deref(), Some("café"));
    }
}
