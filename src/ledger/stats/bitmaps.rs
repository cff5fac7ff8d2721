//! Distinct users of any range: bitmaps of ordinals that stand for users, in the tiers of the rollups (hour, day, 32 days).
//!
//! The union of a few bitmaps says what telling apart the rows of `user_hour` would: 83,000 of a million users are a bitmap of
//! 128 KiB. Hours have a bitmap per type too. A bitmap is valid while no hour of its time is dirty and no count of such an hour
//! is pending. The ordinals of erased users are in a bitmap of their own, which every union is without.
//!
//! Format: <https://github.com/RoaringBitmap/RoaringFormatSpec>.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use roaring::RoaringBitmap;

use super::cover::Cover;
use super::points::series_code;
use crate::events::EventType;
use crate::ledger::sql::{Cell, Dialect, Sql, joined};
use crate::limits::SPAN_DAYS;
use crate::ports::StoreError;

/// Hours of a bitmap, by tier.
pub const TIERS: [i64; 3] = [1, 24, 24 * SPAN_DAYS];
/// The tier of the bitmap of erased users; it begins at 0.
pub const ERASED: i64 = 0;

/// A bitmap: how many hours, and the first of them.
pub type BitmapKey = (i64, i64);

/// Bitmaps, the first hour first, and the hours that none of them has.
type Chosen = (Vec<BitmapKey>, Vec<Range<i64>>);

/// The valid bitmaps that hours are read from. Types have bitmaps of hours alone.
fn choose(
    sql: &mut dyn Sql,
    hours: &Range<i64>,
    kind: Option<EventType>,
    pending: &HashSet<i64>,
) -> Result<Chosen, StoreError> {
    let mut read = |tiers: &[i64], ranges: &[Range<i64>]| -> Result<Vec<BitmapKey>, StoreError> {
        let rows = sql.query(&valid_sql(tiers, ranges, kind), &[])?;
        let keys = rows.iter().map(|row| (row.int(0), row.int(1)));
        Ok(keys.filter(|(length, at)| !pending.iter().any(|hour| (*at..at + length).contains(hour))).collect())
    };
    let mut valid = match kind {
        None => read(&TIERS[1..], std::slice::from_ref(hours))?,
        Some(_) => Vec::new(),
    };
    let (_, rest) = longest_of(hours, &valid);
    // Hours only where no longer bitmap is: a year has many.
    if !rest.is_empty() {
        valid.extend(read(&TIERS[..1], &rest)?);
    }
    Ok(longest_of(hours, &valid))
}

fn valid_sql(tiers: &[i64], ranges: &[Range<i64>], kind: Option<EventType>) -> String {
    let within =
        ranges.iter().map(|Range { start, end }| format!("at >= {start} AND at < {end} AND at + hours <= {end}"));
    format!(
        "SELECT hours, at FROM visitor_bitmap AS b WHERE hours IN ({}) AND event_type = {} AND ({}) AND NOT EXISTS \
           (SELECT 1 FROM series WHERE users IS NULL AND series.at >= b.at * 60 AND series.at < (b.at + b.hours) * 60)",
        joined(tiers.iter().copied()),
        series_code(kind),
        within.collect::<Vec<_>>().join(" OR ")
    )
}

