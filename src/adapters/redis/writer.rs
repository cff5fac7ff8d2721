//! The sink's side: one connection, opened when it is needed, dropped after any I/O error.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::{Cmd, FromRedisValue};
use uuid::Uuid;

use crate::events::{Dimension, TallyKey, fold_keyword};
use crate::limits::{
    FOLD_GRACE_MS, FORGOTTEN_MAX, GENERATION_KEPT_SECS, LIVE_BUCKET_MEMBERS_MAX, LIVE_DAYS_KEPT,
    LIVE_FOLD_STEP_MINUTES_MAX, LIVE_HOURS_KEPT, LIVE_MINUTES_KEPT, LIVE_OPEN_BUCKET_MEMBERS_MAX,
    LIVE_TOMBSTONE_KEPT_MS, LIVE_TOMBSTONES_MAX, RECENT_SEARCHES_MAX, RECENT_SEARCHES_MS,
};
use crate::live::{Bucket, Calendar, Search, groups, still_recent};
use crate::ports::{LiveBatch, LiveState, LiveWriter, ReadSnapshot, RecentChange, StoreError, Tombstone, Watermark};

use super::connection::{Connector, Wire};
use super::keys::{GENERATIONS_KEY, bucket_name, recent_element, total_field};
use super::script::{self, APPLY, FOLD, REGISTER, Script, watermark_text};

pub(super) struct RedisWriter {
    pub(super) connector: Connector,
    pub(super) wire: Wire,
    pub(super) calendar: Arc<Calendar>,
    pub(super) generation_key: Arc<str>,
}

impl RedisWriter {
    /// A connection that broke before the call reached the server cannot be told from one that broke
    /// after it: the error goes to the sink, which asks for the watermark.
    fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        arguments: impl FnOnce(&mut Cmd, &Calendar),
    ) -> Result<T, StoreError> {
        let mut command = script::call(script, &self.generation_key);
        arguments(&mut command, &self.calendar);
        script::run_reply(&mut self.wire, script, &command)
    }
}

