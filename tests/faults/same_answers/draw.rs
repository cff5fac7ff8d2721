//! What is drawn: few names, so that operations meet, in all the spellings that must come to the same.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::model::{Said, Sent};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

pub(crate) const USERS: [&str; 5] = ["1", "22", "ann", "bob b", "zoë"];
pub(crate) const POSTS: [&str; 6] = ["1", "42", "p1", "p2", "a/b", "글"];
/// As typed; fourteen things.
pub(crate) const KEYWORDS: [&str; 26] = [
    "ΟΔΟΣ",
    "οδος",
    "Straße",
    "STRASSE",
    "oak",
    "Oak",
    " OAK\t",
    "#oak",
    "oak desk",
    "Oak  Desk",
    "고양이",
    // The same in NFD.
    "\u{1100}\u{1169}\u{110B}\u{1163}\u{11BC}\u{110B}\u{1175}",
    "#고양이",
    "이",
    "café",
    "CAFE\u{301}",
    "ÉCOLE",
    "100%",
    "a_b",
    "\\",
    "'it'",
    "\u{1F333}",
    "없는말",
    "w1",
    "W2",
    "w3",
];
pub(crate) const HASHTAGS: [&str; 11] =
    ["#Oak", "oak", "고양이", "#고양이", "ÉCOLE", "E\u{301}cole", " #a b ", "#", "", "100%", "w1"];
const PIECES: [&str; 10] = [
    "η ΟΔΌΣ, ΟΔΟΣ; die Straße",
    "우리집 고양이가 잔다",
    "고양이",
    "An OAK chair",
    "naïve CAFE\u{301}",
    "100% cotton a_b axb",
    "C:\\temp 'it' \"so\"",
    "\u{1F333} 이 글",
    "w1 oak desk",
    "plain",
];
pub(crate) const URLS: [&str; 10] = [
    "/b/%EA%B8%80",
    "/b/%ea%b8%80#x",
    "/a?next=https://example.org/b",
    "/a?x=1",
    "https://example.org/a#f",
    "https://example.org",
    "?q",
    "/b/글?q=/a",
    "https://example.org/b/글",
    "/A",
];

pub(crate) fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}

pub(crate) fn user(random: &mut StdRng) -> String {
    one(random, &USERS).to_owned()
}

/// A keyword as it is kept: trimmed, NFC.
pub(crate) fn kept(typed: &str) -> String {
    typed.trim().nfc().collect()
}

/// An id as clients send it: a whole number now and then.
pub(crate) fn id_value(random: &mut StdRng, id: &str) -> Value {
    match id.parse::<i64>() {
        Ok(number) if random.random_bool(0.5) => json!(number),
        _ => json!(id),
    }
}

/// For a path or a query. Ids that servers made stay as they are: they are replaced by those of each program.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// How long ago something happened, by the windows that should hold it.
fn ago(random: &mut StdRng) -> i64 {
    let within = match random.random_range(0..9) {
        0 => 0..10_000,
        1 => 0..10 * MINUTE,
        2 => 0..50 * MINUTE,
        3 => 65 * MINUTE..3 * HOUR,
        4 => 3 * HOUR..24 * HOUR,
        5 => 20 * HOUR..2 * DAY,
        6 => 2 * DAY..7 * DAY,
        7 => 7 * DAY..10 * DAY,
        _ => 10 * DAY..40 * DAY,
    };
    random.random_range(within)
}

/// When an event says that it happened, written into it.
fn say(random: &mut StdRng, now: i64, event: &mut Value, is_of_nobody: bool) -> Said {
    match random.random_range(0..20) {
        0..9 => Said::Nothing,
        9..16 => {
            let at = now - ago(random);
            let text = random.random_bool(0.5);
            event["timestamp"] = if text { json!(super::model::rfc3339(at)) } else { json!(at) };
            Said::At(at)
        }
        16 => {
            // A clock that is a little ahead.
            event["timestamp"] = json!(now + 20_000);
            Said::At(now + 20_000)
        }
        17 => {
            // Too far ahead: as it comes in.
            event["timestamp"] = json!(now + 10 * MINUTE);
            Said::Nothing
        }
        18 => {
            // A clock that is wrong by a day, and says so.
            event["timestamp"] = json!(now - DAY);
            event["sentAt"] = json!(now - DAY);
            Said::Nothing
        }
        // Whole minutes, and nobody's: it must be clear on which side of a minute and of an erasure it lies.
        _ if is_of_nobody => {
            event["timestamp"] = json!(now + DAY - 2 * HOUR);
            event["sentAt"] = json!(now + DAY);
            Said::Ago(2 * HOUR)
        }
        _ => Said::Nothing,
    }
}

