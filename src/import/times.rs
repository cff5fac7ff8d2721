//! Times as data warehouses write them, turned into RFC 3339: BigQuery (`2026-11-01 12:34:56.789
//! UTC`), Snowflake (`… -0800`, `… Z`), Go (`… +0000 UTC`), and local times, which mean the zone
//! that the user names.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;

/// The date, and the separator after it.
const DATE_BYTES: usize = "2026-11-01 ".len();
/// Digits after the second that are kept.
const FRACTION_DIGITS_MAX: usize = 9;

/// A time as RFC 3339; text that is no time as it is, for the server to refuse. The error completes
/// the sentence that the field's name begins.
pub(super) fn rfc3339<'a>(text: &'a str, zone: Option<&TimeZone>) -> Result<Cow<'a, str>, String> {
    let is_standard = text.as_bytes().get(DATE_BYTES - 1) == Some(&b'T') && text.ends_with('Z');
    let Some((local, rest)) = (if is_standard { None } else { split(text) }) else { return Ok(text.into()) };
    let found = match (rest, zone) {
        ("", None) => return Err(format!("`{text}` has no time zone: say with --source-time-zone which one is meant")),
        ("", Some(zone)) => Some(zone.clone()),
        (rest, _) => named(rest),
    };
    let moment: Option<Timestamp> = found.and_then(|zone| local.to_zoned_datetime(zone).ok()).map(|at| at.timestamp());
    Ok(moment.map_or(text.into(), |at| at.to_string().into()))
}

/// A local date and time, or a date alone, and what follows it.
fn split(text: &str) -> Option<(DateTime, &str)> {
    let bytes = text.as_bytes();
    let is_time = |b: &u8| b.is_ascii_digit() || matches!(b, b':' | b'.');
    let end = bytes.iter().skip(DATE_BYTES).position(|b| !is_time(b)).map_or(text.len(), |length| DATE_BYTES + length);
    let local = text.get(..end)?;
    let fraction = local.find('.').map_or(end, |dot| end.min(dot + 1 + FRACTION_DIGITS_MAX));
    Some((local.get(..fraction)?.parse().ok()?, text[end..].trim_start()))
}

/// `UTC`, `Z`, an offset (perhaps with an abbreviation after it), or a name of the time-zone
/// database.
fn named(text: &str) -> Option<TimeZone> {
    if ["UTC", "Z", "GMT"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(TimeZone::UTC);
    }
    match text.as_bytes()[0] {
        // `+09`, `+0900` or `+09:00`.
        b'+' | b'-' => DateTimeParser::new().parse_time_zone(text.split(' ').next()?).ok(),
        _ => TimeZone::get(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_warehouses_become_rfc_3339() {
        let seoul = TimeZone::get("Asia/Seoul").unwrap();
        for (text, expected) in [
            ("2026-11-01 12:34:56.789 UTC", "2026-11-01T12:34:56.789Z"),
            ("2026-11-01 12:34:56.789 -0800", "2026-11-01T20:34:56.789Z"),
            ("2026-11-01 12:34:56.789 Z", "2026-11-01T12:34:56.789Z"),
            ("2026-11-01 12:34:56Z", "2026-11-01T12:34:56Z"),
            ("2026-11-01 12:34:56.789+00", "2026-11-01T12:34:56.789Z"),
            ("2026-11-01T12:34:56+09:00", "2026-11-01T03:34:56Z"),
            ("2026-11-01 12:34:56 +0900 KST", "2026-11-01T03:34:56Z"),
            ("2026-11-01 12:34:56 Asia/Seoul", "2026-11-01T03:34:56Z"),
            ("2026-11-01 12:34:56.123456789012 UTC", "2026-11-01T12:34:56.123456789Z"),
            ("2026-11-01 12:34", "2026-11-01T03:34:00Z"),
            ("2026-11-01T12:34:56", "2026-11-01T03:34:56Z"),
            ("2026-11-01", "2026-10-31T15:00:00Z"),
        ] {
            assert_eq!(rfc3339(text, Some(&seoul)).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_text_is_for_the_server_to_judge() {
        for text in [
            "2026-11-01T12:34:56.789Z",
            "2026-13-01 12:34:56 UTC",
            "2026-11-01 12:34:56 Mars/Base",
            "2026-11-01 12:34:56 +9",
            "2026-11-01 12:34:56 +ab:cd",
            "2026-11-01 25:00:00 UTC",
            "01/11/2026 12:34",
            "now",
            "고양이고양이고양이",
            "",
        ] {
            assert_eq!(rfc3339(text, Some(&TimeZone::UTC)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_local_time_needs_a_zone() {
        for text in ["2026-11-01 12:34:56", "2026-11-01T12:34:56.5", "2026-11-01"] {
            assert!(rfc3339(text, None).unwrap_err().contains("--source-time-zone"), "{text}");
        }
    }
}
