//! Records as bytes: what the journal's frames hold and sinks read back.
//!
//! A record is `length u32 | kind u8 | body`, little endian. The body of an event is its fixed fields, a bit mask of
//! the optional ones, then those, strings as `length u32 | bytes`. Kinds and bits are never reused; a reader refuses
//! what it does not know, since skipping a record would lose it.

use std::borrow::Cow;
use uuid::Uuid;

use super::{Event, EventType};

const KIND_EVENT: u8 = 1;
const KIND_FORGET: u8 = 2;
const KIND_POST_PUT: u8 = 3;
const KIND_POST_DELETE: u8 = 4;
const KIND_ERASE: u8 = 5;
const KIND_LOST: u8 = 255;

/// One entry of the journal: every write of the system, in one order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    Event(Event<'a>),
    Forget(Forget<'a>),
    PostPut(PostPut<'a>),
    PostDelete(PostDelete<'a>),
    Erase(Erase<'a>),
    /// Stands where a record was that is lost: damage of the journal, salvaged. Nothing but its position is known; every
    /// sink passes it, counts it and says so.
    Lost,
}

impl Record<'_> {
    /// When it came in; milliseconds since the epoch.
    pub fn received_ms(&self) -> Option<i64> {
        match self {
            Record::Event(event) => Some(event.received_at_ms),
            Record::Forget(Forget { at_ms, .. })
            | Record::PostPut(PostPut { at_ms, .. })
            | Record::PostDelete(PostDelete { at_ms, .. })
            | Record::Erase(Erase { at_ms, .. }) => Some(*at_ms),
            Record::Lost => None,
        }
    }
}

/// Removes one or all of a user's recent searches that happened up to `at_ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Forget<'a> {
    pub user_id: Cow<'a, str>,
    /// `None`: all of them.
    pub keyword: Option<Cow<'a, str>>,
    pub at_ms: i64,
}

/// Makes a post, or replaces the one of that id.
#[derive(Clone, Debug, PartialEq)]
pub struct PostPut<'a> {
    pub post_id: Cow<'a, str>,
    pub user_id: Cow<'a, str>,
    pub content: Cow<'a, str>,
    /// As [`super::fold_hashtag`] leaves them, each once.
    pub hashtags: Vec<Cow<'a, str>>,
    pub image_urls: Vec<Cow<'a, str>>,
    /// When the post was made; `None`: that of the post it replaces, or else `at_ms`.
    pub created_at_ms: Option<i64>,
    /// When the record was made.
    pub at_ms: i64,
}

impl PostPut<'_> {
    /// When it counts as having happened: what is said to have been made earlier is as old as that.
    pub fn happened_ms(&self) -> i64 {
        self.at_ms.min(self.created_at_ms.unwrap_or(self.at_ms))
    }
}

/// Removes a post, if it is there, and its likes.
#[derive(Clone, Debug, PartialEq)]
pub struct PostDelete<'a> {
    pub post_id: Cow<'a, str>,
    pub at_ms: i64,
}

/// Removes a person: what happened up to `at_ms` names them no more, whenever and wherever it comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct Erase<'a> {
    pub user_id: Cow<'a, str>,
    pub at_ms: i64,
}

