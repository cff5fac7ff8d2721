//! Journal records as lines of JSON: events with the API's field names, so that a line can be sent to it again.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::api::{put_line as put_event, rfc3339};
use crate::events::{PostPut, Record, decode_records};
use crate::journal::{FrameRecords, Position};

/// All records of a frame can be decoded.
pub(crate) fn check(frame: &FrameRecords<'_>) -> Result<(), String> {
    decode_records(frame.bytes, frame.count).map(drop).map_err(|why| why.to_string())
}

/// Prints a frame's records as far as their positions are wanted.
pub(super) fn print(
    frame: &FrameRecords<'_>,
    positions: &RangeInclusive<Position>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let records = match decode_records(frame.bytes, frame.count) {
        Ok(records) => records,
        Err(why) => return writeln!(out, "{}", json!({"position": frame.first, "error": why.to_string()})),
    };
    for (position, record) in (frame.first..).zip(&records).filter(|(position, _)| positions.contains(position)) {
        match record {
            Record::Event(event) => {
                let mut line = Vec::new();
                put_event(&mut line, event, true);
                // An exported line, with the position in front of its first field.
                write!(out, "{{\"position\":{position},")?;
                out.write_all(line[1..].trim_ascii_end())?;
            }
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
            Record::Erase(erase) => {
                let (user, at) = (&erase.user_id, rfc3339(erase.at_ms));
                write!(out, "{}", json!({"position": position, "record": "ERASE", "userId": user, "at": at}))?;
            }
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
