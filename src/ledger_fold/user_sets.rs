//! Distinct users of any range: sets of numbers that stand for users, by hour, by UTC day and by span of 32 UTC days.
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

use roaring::RoaringBitmap;

use crate::limits::SPAN_DAYS;

/// Hours of a set: those from which a longer one is made come right before it.
pub const SET_LENGTHS: [i64; 3] = [1, 24, 24 * SPAN_DAYS];
/// The length that the set of those who are gone stands under; it begins at 0.
pub const GONE: i64 = 0;

/// A set: how many hours, and the first of them.
pub type SetKey = (i64, i64);

/// Sets of some lengths that lie within hours and may be believed.
pub fn believed_sets_sql(lengths: &[i64], ranges: &[Range<i64>]) -> String {
    let lengths: Vec<String> = lengths.iter().map(i64::to_string).collect();
    let within: Vec<String> = ranges
        .iter()
        .map(|Range { start, end }| format!("at >= {start} AND at < {end} AND at + hours <= {end}"))
        .collect();
    format!(
        "SELECT hours, at FROM user_set AS s WHERE hours IN ({}) AND ({}) AND NOT EXISTS \
           (SELECT 1 FROM series WHERE users IS NULL AND series.at >= s.at * 60 AND series.at < (s.at + s.hours) * 60)",
        lengths.join(", "),
        within.join(" OR ")
    )
}

/// The longest sets first; and the hours that none of them has.
pub fn choose_sets(hours: &Range<i64>, believed: &[SetKey]) -> (Vec<SetKey>, Vec<Range<i64>>) {
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

/// The newest hours that were counted and have no set; some of them, as looking for them reads every hour.
pub const NEXT_HOUR_SETS: &str = "SELECT at / 60 FROM series AS s \
     WHERE minutes = 60 AND event_type = 0 AND users IS NOT NULL \
       AND at >= (SELECT rows_since * 1440 FROM rollup_folded) \
       AND NOT EXISTS (SELECT 1 FROM user_set WHERE hours = 1 AND user_set.at = s.at / 60) \
     ORDER BY at DESC LIMIT 100";

/// The first hour of the newest set of `length` that is missing while all the shorter ones are there: of what is over.
pub fn next_long_set_sql(shorter: i64, length: i64, until_hour: i64) -> String {
    let end = until_hour.div_euclid(length) * length;
    format!(
        "SELECT max(first) FROM (SELECT s.at / 60 / {length} * {length} AS first FROM series AS s \
           WHERE minutes = 60 AND event_type = 0 AND s.at < {end} * 60 AND NOT EXISTS \
             (SELECT 1 FROM user_set WHERE hours = {length} AND user_set.at = s.at / 60 / {length} * {length}) \
           GROUP BY 1 HAVING min(CASE WHEN users IS NOT NULL AND EXISTS \
             (SELECT 1 FROM user_set WHERE hours = {shorter} AND user_set.at = s.at / 60 / {shorter} * {shorter}) \
             THEN 1 ELSE 0 END) = 1) AS whole"
    )
}

/// The sets that a longer one is made of.
pub fn parts_sql(shorter: i64, length: i64, first: i64) -> String {
    format!("SELECT members FROM user_set WHERE hours = {shorter} AND at >= {first} AND at < {}", first + length)
}

/// Takes away the sets that an hour is in.
pub fn forget_sets_sql(hour: i64) -> String {
    let keys = SET_LENGTHS.map(|length| format!("hours = {length} AND at = {}", hour.div_euclid(length) * length));
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
            let (sets, rest) = choose_sets(&hours, &believed);
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