/// A record that cannot be read: a newer program wrote it, or the checksum lies.
#[derive(Debug, thiserror::Error)]
#[error("a journal record cannot be read: {0}")]
pub struct Corrupt(pub &'static str);

/// Appends an event, encoded, to `out`.
pub fn encode_event(event: &Event<'_>, out: &mut Vec<u8>) {
    let start = begin(KIND_EVENT, out);
    out.push(event.event_type as u8);
    out.push(u8::from(event.id_from_client));
    out.extend_from_slice(event.id.as_bytes());
    out.extend_from_slice(&event.event_time_ms.to_le_bytes());
    out.extend_from_slice(&event.received_at_ms.to_le_bytes());
    let strings = event.texts();
    let numbers = [event.component_id, event.result_count];
    let mut mask = 0u16;
    for (bit, present) in strings.iter().map(|s| s.is_some()).chain(numbers.iter().map(|n| n.is_some())).enumerate() {
        mask |= u16::from(present) << bit;
    }
    out.extend_from_slice(&mask.to_le_bytes());
    for string in strings.into_iter().flatten() {
        put_string(string, out);
    }
    for number in numbers.into_iter().flatten() {
        out.extend_from_slice(&number.to_le_bytes());
    }
    finish(start, out);
}

/// Appends the removal of recent searches, encoded, to `out`.
pub fn encode_forget(forget: &Forget<'_>, out: &mut Vec<u8>) {
    let start = begin(KIND_FORGET, out);
    out.extend_from_slice(&forget.at_ms.to_le_bytes());
    put_string(&forget.user_id, out);
    out.push(u8::from(forget.keyword.is_some()));
    if let Some(keyword) = &forget.keyword {
        put_string(keyword, out);
    }
    finish(start, out);
}

/// Appends a post, encoded, to `out`.
pub fn encode_post_put(put: &PostPut<'_>, out: &mut Vec<u8>) {
    let start = begin(KIND_POST_PUT, out);
    out.extend_from_slice(&put.at_ms.to_le_bytes());
    out.push(u8::from(put.created_at_ms.is_some()));
    if let Some(created_at_ms) = put.created_at_ms {
        out.extend_from_slice(&created_at_ms.to_le_bytes());
    }
    put_string(&put.post_id, out);
    put_string(&put.user_id, out);
    put_string(&put.content, out);
    put_strings(&put.hashtags, out);
    put_strings(&put.image_urls, out);
    finish(start, out);
}

/// Appends the removal of a post, encoded, to `out`.
pub fn encode_post_delete(delete: &PostDelete<'_>, out: &mut Vec<u8>) {
    let start = begin(KIND_POST_DELETE, out);
    out.extend_from_slice(&delete.at_ms.to_le_bytes());
    put_string(&delete.post_id, out);
    finish(start, out);
}

/// Appends the erasure of a person, encoded, to `out`.
pub fn encode_erase(erase: &Erase<'_>, out: &mut Vec<u8>) {
    let start = begin(KIND_ERASE, out);
    out.extend_from_slice(&erase.at_ms.to_le_bytes());
    put_string(&erase.user_id, out);
    finish(start, out);
}

/// Appends any record, encoded, to `out`.
pub fn encode_record(record: &Record<'_>, out: &mut Vec<u8>) {
    match record {
        Record::Event(event) => encode_event(event, out),
        Record::Forget(forget) => encode_forget(forget, out),
        Record::PostPut(put) => encode_post_put(put, out),
        Record::PostDelete(delete) => encode_post_delete(delete, out),
        Record::Erase(erase) => encode_erase(erase, out),
        Record::Lost => out.extend_from_slice(&LOST_RECORD),
    }
}

/// A lost record, encoded: all are the same bytes.
pub const LOST_RECORD: [u8; 5] = [1, 0, 0, 0, KIND_LOST];

/// Takes the first record off `bytes`; it borrows from them.
pub fn decode_record<'a>(bytes: &mut &'a [u8]) -> Result<Record<'a>, Corrupt> {
    let length = take_u32(bytes)? as usize;
    let mut body = take(bytes, length)?;
    let record = match take(&mut body, 1)?[0] {
        KIND_EVENT => Record::Event(decode_event(&mut body)?),
        KIND_FORGET => Record::Forget(decode_forget(&mut body)?),
        KIND_POST_PUT => Record::PostPut(decode_post_put(&mut body)?),
        KIND_POST_DELETE => Record::PostDelete(decode_post_delete(&mut body)?),
        KIND_ERASE => Record::Erase(decode_erase(&mut body)?),
        KIND_LOST => Record::Lost,
        _ => return Err(Corrupt("unknown kind of record; a newer version may have written it")),
    };
    if body.is_empty() { Ok(record) } else { Err(Corrupt("a record is longer than its fields")) }
}

fn decode_event<'a>(body: &mut &'a [u8]) -> Result<Event<'a>, Corrupt> {
    let event_type = EventType::from_code(take(body, 1)?[0]).ok_or(Corrupt("unknown type of event"))?;
    let id_from_client = take(body, 1)?[0] != 0;
    let id = Uuid::from_slice(take(body, 16)?).map_err(|_| Corrupt("id"))?;
    let event_time_ms = take_i64(body)?;
    let received_at_ms = take_i64(body)?;
    let mask = u16::from_le_bytes(take_array(body)?);
    if mask >> 10 != 0 {
        return Err(Corrupt("unknown field of an event"));
    }
    let mut bit = 0;
    let mut present = || {
        bit += 1;
        mask >> (bit - 1) & 1 == 1
    };
    let mut string = |body: &mut &'a [u8]| if present() { take_string(body).map(Some) } else { Ok(None) };
    Ok(Event {
        id,
        id_from_client,
        event_type,
        event_time_ms,
        received_at_ms,
        user_id: string(body)?,
        session_id: string(body)?,
        element_id: string(body)?,
        keyword: string(body)?,
        post_id: string(body)?,
        url: string(body)?,
        referrer: string(body)?,
        properties: string(body)?,
        component_id: if mask >> 8 & 1 == 1 { Some(take_i64(body)?) } else { None },
        result_count: if mask >> 9 & 1 == 1 { Some(take_i64(body)?) } else { None },
    })
}

fn decode_forget<'a>(body: &mut &'a [u8]) -> Result<Forget<'a>, Corrupt> {
    let at_ms = take_i64(body)?;
    let user_id = take_string(body)?;
    let keyword = if take(body, 1)?[0] != 0 { Some(take_string(body)?) } else { None };
    Ok(Forget { user_id, keyword, at_ms })
}

