//! The live store in this process: the embedded default. Every start is a rebuild.
//!
//! One mutex guards plain maps and is held for lookups and merging only. A bucket is an `Arc`: a
//! reader sums outside of the lock; a writer that meets its reference copies that one bucket.

mod recent_lists;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::events::{Dimension, Sketch, TallyKey};
use crate::limits::{CLOCK_JUMP_MS, FOLD_GRACE_MS, LIVE_FOLD_STEP_MINUTES_MAX, LIVE_OPEN_BUCKET_MEMBERS_MAX};
use crate::live::{Bucket, Buckets, Calendar, Counts, Image, Reading, Tombstones, decay, groups, lists_posts, reading};
use crate::ports::{
    LiveBatch, LiveState, LiveStore, LiveTop, LiveWriter, ReadSnapshot, RecentChange, StoreError, Tombstone, TopQuery,
    Watermark, Window,
};
use recent_lists::RecentLists;

/// Clones share one store.
#[derive(Clone)]
pub struct MemoryLive {
    calendar: Arc<Calendar>,
    data: Arc<Mutex<Option<Generation>>>,
}

/// Everything that a rebuild replaces.
#[derive(Default)]
struct Generation {
    watermarks: HashMap<Uuid, Watermark>,
    buckets: Buckets,
    users: BTreeMap<Bucket, Arc<Sketch>>,
    totals: BTreeMap<(Dimension, String), i64>,
    folded_until: i64,
    /// The time of the latest rebuild or fold. A clock that goes back was wrong: what it dropped is
    /// in the ledger, so the generation is given up and rebuilt.
    tended_ms: i64,
    recent: RecentLists,
    tombstones: Arc<Tombstones>,
}

impl MemoryLive {
    /// An empty store that asks to be rebuilt; days are those of `time_zone`.
    pub fn new(time_zone: TimeZone) -> MemoryLive {
        MemoryLive { calendar: Arc::new(Calendar::new(time_zone)), data: Arc::default() }
    }

    fn data(&self) -> MutexGuard<'_, Option<Generation>> {
        // A panic under the lock leaves plain data, at worst one batch half merged: later calls go on.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, read: impl FnOnce(&mut Generation) -> T) -> Result<T, StoreError> {
        let lost = || StoreError::Retry("the live store is empty and waits to be rebuilt".into());
        self.data().as_mut().map(read).ok_or_else(lost)
    }
}

impl LiveStore for MemoryLive {
    fn open_writer(&self) -> Result<Box<dyn LiveWriter>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn top(&self, query: &TopQuery, now_ms: i64) -> Result<LiveTop, StoreError> {
        let reading = reading(query.window, query.hot, now_ms, &self.calendar);
        // References only: the lock is free while they are summed.
        let (sources, tombstones) = self.with(|generation| {
            let mut sources: Vec<(Arc<Counts>, f64)> = Vec::new();
            for (bucket, decayed) in generation.read(&reading) {
                let Some(dimensions) = generation.buckets.get(&bucket) else { continue };
                for (dimension, weight) in &query.parts {
                    let counts = dimensions.get(dimension).cloned();
                    sources.extend(counts.map(|counts| (counts, weight * decayed)));
                }
            }
            (sources, Arc::clone(&generation.tombstones))
        })?;
        let of_posts = lists_posts(query);
        let ranked = ranked(&sources).into_iter().filter(|(name, _)| !(of_posts && tombstones.hides(name)));
        let items = ranked.take(query.limit).map(|(name, score)| (name.to_string(), score)).collect();
        Ok(LiveTop { items, approximate: sources.iter().any(|(counts, _)| counts.trimmed) })
    }

    fn users(&self, window: Window, now_ms: i64) -> Result<u64, StoreError> {
        let reading = reading(window, false, now_ms, &self.calendar);
        let sketches: Vec<Arc<Sketch>> = self.with(|generation| {
            generation.read(&reading).filter_map(|(bucket, _)| generation.users.get(&bucket).cloned()).collect()
        })?;
        let mut all = Sketch::default();
        sketches.iter().for_each(|sketch| all.merge(sketch));
        Ok(all.estimate())
    }

    fn recent(&self, user_id: &str, now_ms: i64) -> Result<Vec<String>, StoreError> {
        self.with(|generation| generation.recent.get(user_id, now_ms))
    }

    fn totals(&self) -> Result<Vec<(Dimension, String, i64)>, StoreError> {
        self.with(|generation| {
            generation.totals.iter().map(|((dimension, name), count)| (*dimension, name.clone(), *count)).collect()
        })
    }
}

