//! Ranked lists: what they are of, what they count, and how a row is written.

use std::fmt::Write;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::query::Query;
use super::wire::Rejection;
use crate::events::{Dimension, ELEMENT_SIGN};
use crate::ports::Window;

#[derive(Clone, Copy)]
pub(super) enum Named {
    Keyword,
    Post,
    Page,
    /// Components, and the elements of clicks without a component.
    Component,
}

pub(super) struct Item {
    rank: usize,
    named: Named,
    name: String,
    count: Count,
}

/// A count is a whole number, except in hot lists, where it decays.
enum Count {
    Whole(i64),
    Decayed(f64),
}

impl Named {
    pub(super) fn of(list: &str) -> Option<Named> {
        Some(match list {
            "keywords" => Named::Keyword,
            "posts" => Named::Post,
            "pages" => Named::Page,
            "components" => Named::Component,
            _ => return None,
        })
    }

    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Named::Post => &["mode", "by"],
            Named::Keyword | Named::Page | Named::Component => &["mode"],
        }
    }

    /// The query's `mode`, if a list of these has it and it is one of `known`.
    pub(super) fn mode<'q>(self, query: &'q Query<'_>, known: &[&str]) -> Result<&'q str, Rejection> {
        let has = match self {
            Named::Keyword => &["count", "hot", "zero-result"][..],
            Named::Post => &["count", "hot"],
            Named::Page | Named::Component => &["count"],
        };
        let modes: Vec<&str> = has.iter().copied().filter(|mode| known.contains(mode)).collect();
        let mode = query.get("mode").unwrap_or("count");
        if modes.contains(&mode) {
            return Ok(mode);
        }
        let reason = match modes.split_last() {
            Some((last, [])) => format!("must be {last}"),
            Some((last, others)) => format!("must be {} or {last}", others.join(", ")),
            None => String::new(),
        };
        Err(Rejection::parameter("mode", reason))
    }

    pub(super) fn parts(self, query: &Query<'_>) -> Result<Vec<(Dimension, i32)>, Rejection> {
        use Dimension::{PostClicks, PostLikes, PostViews};
        Ok(match self {
            Named::Keyword if query.get("mode") == Some("zero-result") => vec![(Dimension::ZeroResult, 1)],
            Named::Keyword => vec![(Dimension::Keyword, 1)],
            Named::Page => vec![(Dimension::Page, 1)],
            Named::Component => vec![(Dimension::Component, 1)],
            Named::Post => match query.get("by").unwrap_or("views") {
                "views" => vec![(PostViews, 1)],
                "clicks" => vec![(PostClicks, 1)],
                "likes" => vec![(PostLikes, 1)],
                "score" => vec![(PostViews, 1), (PostClicks, 3), (PostLikes, 10)],
                _ => {
                    let reason = "must be views, clicks, likes or score";
                    return Err(Rejection::parameter("by", reason));
                }
            },
        })
    }
}

impl Item {
    pub(super) fn exact(named: Named, rank: usize, name: String, count: i64) -> Item {
        Item { rank, named, name, count: Count::Whole(count) }
    }

    /// A name with its score in a live list; a hot one decays.
    pub(super) fn scored(named: Named, rank: usize, name: String, score: f64, hot: bool) -> Item {
        let count = if hot { Count::Decayed((score * 1_000.0).round() / 1_000.0) } else { Count::Whole(score as i64) };
        Item { rank, named, name, count }
    }

    fn name(&self) -> (&'static str, &str) {
        match (self.named, self.name.strip_prefix(ELEMENT_SIGN)) {
            (Named::Keyword, _) => ("keyword", &self.name),
            (Named::Post, _) => ("postId", &self.name),
            (Named::Page, _) => ("url", &self.name),
            (Named::Component, Some(element)) => ("elementId", element),
            (Named::Component, None) => ("componentId", &self.name),
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (field, name) = self.name();
        let mut item = serializer.serialize_map(Some(3))?;
        item.serialize_entry("rank", &self.rank)?;
        item.serialize_entry(field, name)?;
        match self.count {
            Count::Whole(count) => item.serialize_entry("count", &count)?,
            Count::Decayed(count) => item.serialize_entry("count", &count)?,
        }
        item.end()
    }
}

pub(super) fn list_key(key: &mut String, named: Named, parts: impl Iterator<Item = (Dimension, i64)>) {
    // A write into a String does not fail.
    let _ = write!(key, "{}", named as u8);
    for (dimension, weight) in parts {
        let _ = write!(key, " {}x{weight}", dimension as u8);
    }
}

pub(super) fn window(query: &Query<'_>) -> Result<(Window, &'static str), Rejection> {
    Ok(match query.get("window").unwrap_or("1h") {
        "10m" => (Window::TenMinutes, "10m"),
        "1h" => (Window::Hour, "1h"),
        "24h" => (Window::Day, "24h"),
        "7d" => (Window::Week, "7d"),
        _ => return Err(Rejection::parameter("window", "must be 10m, 1h, 24h or 7d")),
    })
}
