//! Journal records as lines of JSON: events with the API's field names, so that a line can be sent to it again.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use serde_json::json;

use crate::api::{put_line as put_event, rfc3339};
use crate::events::{Erase, Forget, PostDelete, Record, decode_records};
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
        let line = match record {
            Record::Event(event) => {
                let mut line = Vec::new();
                put_event(&mut line, event, true);
                // An exported line, with the position in front of its first field.
                write!(out, "{{\"position\":{position},")?;
                out.write_all(&line[1..])?;
                continue;
            }
            Record::Lost => json!({"position": position, "record": "LOST"}),
            Record::Forget(Forget { user_id, keyword, at_ms }) => {
                let at = rfc3339(*at_ms);
                json!({"position": position, "record": "FORGET", "userId": user_id, "keyword": keyword, "at": at})
            }
            // A post has the API's field names too.
            Record::PostPut(put) => json!({
                "position": position, "record": "POST_PUT", "postId": put.post_id, "userId": put.user_id,
                "content": put.content, "hashtags": put.hashtags, "imageUrls": put.image_urls,
                "createdAt": put.created_at_ms.map(rfc3339), "at": rfc3339(put.at_ms),
            }),
            Record::PostDelete(PostDelete { post_id, at_ms }) => {
                json!({"position": position, "record": "POST_DELETE", "postId": post_id, "at": rfc3339(*at_ms)})
            }
            Record::Erase(Erase { user_id, at_ms }) => {
                json!({"position": position, "record": "ERASE", "userId": user_id, "at": rfc3339(*at_ms)})
            }
        };
        writeln!(out, "{line}")?;
    }
    Ok(())
}
