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
        Record::PostPut(put) => Some((&put.user_id, put.happened_ms())),
        Record::Forget(forget) => Some((&forget.user_id, forget.at_ms)),
        Record::PostDelete(_) | Record::Erase(_) | Record::Lost => None,
    }
}

/// A post that a person likes or made: user, post, and when the like or what the post says happened.
pub type Belonging = (String, String, i64);

/// What the erasures of a batch do to posts: of each person those that the ledger knows, and those that records of the
/// batch name (`named`: index, user, post, when it happened). Each goes with the first erasure that stands behind it and
/// reaches it, so that erasing somebody a thousand times costs what once does.
pub(super) fn erase_actions<'a>(
    erases: &[(usize, &'a Erase<'a>)],
    belongings: &'a [Belonging],
    named: impl Iterator<Item = (usize, &'a str, &'a str, i64)>,
) -> Vec<Action<'a>> {
    // Of each person: index, up to when this one and those before it reach.
    let mut rounds: HashMap<&str, Vec<(usize, i64, &'a Erase<'a>)>> = HashMap::new();
    for (index, erase) in erases {
        let rounds = rounds.entry(&erase.user_id).or_default();
        let up_to = rounds.last().map_or(erase.at_ms, |(_, before, _)| erase.at_ms.max(*before));
        rounds.push((*index, up_to, erase));
    }
    let known = belongings.iter().map(|(user, post, at_ms)| (None, user.as_str(), post.as_str(), *at_ms));
    let named = named.map(|(index, user, post, at_ms)| (Some(index), user, post, at_ms));
    let mut gone: BTreeMap<(usize, &'a str), &'a Erase<'a>> = BTreeMap::new();
    for (behind, user, post, happened_ms) in known.chain(named) {
        let Some(rounds) = rounds.get(user) else { continue };
        let is_before =
            |(index, up_to, _): &(usize, i64, _)| behind.is_some_and(|at| *index <= at) || *up_to < happened_ms;
        if let Some((index, _, erase)) = rounds.get(rounds.partition_point(is_before)) {
            gone.insert((*index, post), erase);
        }
    }
    gone.into_iter().map(|((index, post), erase)| Action::of_erase(index, post, erase)).collect()
}

/// The key of a user in `erased` and `visitor`. Tagged, so that ids of users, visitors and sessions never collide.
pub fn user_key(user: &str) -> String {
    format!("u:{user}")
}

/// Whom a batch erases, each once: up to when, and the index of the last record that says so.
pub fn erased_users<'a>(erases: &[(usize, &'a Erase<'a>)]) -> BTreeMap<&'a str, (i64, usize)> {
    let mut users: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for (index, erase) in erases {
        let (up_to, last) = users.entry(&erase.user_id).or_insert((erase.at_ms, *index));
        (*up_to, *last) = (erase.at_ms.max(*up_to), *index);
    }
    users
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
    use super::*;
    use crate::ledger::batch::likes::Deed;

    #[test]
    fn what_a_person_has_goes_once_with_the_first_erasure_that_reaches_it() {
        let erase = |at_ms| Erase { user_id: "u".into(), at_ms };
        let (first, second, third) = (erase(10), erase(20), erase(15));
        let erases = [(2, &first), (4, &second), (6, &third)];
        let belongings =
            [("old", 10), ("new", 11), ("newest", 21)].map(|(post, at_ms)| ("u".into(), post.into(), at_ms));
        let named = [(1, "u", "old", 3), (1, "u", "before", 7), (3, "u", "between", 12), (5, "u", "behind", 25)];
        let named = named.into_iter().chain([(1, "somebody else", "theirs", 1)]);
        let actions = erase_actions(&erases, &belongings, named);
        let gone: Vec<(usize, &str)> = actions.iter().map(|action| (action.index, action.post)).collect();
        assert_eq!(gone, [(2, "before"), (2, "old"), (4, "between"), (4, "new")]);
        assert!(actions.iter().all(|action| matches!(action.deed, Deed::Erase(_))));
    }

    #[test]
    fn hours_that_follow_each_other_are_one_range() {
        assert_eq!(hour_ranges([7, 3, 4, 4, 9]), [3..5, 7..8, 9..10]);
        assert!(hour_ranges([]).is_empty());
    }
}
