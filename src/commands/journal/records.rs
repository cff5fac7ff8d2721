//! Journal records as lines of JSON: events with the API's field names, so that a line can be sent to it again.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::events::{Event, EventType, PostPut, Record};
use crate::journal::FrameRecords;
use crate::ports::Position;

/// RFC 3339 of milliseconds since the epoch.
pub(super) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Prints a frame's records as far as their positions are wanted.
pub(super) fn print(
    frame: &FrameRecords<'_>,
    positions: &RangeInclusive<Position>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let records = match frame.records() {
        Ok(records) => records,
        Err(why) => return writeln!(out, "{}", json!({"position": frame.first, "error": why.to_string()})),
    };
    for (position, record) in (frame.first..).zip(&records).filter(|(position, _)| positions.contains(position)) {
        match record {
            Record::Event(event) => serde_json::to_writer(&mut *out, &Line::of(position, event))?,
            Record::Lost => write!(out, "{}", json!({"position": position, "record": "LOST"}))?,
            Record::Forget(forget) => {
                let (user, keyword, at) = (&forget.user_id, &forget.keyword, rfc3339(forget.at_ms));
                write!(
                    out,
                    "{}",
                    json!({"position": position, "record": "FORGET", "userId": user, "keyword": keyword, "at": at})
                )?;
            }
            Record::PostPut(put) => write!(out, "{}", put_line(position, put))?,
            Record::PostDelete(delete) => {
                let (post, at) = (&delete.post_id, rfc3339(delete.at_ms));
                write!(out, "{}", json!({"position": position, "record": "POST_DELETE", "postId": post, "at": at}))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A post has the API's field names too.
fn put_line(position: Position, put: &PostPut<'_>) -> Value {
    json!({
        "position": position, "record": "POST_PUT", "postId": put.post_id, "userId": put.user_id,
        "content": put.content, "hashtags": put.hashtags, "imageUrls": put.image_urls,
        "createdAt": put.created_at_ms.map(rfc3339), "at": rfc3339(put.at_ms),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    position: Position,
    received_at: String,
    event_id: String,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    timestamp: String,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_count: Option<i64>,
}

impl<'a> Line<'a> {
    fn of(position: Position, event: &'a Event<'_>) -> Line<'a> {
        Line {
            position,
            received_at: rfc3339(event.received_at_ms),
            event_id: event.id.to_string(),
            // What it became only the ledger knows.
            event_type: if event.event_type == EventType::Toggle { "TOGGLE" } else { event.event_type.name() },
            user_id: event.user_id.as_deref(),
            session_id: event.session_id.as_deref(),
            timestamp: rfc3339(event.event_time_ms),
            metadata: Metadata {
                component_id: event.component_id,
                element_id: event.element_id.as_deref(),
                keyword: event.keyword.as_deref(),
                post_id: event.post_id.as_deref(),
                url: event.url.as_deref(),
                referrer: event.referrer.as_deref(),
                result_count: event.result_count,
            },
            properties: event.properties.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}
