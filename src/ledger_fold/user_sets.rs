//! Distinct users of any range: sets of numbers that stand for users, by hour, and by 1, 4, 16 and 64 UTC days.
//!
//! The union of a few sets says what telling apart the rows of `user_hour` would: 83,000 of a million users are a set of
//! 128 KiB. A set of an hour is made once the hour was counted, a longer one of the shorter ones. None is believed while
//! something of its time has to be counted again, and with the counting it goes. A person who is erased takes along the sets
//! of hours that may stay; of all earlier ones their number is in the set of those who are gone, which every union is without.
//!
//! What the sets are kept as: <https://github.com/RoaringBitmap/RoaringFormatSpec>.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use roaring::RoaringBitmap;

use super::postponed::Postponed;

/// Hours of a set: those from which a longer one is made come right before it. Four to one, so that a year is three of each on
/// either side at most: each may be 128 KiB to read.
const SET_LENGTHS: [i64; 5] = [1, 24, 4 * 24, 16 * 24, 64 * 24];
/// The length that the set of those who are gone stands under; it begins at 0.
pub const GONE: i64 = 0;

/// A set: how many hours, and the first of them.
pub type SetKey = (i64, i64);

/// What makes sets in a store; each call a step of its own.
pub trait SetMaker {
    /// Why a step failed.
    type Error;

    /// Hours that could not be made lately, and what is longer.
    fn postponed(&mut self) -> &mut [Postponed; 2];
    /// What a statement answers: numbers, or none.
    fn numbers(&mut self, sql: String) -> Result<Vec<Option<i64>>, Self::Error>;
    /// Makes the sets of some hours of one UTC day in one step, if these are small; else makes none of them.
    fn make_few(&mut self, hours: &[i64]) -> Result<bool, Self::Error>;
    /// Makes an hour's set; false where something of it came in meanwhile.
    fn make_hour(&mut self, hour: i64) -> Result<bool, Self::Error>;
    /// Makes a set of shorter ones, if it is still due; false where these cannot be read: they are gone then.
    fn make_long(&mut self, shorter: i64, set: SetKey) -> Result<bool, Self::Error>;
}

/// Makes what is due, hours first and the newest of each; true where something is left.
pub fn make_sets<M: SetMaker>(maker: &mut M, has_time: &dyn Fn() -> bool) -> Result<bool, M::Error> {
    let mut failed = None;
    loop {
        let waiting = maker.postponed()[0].waiting(Instant::now());
        let hours: Vec<i64> = maker.numbers(next_hours_sql(&waiting))?.into_iter().flatten().collect();
        if hours.is_empty() {
            break;
        }
        for hours in hours.chunk_by(|a, b| a.div_euclid(24) == b.div_euclid(24)) {
            // What fails for all of them is tried for each.
            let are_made = hours.len() > 1 && has_time() && maker.make_few(hours).unwrap_or(false);
            for hour in hours {
                if !are_made && !has_time() {
                    return failed.map_or(Ok(true), Err);
                }
                let made = if are_made { Ok(true) } else { maker.make_hour(*hour) };
                maker.postponed()[0].settle(*hour, made, &mut failed);
            }
        }
    }
    for lengths in SET_LENGTHS.windows(2) {
        let (shorter, length) = (lengths[0], lengths[1]);
        while has_time() {
            let waiting = maker.postponed()[1].waiting(Instant::now());
            let next = maker.numbers(next_long_sql(shorter, length, Longer::Not(&waiting)))?;
            let next: Vec<i64> = next.into_iter().flatten().collect();
            if next.is_empty() {
                break;
            }
            for first in next.into_iter().take_while(|_| has_time()) {
                match maker.make_long(shorter, (length, first)) {
                    Ok(false) => return failed.map_or(Ok(true), Err),
                    made => maker.postponed()[1].settle(first, made, &mut failed),
                }
            }
        }
    }
    failed.map_or(Ok(!has_time()), Err)
}

/// Sets of some lengths that lie within hours and may be believed.
fn believed_sets_sql(lengths: &[i64], ranges: &[Range<i64>]) -> String {
    let lengths: Vec<String> = lengths.iter().map(i64::to_string).collect();
    let within: Vec<String> = ranges
        .iter()
        .map(|Range { start, end }| format!("at >= {start} AND at < {end} AND at + hours <= {end}"))
        .collect();
    format!(
        "SELECT hours, at FROM user_set AS s WHERE hours IN ({}) AND ({}) AND {BELIEVED}",
        lengths.join(", "),
        within.join(" OR ")
    )
}

/// Nothing of the time of a row `s`, of so many hours from `at` on, has to be counted again: a condition.
const BELIEVED: &str = "NOT EXISTS \
     (SELECT 1 FROM series WHERE users IS NULL AND series.at >= s.at * 60 AND series.at < (s.at + s.hours) * 60)";

/// Sets, the first hour first, and the hours that none of them has.
type Chosen = (Vec<SetKey>, Vec<Range<i64>>);

