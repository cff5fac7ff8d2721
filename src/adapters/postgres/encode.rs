//! Rows as bytes of PostgreSQL's binary formats: arrays for `unnest`, and COPY.
//!
//! Encoded by the caller, once, into buffers that a connection's thread can own; the client only copies them.

use std::error::Error;

use postgres::types::{IsNull, ToSql, Type};
use postgres_types::private::BytesMut;
use postgres_types::to_sql_checked;

use crate::ledger::batch::draft::StoredRow;

/// Columns of `events`, in the order in which they are sent. Those of a row come first; `stream` is that of the batch.
pub(super) const EVENT_COLUMNS: &str = "event_id, event_type, user_id, session_id, component_id, element_id, keyword, \
     post_id, url, referrer, result_count, properties, event_time, received_at, page, keyword_key, position, stream";
const COLUMNS: usize = 17;
const COLUMN_TYPES: [Type; COLUMNS] = [
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::JSON,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
];
/// 2000-01-01, where PostgreSQL's time begins, in milliseconds of ours.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// A value as it is sent.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Null,
    Bytes(&'a [u8]),
    Small(i16),
    Big(i64),
}

impl<'a> Field<'a> {
    pub(super) fn text(text: &'a str) -> Field<'a> {
        Field::Bytes(text.as_bytes())
    }

    /// A timestamptz.
    pub(super) fn time(ms: i64) -> Field<'a> {
        Field::Big((ms - POSTGRES_EPOCH_MS) * 1_000)
    }

    pub(super) fn text_or_null(text: Option<&'a str>) -> Field<'a> {
        text.map_or(Field::Null, Field::text)
    }

    fn put(self, out: &mut Vec<u8>) {
        let length = match self {
            Field::Null => return out.extend_from_slice(&(-1i32).to_be_bytes()),
            Field::Bytes(bytes) => bytes.len(),
            Field::Small(_) => 2,
            Field::Big(_) => 8,
        };
        let length = i32::try_from(length).expect("a record is bounded by RECORD_BYTES_MAX");
        out.extend_from_slice(&length.to_be_bytes());
        match self {
            Field::Null => {}
            Field::Bytes(bytes) => out.extend_from_slice(bytes),
            Field::Small(number) => out.extend_from_slice(&number.to_be_bytes()),
            Field::Big(number) => out.extend_from_slice(&number.to_be_bytes()),
        }
    }
}

fn fields<'a>(row: &'a StoredRow<'_>) -> [Field<'a>; COLUMNS] {
    let event = row.event;
    [
        Field::Bytes(event.id.as_bytes()),
        Field::text(row.event_type.name()),
        Field::text_or_null(event.user_id.as_deref()),
        Field::text_or_null(event.session_id.as_deref()),
        event.component_id.map_or(Field::Null, Field::Big),
        Field::text_or_null(event.element_id.as_deref()),
        Field::text_or_null(event.keyword.as_deref()),
        Field::text_or_null(event.post_id.as_deref()),
        Field::text_or_null(event.url.as_deref()),
        Field::text_or_null(event.referrer.as_deref()),
        event.result_count.map_or(Field::Null, Field::Big),
        Field::text_or_null(event.properties.as_deref()),
        Field::time(event.event_time_ms),
        Field::time(event.received_at_ms),
        Field::text_or_null(row.page.as_deref()),
        Field::text_or_null(row.keyword_key.as_deref()),
        Field::Big(row.position.cast_signed()),
    ]
}

/// A whole COPY of rows of the journal `number`, header and trailer included.
pub(super) fn copy_of(rows: &[StoredRow<'_>], number: i16) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 256 + 32);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    out.extend_from_slice(&[0; 8]);
    for row in rows {
        out.extend_from_slice(&(COLUMNS as i16 + 1).to_be_bytes());
        for field in fields(row).into_iter().chain([Field::Small(number)]) {
            field.put(&mut out);
        }
    }
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out
}

/// Rows as one array a column.
pub(super) fn arrays_of(rows: &[StoredRow<'_>]) -> Vec<Array> {
    let mut arrays: Vec<Array> = COLUMN_TYPES.iter().map(Array::new).collect();
    for row in rows {
        for (array, field) in arrays.iter_mut().zip(fields(row)) {
            array.push(field);
        }
    }
    arrays
}

/// A one-dimensional array in its binary format.
#[derive(Debug)]
pub(super) struct Array {
    bytes: Vec<u8>,
    count: i32,
}

/// Dimensions, has-nulls flag, type of the elements, length, lower bound.
const ARRAY_HEADER_BYTES: usize = 20;

impl Array {
    pub(super) fn new(element: &Type) -> Array {
        let mut bytes = Vec::with_capacity(256);
        for word in [1, 1, element.oid().cast_signed(), 0, 1] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        debug_assert_eq!(bytes.len(), ARRAY_HEADER_BYTES);
        Array { bytes, count: 0 }
    }

    /// Makes one of `fields`.
    pub(super) fn of<'a>(element: &Type, fields: impl Iterator<Item = Field<'a>>) -> Array {
        let mut array = Array::new(element);
        fields.for_each(|field| array.push(field));
        array
    }

    /// Makes one of texts.
    pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Array {
        Array::of(&Type::TEXT, texts.map(Field::text))
    }

    /// Makes one of bigints.
    pub(super) fn bigs(numbers: impl Iterator<Item = i64>) -> Array {
        Array::of(&Type::INT8, numbers.map(Field::Big))
    }

    pub(super) fn push(&mut self, field: Field<'_>) {
        field.put(&mut self.bytes);
        self.count += 1;
        self.bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
    }
}

impl ToSql for Array {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