fn ranked(sources: &[(Arc<Counts>, f64)]) -> Vec<(&Arc<str>, f64)> {
    let mut scores: HashMap<&Arc<str>, f64> = HashMap::new();
    for (counts, weight) in sources {
        for (name, count) in &counts.by_name {
            *scores.entry(name).or_default() += *count as f64 * weight;
        }
    }
    let mut ranked: Vec<(&Arc<str>, f64)> = scores.into_iter().filter(|(_, score)| *score > 0.0).collect();
    ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    ranked
}

impl Generation {
    /// The minutes of a range that have counts.
    fn minutes(&self, range: Range<i64>) -> impl Iterator<Item = i64> + '_ {
        let end = range.end.max(range.start);
        let buckets = self.buckets.range(Bucket::Minute(range.start)..Bucket::Minute(end));
        buckets.filter_map(|(bucket, _)| if let Bucket::Minute(minute) = bucket { Some(*minute) } else { None })
    }

    /// The buckets of a reading, each with its weight, and the minutes that are not folded yet.
    fn read<'a>(&'a self, reading: &'a Reading) -> impl Iterator<Item = (Bucket, f64)> + 'a {
        let unfolded = self.minutes(reading.unfolded.start.max(self.folded_until)..reading.unfolded.end);
        let weigh =
            |minute| (Bucket::Minute(minute), decay(reading.as_of_ms, (minute + 1) * 60_000, reading.half_life_ms));
        reading.buckets.iter().copied().chain(unfolded.map(weigh))
    }

    fn counts(&mut self, bucket: Bucket, dimension: Dimension) -> &mut Counts {
        Arc::make_mut(self.buckets.entry(bucket).or_default().entry(dimension).or_default())
    }

    /// Where counts of a minute go: to the minute until it is folded, then to all that are kept.
    fn targets(&self, minute: i64, now_ms: i64, calendar: &Calendar) -> Vec<Bucket> {
        let [in_minute, in_hour, in_day] = calendar.buckets(minute);
        if !calendar.is_kept(in_day, now_ms) {
            return Vec::new();
        }
        if minute >= self.folded_until {
            return vec![in_minute];
        }
        [in_minute, in_hour, in_day].into_iter().filter(|bucket| calendar.is_kept(*bucket, now_ms)).collect()
    }

    fn apply(&mut self, batch: &LiveBatch, calendar: &Calendar) {
        for (key, count) in &batch.counts {
            self.add_total(key.dimension, &key.key, *count);
        }
        for group in groups(&batch.counts) {
            self.add_to_buckets(group, batch.now_ms, calendar);
        }
        if !batch.tombstones.is_empty() {
            let tombstones = Arc::make_mut(&mut self.tombstones);
            batch.tombstones.iter().for_each(|tombstone| tombstones.apply(tombstone, batch.now_ms));
        }
        self.add_users(batch, calendar);
        for change in &batch.recent {
            self.recent.change(change, batch.now_ms);
        }
    }

    fn add_to_buckets(&mut self, group: &[(TallyKey, i64)], now_ms: i64, calendar: &Calendar) {
        let (dimension, minute) = (group[0].0.dimension, group[0].0.minute);
        if dimension == Dimension::Type {
            return;
        }
        for bucket in self.targets(minute, now_ms, calendar) {
            let counts = self.counts(bucket, dimension);
            for (key, count) in group {
                counts.add(&key.key, *count, || key.key.as_ref().into());
            }
            counts.trim(LIVE_OPEN_BUCKET_MEMBERS_MAX);
        }
    }

    fn add_users(&mut self, batch: &LiveBatch, calendar: &Calendar) {
        for group in batch.users.chunk_by(|a, b| a.0 == b.0) {
            for bucket in self.targets(group[0].0, batch.now_ms, calendar) {
                // So that the minute is folded, whether it counts anything or not.
                self.buckets.entry(bucket).or_default();
                let sketch = Arc::make_mut(self.users.entry(bucket).or_default());
                group.iter().for_each(|(_, user)| sketch.add(user));
            }
        }
    }

    fn add_total(&mut self, dimension: Dimension, name: &str, count: i64) {
        let name = if dimension == Dimension::Type { name } else { "" };
        *self.totals.entry((dimension, name.to_owned())).or_default() += count;
    }

    /// Folds some minutes that closed before `until`; true where more are left.
    fn fold_step(&mut self, until: i64, calendar: &Calendar) -> bool {
        if self.folded_until >= until {
            return false;
        }
        let minutes: Vec<i64> = self.minutes(self.folded_until..until).take(LIVE_FOLD_STEP_MINUTES_MAX).collect();
        let next = match minutes.last() {
            Some(last) if minutes.len() == LIVE_FOLD_STEP_MINUTES_MAX => last + 1,
            _ => until,
        };
        for minute in &minutes {
            self.pour(*minute, calendar);
        }
        // A bucket that the last fold left open may have closed with this one.
        for minute in minutes.iter().copied().chain([self.folded_until - 1]) {
            for bucket in calendar.buckets(minute) {
                let bound = calendar.members_max(bucket, next);
                for counts in self.buckets.get_mut(&bucket).into_iter().flat_map(BTreeMap::values_mut) {
                    if counts.by_name.len() > bound {
                        Arc::make_mut(counts).trim(bound);
                    }
                }
            }
        }
        self.folded_until = next;
        next < until
    }

    fn pour(&mut self, minute: i64, calendar: &Calendar) {
        let [from, in_hour, in_day] = calendar.buckets(minute);
        for bucket in [in_hour, in_day] {
            for (dimension, source) in self.buckets.get(&from).cloned().unwrap_or_default() {
                let counts = self.counts(bucket, dimension);
                counts.trimmed |= source.trimmed;
                // A minute, its hour and its day share their names.
                source.by_name.iter().for_each(|(name, count)| counts.add(name, *count, || Arc::clone(name)));
            }
            if let Some(source) = self.users.get(&from).cloned() {
                Arc::make_mut(self.users.entry(bucket).or_default()).merge(&source);
            }
        }
    }

    fn forget_old(&mut self, now_ms: i64, calendar: &Calendar) {
        let folded_until = self.folded_until;
        let stays = |bucket: &Bucket| {
            let unfolded = matches!(bucket, Bucket::Minute(minute) if *minute >= folded_until);
            unfolded || calendar.is_kept(*bucket, now_ms)
        };
        self.buckets.retain(|bucket, _| stays(bucket));
        self.users.retain(|bucket, _| stays(bucket));
        self.recent.forget_old(now_ms);
        Arc::make_mut(&mut self.tombstones).forget_old(now_ms);
    }
}

