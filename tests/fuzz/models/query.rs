//! Query strings and path segments, decoded naively.

use event_tracker::api::probe;

pub(crate) fn check(text: &str) {
    let pieces = text.split('&').filter(|piece| !piece.is_empty());
    let pairs: Option<Vec<(String, String)>> = pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect();
    assert_eq!(probe::query(text), pairs, "{text:?}");
    assert_eq!(probe::segment(text), decode(text), "{text:?}");
}

/// What is before the first percent sign, the byte that it names, and the same of the rest.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        bytes.extend_from_slice(&rest[..at]);
        let digits = std::str::from_utf8(rest.get(at + 1..at + 3)?).ok()?;
        // The number parser takes a sign, which is no digit.
        let value = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.contains('+'))?;
        if value == 0 {
            return None;
        }
        bytes.push(value);
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest);
    String::from_utf8(bytes).ok()
}
