//! An event as clients send it, and how it becomes an [`Event`]: the one place where input is judged.
//!
//! Wire types are lenient (any JSON type may stand in a field) so that a wrong one is answered with the field's name
//! and what to do about it; strings borrow from the body wherever they hold no escapes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use uuid::Uuid;

use super::json_guard::{Refusal, check_depth, check_object};
use super::moments::{epoch_ms, rfc3339};
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
    pub(super) fields: BTreeMap<Cow<'static, str>, String>,
}

impl Rejection {
    pub(super) fn new(tag: &'static str, message: impl Into<String>) -> Rejection {
        Rejection { tag, message: message.into(), fields: BTreeMap::new() }
    }

    /// About one field: `reason` completes the sentence that the field's name begins.
    pub(super) fn of_field(
        tag: &'static str,
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Rejection {
        let (field, reason) = (field.into(), reason.into());
        let message = format!("{field} {reason}");
        Rejection { tag, message, fields: BTreeMap::from([(field, reason)]) }
    }

    pub(super) fn parameter(name: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Rejection {
        Rejection::of_field("invalid_parameter", name, reason)
    }

    pub(super) fn value(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Rejection {
        Rejection::of_field("invalid_field", field, reason)
    }
}

/// When a request came in and what its events are judged by.
#[derive(Clone, Copy)]
pub(super) struct Receipt<'r> {
    pub(super) now_ms: i64,
    pub(super) age: AgeMax<'r>,
    /// `sentAt` of the envelope of a batch: it holds for every row without one of its own.
    pub(super) sent_at_ms: Option<i64>,
    /// Counts the events whose `url` or `referrer` was cut.
    pub(super) truncated: &'r AtomicU64,
}

#[derive(Clone, Copy)]
pub(super) struct AgeMax<'r> {
    pub(super) ms: i64,
    /// With an admin key; at least `ms`.
    pub(super) admin_ms: i64,
    /// Compares keys: asked only for an event that is older than `ms`.
    pub(super) is_admin: &'r dyn Fn() -> bool,
}

impl AgeMax<'_> {
    /// The same for everyone.
    pub(super) fn of(ms: i64) -> AgeMax<'static> {
        AgeMax { ms, admin_ms: ms, is_admin: &|| false }
    }

    fn refusal(&self, age_ms: i64) -> Option<String> {
        if age_ms <= self.ms {
            return None;
        }
        let days = |ms: i64| ms / 86_400_000;
        if self.ms < self.admin_ms && !(self.is_admin)() {
            let days = days(self.ms);
            return Some(format!("is older than {days} days (EVENT_AGE_MAX): older events need an admin key"));
        }
        let is_kept = age_ms <= self.admin_ms;
        (!is_kept).then(|| format!("is older than the {} days that are kept", days(self.admin_ms)))
    }
}

/// Any value: strings and numbers as they are written, all others only as what they are not.
#[derive(Debug, Default)]
pub(super) enum Scalar<'a> {
    /// Left out, or null.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// The literal. A double would round integers above 2^53.
    Number(&'a str),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let literal = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match literal.as_bytes().first() {
            Some(b'"') if literal.contains('\\') => {
                Scalar::Text(Cow::Owned(serde_json::from_str(literal).map_err(D::Error::custom)?))
            }
            Some(b'"') => Scalar::Text(Cow::Borrowed(&literal[1..literal.len() - 1])),
            Some(b'-' | b'0'..=b'9') => Scalar::Number(literal),
            Some(b'n') => Scalar::Absent,
            _ => Scalar::Other,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object")]
pub(super) struct WireEvent<'a> {
    #[serde(borrow)]
    event_type: Scalar<'a>,
    user_id: Scalar<'a>,
    session_id: Scalar<'a>,
    event_id: Scalar<'a>,
    timestamp: Scalar<'a>,
    sent_at: Scalar<'a>,
    #[serde(deserialize_with = "object_or_null")]
    metadata: Option<WireMetadata<'a>>,
    properties: Option<&'a RawValue>,
    pub(super) events: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "an object in `metadata`")]
