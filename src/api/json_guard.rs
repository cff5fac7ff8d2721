//! What a JSON parser lets through and a store does not: nesting, U+0000, unpaired surrogates.
//!
//! One pass over the bytes of text that is known to be UTF-8; the parser itself judges the grammar.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Depth,
    Nul,
    Surrogate,
}

/// Refuses text with more than `depth_max` nested arrays and objects, before anything recurses into it.
pub(super) fn check_depth(json: &str, depth_max: usize) -> Result<(), Refusal> {
    let bytes = json.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(Refusal::Depth);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Refuses an object whose texts PostgreSQL cannot return as text. Numbers are kept as they are written.
pub(super) fn check_object(json: &str, depth_max: usize) -> Result<(), Refusal> {
    check_depth(json, depth_max)?;
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at + 1);
                check_escapes(&bytes[at + 1..end.min(bytes.len())])?;
                at = end + 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

fn check_escapes(contents: &[u8]) -> Result<(), Refusal> {
    let mut at = 0;
    let mut high = false;
    while at < contents.len() {
        let unit = match contents[at..] {
            [b'\\', b'u', a, b, c, d, ..] => hex([a, b, c, d]),
            _ => None,
        };
        match unit {
            Some(0) => return Err(Refusal::Nul),
            Some(0xDC00..=0xDFFF) if high => high = false,
            Some(0xDC00..=0xDFFF) => return Err(Refusal::Surrogate),
            _ if high => return Err(Refusal::Surrogate),
            Some(0xD800..=0xDBFF) => high = true,
            _ => {}
        }
        at += match (unit, contents[at]) {
            (Some(_), _) => 6,
            (None, b'\\') => 2,
            _ => 1,
        };
    }
    if high { Err(Refusal::Surrogate) } else { Ok(()) }
}

fn hex(digits: [u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_cannot_be_stored_are_refused_and_numbers_are_not() {
        for (json, expected) in [
            (r#"{"a":"\\u0000"}"#, Ok(())),
            (r#"{"a":"\u0000"}"#, Err(Refusal::Nul)),
            (r#"{"\u0000":1}"#, Err(Refusal::Nul)),
            (r#"{"a":"\ud83d\ude00"}"#, Ok(())),
            (r#"{"a":"\ud83d"}"#, Err(Refusal::Surrogate)),
            (r#"{"a":"\ud83dx"}"#, Err(Refusal::Surrogate)),
            (r#"{"a":"\ude00"}"#, Err(Refusal::Surrogate)),
            (r#"{"a":1e999}"#, Ok(())),
            (r#"{"a":-1.5E-400}"#, Ok(())),
            (r#"{"a":"1e999"}"#, Ok(())),
            (r#"{"a":"\"]]]]"}"#, Ok(())),
            (r#"{"a":[[[]]]}"#, Err(Refusal::Depth)),
        ] {
            assert_eq!(check_object(json, 3), expected, "{json}");
        }
    }
}
