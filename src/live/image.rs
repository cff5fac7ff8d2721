//! A snapshot of the ledger as the buckets of a live store.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::events::{Dimension, Sketch};
use crate::limits::{LIVE_BUCKET_MEMBERS_MAX, LIVE_OPEN_BUCKET_MEMBERS_MAX};
use crate::ports::Snapshot;

use super::{Bucket, Calendar, Search, merge_search, still_recent};

/// Counts by name, and whether the bucket was trimmed.
pub type ImageBucket<'a> = (HashMap<&'a str, i64>, bool);

/// What a new generation starts with.
#[derive(Debug)]
pub struct Image<'a> {
    pub buckets: BTreeMap<(Bucket, Dimension), ImageBucket<'a>>,
    pub users: BTreeMap<Bucket, Sketch>,
    /// Every minute before it is in its hour and its day already.
    pub folded_until: i64,
    /// By user, newest first, never empty.
    pub recent: HashMap<&'a str, Vec<Search>>,
}

impl<'a> Image<'a> {
    /// The ledger keeps no days: they are summed from hours, and from the two parts of an hour in
    /// which a day begins.
    pub fn new(snapshot: &'a Snapshot, now_ms: i64, calendar: &Calendar) -> Image<'a> {
        // A client's clock may be ahead: the snapshot's hours cover those minutes as well.
        let newest = snapshot.minutes.iter().map(|(_, minute, ..)| *minute).max().unwrap_or(i64::MIN);
        let folded_until = Calendar::minute(now_ms).max(newest) + 1;
        let mut image =
            Image { buckets: BTreeMap::new(), users: BTreeMap::new(), folded_until, recent: HashMap::new() };
        for (dimension, minute, name, count) in &snapshot.minutes {
            image.add(Bucket::Minute(*minute), *dimension, name, *count, now_ms, calendar);
        }
        for (dimension, hour, name, count) in &snapshot.hours {
            image.add(Bucket::Hour(*hour), *dimension, name, *count, now_ms, calendar);
            image.add(Bucket::Day(calendar.day(hour * 60)), *dimension, name, *count, now_ms, calendar);
        }
        for (dimension, minute, name, count) in &snapshot.rests_of_hours {
            image.add(Bucket::Day(calendar.day(*minute)), *dimension, name, *count, now_ms, calendar);
            image.add(
                Bucket::Day(calendar.day(minute - minute.rem_euclid(60))),
                *dimension,
                name,
                -count,
                now_ms,
                calendar,
            );
        }
        for (minute, users) in &snapshot.user_minutes {
            image.add_users(Bucket::Minute(*minute), users, now_ms, calendar);
        }
        for (hour, users) in &snapshot.user_hours {
            image.add_users(Bucket::Hour(*hour), users, now_ms, calendar);
            // Users cannot be subtracted: an hour in which a day begins is added by its parts.
            if !snapshot.days_within_hours.iter().any(|minute| minute.div_euclid(60) == *hour) {
                image.add_users(Bucket::Day(calendar.day(hour * 60)), users, now_ms, calendar);
            }
        }
        for (minute, users) in &snapshot.user_parts {
            image.add_users(Bucket::Day(calendar.day(*minute)), users, now_ms, calendar);
        }
        image.trim(folded_until, calendar);
        for (user, keyword, at_ms) in &snapshot.recent {
            merge_search(image.recent.entry(user).or_default(), Search::new(keyword, *at_ms));
        }
        image.recent.retain(|_, list| still_recent(list[0].at_ms, now_ms));
        image
    }

    fn add(&mut self, bucket: Bucket, dimension: Dimension, name: &'a str, count: i64, now_ms: i64, cal: &Calendar) {
        if dimension != Dimension::Type && cal.is_kept(bucket, now_ms) {
            *self.buckets.entry((bucket, dimension)).or_default().0.entry(name).or_default() += count;
        }
    }

    fn add_users(&mut self, bucket: Bucket, users: &Sketch, now_ms: i64, calendar: &Calendar) {
        if calendar.is_kept(bucket, now_ms) {
            self.users.entry(bucket).or_default().merge(users);
        }
    }

    fn trim(&mut self, folded_until: i64, calendar: &Calendar) {
        for ((bucket, _), (counts, trimmed)) in &mut self.buckets {
            // A count of zero changes no answer.
            counts.retain(|_, count| *count != 0);
            let closed = calendar.end_minute(*bucket) <= folded_until;
            let bound = if closed { LIVE_BUCKET_MEMBERS_MAX } else { LIVE_OPEN_BUCKET_MEMBERS_MAX };
            if counts.len() > bound {
                let all = counts.iter().map(|(name, count)| (*count, *name));
                let dropped: HashSet<&str> = trimmed_names(all, LIVE_BUCKET_MEMBERS_MAX).into_iter().collect();
                counts.retain(|name, _| !dropped.contains(name));
                *trimmed = true;
            }
        }
    }
}

/// The names that go when a bucket is trimmed to `kept`: those of the lowest counts, ties by name.
pub fn trimmed_names<N: Ord>(counts: impl Iterator<Item = (i64, N)>, kept: usize) -> Vec<N> {
    let mut all: Vec<(i64, N)> = counts.collect();
    let dropped = all.len().saturating_sub(kept);
    if dropped == 0 {
        return Vec::new();
    }
    all.select_nth_unstable(dropped - 1);
    all.truncate(dropped);
    all.into_iter().map(|(_, name)| name).collect()
}
