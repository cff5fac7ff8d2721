//! A user's recent searches from rows: the newest ten, no keyword twice, as typed last.

use std::collections::{HashMap, HashSet};

use crate::events::fold_keyword;
use crate::limits::RECENT_SEARCHES_MAX;

/// A search of the last hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentRow {
    pub user_id: String,
    /// As typed.
    pub keyword: String,
    pub at_ms: i64,
}

/// Keeps the rows that remain visible.
pub struct NewestByUser<'f> {
    forgotten: HashMap<(&'f str, &'f str), i64>,
    seen: HashMap<String, HashSet<String>>,
    kept: Vec<RecentRow>,
}

/// `forgotten` says up to when a user's folded keyword (empty: every keyword) was forgotten.
pub fn newest_by_user(forgotten: &[(String, String, i64)]) -> NewestByUser<'_> {
    let forgotten = forgotten.iter().map(|(user, keyword, at)| ((user.as_str(), keyword.as_str()), *at)).collect();
    NewestByUser { forgotten, seen: HashMap::new(), kept: Vec::new() }
}

impl NewestByUser<'_> {
    /// Takes the next row; the newest come first.
    pub fn add(&mut self, row: RecentRow) {
        let folded = fold_keyword(&row.keyword);
        let is_forgotten =
            |keyword: &str| self.forgotten.get(&(row.user_id.as_str(), keyword)).is_some_and(|at| row.at_ms <= *at);
        if is_forgotten("") || is_forgotten(&folded) {
            return;
        }
        let keywords = match self.seen.get_mut(&row.user_id) {
            Some(keywords) => keywords,
            None => self.seen.entry(row.user_id.clone()).or_default(),
        };
        if keywords.len() < RECENT_SEARCHES_MAX && keywords.insert(folded.into_owned()) {
            self.kept.push(row);
        }
    }

    pub fn oldest_first(mut self) -> Vec<RecentRow> {
        self.kept.reverse();
        self.kept
    }
}