/// The sets that hours are read from, and what is left of these; `None` where no set of them is believed. `keys` reads sets'
/// lengths and first hours.
pub fn choose_sets<E>(
    hours: &Range<i64>,
    mut keys: impl FnMut(String) -> Result<Vec<SetKey>, E>,
) -> Result<Option<Chosen>, E> {
    let mut believed = keys(believed_sets_sql(&SET_LENGTHS[1..], std::slice::from_ref(hours)))?;
    let (_, rest) = longest_of(hours, &believed);
    // Hours only where no longer set is: a year has many.
    if !rest.is_empty() {
        believed.extend(keys(believed_sets_sql(&SET_LENGTHS[..1], &rest))?);
    }
    Ok((!believed.is_empty()).then(|| longest_of(hours, &believed)))
}

fn longest_of(hours: &Range<i64>, believed: &[SetKey]) -> Chosen {
    let mut believed = believed.to_vec();
    believed.sort_unstable_by_key(|(length, at)| (Reverse(*length), *at));
    let mut chosen: BTreeMap<i64, i64> = BTreeMap::new();
    for (length, at) in believed {
        // Sets do not overlap but as one within another.
        if chosen.range(..=at).next_back().is_none_or(|(first, length)| first + length <= at) {
            chosen.insert(at, length);
        }
    }
    let mut rest = Vec::new();
    let mut next = hours.start;
    for (at, length) in &chosen {
        if next < *at {
            rest.push(next..*at);
        }
        next = at + length;
    }
    if next < hours.end {
        rest.push(next..hours.end);
    }
    (chosen.into_iter().map(|(at, length)| (length, at)).collect(), rest)
}

/// Members of sets, one row each; those who are gone come with them.
pub fn members_sql(sets: &[SetKey]) -> String {
    let of_length = |length: &i64| {
        let at: Vec<String> = sets.iter().filter(|(of, _)| of == length).map(|(_, at)| at.to_string()).collect();
        (!at.is_empty()).then(|| format!("hours = {length} AND at IN ({})", at.join(", ")))
    };
    let all: Vec<String> = SET_LENGTHS.iter().filter_map(of_length).chain([format!("hours = {GONE}")]).collect();
    format!("SELECT hours, members FROM user_set WHERE {}", all.join(" OR "))
}

/// Users that were seen, each once.
#[derive(Debug, Default)]
pub struct UserUnion {
    seen: RoaringBitmap,
    gone: RoaringBitmap,
    without_number: u64,
}

impl UserUnion {
    /// Takes in what [`members_sql`] answers; false where it is no set.
    pub fn add(&mut self, length: i64, members: &[u8]) -> bool {
        let Ok(set) = RoaringBitmap::deserialize_from(members) else { return false };
        *(if length == GONE { &mut self.gone } else { &mut self.seen }) |= set;
        true
    }

    /// A user whom no set may have had, by name once.
    pub fn add_user(&mut self, number: Option<i64>) {
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => drop(self.seen.insert(number)),
            None => self.without_number += 1,
        }
    }

    /// How many they are.
    pub fn count(self) -> u64 {
        (self.seen - self.gone).len() + self.without_number
    }
}

/// Numbers as they are kept.
pub fn set_of(numbers: impl IntoIterator<Item = i64>) -> Vec<u8> {
    bytes(&numbers.into_iter().filter_map(|number| u32::try_from(number).ok()).collect())
}

/// The union of sets; `None` where one is none.
pub fn union_of<'m>(sets: impl IntoIterator<Item = &'m [u8]>) -> Option<Vec<u8>> {
    let mut all = RoaringBitmap::new();
    for members in sets {
        all |= RoaringBitmap::deserialize_from(members).ok()?;
    }
    Some(bytes(&all))
}

fn bytes(set: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes).expect("a vector takes it");
    bytes
}

/// The newest hours that were counted, have no set and do not wait; some of them, as looking for them reads every hour.
fn next_hours_sql(waiting: &[i64]) -> String {
    let waiting: Vec<String> = [-1].iter().chain(waiting).map(i64::to_string).collect();
    format!(
        "SELECT at / 60 FROM series AS s WHERE minutes = 60 AND event_type = 0 AND users IS NOT NULL \
           AND at >= (SELECT rows_since * 1440 FROM rollup_folded) AND at / 60 NOT IN ({}) \
           AND NOT EXISTS (SELECT 1 FROM user_set AS made WHERE hours = 1 AND made.at = s.at / 60) \
         ORDER BY at DESC LIMIT 100",
        waiting.join(", ")
    )
}

/// Which of the longer sets that are due are looked for.
#[derive(Clone, Copy, Debug)]
pub enum Longer<'w> {
    /// The one from this hour on.
    Of(i64),
    /// None that begins with one of these hours.
    Not(&'w [i64]),
}

