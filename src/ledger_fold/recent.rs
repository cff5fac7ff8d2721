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

/// The rows that remain visible, oldest first. `rows` are newest first; `forgotten` says up to when a user's folded
/// keyword (empty: every keyword) was forgotten.
pub fn newest_by_user<E>(
    rows: impl IntoIterator<Item = Result<RecentRow, E>>,
    forgotten: &[(String, String, i64)],
) -> Result<Vec<RecentRow>, E> {
    let until: HashMap<(&str, &str), i64> =
        forgotten.iter().map(|(user, keyword, at)| ((user.as_str(), keyword.as_str()), *at)).collect();
    let mut seen: HashMap<String, HashSet<String>> = HashMap::new();
    let mut kept: Vec<RecentRow> = Vec::new();
    for row in rows {
        let row = row?;
        let folded = fold_keyword(&row.keyword);
        let gone = |keyword: &str| until.get(&(row.user_id.as_str(), keyword)).is_some_and(|at| row.at_ms <= *at);
        if gone("") || gone(&folded) {
            continue;
        }
        let keywords = match seen.get_mut(&row.user_id) {
            Some(keywords) => keywords,
            None => seen.entry(row.user_id.clone()).or_default(),
        };
        if keywords.len() < RECENT_SEARCHES_MAX && keywords.insert(folded.into_owned()) {
            kept.push(row);
        }
    }
    kept.reverse();
    Ok(kept)
}
