//! Records as bytes: what the journal's frames hold and sinks read back.
//!
//! A record is `length u32 | kind u8 | body`, little endian. The body of an event is its fixed fields, a bit mask of
//! the optional ones, then those, strings as `length u32 | bytes`. Kinds and bits are never reused; a reader refuses
//! what it does not know, since skipping a record would lose it.

use std::borrow::Cow;
use uuid::Uuid;

use super::{Event, EventType};

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

/// A value as bytes, within the body of a record.
trait Part<'a>: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it off `bytes`, from which it borrows.
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt>;
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Part<'_> for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &mut &[u8]) -> Result<Self, Corrupt> {
                take(bytes, size_of::<Self>()).map(|b| Self::from_le_bytes(b.try_into().expect("as many bytes")))
            }
        }
    )*};
}

numbers!(u8 u16 u32 i64);

impl<'a> Part<'a> for Cow<'a, str> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).expect("a string is bounded by the contract").put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt> {
        let length = u32::take(bytes)? as usize;
        let string = std::str::from_utf8(take(bytes, length)?).map_err(|_| Corrupt("a string is not UTF-8"))?;
        Ok(Cow::Borrowed(string))
    }
}

impl<'a, T: Part<'a>> Part<'a> for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(self.is_some()).put(out);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt> {
        if u8::take(bytes)? != 0 { T::take(bytes).map(Some) } else { Ok(None) }
    }
}

impl<'a, T: Part<'a>> Part<'a> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).expect("a list is bounded by the contract").put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt> {
        let count = u32::take(bytes)?;
        // Not reserved by `count`: a corrupt one could ask for gigabytes.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::take(bytes)?);
        }
        Ok(items)
    }
}

impl<'a> Part<'a> for Event<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.event_type as u8);
        out.push(u8::from(self.id_from_client));
        out.extend_from_slice(self.id.as_bytes());
        self.event_time_ms.put(out);
        self.received_at_ms.put(out);
        let (texts, numbers) = (self.texts(), [self.component_id, self.result_count]);
        let present = texts.iter().map(|text| text.is_some()).chain(numbers.iter().map(Option::is_some));
        present.enumerate().fold(0, |mask, (bit, is_present)| mask | u16::from(is_present) << bit).put(out);
        texts.into_iter().flatten().for_each(|text| text.put(out));
        numbers.into_iter().flatten().for_each(|number| number.put(out));
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt> {
        let event_type = EventType::from_code(u8::take(bytes)?).ok_or(Corrupt("unknown type of event"))?;
        let id_from_client = u8::take(bytes)? != 0;
        let id = Uuid::from_slice(take(bytes, 16)?).map_err(|_| Corrupt("id"))?;
        let (event_time_ms, received_at_ms) = (i64::take(bytes)?, i64::take(bytes)?);
        let mask = u16::take(bytes)?;
        if mask >> 10 != 0 {
            return Err(Corrupt("unknown field of an event"));
        }
        Ok(Event {
            id,
            id_from_client,
            event_type,
            event_time_ms,
            received_at_ms,
            user_id: if_set(mask, 0, bytes)?,
            session_id: if_set(mask, 1, bytes)?,
            element_id: if_set(mask, 2, bytes)?,
            keyword: if_set(mask, 3, bytes)?,
            post_id: if_set(mask, 4, bytes)?,
            url: if_set(mask, 5, bytes)?,
            referrer: if_set(mask, 6, bytes)?,
            properties: if_set(mask, 7, bytes)?,
            component_id: if_set(mask, 8, bytes)?,
            result_count: if_set(mask, 9, bytes)?,
        })
    }
}

fn if_set<'a, T: Part<'a>>(mask: u16, bit: u32, bytes: &mut &'a [u8]) -> Result<Option<T>, Corrupt> {
    if mask >> bit & 1 == 1 { T::take(bytes).map(Some) } else { Ok(None) }
}