/// The first hours of sets of `length` that are missing while all the shorter ones are there, of what is over: some of them,
/// the newest first.
pub fn next_long_sql(shorter: i64, length: i64, which: Longer<'_>) -> String {
    let only = match which {
        Longer::Of(hour) => format!("AND s.at >= {hour} * 60 AND s.at < ({hour} + {length}) * 60"),
        Longer::Not(hours) => {
            let hours: Vec<String> = [-1].iter().chain(hours).map(i64::to_string).collect();
            format!("AND s.at / 60 / {length} * {length} NOT IN ({})", hours.join(", "))
        }
    };
    format!(
        "SELECT first FROM (SELECT s.at / 60 / {length} * {length} AS first FROM series AS s \
           WHERE minutes = 60 AND event_type = 0 {only} \
             AND s.at / 60 / {length} * {length} >= (SELECT rows_since * 24 FROM rollup_folded) \
             AND s.at < (SELECT until_hour / {length} * {length} * 60 FROM rollup_folded) AND NOT EXISTS \
             (SELECT 1 FROM user_set AS made WHERE hours = {length} AND made.at = s.at / 60 / {length} * {length}) \
           GROUP BY 1 HAVING min(CASE WHEN users IS NOT NULL AND EXISTS \
             (SELECT 1 FROM user_set AS made WHERE hours = {shorter} AND made.at = s.at / 60 / {shorter} * {shorter}) \
             THEN 1 ELSE 0 END) = 1) AS whole ORDER BY first DESC LIMIT 50"
    )
}

/// The shorter sets that one is made of: a condition.
pub fn parts_of(shorter: i64, (length, first): SetKey) -> String {
    format!("hours = {shorter} AND at >= {first} AND at < {}", first + length)
}

/// The number of each user of `users`, a `SELECT user_id`, some more than once: of `user_open` where it is there, else through the
/// key, one after the other in its order: numbers are not read as a whole, and neighbours lie together.
pub fn numbers_sql(users: &str) -> String {
    format!(
        "SELECT CAST(coalesce(o.number, (SELECT number FROM user_number AS n WHERE n.user_id = u.user_id)) AS bigint) \
           FROM (SELECT DISTINCT user_id FROM ({users}) AS seen ORDER BY user_id) AS u \
           LEFT JOIN user_open AS o ON o.user_id = u.user_id"
    )
}

/// By which it is seen whether hours and their users are as they were: what the points of each were counted of, and the last
/// erasure. No row of an hour that has to be counted.
pub fn hours_state_sql((length, first): SetKey) -> String {
    format!(
        "SELECT at, count, (SELECT coalesce(max(seq), 0) FROM erased) FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at >= {first} * 60 AND at < ({first} + {length}) * 60 \
           AND users IS NOT NULL ORDER BY at"
    )
}

/// Takes away the sets that some hours are in.
pub(super) fn forget_sets_sql(hours: &[i64]) -> String {
    let keys = SET_LENGTHS.map(|length| {
        let mut at: Vec<i64> = hours.iter().map(|hour| hour.div_euclid(length) * length).collect();
        at.sort_unstable();
        at.dedup();
        format!("hours = {length} AND at IN ({})", at.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
    });
    format!("DELETE FROM user_set WHERE {}", keys.join(" OR "))
}

/// Takes away the sets with an hour from `hour` on.
pub fn forget_sets_since_sql(hour: i64) -> String {
    let keys = SET_LENGTHS.map(|length| format!("hours = {length} AND at > {}", hour - length));
    format!("DELETE FROM user_set WHERE {}", keys.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn every_hour_is_in_one_set_or_left_over(
            start in 0..2_000i64, length in 0..3_000i64, chances in proptest::collection::vec(0..3u8, 6_000),
        ) {
            let (hours, mut believed) = (start..start + length, Vec::new());
            for length in SET_LENGTHS {
                let within = (0..6_000 / length).map(|n| n * length).filter(|at| *at >= hours.start && at + length <= hours.end);
                believed.extend(within.filter(|at| chances[(at / length) as usize] > 0).map(|at| (length, at)));
            }
            let (sets, rest) = longest_of(&hours, &believed);
            let mut seen: Vec<i64> = sets.iter().flat_map(|(length, at)| *at..at + length).chain(rest.into_iter().flatten()).collect();
            seen.sort_unstable();
            assert_eq!(seen, hours.collect::<Vec<_>>());
            assert!(sets.iter().all(|set| believed.contains(set)));
        }
    }

    #[test]
    fn who_is_gone_is_in_no_union_and_who_has_no_number_counts_by_name() {
        let mut union = UserUnion::default();
        assert!(union.add(24, &set_of([1, 2, 3])) && union.add(1, &set_of([3, 4])) && union.add(GONE, &set_of([2, 9])));
        [Some(4), Some(7), None, None].into_iter().for_each(|number| union.add_user(number));
        assert_eq!(union.count(), 6);
        assert!(!UserUnion::default().add(1, b"no set"));
        assert_eq!(union_of([&*set_of([1]), &*set_of([2])]), Some(set_of([1, 2])));
        assert_eq!(union_of([&b"no set"[..]]), None);
    }
}
