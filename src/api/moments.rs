//! Moments as clients write them: RFC 3339, milliseconds since 1970, and in queries a date.

use jiff::civil::{Date, date};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// A number outside of these is no time in milliseconds: 1973-03-03 to 5138-11-16.
const EPOCH_MS_MIN: f64 = 1e11;
const EPOCH_MS_MAX: f64 = 1e14;
/// Nanoseconds begin where microseconds would be in the year 5138.
const EPOCH_US_MAX: f64 = 1e17;
/// What is asked for where no moment can be read.
pub const MOMENT_FORMS: &str = "must be RFC 3339, milliseconds since 1970, or a date such as 2026-11-01";

/// Milliseconds since 1970 from RFC 3339. Digits beyond nanoseconds are cut. Every year of four digits has a
/// value, also where it cannot be stored.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_millisecond());
    }
    let text = without_small_digits(text)?;
    let pieces = DateTimeParser::new().parse_pieces(&text).ok()?;
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    pieces.offset()?;
    let since = pieces.date().to_datetime(pieces.time()?).duration_since(date(1970, 1, 1).at(0, 0, 0, 0));
    let at = since.checked_sub(SignedDuration::from_secs(offset.seconds().into()))?;
    i64::try_from(at.as_millis()).ok()
}

/// The text with at most nine digits of a second.
fn without_small_digits(text: &str) -> Option<String> {
    let Some((before, fraction)) = text.split_once(['.', ',']) else { return Some(text.to_owned()) };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = fraction.split_at(digits);
    (!digits.is_empty()).then(|| format!("{before}.{}{rest}", &digits[..digits.len().min(9)]))
}

/// Milliseconds since 1970 from a JSON number, its fraction cut. The error names the unit that it looks like.
pub(super) fn epoch_ms(number: &str) -> Result<i64, &'static str> {
    match number.parse::<f64>() {
        // Beyond a double's whole numbers nothing is in the range.
        Ok(ms) if (EPOCH_MS_MIN..=EPOCH_MS_MAX).contains(&ms) => Ok(ms as i64),
        Ok(ms) if ms < EPOCH_MS_MIN => Err("seconds"),
        Ok(ms) if ms <= EPOCH_US_MAX => Err("microseconds"),
        _ => Err("nanoseconds"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    From,
    To,
}

/// A moment of a query, not yet clamped. `day_start_ms` says when a local day begins, in days and milliseconds
/// since 1970; a date is the start of its day, or its end.
pub fn moment(text: &str, end: End, day_start_ms: impl Fn(i64) -> i64) -> Option<i64> {
    if let Some(ms) = integer(text) {
        return Some(ms);
    }
    if let Some(day) = day_of(text) {
        return Some(day_start_ms(if end == End::From { day } else { day + 1 }));
    }
    rfc3339(text).or_else(|| rfc3339(&with_plus(text)?))
}

/// Any integer; one that is too large for 64 bits is later, or earlier, than everything anyway.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

fn day_of(text: &str) -> Option<i64> {
    let date: Date = Some(text).filter(|text| text.len() == 10)?.parse().ok()?;
    Some(date.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24)
}

/// A query's plus is a space unless it is escaped: the one before the offset is put back.
fn with_plus(text: &str) -> Option<String> {
    let (time, offset) = text.rsplit_once(' ')?;
    Some(format!("{time}+{offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_read_with_every_digit_case_and_year() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00.001999999999999z", 1),
            ("1970-01-01 00:00:00+00:00", 0),
            ("1969-12-31T23:59:59.999-00:00", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
            ("9999-12-31T23:59:59.9999999999-23:59", 253_402_387_139_999),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("2026-11-01T00:00:00+09:00[Asia/Seoul]", 1_793_458_800_000),
        ] {
            assert_eq!(rfc3339(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "2026-11-01",
            "2026-11-01T00:00:00",
            "2026-11-31T00:00:00Z",
            "2026-11-01T00:00:00.Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_in_another_unit_is_called_by_it() {
        for (number, read) in [
            ("100000000000", Ok(100_000_000_000)),
            ("1.7e12", Ok(1_700_000_000_000)),
            ("1700000000000.9", Ok(1_700_000_000_000)),
            ("100000000000000", Ok(100_000_000_000_000)),
            ("99999999999", Err("seconds")),
            ("-1700000000000", Err("seconds")),
            ("1e400", Err("nanoseconds")),
            ("100000000000001", Err("microseconds")),
            ("1700000000000000000", Err("nanoseconds")),
        ] {
            assert_eq!(epoch_ms(number), read, "{number}");
        }
    }

    #[test]
    fn a_query_may_name_a_day_and_forget_to_escape_a_plus() {
        let day_start_ms = |day: i64| day * 86_400_000 - 9 * 3_600_000;
        let at = |text: &str, end| moment(text, end, day_start_ms);
        assert_eq!(at("1970-01-02", End::From), Some(15 * 3_600_000));
        assert_eq!(at("1970-01-02", End::To), Some(39 * 3_600_000));
        assert_eq!(at("1970-01-01T09:00:00 09:00", End::From), Some(0));
        assert_eq!(at("1970-01-01 09:00:00 09:00", End::From), Some(0));
        assert_eq!(at("-99999999999999999999", End::From), Some(i64::MIN));
        for text in ["1970-01-02 09:00", "1970-1-2", "1.5", "1e3", "-", "", "1970-01-01T09:00:00 "] {
            assert_eq!(at(text, End::From), None, "{text}");
        }
    }
}
