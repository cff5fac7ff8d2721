//! Events of a request, judged naively over the parsed JSON, and on their way through the journal.

use event_tracker::api::probe;
use event_tracker::events::{Event, EventType, Record, decode_record};
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

pub(crate) const NOW_MS: i64 = 1_800_000_000_000;
pub(crate) const RETENTION_MS: i64 = 400 * 86_400_000;

/// Any text: it is judged without a panic, and what is taken comes back from the journal's bytes as it was.
pub(crate) fn check_text(text: &str) {
    if let Ok(event) = probe::event(text, NOW_MS, RETENTION_MS) {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(decode_record(&mut rest).expect("a record"), Record::Event(event), "{text}");
        assert!(rest.is_empty());
    }
    // What the text says twice only its last says in the model: so it is written again.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        check(&value);
        check_guard(text, &value);
    }
}

pub(crate) fn check(value: &Value) {
    let text = value.to_string();
    let real = probe::event(&text, NOW_MS, RETENTION_MS);
    let model = judge(value, &text);
    match (&real, &model) {
        (Ok(event), Some(expected)) => {
            assert_eq!(event, expected, "{text}");
        }
        (Err(_), None) => {}
        _ => panic!("{real:?}, but the model {model:?}: {text}"),
    }
}

/// The guard's one pass says what a recursion over the parsed value does.
pub(crate) fn check_guard(text: &str, value: &Value) {
    for depth_max in [0, 1, 2, 5, 32] {
        let fits = depth(value) <= depth_max;
        assert_eq!(probe::fits_depth(text, depth_max), fits, "{text}");
        let fault = probe::object_fault(text, depth_max);
        match fault.as_deref() {
            None => assert!(fits && !holds_nul(value), "{text}"),
            Some("Depth") => assert!(!fits, "{text}"),
            Some("Nul") => assert!(fits && holds_nul(value), "{text}"),
            other => panic!("{other:?} of text that can be parsed: {text}"),
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// `Err`: refused; `Ok(None)`: not there.
type Field<T> = Result<Option<T>, ()>;

fn judge(value: &Value, text: &str) -> Option<Event<'static>> {
    let object = value.as_object()?;
    if text.len() > 64 * 1024 || depth(value) > 33 {
        return None;
    }
    read(object).ok()
}

fn read(object: &Map<String, Value>) -> Result<Event<'static>, ()> {
    let empty = Map::new();
    let metadata = match object.get("metadata") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(()),
    };
    let id = event_id(object.get("eventId"))?;
    let event = Event {
        id: id.unwrap_or(Uuid::from_u128(7)),
        id_from_client: id.is_some(),
        event_type: event_type(object.get("eventType"))?,
        event_time_ms: time(object)?,
        received_at_ms: NOW_MS,
        user_id: opaque(object.get("userId"))?.map(Into::into),
        session_id: session(object.get("sessionId"))?.map(Into::into),
        component_id: integer(metadata.get("componentId"), 1)?,
        element_id: text(metadata.get("elementId"), 200)?.map(Into::into),
        keyword: keyword(metadata.get("keyword"))?.map(Into::into),
        post_id: opaque(metadata.get("postId"))?.map(Into::into),
        url: text(metadata.get("url"), usize::MAX)?.as_deref().map(cut).map(Into::into),
        referrer: text(metadata.get("referrer"), usize::MAX)?.as_deref().map(cut).map(Into::into),
        result_count: integer(metadata.get("resultCount"), 0)?,
        properties: properties(object.get("properties"))?.map(Into::into),
    };
    let has_component = event.component_id.is_some();
    let is_whole = match event.event_type {
        EventType::Click => has_component || event.element_id.is_some(),
        EventType::PageView => has_component || event.url.is_some() || event.post_id.is_some(),
        EventType::Search => event.keyword.is_some(),
        _ => event.user_id.is_some() && event.post_id.is_some(),
    };
    let has_somebody = event.user_id.is_some() || event.session_id.is_some();
    if is_whole && has_somebody { Ok(event) } else { Err(()) }
}

fn event_type(value: Option<&Value>) -> Result<EventType, ()> {
    match value.and_then(Value::as_str).map(str::to_ascii_uppercase).as_deref() {
        Some("CLICK") => Ok(EventType::Click),
        Some("PAGE_VIEW") => Ok(EventType::PageView),
        Some("SEARCH") => Ok(EventType::Search),
        Some("LIKE") => Ok(EventType::Like),
        Some("UNLIKE") => Ok(EventType::Unlike),
        _ => Err(()),
    }
}