fn decode_post_put<'a>(body: &mut &'a [u8]) -> Result<PostPut<'a>, Corrupt> {
    let at_ms = take_i64(body)?;
    let created_at_ms = if take(body, 1)?[0] != 0 { Some(take_i64(body)?) } else { None };
    Ok(PostPut {
        post_id: take_string(body)?,
        user_id: take_string(body)?,
        content: take_string(body)?,
        hashtags: take_strings(body)?,
        image_urls: take_strings(body)?,
        created_at_ms,
        at_ms,
    })
}

fn decode_post_delete<'a>(body: &mut &'a [u8]) -> Result<PostDelete<'a>, Corrupt> {
    let at_ms = take_i64(body)?;
    Ok(PostDelete { post_id: take_string(body)?, at_ms })
}

fn decode_erase<'a>(body: &mut &'a [u8]) -> Result<Erase<'a>, Corrupt> {
    let at_ms = take_i64(body)?;
    Ok(Erase { user_id: take_string(body)?, at_ms })
}

fn begin(kind: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    start
}

fn finish(start: usize, out: &mut [u8]) {
    let length = u32::try_from(out.len() - start - 4).expect("a record is bounded by RECORD_BYTES_MAX");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_string(string: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(string.len()).expect("a string is bounded by the contract");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}

fn put_strings(strings: &[Cow<'_, str>], out: &mut Vec<u8>) {
    let count = u32::try_from(strings.len()).expect("a list is bounded by the contract");
    out.extend_from_slice(&count.to_le_bytes());
    strings.iter().for_each(|string| put_string(string, out));
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], Corrupt> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(Corrupt("a record ends early"))?;
    *bytes = rest;
    Ok(head)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Corrupt> {
    take(bytes, N).map(|b| b.try_into().expect("take gives N bytes"))
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Corrupt> {
    take_array(bytes).map(u32::from_le_bytes)
}

fn take_i64(bytes: &mut &[u8]) -> Result<i64, Corrupt> {
    take_array(bytes).map(i64::from_le_bytes)
}

fn take_string<'a>(bytes: &mut &'a [u8]) -> Result<Cow<'a, str>, Corrupt> {
    let length = take_u32(bytes)? as usize;
    let string = std::str::from_utf8(take(bytes, length)?).map_err(|_| Corrupt("a string is not UTF-8"))?;
    Ok(Cow::Borrowed(string))
}

/// Grows with what is there, not with what the count says.
fn take_strings<'a>(bytes: &mut &'a [u8]) -> Result<Vec<Cow<'a, str>>, Corrupt> {
    let count = take_u32(bytes)?;
    let mut strings = Vec::new();
    for _ in 0..count {
        strings.push(take_string(bytes)?);
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        proptest::option::of("\\PC{0,40}".prop_map(Cow::Owned))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn an_event_reads_back_as_it_was_written(
            id in any::<u128>(), client in any::<bool>(), code in 1u8..=6,
            user_id in text(), session_id in text(), element_id in text(), keyword in text(), post_id in text(),
            url in text(), referrer in text(), properties in text(),
            component_id in any::<Option<i64>>(), result_count in any::<Option<i64>>(),
            event_time_ms in any::<i64>(), received_at_ms in any::<i64>(),
        ) {
            let event = Event {
                id: Uuid::from_u128(id), id_from_client: client, event_type: EventType::from_code(code).unwrap(),
                user_id, session_id, component_id, element_id, keyword, post_id, url, referrer, result_count,
                properties, event_time_ms, received_at_ms,
            };
            let mut bytes = Vec::new();
            encode_event(&event, &mut bytes);
            let forget = Forget { user_id: "u".into(), keyword: event.keyword.clone(), at_ms: event_time_ms };
            encode_forget(&forget, &mut bytes);
            let put = PostPut {
                post_id: "p".into(), user_id: "u".into(), content: event.keyword.clone().unwrap_or_default(),
                hashtags: event.url.iter().chain(&event.referrer).cloned().collect(), image_urls: vec![],
                created_at_ms: component_id, at_ms: received_at_ms,
            };
            let delete = PostDelete { post_id: "p".into(), at_ms: event_time_ms };
            let erase = Erase { user_id: "u".into(), at_ms: event_time_ms };
            let rest_of_them = [Record::PostPut(put), Record::PostDelete(delete), Record::Erase(erase)];
            rest_of_them.iter().for_each(|record| encode_record(record, &mut bytes));
            bytes.extend_from_slice(&LOST_RECORD);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(decode_record(&mut rest).unwrap(), Record::Event(event));
            prop_assert_eq!(decode_record(&mut rest).unwrap(), Record::Forget(forget));
            for record in rest_of_them {
                prop_assert_eq!(decode_record(&mut rest).unwrap(), record);
            }
            prop_assert_eq!(decode_record(&mut rest).unwrap(), Record::Lost);
            prop_assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                let mut short = &bytes[..cut];
                while decode_record(&mut short).is_ok() {}
            }
        }
    }
}