/// A record whose body is these fields, in this order: never to be changed.
macro_rules! body {
    ($record:ident { $($field:ident),* }) => {
        impl<'a> Part<'a> for $record<'a> {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(bytes: &mut &'a [u8]) -> Result<Self, Corrupt> {
                $(let $field = Part::take(bytes)?;)*
                Ok($record { $($field),* })
            }
        }
    };
}

body!(Forget { at_ms, user_id, keyword });
body!(PostPut { at_ms, created_at_ms, post_id, user_id, content, hashtags, image_urls });
body!(PostDelete { at_ms, post_id });
body!(Erase { at_ms, user_id });

/// A lost record, encoded: the bytes that the journal writes for one (`journal::LOST_RECORD`).
const LOST_RECORD: [u8; 5] = [1, 0, 0, 0, KIND_LOST];
const KIND_LOST: u8 = 255;

/// The other kinds of records by their numbers: never to be changed.
macro_rules! kinds {
    ($($kind:literal $record:ident),*) => {
        $(impl $record<'_> {
            /// Appends it, encoded as a record, to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                put_record($kind, self, out);
            }
        })*

        impl Record<'_> {
            /// Appends it, encoded, to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Record::$record(record) => record.encode(out),)*
                    Record::Lost => out.extend_from_slice(&LOST_RECORD),
                }
            }
        }

        fn take_body<'a>(kind: u8, body: &mut &'a [u8]) -> Result<Record<'a>, Corrupt> {
            match kind {
                $($kind => Part::take(body).map(Record::$record),)*
                KIND_LOST => Ok(Record::Lost),
                _ => Err(Corrupt("unknown kind of record; a newer version may have written it")),
            }
        }
    };
}

kinds!(1 Event, 2 Forget, 3 PostPut, 4 PostDelete, 5 Erase);

fn put_record<'a>(kind: u8, body: &impl Part<'a>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body.put(out);
    let length = u32::try_from(out.len() - start - 4).expect("a record is bounded by RECORD_BYTES_MAX");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The records of `bytes`, which hold exactly `count`; they borrow from the bytes.
pub fn decode_records(bytes: &[u8], count: usize) -> Result<Vec<Record<'_>>, Corrupt> {
    let mut rest = bytes;
    let mut records = Vec::with_capacity(count);
    while !rest.is_empty() {
        records.push(decode_record(&mut rest)?);
    }
    if records.len() == count { Ok(records) } else { Err(Corrupt("a frame holds other records than it says")) }
}

/// Takes the first record off `bytes`; it borrows from them.
pub fn decode_record<'a>(bytes: &mut &'a [u8]) -> Result<Record<'a>, Corrupt> {
    let length = u32::take(bytes)? as usize;
    let mut body = take(bytes, length)?;
    let kind = u8::take(&mut body)?;
    let record = take_body(kind, &mut body)?;
    if body.is_empty() { Ok(record) } else { Err(Corrupt("a record is longer than its fields")) }
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], Corrupt> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(Corrupt("a record ends early"))?;
    *bytes = rest;
    Ok(head)
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
            event.encode(&mut bytes);
            let forget = Forget { user_id: "u".into(), keyword: event.keyword.clone(), at_ms: event_time_ms };
            forget.encode(&mut bytes);
            let put = PostPut {
                post_id: "p".into(), user_id: "u".into(), content: event.keyword.clone().unwrap_or_default(),
                hashtags: event.url.iter().chain(&event.referrer).cloned().collect(), image_urls: vec![],
                created_at_ms: component_id, at_ms: received_at_ms,
            };
            let delete = PostDelete { post_id: "p".into(), at_ms: event_time_ms };
            let erase = Erase { user_id: "u".into(), at_ms: event_time_ms };
            let rest_of_them = [Record::PostPut(put), Record::PostDelete(delete), Record::Erase(erase)];
            rest_of_them.iter().for_each(|record| record.encode(&mut bytes));
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