struct WireMetadata<'a> {
    #[serde(borrow)]
    component_id: Scalar<'a>,
    element_id: Scalar<'a>,
    keyword: Scalar<'a>,
    post_id: Scalar<'a>,
    url: Scalar<'a>,
    referrer: Scalar<'a>,
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

pub(super) fn event<'a>(
    text: &'a str,
    receipt: Receipt<'_>,
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
    let receipt = Receipt { now_ms, age: AgeMax::of(retention_ms), sent_at_ms: None, truncated: &AtomicU64::new(0) };
    let judged = event(text, receipt, Uuid::nil);
    judged.map(|_| ()).map_err(|rejection| (rejection.tag, rejection.message))
}

impl<'a> WireEvent<'a> {
    pub(super) fn into_event(
        self,
        receipt: Receipt<'_>,
        new_id: impl FnOnce() -> Uuid,
    ) -> Result<Event<'a>, Rejection> {
        let event_type = event_type(self.event_type)?;
        let metadata = self.metadata.unwrap_or_default();
        let (client_id, event_time_ms) =
            (event_id(self.event_id)?, event_time(&self.timestamp, &self.sent_at, receipt)?);
        let (url, is_url_cut) = url_text("metadata.url", metadata.url)?;
        let (referrer, is_referrer_cut) = url_text("metadata.referrer", metadata.referrer)?;
        let event = Event {
            id: client_id.unwrap_or_else(new_id),
            id_from_client: client_id.is_some(),
            event_type,
            user_id: id("userId", self.user_id)?,
            session_id: session(self.session_id)?,
            component_id: integer("metadata.componentId", &metadata.component_id, 1)?,
            element_id: text("metadata.elementId", metadata.element_id, ELEMENT_BYTES_MAX)?,
            keyword: keyword(metadata.keyword)?,
            post_id: id("metadata.postId", metadata.post_id)?,
            url,
            referrer,
            result_count: integer("metadata.resultCount", &metadata.result_count, 0)?,
            properties: properties(self.properties)?,
            event_time_ms,
            received_at_ms: receipt.now_ms,
        };
        if event.user_id.is_none() && event.session_id.is_none() {
            return Err(Rejection::of_field("missing_field", "userId", "is required (or sessionId)"));
        }
        if let Some((field, reason)) = (event_type.strategy().missing)(&event) {
            return Err(Rejection::of_field("missing_field", field, reason));
        }
        if is_url_cut || is_referrer_cut {
            receipt.truncated.fetch_add(1, Ordering::Relaxed);
        }
        Ok(event)
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
    match id {
        Some(id) if id.is_nil() || id.is_max() => Err(Rejection::value("eventId", PLACEHOLDER)),
        Some(id) => Ok(Some(id)),
        None => Err(Rejection::value("eventId", "must be a UUID")),
    }
}

/// What scripts and databases write for no value, in any case.
const PLACEHOLDERS: [&str; 8] = ["", "undefined", "null", "(null)", "none", "nan", "[object Object]", "\\N"];
const PLACEHOLDER: &str = "is a placeholder, not an id: leave the field out if there is none";

fn is_placeholder(text: &str) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(text.trim()))
}

/// A user's or post's id: opaque text, or an integer as its decimal form.
pub(super) fn id<'a>(field: &'static str, value: Scalar<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
    let text = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Number(literal) => {
            whole(literal).ok_or("must be an integer (up to 2^53 if it has a fraction or an exponent) or a string")
        }
        Scalar::Text(text) => Ok(text),
        Scalar::Other => Err("must be an integer or a string"),
    };
    let text = text.and_then(|text| id_fault(&text).map_or(Ok(text), Err));
    text.map(Some).map_err(|reason| Rejection::value(field, reason))
}

pub(super) fn id_fault(text: &str) -> Option<&'static str> {
    if is_placeholder(text) {
        return Some(PLACEHOLDER);
    }
    if text.len() > ID_BYTES_MAX {
        return Some("must have 1 to 128 bytes");
    }
    text.chars().any(char::is_control).then_some("must have no control characters")
}

