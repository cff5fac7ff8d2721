//! Tombstones: the deleted posts that lists skip. Deletions and puts of a post arrive through several
//! journals, in any order: the highest version of the post decides. A put is remembered too, because
//! an older deletion may still arrive.

use std::collections::HashMap;

use crate::limits::{LIVE_TOMBSTONE_KEPT_MS, LIVE_TOMBSTONES_MAX};
use crate::ports::{Tombstone, TopQuery};

/// By post.
#[derive(Clone, Debug, Default)]
pub struct Tombstones(HashMap<Box<str>, Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: i64,
    deleted: bool,
    /// When it was applied.
    at_ms: i64,
}

impl Tombstones {
    /// Takes a deletion or a put, unless a later one of the post is known.
    pub fn apply(&mut self, tombstone: &Tombstone, now_ms: i64) {
        let Tombstone { post_id, version, deleted } = tombstone;
        if self.0.get(&**post_id).is_some_and(|known| known.version >= *version) {
            return;
        }
        let entry = Entry { version: *version, deleted: *deleted, at_ms: now_ms };
        self.0.insert(post_id.as_str().into(), entry);
        if self.0.len() > LIVE_TOMBSTONES_MAX {
            // The oldest tenth is forgotten.
            let mut times: Vec<i64> = self.0.values().map(|entry| entry.at_ms).collect();
            let (_, oldest_ms, _) = times.select_nth_unstable(LIVE_TOMBSTONES_MAX / 10);
            let oldest_ms = *oldest_ms;
            self.0.retain(|_, entry| entry.at_ms > oldest_ms);
        }
    }

    /// Do lists skip this post?
    pub fn hides(&self, post_id: &str) -> bool {
        self.0.get(post_id).is_some_and(|entry| entry.deleted)
    }

    /// Forgets what no kept bucket needs any more.
    pub fn forget_old(&mut self, now_ms: i64) {
        self.0.retain(|_, entry| entry.at_ms > now_ms - LIVE_TOMBSTONE_KEPT_MS);
    }
}

/// Are the names of this list posts?
pub fn lists_posts(query: &TopQuery) -> bool {
    query.parts.iter().any(|(dimension, _)| dimension.names_posts())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(post: &str, version: i64, deleted: bool) -> Tombstone {
        Tombstone { post_id: post.to_owned(), version, deleted }
    }

    #[test]
    fn above_the_bound_the_oldest_are_forgotten() {
        let mut tombstones = Tombstones::default();
        for number in 0..=LIVE_TOMBSTONES_MAX {
            tombstones.apply(&tombstone(&number.to_string(), 1, true), number as i64);
        }
        assert!(tombstones.0.len() < LIVE_TOMBSTONES_MAX);
        assert!(!tombstones.hides("0") && tombstones.hides(&LIVE_TOMBSTONES_MAX.to_string()));
    }
}