/// An event that will be taken, as it is sent and as it is understood.
pub(crate) fn event(random: &mut StdRng, now: i64, ids: &[Uuid], posts: &[String]) -> (Value, Sent) {
    let kind = ["CLICK", "CLICK", "PAGE_VIEW", "PAGE_VIEW", "SEARCH", "SEARCH", "LIKE", "UNLIKE"];
    let mut sent = Sent { kind: kind[random.random_range(0..kind.len())], ..Sent::default() };
    let typed = if random.random_bool(0.2) { sent.kind.to_lowercase() } else { sent.kind.to_owned() };
    let mut json = json!({"eventType":typed,"unknown":[1],"metadata":{}});
    if sent.kind.ends_with("LIKE") || random.random_bool(0.8) {
        let user = user(random);
        json["userId"] = id_value(random, &user);
        sent.user = Some(user);
    }
    if sent.user.is_none() || random.random_bool(0.3) {
        let session = format!("s{}", random.random_range(0..3));
        json["sessionId"] = json!(session);
        sent.session = Some(session);
    }
    if random.random_bool(0.3) {
        let id = ids[random.random_range(0..ids.len())];
        let text = id.to_string();
        json["eventId"] = json!(if random.random_bool(0.3) { text.to_uppercase() } else { text });
        sent.id = Some(id);
    }
    sent.said = say(random, now, &mut json, sent.user.is_none());
    metadata(random, &mut json["metadata"], &mut sent, posts);
    if random.random_bool(0.2) {
        let properties = json!({"a":[1, null, {"b":random.random_range(0..3)}],"글":"x"});
        json["properties"] = properties.clone();
        sent.properties = Some(properties);
    }
    (json, sent)
}

/// What the type needs, and now and then what it does not need.
fn metadata(random: &mut StdRng, json: &mut Value, sent: &mut Sent, posts: &[String]) {
    const NOW_AND_THEN: f64 = 0.15;
    let kind = sent.kind;
    let is_by_element = kind == "CLICK" && random.random_bool(0.2);
    let often = |kinds: &[(&str, f64)]| {
        kinds.iter().find(|(name, _)| *name == kind).map_or(NOW_AND_THEN, |(_, chance)| *chance)
    };
    if !is_by_element && random.random_bool(often(&[("CLICK", 1.0), ("PAGE_VIEW", 0.5)])) {
        let component = random.random_range(1..5);
        json["componentId"] = json!(component);
        sent.component = Some(component);
    }
    if is_by_element || random.random_bool(NOW_AND_THEN) {
        json["elementId"] = json!("#buy");
        sent.element = Some("#buy".to_owned());
    }
    if random.random_bool(often(&[("PAGE_VIEW", 1.0)])) {
        let url = one(random, &URLS);
        json["url"] = json!(url);
        sent.url = Some(url.to_owned());
    }
    if random.random_bool(often(&[("SEARCH", 1.0)])) {
        let typed = one(random, &KEYWORDS);
        json["keyword"] = json!(typed);
        sent.keyword = Some(kept(typed));
    }
    if random.random_bool(often(&[("LIKE", 1.0), ("UNLIKE", 1.0), ("CLICK", 0.6), ("PAGE_VIEW", 0.6)])) {
        let post = posts[random.random_range(0..posts.len())].clone();
        json["postId"] = id_value(random, &post);
        sent.post = Some(post);
    }
    if random.random_bool(often(&[("SEARCH", 0.6)])) {
        let results = random.random_range(0..3);
        json["resultCount"] = json!(results);
        sent.results = Some(results);
    }
    if random.random_bool(NOW_AND_THEN) {
        json["referrer"] = json!("https://example.org/ref?a=b");
        sent.referrer = Some("https://example.org/ref?a=b".to_owned());
    }
}