fn optional<T>(value: Option<&Value>, read: impl FnOnce(&Value) -> Option<T>) -> Field<T> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or(()),
    }
}

fn event_id(value: Option<&Value>) -> Field<Uuid> {
    optional(value, |value| {
        let id: Uuid = value.as_str().filter(|text| text.len() == 36)?.parse().ok()?;
        (!id.is_nil() && !id.is_max()).then_some(id)
    })
}

fn is_placeholder(text: &str) -> bool {
    let names = ["", "undefined", "null", "(null)", "none", "nan", "[object object]", "\\n"];
    names.contains(&text.trim().to_ascii_lowercase().as_str())
}

fn session(value: Option<&Value>) -> Field<String> {
    match value {
        Some(Value::String(text)) if is_placeholder(text) => Err(()),
        value => text(value, 64),
    }
}

fn cut(url: &str) -> String {
    let mut kept = String::new();
    for character in url.chars() {
        if kept.len() + character.len_utf8() > 2_048 {
            break;
        }
        kept.push(character);
    }
    kept
}

/// The integer that a number is; one with a fraction or an exponent is a double here.
fn whole(number: &serde_json::Number) -> Option<i128> {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let double = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0);
    integer.or_else(|| double.map(|value| value as i128))
}

fn opaque(value: Option<&Value>) -> Field<String> {
    let is_good = |text: &str| !is_placeholder(text) && text.len() <= 128 && !text.chars().any(char::is_control);
    optional(value, |value| match value {
        Value::Number(number) => whole(number).map(|number| number.to_string()),
        value => value.as_str().filter(|text| is_good(text)).map(str::to_owned),
    })
}

fn text(value: Option<&Value>, bytes_max: usize) -> Field<String> {
    let is_good = |text: &&str| text.len() <= bytes_max && !text.contains('\0');
    let text = optional(value, |value| value.as_str().filter(is_good).map(str::to_owned))?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn keyword(value: Option<&Value>) -> Field<String> {
    optional(value, |value| {
        let normal: String = value.as_str()?.trim().nfc().collect();
        ((1..=200).contains(&normal.len()) && !normal.contains('\0')).then_some(normal)
    })
}

fn integer(value: Option<&Value>, min: i64) -> Field<i64> {
    optional(value, |value| {
        let number = i64::try_from(whole(value.as_number()?)?).ok()?;
        (number >= min).then_some(number)
    })
}

fn properties(value: Option<&Value>) -> Field<String> {
    optional(value, |value| {
        let text = value.to_string();
        let is_good = value.is_object() && text.len() <= 8 * 1024 && depth(value) <= 32 && !holds_nul(value);
        is_good.then_some(text)
    })
}

fn moment(value: Option<&Value>) -> Field<i64> {
    optional(value, |value| match value {
        Value::String(text) => rfc3339(text),
        value => value.as_f64().filter(|ms| (1e11..=1e14).contains(ms)).map(|ms| ms.trunc() as i64),
    })
}

/// Digits beyond nanoseconds are cut; the last year is told by one that is as long.
fn rfc3339(text: &str) -> Option<i64> {
    let ms_of = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    let fraction = text.find(['.', ',']).map_or("", |at| &text[at + 1..]);
    let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let beyond = &fraction[digits.min(9)..digits];
    let at = text.len() - fraction.len() + digits - beyond.len();
    let short = format!("{}{}", &text[..at], &text[at + beyond.len()..]);
    let earlier = || ms_of(&format!("9997{}", short.strip_prefix("9999")?)).map(|ms| ms + 730 * 86_400_000);
    ms_of(&short).or_else(earlier)
}

fn time(object: &Map<String, Value>) -> Result<i64, ()> {
    let sent = moment(object.get("sentAt"))?;
    let Some(at) = moment(object.get("timestamp"))? else { return Ok(NOW_MS) };
    // Wider than any sum of two of them; the server saturates, which is further away than any bound as well.
    let at = i128::from(at) + sent.map_or(0, |sent| i128::from(NOW_MS) - i128::from(sent));
    let now = i128::from(NOW_MS);
    match at {
        at if at > now + 60_000 => Ok(NOW_MS),
        at if at < now - i128::from(RETENTION_MS) => Err(()),
        at => i64::try_from(at).map_err(drop),
    }
}
