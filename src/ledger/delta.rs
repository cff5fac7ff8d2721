//! Counts of batches that are not in the rollups yet.
//!
//! Every batch appends its counts by minute to `rollup_delta`, a row per dimension. The compactor adds many of them at once;
//! exact reads sum the pending ones. The bytes are opaque to SQL: the server then neither parses nor groups them, and a read
//! takes those of its dimensions only.

use crate::events::Dimension;
use crate::ports::StoreError;

use super::sql::{Sql, joined};

/// Appends one count: minute, count and length of the name as varints (zigzag), then the name.
pub fn put(out: &mut Vec<u8>, minute: i64, key: &str, count: i64) {
    put_number(out, minute);
    put_number(out, count);
    put_number(out, key.len() as i64);
    out.extend_from_slice(key.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number >> 1).cast_signed() ^ -((number & 1).cast_signed()));
        }
    }
    None
}

/// Hands over minute, name and count of each. `None`: the bytes are damaged.
fn decode<'b>(mut bytes: &'b [u8], each: &mut impl FnMut(i64, &'b str, i64)) -> Option<()> {
    while !bytes.is_empty() {
        let (minute, count) = (take_number(&mut bytes)?, take_number(&mut bytes)?);
        let length = usize::try_from(take_number(&mut bytes)?).ok()?;
        let (key, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        each(minute, std::str::from_utf8(key).ok()?, count);
    }
    Some(())
}

/// As [`decode`], with an error for people.
pub fn read<'b>(bytes: &'b [u8], mut each: impl FnMut(i64, &'b str, i64)) -> Result<(), StoreError> {
    decode(bytes, &mut each).ok_or_else(|| StoreError::Fatal("a row of rollup_delta is damaged".to_owned()))
}

/// Hands over dimension, minute, name and count of everything pending in some dimensions.
pub fn pending(
    sql: &mut dyn Sql,
    dimensions: impl IntoIterator<Item = Dimension>,
    mut each: impl FnMut(u8, i64, &str, i64),
) -> Result<(), StoreError> {
    let codes = joined(dimensions.into_iter().map(|dimension| dimension as i64));
    let query = format!("SELECT dimension, counts FROM rollup_delta WHERE dimension IN ({codes})");
    sql.each(&query, &[], &mut |row| {
        let dimension = row.int(0) as u8;
        read(row.bytes(1), |minute, key, count| each(dimension, minute, key, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_back_and_damage_is_an_error() {
        let counts = [(29_922_390, "고양이", 3), (0, "", -1), (i64::MAX, "a\tb", i64::MIN)];
        let mut bytes = Vec::new();
        counts.iter().for_each(|(minute, key, count)| put(&mut bytes, *minute, key, *count));
        let mut found = Vec::new();
        read(&bytes, |minute, key, count| found.push((minute, key, count))).unwrap();
        assert_eq!(found, counts);
        assert!(read(&bytes[..bytes.len() - 1], |_, _, _| ()).is_err());
        assert!(read(&[0xff; 20], |_, _, _| ()).is_err());
    }
}