impl LiveWriter for RedisWriter {
    fn state(&mut self, stream: Uuid) -> Result<LiveState, StoreError> {
        script::state(&mut self.wire, &self.generation_key, stream)
    }

    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        let (seconds, micros): (i64, i64) = self.wire.query(&redis::cmd("TIME"))?;
        Ok(Some(seconds * 1_000 + micros / 1_000))
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        let start = watermark_text(Watermark::default());
        self.run(&REGISTER, |command, _| _ = command.arg(stream.to_string()).arg(start))
    }

    fn apply(&mut self, batch: &LiveBatch) -> Result<(), StoreError> {
        self.run(&APPLY, |command, calendar| apply_arguments(command, batch, calendar))
    }

    fn fold(&mut self, now_ms: i64) -> Result<(), StoreError> {
        loop {
            match self
                .run::<(bool, Option<String>)>(&FOLD, |command, calendar| fold_arguments(command, now_ms, calendar))
            {
                Ok((true, _)) => {}
                Ok((false, None)) => return Ok(()),
                Ok((false, Some(unused))) => return self.delete_unused(&unused),
                // Nothing to fold: the sink learns of it by its next batch.
                Err(StoreError::Fenced { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn rebuild(
        &mut self,
        stream: Uuid,
        seen: LiveState,
        read: ReadSnapshot<'_>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.rebuild_unless_done(stream, seen, read, now_ms)
    }
}

fn apply_arguments(command: &mut Cmd, batch: &LiveBatch, calendar: &Calendar) {
    command.arg(batch.stream.to_string()).arg(watermark_text(batch.from)).arg(watermark_text(batch.to));
    command.arg(LIVE_OPEN_BUCKET_MEMBERS_MAX).arg(LIVE_BUCKET_MEMBERS_MAX);
    let mut totals: BTreeMap<(Dimension, &str), i64> = BTreeMap::new();
    for (key, count) in &batch.counts {
        let name = if key.dimension == Dimension::Type { &*key.key } else { "" };
        *totals.entry((key.dimension, name)).or_default() += count;
    }
    command.arg(totals.len());
    for ((dimension, name), delta) in totals {
        command.arg(total_field(dimension, name)).arg(delta);
    }
    let live = |group: &&[(TallyKey, i64)]| {
        let key = &group[0].0;
        let day = Bucket::Day(calendar.day(key.minute));
        key.dimension != Dimension::Type && calendar.is_kept(day, batch.now_ms)
    };
    let in_buckets = || groups(&batch.counts).filter(live);
    command.arg(in_buckets().count());
    for group in in_buckets() {
        let key = &group[0].0;
        command.arg(key.dimension as u8).arg(key.minute).arg(calendar.unfolded_expires_s(key.minute));
        bucket_arguments(command, key.minute, batch.now_ms, calendar);
        command.arg(group.len());
        group.iter().for_each(|(key, count)| _ = command.arg(&*key.key).arg(*count));
    }
    user_arguments(command, batch, calendar);
    recent_arguments(command, batch);
    command.arg(batch.now_ms).arg(LIVE_TOMBSTONE_KEPT_MS).arg(LIVE_TOMBSTONES_MAX).arg(batch.tombstones.len());
    for Tombstone { post_id, version, deleted } in &batch.tombstones {
        command.arg(post_id).arg(if *deleted { *version } else { -version });
    }
}

fn user_arguments(command: &mut Cmd, batch: &LiveBatch, calendar: &Calendar) {
    let groups = batch.users.chunk_by(|a, b| a.0 == b.0);
    let live = groups.filter(|group| calendar.is_kept(Bucket::Day(calendar.day(group[0].0)), batch.now_ms));
    command.arg(live.clone().count());
    for group in live {
        let minute = group[0].0;
        command.arg(minute).arg(calendar.unfolded_expires_s(minute));
        bucket_arguments(command, minute, batch.now_ms, calendar);
        command.arg(group.len());
        group.iter().for_each(|(_, user)| _ = command.arg(&**user));
    }
}

/// Number and expiry of each bucket of a minute; expiry 0: no longer kept.
fn bucket_arguments(command: &mut Cmd, minute: i64, now_ms: i64, calendar: &Calendar) {
    for bucket in calendar.buckets(minute) {
        let expires = if calendar.is_kept(bucket, now_ms) { calendar.expires_s(bucket) } else { 0 };
        command.arg(bucket_name(bucket).1).arg(expires);
    }
}

/// Changes by user, each user's in journal order.
fn recent_arguments(command: &mut Cmd, batch: &LiveBatch) {
    let is_live = |change: &&RecentChange| match change {
        RecentChange::Add { at_ms, .. } => still_recent(*at_ms, batch.now_ms),
        RecentChange::Forget { .. } => true,
    };
    let mut changes: Vec<&RecentChange> = batch.recent.iter().filter(is_live).collect();
    changes.sort_by_key(|change| change.user_id());
    let users = changes.chunk_by(|a, b| a.user_id() == b.user_id());
    command.arg(RECENT_SEARCHES_MAX).arg(RECENT_SEARCHES_MS).arg(batch.now_ms - RECENT_SEARCHES_MS);
    command.arg(FORGOTTEN_MAX).arg(users.clone().count());
    for changes in users {
        command.arg(changes[0].user_id()).arg(changes.len());
        for change in changes {
            match change {
                RecentChange::Add { keyword, at_ms, .. } => {
                    command.arg("+").arg(recent_element(&Search::new(keyword, *at_ms)))
                }
                RecentChange::Forget { keyword, at_ms, .. } => {
                    let folded = keyword.as_deref().map(fold_keyword).unwrap_or_default();
                    command.arg("-").arg(&*folded).arg(*at_ms)
                }
            };
        }
    }
}

fn fold_arguments(command: &mut Cmd, now_ms: i64, calendar: &Calendar) {
    let until = Calendar::minute(now_ms - FOLD_GRACE_MS);
    command.arg(GENERATIONS_KEY).arg(GENERATION_KEPT_SECS).arg(now_ms - LIVE_TOMBSTONE_KEPT_MS);
    command.arg(until).arg(LIVE_FOLD_STEP_MINUTES_MAX).arg(LIVE_OPEN_BUCKET_MEMBERS_MAX).arg(LIVE_BUCKET_MEMBERS_MAX);
    command.arg(LIVE_MINUTES_KEPT * 60).arg(LIVE_HOURS_KEPT * 3_600).arg(now_ms.div_euclid(1_000));
    let sorted = Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Type);
    command.arg(sorted.clone().count());
    for dimension in sorted {
        command.arg(dimension as u8);
    }
    // Days that are kept, today's successor as the end of today: what is older is not live.
    let today = calendar.day(until);
    command.arg(LIVE_DAYS_KEPT + 1);
    for day in today - LIVE_DAYS_KEPT + 1..=today + 1 {
        command.arg(day).arg(calendar.day_start(day)).arg(calendar.expires_s(Bucket::Day(day)));
    }
}
