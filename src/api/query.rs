//! Query strings and path segments: split and percent-decoded once, bounded by the request line.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::moments::{End, MOMENT_FORMS, moment};
use super::wire::{Rejection, id_fault, normal_keyword};
use crate::app::App;
use crate::events::EventType;
use crate::limits::{KEYWORD_BYTES_MAX, PARAMETER_SHOWN_BYTES_MAX};

const MINUTE_MS: i64 = 60_000;
/// 9999-12-30T22:00:00Z: what a timestamp can say everywhere.
pub const TIME_MS_MAX: i64 = 253_402_207_200_000;

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

    /// The same of a request that takes these parameters and no other, so that a typing error is noticed. Names
    /// that begin with `_` are left to caches and test tools.
    pub(super) fn known(query: &'a str, names: &[&str]) -> Result<Query<'a>, Rejection> {
        let query = Query::parse(query)?;
        let strange =
            query.0.iter().map(|(name, _)| &**name).find(|name| !name.starts_with('_') && !names.contains(name));
        match strange {
            Some(name) => {
                let name = name[..name.floor_char_boundary(PARAMETER_SHOWN_BYTES_MAX)].to_owned();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let reason = format!("is not a parameter of this request; it takes: {names}");
                Err(Rejection::parameter(name, reason))
            }
            None => Ok(query),
        }
    }

    #[cfg(feature = "test-hooks")]
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
        limit.ok_or_else(|| Rejection::parameter("limit", format!("must be 1 to {max}")))
    }

    /// A text of a filter, within the limit of its value.
    pub(super) fn text(&self, name: &'static str, bytes_max: usize) -> Result<Option<&str>, Rejection> {
        let text = self.get(name);
        match text {
            Some(text) if text.len() > bytes_max => {
                let reason = format!("must have at most {bytes_max} bytes");
                Err(Rejection::parameter(name, reason))
            }
            _ => Ok(text),
        }
    }

    pub(super) fn keyword(&self, name: &'static str) -> Result<Option<Cow<'_, str>>, Rejection> {
        let Some(keyword) = self.get(name).map(|typed| normal_keyword(Cow::Borrowed(typed))) else { return Ok(None) };
        if !(1..=KEYWORD_BYTES_MAX).contains(&keyword.len()) {
            let reason = format!("must have 1 to {KEYWORD_BYTES_MAX} bytes after trimming");
            return Err(Rejection::parameter(name, reason));
        }
        Ok(Some(keyword))
    }

    pub(super) fn user(&self) -> Result<Option<&str>, Rejection> {
        let user = self.get("userId");
        match user.and_then(id_fault) {
            Some(fault) => Err(Rejection::parameter("userId", fault)),
            None => Ok(user),
        }
    }

    pub(super) fn event_type(&self) -> Result<Option<EventType>, Rejection> {
        let Some(name) = self.get("eventType") else { return Ok(None) };
        let reason = "must be one of CLICK, PAGE_VIEW, SEARCH, LIKE, UNLIKE";
        let known = EventType::from_name(name).map(Some);
        known.ok_or_else(|| Rejection::parameter("eventType", reason))
    }

    /// `from` and `to` in milliseconds, as they are given, clamped to what can be stored.
    pub(super) fn ends(&self, app: &App) -> Result<(Option<i64>, Option<i64>), Rejection> {
        let (from, to) = self.moments(app)?;
        Ok((from.map(storable), to.map(storable)))
    }

    /// The same as a range. `to` is the end of this minute if it is absent, so that an answer stays the same for a
    /// while; `from` is `default_ms` before it. A range that begins later is empty.
    pub(super) fn range(&self, app: &App, default_ms: i64) -> Result<Range<i64>, Rejection> {
        let (from, to) = self.moments(app)?;
        let minute_end = (app.clock.now_ms().div_euclid(MINUTE_MS) + 1) * MINUTE_MS;
        let to = to.unwrap_or_else(|| from.map_or(minute_end, |from| from.max(minute_end)));
        let from = from.unwrap_or_else(|| to.saturating_sub(default_ms));
        Ok(storable(from)..storable(to))
    }

    fn moments(&self, app: &App) -> Result<(Option<i64>, Option<i64>), Rejection> {
        let (from, to) = (self.moment("from", End::From, app)?, self.moment("to", End::To, app)?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(Rejection::parameter("from", "must not be later than to"));
        }
        Ok((from, to))
    }

    fn moment(&self, name: &'static str, end: End, app: &App) -> Result<Option<i64>, Rejection> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let at = moment(text, end, |day| app.day_start_ms(day));
        at.map(Some).ok_or_else(|| Rejection::parameter(name, MOMENT_FORMS))
    }
}

fn storable(at_ms: i64) -> i64 {
    at_ms.clamp(0, TIME_MS_MAX)
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
                value
                    .filter(|v| *v != 0)
                    .ok_or_else(|| bad_encoding("has %00, or a percent sign without two hex digits"))?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| bad_encoding("is not UTF-8 behind its percent signs"))
}

pub(super) fn write_cursor(place: &impl Serialize) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).ok()?))
}

/// The place in a cursor; `None`: it is not exactly what [`write_cursor`] makes of a place.
pub(super) fn read_cursor<T: Serialize + DeserializeOwned>(cursor: &str) -> Option<T> {
    let place = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    (write_cursor(&place)? == cursor).then_some(place)
}

/// The id in a segment of a path, under the same rules as an id in a body.
pub(super) fn id_of_path<'a>(name: &'static str, segment: &'a str) -> Result<Cow<'a, str>, Rejection> {
    let id = decode(segment, false)?;
    match id_fault(&id) {
        Some(fault) => Err(Rejection::parameter(name, fault)),
        None => Ok(id),
    }
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