fn session(value: Scalar<'_>) -> Result<Option<Cow<'_, str>>, Rejection> {
    const FIELD: &str = "sessionId";
    match &value {
        Scalar::Text(text) if is_placeholder(text) => Err(Rejection::value(FIELD, PLACEHOLDER)),
        _ => text(FIELD, value, SESSION_BYTES_MAX),
    }
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
    Err(Rejection::value(field, reason))
}

fn keyword(value: Scalar<'_>) -> Result<Option<Cow<'_, str>>, Rejection> {
    const FIELD: &str = "metadata.keyword";
    let Scalar::Text(typed) = value else { return text(FIELD, value, KEYWORD_BYTES_MAX) };
    let normal = normal_keyword(typed);
    match normal.len() {
        1..=KEYWORD_BYTES_MAX if normal.contains('\0') => Err(Rejection::value(FIELD, "must not contain U+0000")),
        1..=KEYWORD_BYTES_MAX => Ok(Some(normal)),
        _ => Err(Rejection::value(FIELD, "must have 1 to 200 bytes after trimming")),
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

/// An url, cut at a character if it is too long, and whether it was.
fn url_text<'a>(field: &'static str, value: Scalar<'a>) -> Result<(Option<Cow<'a, str>>, bool), Rejection> {
    let whole = text(field, value, EVENT_BYTES_MAX)?;
    let end = whole.as_deref().map_or(0, |url| url.floor_char_boundary(URL_BYTES_MAX));
    Ok(match whole {
        Some(url) if url.len() > end => (Some(prefix(url, end)), true),
        whole => (whole, false),
    })
}

fn prefix(text: Cow<'_, str>, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(text) => Cow::Owned(text[..end].to_owned()),
    }
}

fn integer(field: &'static str, value: &Scalar<'_>, min: i64) -> Result<Option<i64>, Rejection> {
    match value {
        Scalar::Absent => Ok(None),
        Scalar::Number(literal) => {
            let number = whole(literal).and_then(|digits| digits.parse().ok()).filter(|number| *number >= min);
            number.map(Some).ok_or_else(|| out_of_range(field, min))
        }
        _ => Err(out_of_range(field, min)),
    }
}

/// The decimal form of a JSON number whose value is whole: any integer, and with a fraction or an exponent up to
/// 2^53, as far as a double that was written by pandas or JavaScript is exact.
fn whole(literal: &str) -> Option<Cow<'_, str>> {
    let (sign, digits) = literal.strip_prefix('-').map_or(("", literal), |digits| ("-", digits));
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(if digits == "0" { digits.into() } else { literal.into() });
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (units, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [units, fraction].concat();
    let significant = all.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    let zeros = (all.trim_start_matches('0').len() - significant.len()) as i64;
    let zeros = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?.checked_add(zeros)?;
    // Ten to a power that is not below zero, and so small that nothing overflows.
    let power = u32::try_from(zeros).ok().filter(|power| *power < 16 && significant.len() <= 16)?;
    let value = significant.parse::<u64>().ok()?.checked_mul(10_u64.pow(power)).filter(|value| *value <= 1 << 53)?;
    Some(format!("{sign}{value}").into())
}

fn out_of_range(field: &'static str, min: i64) -> Rejection {
    Rejection::value(field, format!("must be an integer, {min} or more"))
}

fn properties(value: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Rejection> {
    let Some(raw) = value.map(RawValue::get).filter(|raw| *raw != "null") else { return Ok(None) };
    let refuse = |reason: &str| Err(Rejection::value("properties", reason));
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
fn event_time(timestamp: &Scalar<'_>, sent_at: &Scalar<'_>, receipt: Receipt<'_>) -> Result<i64, Rejection> {
    let sent_at = moment("sentAt", sent_at)?.or(receipt.sent_at_ms);
    let Some(timestamp) = moment("timestamp", timestamp)? else { return Ok(receipt.now_ms) };
    let skew = sent_at.map_or(0, |sent| receipt.now_ms.saturating_sub(sent));
    let at = timestamp.saturating_add(skew);
    if at > receipt.now_ms.saturating_add(EVENT_FUTURE_MS_MAX) {
        return Ok(receipt.now_ms);
    }
    match receipt.age.refusal(receipt.now_ms.saturating_sub(at)) {
        Some(reason) => Err(Rejection::of_field("too_old", "timestamp", reason)),
        None => Ok(at),
    }
}

/// The envelope's `sentAt`, as JSON.
pub(super) fn sent_at(json: &[u8]) -> Result<Option<i64>, Rejection> {
    let value = if json.len() <= SENT_AT_BYTES_MAX { serde_json::from_slice(json).ok() } else { None };
    moment("sentAt", &value.unwrap_or(Scalar::Other))
}

pub(super) fn moment(field: &'static str, value: &Scalar<'_>) -> Result<Option<i64>, Rejection> {
    const FORMS: &str = "must be RFC 3339 or milliseconds since 1970";
    let at = match value {
        Scalar::Absent => return Ok(None),
        Scalar::Number(literal) => epoch_ms(literal).map_err(|unit| format!("looks like {unit}: it {FORMS}")),
        Scalar::Text(text) => rfc3339(text).ok_or_else(|| FORMS.to_owned()),
        Scalar::Other => Err(FORMS.to_owned()),
    };
    at.map(Some).map_err(|reason| Rejection::value(field, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    static TRUNCATED: AtomicU64 = AtomicU64::new(0);
    const RECEIPT: Receipt<'static> = Receipt {
        now_ms: 1_800_000_000_000,
        age: AgeMax { ms: 400 * 86_400_000, admin_ms: 400 * 86_400_000, is_admin: &|| false },
        sent_at_ms: None,
        truncated: &TRUNCATED,
    };

    fn judge(json: &str) -> Result<Event<'_>, Rejection> {
        event(json, RECEIPT, || Uuid::from_u128(7))
    }

    fn tag_and_field(json: &str) -> (&'static str, String) {
        let rejection = judge(json).unwrap_err();
        (rejection.tag, rejection.fields.keys().next().map(|field| field.to_string()).unwrap_or_default())
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
            (
                r#"{"eventType":"CLICK","userId":1,"timestamp":1,"metadata":{"componentId":1}}"#,
                "invalid_field",
                "timestamp",
            ),
            (
                r#"{"eventType":"CLICK","userId":1,"timestamp":1e11,"metadata":{"componentId":1}}"#,
                "too_old",
                "timestamp",
            ),
            (r#"{"eventType":"LIKE","userId":1}"#, "missing_field", "metadata.postId"),
            (
                r#"{"eventType":"CLICK","userId":1,"properties":[],"metadata":{"componentId":1}}"#,
                "invalid_field",
                "properties",
            ),
        ] {
            assert_eq!(tag_and_field(json), (tag, field.to_owned()), "{json}");
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
    fn numbers_are_whole_by_their_value_and_never_rounded() {
        for (literal, digits) in [
            ("7", Some("7")),
            ("-7", Some("-7")),
            ("-0", Some("0")),
            ("-0.00e-99999999999999999999", Some("0")),
            ("42.0", Some("42")),
            ("-4.20e1", Some("-42")),
            ("1e3", Some("1000")),
            ("10e-1", Some("1")),
            ("0.001e3", Some("1")),
            ("9007199254740992.000", Some("9007199254740992")),
            ("9007199254740993.0", None),
            ("1e16", None),
            ("1.5", None),
            ("1e-1", None),
            ("1e99999999999999999999", None),
            ("1e-99999999999999999999", None),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
        ] {
            assert_eq!(whole(literal).as_deref(), digits, "{literal}");
        }
    }

    #[test]
    fn keywords_are_trimmed_and_nfc() {
        let event = judge(r#"{"eventType":"SEARCH","userId":1,"metadata":{"keyword":" cafe\u0301 "}}"#).unwrap();
        assert_eq!(event.keyword.as_deref(), Some("café"));
    }
}