impl LiveWriter for MemoryLive {
    fn state(&mut self, stream: Uuid) -> Result<LiveState, StoreError> {
        Ok(match self.data().as_ref().map(|generation| generation.watermarks.get(&stream)) {
            None => LiveState::Lost,
            Some(None) => LiveState::NewStream,
            Some(Some(watermark)) => LiveState::At(*watermark),
        })
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        let mut data = self.data();
        let generation = data.as_mut().ok_or(StoreError::Fenced { found: None })?;
        generation.watermarks.entry(stream).or_default();
        Ok(())
    }

    fn apply(&mut self, batch: &LiveBatch) -> Result<(), StoreError> {
        let mut data = self.data();
        let generation = data.as_mut().ok_or(StoreError::Fenced { found: None })?;
        let found = generation.watermarks.get(&batch.stream).copied();
        if found != Some(batch.from) {
            return Err(StoreError::Fenced { found });
        }
        generation.apply(batch, &self.calendar);
        generation.watermarks.insert(batch.stream, batch.to);
        Ok(())
    }

    fn fold(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let until = Calendar::minute(now_ms - FOLD_GRACE_MS);
        let calendar = &self.calendar;
        // The lock is let go between two steps.
        while self.data().as_mut().is_some_and(|generation| generation.fold_step(until, calendar)) {}
        let mut data = self.data();
        if let Some(generation) = data.as_mut() {
            generation.forget_old(now_ms, calendar);
            if std::mem::replace(&mut generation.tended_ms, now_ms) > now_ms + CLOCK_JUMP_MS {
                *data = None;
            }
        }
        Ok(())
    }

    fn rebuild(
        &mut self,
        stream: Uuid,
        seen: LiveState,
        read: ReadSnapshot<'_>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        if self.state(stream)? != seen {
            return Ok(());
        }
        let snapshot = &read(self.calendar.time_zone())?;
        let image = Image::new(snapshot, now_ms, &self.calendar);
        let mut next = Generation {
            watermarks: snapshot.watermarks.iter().copied().collect(),
            buckets: image.buckets,
            users: image.users,
            folded_until: image.folded_until,
            tended_ms: now_ms,
            ..Generation::default()
        };
        for (dimension, name, count) in &snapshot.totals {
            next.add_total(*dimension, name, *count);
        }
        for (user, folded, at_ms) in &snapshot.forgotten {
            let keyword = (!folded.is_empty()).then(|| folded.clone());
            let change = RecentChange::Forget { user_id: user.clone(), keyword, at_ms: *at_ms };
            next.recent.change(&change, now_ms);
        }
        let tombstones = Arc::make_mut(&mut next.tombstones);
        for (post_id, version) in &snapshot.tombstones {
            let tombstone = Tombstone { post_id: post_id.clone(), version: *version, deleted: true };
            tombstones.apply(&tombstone, now_ms);
        }
        let mut recent: Vec<_> = image.recent.into_iter().collect();
        recent.sort_by_key(|(_, list)| list.first().map(|newest| newest.at_ms));
        for (user, list) in recent {
            next.recent.put(user, list);
        }
        drop(self.data().replace(next));
        Ok(())
    }
}
