//! A snapshot of the ledger as the buckets of a live store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::events::{Dimension, Sketch};
use crate::limits::LIVE_BUCKET_MEMBERS_MAX;
use crate::ports::Snapshot;

use super::{Bucket, Calendar, Search, merge_search, still_recent};

pub type Buckets = BTreeMap<Bucket, BTreeMap<Dimension, Arc<Counts>>>;

/// The counts of a bucket by name.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub by_name: HashMap<Arc<str>, i64>,
    /// It lost members.
    pub trimmed: bool,
}

impl Counts {
    pub fn add(&mut self, name: &str, count: i64, new_name: impl FnOnce() -> Arc<str>) {
        match self.by_name.get_mut(name) {
            Some(known) => *known += count,
            None => drop(self.by_name.insert(new_name(), count)),
        }
    }

    /// A bucket of more than `bound` members keeps the `LIVE_BUCKET_MEMBERS_MAX` highest counts, ties by name.
    pub fn trim(&mut self, bound: usize) {
        if self.by_name.len() > bound {
            let mut all: Vec<(i64, Arc<str>)> =
                self.by_name.iter().map(|(name, count)| (*count, Arc::clone(name))).collect();
            let dropped = all.len() - LIVE_BUCKET_MEMBERS_MAX;
            all.select_nth_unstable(dropped - 1);
            for (_, name) in &all[..dropped] {
                self.by_name.remove(name);
            }
            self.trimmed = true;
        }
    }
}

/// What a new generation starts with.
#[derive(Debug)]
pub struct Image<'a> {
    pub buckets: Buckets,
    pub users: BTreeMap<Bucket, Arc<Sketch>>,
    /// Every minute before it is in its hour and its day already.
    pub folded_until: i64,
    /// By user, newest first, never empty.
    pub recent: HashMap<&'a str, Vec<Search>>,
}

impl<'a> Image<'a> {
    /// The ledger keeps no days: they are summed from hours, and from the two parts of an hour in
    /// which a day begins.
    pub fn new(snapshot: &'a Snapshot, now_ms: i64, calendar: &Calendar) -> Image<'a> {
        let day_of = |minute: i64| Bucket::Day(calendar.day(minute));
        // A client's clock may be ahead: the snapshot's hours cover those minutes as well.
        let newest = snapshot.minutes.iter().map(|(_, minute, ..)| *minute).max().unwrap_or(i64::MIN);
        let folded_until = Calendar::minute(now_ms).max(newest) + 1;

        let mut buckets = Buckets::new();
        let mut add = |bucket: Bucket, dimension: Dimension, name: &str, count: i64| {
            if dimension != Dimension::Type && calendar.is_kept(bucket, now_ms) {
                let counts = buckets.entry(bucket).or_default().entry(dimension).or_default();
                Arc::make_mut(counts).add(name, count, || name.into());
            }
        };
        for (dimension, minute, name, count) in &snapshot.minutes {
            add(Bucket::Minute(*minute), *dimension, name, *count);
        }
        for (dimension, hour, name, count) in &snapshot.hours {
            add(Bucket::Hour(*hour), *dimension, name, *count);
            add(day_of(hour * 60), *dimension, name, *count);
        }
        for (dimension, minute, name, count) in &snapshot.rests_of_hours {
            add(day_of(*minute), *dimension, name, *count);
            add(day_of(minute - minute.rem_euclid(60)), *dimension, name, -count);
        }
        for (bucket, dimensions) in &mut buckets {
            for counts in dimensions.values_mut().map(Arc::make_mut) {
                // A count of zero changes no answer.
                counts.by_name.retain(|_, count| *count != 0);
                counts.trim(calendar.members_max(*bucket, folded_until));
            }
        }

        let mut users = BTreeMap::<Bucket, Arc<Sketch>>::new();
        let mut add_users = |bucket: Bucket, sketch: &Sketch| {
            if calendar.is_kept(bucket, now_ms) {
                Arc::make_mut(users.entry(bucket).or_default()).merge(sketch);
            }
        };
        for (minute, sketch) in &snapshot.user_minutes {
            add_users(Bucket::Minute(*minute), sketch);
        }
        for (hour, sketch) in &snapshot.user_hours {
            add_users(Bucket::Hour(*hour), sketch);
            // Users cannot be subtracted: an hour in which a day begins is added by its parts.
            if !snapshot.days_within_hours.iter().any(|minute| minute.div_euclid(60) == *hour) {
                add_users(day_of(hour * 60), sketch);
            }
        }
        for (minute, sketch) in &snapshot.user_parts {
            add_users(day_of(*minute), sketch);
        }

        let mut recent = HashMap::<&str, Vec<Search>>::new();
        for (user, keyword, at_ms) in &snapshot.recent {
            merge_search(recent.entry(user).or_default(), Search::new(keyword, *at_ms));
        }
        recent.retain(|_, list| still_recent(list[0].at_ms, now_ms));
        Image { buckets, users, folded_until, recent }
    }
}