/// An event that is refused, with the tag and the field that say why.
pub(crate) fn refused_event(random: &mut StdRng) -> (Value, &'static str, Option<&'static str>) {
    let all = [
        (json!({"eventType":"TOGGLE","userId":1,"metadata":{"postId":"p1"}}), "unknown_event_type", "eventType"),
        (json!({"userId":1}), "missing_field", "eventType"),
        (json!({"eventType":"CLICK","userId":1}), "missing_field", "metadata.componentId"),
        (json!({"eventType":"PAGE_VIEW","userId":1,"metadata":{"referrer":"/a"}}), "missing_field", "metadata.url"),
        (json!({"eventType":"SEARCH","userId":1,"metadata":{"keyword":" \t"}}), "invalid_field", "metadata.keyword"),
        (json!({"eventType":"SEARCH","metadata":{"keyword":"oak"}}), "missing_field", "userId"),
        (json!({"eventType":"LIKE","sessionId":"s","metadata":{"postId":"p1"}}), "missing_field", "userId"),
        (json!({"eventType":"UNLIKE","userId":1,"metadata":{}}), "missing_field", "metadata.postId"),
        (json!({"eventType":"CLICK","userId":"undefined","metadata":{"componentId":1}}), "invalid_field", "userId"),
        (json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":0}}), "invalid_field", "metadata.componentId"),
        (
            json!({"eventType":"CLICK","userId":1,"eventId":"x","metadata":{"componentId":1}}),
            "invalid_field",
            "eventId",
        ),
        (
            json!({"eventType":"CLICK","userId":1,"timestamp":1,"metadata":{"componentId":1}}),
            "invalid_field",
            "timestamp",
        ),
        (json!({"eventType":"CLICK","userId":1,"timestamp":1e11,"metadata":{"componentId":1}}), "too_old", "timestamp"),
        (
            json!({"eventType":"CLICK","userId":1,"properties":[],"metadata":{"componentId":1}}),
            "invalid_field",
            "properties",
        ),
        (json!({"eventType":"CLICK","userId":"a\u{0}","metadata":{"componentId":1}}), "invalid_field", "userId"),
        (json!({"eventType":"CLICK","userId":1,"metadata":[1]}), "invalid_json", ""),
    ];
    let (event, tag, field) = all[random.random_range(0..all.len())].clone();
    (event, tag, Some(field).filter(|field| !field.is_empty()))
}

/// A post without its id.
pub(crate) fn post(random: &mut StdRng, now: i64) -> Value {
    let content: Vec<&str> = (0..random.random_range(1..4)).map(|_| one(random, &PIECES)).collect();
    let hashtags: Vec<&str> = (0..random.random_range(0..4)).map(|_| one(random, &HASHTAGS)).collect();
    let user = user(random);
    let mut post = json!({"userId":user,"content":content.join(" "),"hashtags":hashtags});
    if random.random_bool(0.3) {
        post["imageUrls"] = json!(["https://example.org/1.png", "/2.png"]);
    }
    if random.random_bool(0.4) {
        // Few days, so that some posts were made in the same moment.
        post["createdAt"] = json!(now - now.rem_euclid(DAY) - DAY * random.random_range(1..4) + 5);
    }
    post
}

/// An end of a range of time, of any kind; not later than some minutes from now.
pub(crate) fn edge(random: &mut StdRng, now: i64, known: &[i64]) -> i64 {
    match random.random_range(0..7) {
        0 => now - now.rem_euclid(HOUR) - HOUR * random.random_range(0..80),
        1 => now - now.rem_euclid(MINUTE) - MINUTE * random.random_range(0..150),
        2 => now - now.rem_euclid(DAY) - DAY * random.random_range(0..41),
        3 => now + 2 * MINUTE,
        4 if !known.is_empty() => known[random.random_range(0..known.len())] + random.random_range(0..2),
        5 => now - random.random_range(0..2 * DAY),
        _ => now - random.random_range(0..41 * DAY),
    }
}