fn longest_of(hours: &Range<i64>, valid: &[BitmapKey]) -> Chosen {
    let mut valid = valid.to_vec();
    valid.sort_unstable_by_key(|(length, at)| (Reverse(*length), *at));
    let mut chosen: BTreeMap<i64, i64> = BTreeMap::new();
    for (length, at) in valid {
        // Bitmaps do not overlap but as one within another.
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
    let covered: i64 = chosen.values().sum::<i64>() + rest.iter().map(|range| range.end - range.start).sum::<i64>();
    assert_eq!(covered, (hours.end - hours.start).max(0), "bitmaps and the rest are the range");
    (chosen.into_iter().map(|(at, length)| (length, at)).collect(), rest)
}

/// Counts the distinct users of a range: of a type, or of all.
pub fn distinct(
    sql: &mut dyn Sql,
    cover: &Cover,
    kind: Option<EventType>,
    pending: &HashSet<i64>,
) -> Result<u64, StoreError> {
    let hours = cover.hours.clone().unwrap_or(0..0);
    let (bitmaps, rest) = if hours.is_empty() { Default::default() } else { choose(sql, &hours, kind, pending)? };
    let seen = seen_sql(sql.dialect(), &rest, &cover.raw, kind);
    if bitmaps.is_empty() {
        return count_seen(sql, seen);
    }
    let (mut union, mut is_whole) = (UserUnion::default(), true);
    sql.each(&members_sql(&bitmaps, kind), &[], &mut |row| {
        is_whole &= union.add(row.int(0), row.bytes(1)).is_some();
        Ok(())
    })?;
    if !is_whole {
        // A damaged bitmap: the hours have the users too.
        let seen = seen_sql(sql.dialect(), &[hours], &cover.raw, kind);
        return count_seen(sql, seen);
    }
    if let Some(seen) = seen {
        union.add_seen(sql, &seen)?;
    }
    Ok(union.count())
}

fn count_seen(sql: &mut dyn Sql, seen: Option<String>) -> Result<u64, StoreError> {
    let Some(seen) = seen else { return Ok(0) };
    let query = format!("SELECT count(*) FROM (SELECT DISTINCT user_id FROM ({seen}) AS seen) AS u");
    Ok(sql.first(&query, &[])?.map_or(0, |row| row.count(0)))
}

/// `SELECT user_id` of hours and of raw rows, some more than once; `None` without either.
fn seen_sql(dialect: Dialect, hours: &[Range<i64>], raw: &[Range<i64>], kind: Option<EventType>) -> Option<String> {
    let of_code = kind.map_or(String::new(), |kind| format!(" AND event_type = {}", kind as u8));
    let of_name = kind.map_or(String::new(), |kind| format!(" AND event_type = '{}'", kind.name()));
    let collation = if dialect == Dialect::Postgres { " COLLATE \"C\"" } else { "" };
    let of_hours = hours.iter().map(|Range { start, end }| {
        format!("SELECT user_id FROM user_hour WHERE hour >= {start} AND hour < {end}{of_code}")
    });
    let of_rows = raw.iter().map(|range| {
        let during = dialect.during("event_time", range);
        format!("SELECT user_id{collation} FROM events WHERE {during}{of_name} AND user_id IS NOT NULL")
    });
    let all: Vec<String> = of_hours.chain(of_rows).collect();
    (!all.is_empty()).then(|| all.join(" UNION ALL "))
}

fn members_sql(bitmaps: &[BitmapKey], kind: Option<EventType>) -> String {
    let of_tier = |tier: &i64| {
        let at: Vec<i64> = bitmaps.iter().filter(|(of, _)| of == tier).map(|(_, at)| *at).collect();
        let code = series_code(kind);
        (!at.is_empty()).then(|| format!("hours = {tier} AND event_type = {code} AND at IN ({})", joined(at)))
    };
    let all: Vec<String> = TIERS.iter().filter_map(of_tier).chain([format!("hours = {ERASED}")]).collect();
    format!("SELECT hours, members FROM visitor_bitmap WHERE {}", all.join(" OR "))
}

/// Users that were seen, each once.
#[derive(Debug, Default)]
struct UserUnion {
    seen: RoaringBitmap,
    erased: RoaringBitmap,
    without_ordinal: u64,
}

impl UserUnion {
    fn add(&mut self, tier: i64, members: &[u8]) -> Option<()> {
        *(if tier == ERASED { &mut self.erased } else { &mut self.seen }) |= read(members)?;
        Some(())
    }

    /// Users by name, each once by its ordinal. Users without one are in no bitmap.
    fn add_seen(&mut self, sql: &mut dyn Sql, seen: &str) -> Result<(), StoreError> {
        let ordinals = format!(
            "SELECT CAST(coalesce((SELECT ordinal FROM visitor WHERE key = 'u:' || u.user_id), -1) AS bigint) AS ordinal \
             FROM (SELECT DISTINCT user_id FROM ({seen}) AS seen ORDER BY user_id) AS u"
        );
        let query = match sql.dialect() {
            // One row: thousands of them take longer to send than to find.
            Dialect::Postgres => format!("SELECT array_agg(ordinal) FROM ({ordinals}) AS all_of_them"),
            Dialect::Sqlite => ordinals,
        };
        sql.each(&query, &[], &mut |row| {
            match &row.0[0] {
                Cell::Ints(ordinals) => ordinals.iter().for_each(|ordinal| self.add_user(*ordinal)),
                Cell::Int(ordinal) => self.add_user(*ordinal),
                _ => {}
            }
            Ok(())
        })
    }

    fn add_user(&mut self, ordinal: i64) {
        match u32::try_from(ordinal) {
            Ok(ordinal) => drop(self.seen.insert(ordinal)),
            Err(_) => self.without_ordinal += 1,
        }
    }

    fn count(self) -> u64 {
        (self.seen - self.erased).len() + self.without_ordinal
    }
}

/// A stored bitmap; `None` if it is damaged.
pub fn read(members: &[u8]) -> Option<RoaringBitmap> {
    RoaringBitmap::deserialize_from(members).ok()
}

/// A bitmap as it is stored.
pub fn bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).expect("a vector takes it");
    bytes
}

/// Deletes the bitmaps that contain some hours.
pub fn forget_sql(hours: &[i64]) -> String {
    let keys = TIERS.map(|tier| {
        let mut at: Vec<i64> = hours.iter().map(|hour| hour.div_euclid(tier) * tier).collect();
        at.sort_unstable();
        at.dedup();
        format!("hours = {tier} AND at IN ({})", joined(at))
    });
    format!("DELETE FROM visitor_bitmap WHERE {}", keys.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn every_hour_is_in_one_bitmap_or_left_over(
            start in 0..2_000i64, length in 0..3_000i64, chances in proptest::collection::vec(0..3u8, 6_000),
        ) {
            let (hours, mut valid) = (start..start + length, Vec::new());
            for tier in TIERS {
                let within = (0..6_000 / tier).map(|n| n * tier).filter(|at| *at >= hours.start && at + tier <= hours.end);
                valid.extend(within.filter(|at| chances[(at / tier) as usize] > 0).map(|at| (tier, at)));
            }
            let (bitmaps, rest) = longest_of(&hours, &valid);
            let mut seen: Vec<i64> =
                bitmaps.iter().flat_map(|(tier, at)| *at..at + tier).chain(rest.into_iter().flatten()).collect();
            seen.sort_unstable();
            assert_eq!(seen, hours.collect::<Vec<_>>());
            assert!(bitmaps.iter().all(|key| valid.contains(key)));
        }
    }

    #[test]
    fn erased_users_are_in_no_union_and_users_without_an_ordinal_count_by_name() {
        let mut union = UserUnion::default();
        let of = |ordinals: &[u32]| bytes(&ordinals.iter().collect());
        for (tier, ordinals) in [(24, &[1, 2, 3][..]), (1, &[3, 4]), (ERASED, &[2, 9])] {
            union.add(tier, &of(ordinals)).unwrap();
        }
        [4, 7, -1, -1].into_iter().for_each(|ordinal| union.add_user(ordinal));
        assert_eq!(union.count(), 6);
        assert!(read(b"no bitmap").is_none());
    }
}
