//! Query strings and path segments: split and percent-decoded once, bounded by the request line.

use std::borrow::Cow;

use super::wire::Rejection;
use crate::events::EventType;

const MINUTE_MS: i64 = 60_000;
/// 9999-12-30T22:00:00Z: what a timestamp can say everywhere.
pub(super) const TIME_MS_MAX: i64 = 253_402_207_200_000;

/// The parameters of a query, decoded; the first of a name counts.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Splits and decodes. Refuses what is not UTF-8 behind its percent signs, and U+0000.
    pub(super) fn parse(query: &'a str) -> Result<Query<'a>, Rejection> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name, true)?, decode(value, true)?))
        });
        pairs.collect::<Result<_, Rejection>>().map(Query)
    }

    /// All of them, in their order.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// A parameter that is there, be it empty.
    pub(super) fn get_or_empty(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// `limit`: 1 to `max`, `default` where it is absent.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Rejection> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let limit = text.parse().ok().filter(|n| (1..=max).contains(n));
        limit.ok_or_else(|| Rejection::of_field("invalid_parameter", "limit", format!("must be 1 to {max}")))
    }

    /// A moment: RFC 3339 or milliseconds since 1970.
    pub(super) fn moment(&self, name: &'static str) -> Result<Option<i64>, Rejection> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let reason = "must be RFC 3339 or milliseconds since 1970";
        moment(text).map(Some).ok_or_else(|| Rejection::of_field("invalid_parameter", name, reason))
    }

    /// One end of a range, within what can be stored.
    pub(super) fn bound(&self, name: &'static str) -> Result<Option<i64>, Rejection> {
        Ok(self.moment(name)?.map(|at_ms| at_ms.clamp(0, TIME_MS_MAX)))
    }

    /// `eventType`, in any case.
    pub(super) fn event_type(&self) -> Result<Option<EventType>, Rejection> {
        let Some(name) = self.get("eventType") else { return Ok(None) };
        let reason = "must be one of CLICK, PAGE_VIEW, SEARCH, LIKE, UNLIKE";
        let known = EventType::from_name(name).map(Some);
        known.ok_or_else(|| Rejection::of_field("invalid_parameter", "eventType", reason))
    }

    /// `from` and `to` in milliseconds, within what can be stored. `to` is the end of this minute where it is absent, so
    /// that an answer stays the same for a while; `from` is `default_ms` before it.
    pub(super) fn range(&self, now_ms: i64, default_ms: i64) -> Result<(i64, i64), Rejection> {
        let to = self.moment("to")?.unwrap_or((now_ms.div_euclid(MINUTE_MS) + 1) * MINUTE_MS);
        let from = self.moment("from")?.unwrap_or(to.saturating_sub(default_ms));
        if from > to {
            return Err(Rejection::of_field("invalid_parameter", "from", "must not be later than to"));
        }
        Ok((from.clamp(0, TIME_MS_MAX), to.clamp(0, TIME_MS_MAX)))
    }
}

/// Milliseconds since 1970 from those, or from RFC 3339.
pub fn moment(text: &str) -> Option<i64> {
    let parsed = text.parse::<i64>().ok();
    parsed.or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

/// Percent-decodes; `plus` is a space in queries and itself in paths.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Rejection> {
    if !text.bytes().any(|b| b == b'%' || b == b'+' && plus_is_space) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(), digit());
                let value = high.zip(low).map(|(high, low)| high * 16 + low).and_then(|v| u8::try_from(v).ok());
                value.filter(|v| *v != 0).ok_or_else(|| bad_encoding("has a percent sign without two hex digits"))?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| bad_encoding("is not UTF-8 behind its percent signs"))
}

fn bad_encoding(why: &str) -> Rejection {
    Rejection::new("invalid_encoding", format!("the request's target {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_once() {
        let query = Query::parse("a=%EA%B3%A0&b=x+y&c&d=%2541&a=2").ok().unwrap();
        assert_eq!(query.get("a"), Some("고"));
        assert_eq!(query.get("b"), Some("x y"));
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("d"), Some("%41"));
        for bad in ["a=%", "a=%f", "a=%zz", "a=%ff", "a=%00"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(decode("a+b", false).ok().unwrap(), "a+b");
    }
}
