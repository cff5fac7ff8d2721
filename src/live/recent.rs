//! A user's recent searches as a list that merges: whatever the order of arrival, the newest ten
//! keywords remain.

use crate::events::fold_keyword;
use crate::limits::{FORGOTTEN_OF_USER_MAX, RECENT_SEARCHES_MAX, RECENT_SEARCHES_MS};

/// One search of a list; lists are newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub at_ms: i64,
    /// By what it is compared.
    pub folded: String,
    /// What is shown.
    pub typed: String,
}

impl Search {
    pub fn new(keyword: &str, at_ms: i64) -> Search {
        Search { at_ms, folded: fold_keyword(keyword).into_owned(), typed: keyword.to_owned() }
    }
}

/// Whether a search at `at_ms` still changes or keeps a list at `now_ms`.
pub fn still_recent(at_ms: i64, now_ms: i64) -> bool {
    at_ms > now_ms - RECENT_SEARCHES_MS
}

/// Takes a search into its place by event time; of two at the same time the one applied later is
/// newer. A keyword that is there as new or newer stays as it is.
pub fn merge_search(list: &mut Vec<Search>, search: Search) {
    if let Some(same) = list.iter().position(|known| known.folded == search.folded) {
        if list[same].at_ms > search.at_ms {
            return;
        }
        list.remove(same);
    }
    let place = list.iter().position(|known| known.at_ms <= search.at_ms).unwrap_or(list.len());
    list.insert(place, search);
    list.truncate(RECENT_SEARCHES_MAX);
}

/// Forgets one folded keyword, or all, as far as searched up to `at_ms`.
pub fn forget_searches(list: &mut Vec<Search>, folded: Option<&str>, at_ms: i64) {
    list.retain(|known| known.at_ms > at_ms || folded.is_some_and(|folded| folded != known.folded));
}

/// What one user has forgotten: a search made before it and applied after it (it was late, or came
/// through another instance) stays forgotten. Of each folded keyword (empty: all) the latest time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten(Vec<(String, i64)>);

impl Forgotten {
    /// Remembers a forgetting; those that no search can meet any more at `now_ms` make room.
    pub fn add(&mut self, folded: &str, at_ms: i64, now_ms: i64) {
        self.0.retain(|(_, known_ms)| still_recent(*known_ms, now_ms));
        match self.0.iter_mut().find(|(known, _)| known == folded) {
            Some((_, known_ms)) => *known_ms = at_ms.max(*known_ms),
            None => self.0.push((folded.to_owned(), at_ms)),
        }
        if self.0.len() > FORGOTTEN_OF_USER_MAX {
            let newest_ms = self.0.iter().map(|(_, known_ms)| *known_ms).max().unwrap_or(at_ms);
            self.0 = vec![(String::new(), newest_ms)];
        }
    }

    /// Whether a search is among what was forgotten.
    pub fn covers(&self, search: &Search) -> bool {
        self.0.iter().any(|(what, up_to)| search.at_ms <= *up_to && (what.is_empty() || *what == search.folded))
    }

    /// The keywords that it remembers.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(what, _)| what.as_str())
    }

    /// Nothing is forgotten.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a search may still meet it.
    pub fn is_needed(&self, now_ms: i64) -> bool {
        self.0.iter().any(|(_, up_to)| still_recent(*up_to, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(searches: &[(&str, i64)]) -> Vec<String> {
        let mut list = Vec::new();
        for (keyword, at_ms) in searches {
            merge_search(&mut list, Search::new(keyword, *at_ms));
        }
        list.into_iter().map(|search| search.typed).collect()
    }

    #[test]
    fn order_is_that_of_event_time_whatever_the_order_of_arrival() {
        assert_eq!(merged(&[("a", 1), ("B", 3), ("c", 2), ("b", 2)]), ["B", "c", "a"]);
        assert_eq!(merged(&[("b", 2), ("c", 2), ("B", 3), ("a", 1)]), ["B", "c", "a"]);
    }

    #[test]
    fn ten_are_kept_and_an_older_one_changes_nothing() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let mut searches: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), name.len() as i64)).collect();
        searches.sort();
        assert_eq!(merged(&searches).len(), RECENT_SEARCHES_MAX);
        let newest: Vec<(&str, i64)> =
            names.iter().enumerate().rev().map(|(at, name)| (name.as_str(), at as i64)).collect();
        assert_eq!(merged(&newest)[..2], ["11", "10"]);
        assert_eq!(merged(&newest)[9], "2");
    }

    #[test]
    fn what_was_forgotten_is_remembered_for_an_hour_and_no_longer() {
        let mut forgotten = Forgotten::default();
        forgotten.add("a", 10, 10);
        forgotten.add("a", 5, 10);
        assert!(forgotten.covers(&Search::new("A", 10)) && !forgotten.covers(&Search::new("A", 11)));
        assert!(!forgotten.covers(&Search::new("b", 10)));
        assert!(forgotten.is_needed(10 + RECENT_SEARCHES_MS - 1) && !forgotten.is_needed(10 + RECENT_SEARCHES_MS));
        forgotten.add("", 20, 10 + RECENT_SEARCHES_MS);
        assert_eq!(forgotten.0, [("".to_owned(), 20)]);
        assert!(forgotten.covers(&Search::new("b", 20)));
    }

    #[test]
    fn forgetting_reaches_up_to_its_time() {
        let mut list = Vec::new();
        for (keyword, at_ms) in [("a", 1), ("b", 2), ("c", 3)] {
            merge_search(&mut list, Search::new(keyword, at_ms));
        }
        forget_searches(&mut list, Some("c"), 2);
        assert_eq!(list.len(), 3);
        forget_searches(&mut list, Some("c"), 3);
        assert_eq!(list.len(), 2);
        forget_searches(&mut list, None, 1);
        assert_eq!(list[0].typed, "b");
        assert_eq!(list.len(), 1);
    }
}
