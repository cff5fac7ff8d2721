//! Erasures: whom a ledger has erased, and what of a batch happened before that.
//!
//! What counts is when something happened, by the event's time or its receipt, whichever is earlier: so what an instance
//! still holds in its journal, and what is imported again later, stays gone, and who comes back begins anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::likes::Action;
use crate::events::{Erase, Record};

/// Users that were erased, and up to when.
pub type Erased = HashMap<Box<str>, i64>;

/// Whose a record is, and when it happened, where an erasure can reach it.
pub fn person_of<'a>(record: &'a Record<'_>) -> Option<(&'a str, i64)> {
    match record {
        Record::Event(event) => Some((event.user_id.as_deref()?, event.happened_ms())),
        Record::PostPut(put) => Some((&put.user_id, put.at_ms.min(put.created_at_ms.unwrap_or(put.at_ms)))),
        Record::Forget(forget) => Some((&forget.user_id, forget.at_ms)),
        Record::PostDelete(_) | Record::Erase(_) | Record::Lost => None,
    }
}

/// What the erasures of a batch do to posts: of each person those that the ledger knows, and those that records of the
/// batch before the erasure name (`named`: index, user, post).
pub(super) fn erase_actions<'a>(
    erases: &[(usize, &'a Erase<'a>)],
    belongings: &'a [(String, String)],
    named: impl Iterator<Item = (usize, &'a str, &'a str)>,
) -> Vec<Action<'a>> {
    // Of each person: the posts, each with the first record that names it (none: the ledger).
    let mut posts: BTreeMap<&str, BTreeMap<&'a str, Option<usize>>> =
        erases.iter().map(|(_, erase)| (&*erase.user_id, BTreeMap::new())).collect();
    for (user, post) in belongings {
        posts.entry(user).or_default().insert(post, None);
    }
    for (index, user, post) in named {
        if let Some(posts) = posts.get_mut(user) {
            posts.entry(post).or_insert(Some(index));
        }
    }
    let of_erase = |(index, erase): &(usize, &'a Erase<'a>)| {
        let (index, erase) = (*index, *erase);
        let before = posts[&*erase.user_id].iter().filter(move |(_, first)| first.is_none_or(|first| first < index));
        before.map(|(post, _)| Action::of_erase(index, post, erase)).collect::<Vec<_>>()
    };
    erases.iter().flat_map(of_erase).collect()
}

/// The last erasure of each person in a batch: user, up to when, index. In the order of the user.
pub fn last_erasures<'a>(erases: &[(usize, &'a Erase<'a>)]) -> Vec<(&'a str, i64, usize)> {
    let mut last: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for (index, erase) in erases {
        let (at_ms, at) = last.entry(&erase.user_id).or_insert((erase.at_ms, *index));
        (*at_ms, *at) = (erase.at_ms.max(*at_ms), *index);
    }
    last.into_iter().map(|(user, (at_ms, index))| (user, at_ms, index)).collect()
}

/// Hours in which a person did something, as ranges without a gap.
pub fn hour_ranges(hours: impl IntoIterator<Item = i64>) -> Vec<std::ops::Range<i64>> {
    let hours: BTreeSet<i64> = hours.into_iter().collect();
    let mut ranges: Vec<std::ops::Range<i64>> = Vec::new();
    for hour in hours {
        match ranges.last_mut() {
            Some(range) if range.end == hour => range.end += 1,
            _ => ranges.push(hour..hour + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::hour_ranges;

    #[test]
    fn hours_that_follow_each_other_are_one_range() {
        assert_eq!(hour_ranges([7, 3, 4, 4, 9]), [3..5, 7..8, 9..10]);
        assert!(hour_ranges([]).is_empty());
    }
}
