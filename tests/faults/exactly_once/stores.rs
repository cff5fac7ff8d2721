//! The stores under test, and how they are compared with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event_tracker::adapters::memory::MemoryLive;
use event_tracker::adapters::redis::RedisLive;
use event_tracker::events::Dimension;
use event_tracker::limits::ROLLUP_MINUTES_KEPT;
use event_tracker::ports::{CountFilter, Ledger, LiveStore, TopQuery, Verdict, Window};
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::instance::fast_directory;
use super::model::{Model, Sums};
use crate::support::ledgers::Fixture;
use crate::support::redis as redis_server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerKind {
    Postgres,
    Sqlite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveKind {
    Redis,
    Memory,
}

/// One ledger and one live store, shared by all instances.
pub(crate) struct Stores {
    kind: LedgerKind,
    fixture: Fixture,
    redis: Option<redis_server::Server>,
    pub(crate) live: Arc<dyn LiveStore>,
    pub(crate) zone: TimeZone,
}

/// Keys with their values and when they expire.
pub(crate) type Backup = Vec<(Vec<u8>, Option<Vec<u8>>, i64)>;

const WINDOWS: [Window; 4] = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];

const TABLES: [&str; 21] = [
    "events",
    "post_stat",
    "post_like",
    "post_like_log",
    "dead_letter",
    "erased",
    "tombstone",
    "watermark",
    "verdict",
    "rollup_minute",
    "rollup_hour",
    "rollup_day",
    "rollup_span",
    "series",
    "rollup_total",
    "user_hour",
    "rollup_delta",
    "visitor",
    "visitor_bitmap",
    "event_id_a",
    "event_id_b",
];

impl Stores {
    pub(crate) fn new(ledger: LedgerKind, live: LiveKind) -> Stores {
        let fixture = match ledger {
            LedgerKind::Postgres => Fixture::postgres(),
            LedgerKind::Sqlite => Fixture::sqlite_in(fast_directory()),
        };
        let redis = (live == LiveKind::Redis).then(redis_server::Server::start);
        let live = Arc::new(MemoryLive::new(TimeZone::UTC));
        Stores { kind: ledger, fixture, redis, live, zone: TimeZone::UTC }
    }

    /// Empty stores again, with days of another time zone.
    pub(crate) fn clear(&mut self, zone: TimeZone) {
        self.zone = zone;
        match self.kind {
            LedgerKind::Postgres => {
                let deletes: Vec<String> = TABLES.iter().map(|table| format!("DELETE FROM {table};")).collect();
                let rest = "DELETE FROM recent_forgotten; UPDATE event_id_current SET name = 'a', since_ms = 0; \
                    UPDATE rollup_state SET until_hour = 0, until_day = 0";
                self.fixture.rows(&format!("{} {rest}", deletes.concat()));
            }
            LedgerKind::Sqlite => self.fixture = Fixture::sqlite_in(fast_directory()),
        }
        self.lose_live();
        if let Some(redis) = &self.redis {
            let live = RedisLive::new(&redis.url(), 2, self.zone.clone()).expect("the URL is one");
            self.live = Arc::new(live);
        }
    }

    /// The live store loses everything. One in memory does so with its process: instances must be made anew.
    pub(crate) fn lose_live(&mut self) {
        match &self.redis {
            Some(_) => self.empty_redis(),
            None => self.live = Arc::new(MemoryLive::new(self.zone.clone())),
        }
    }

    /// As somebody does who empties the wrong server.
    pub(crate) fn empty_redis(&self) {
        drop(self.redis.as_ref().map(|redis| redis.admin("FLUSHALL").expect("Redis answers")));
    }

    /// Everything that Redis holds, as a backup does.
    pub(crate) fn back_up(&self) -> Option<Backup> {
        let mut link = redis::Client::open(self.redis.as_ref()?.url()).and_then(|client| client.get_connection());
        let link = link.as_mut().expect("Redis answers");
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(link).expect("keys");
        let kept = keys.into_iter().map(|key| {
            let dump = redis::cmd("DUMP").arg(&key).query(link).expect("a value");
            let expires = redis::cmd("PEXPIRETIME").arg(&key).query::<i64>(link).expect("a time");
            (key, dump, expires.max(0))
        });
        Some(kept.collect())
    }

    /// Redis holds what it held when the backup was made.
    pub(crate) fn restore(&self, backup: &Backup) {
        self.empty_redis();
        let url = self.redis.as_ref().expect("a backup was made of it").url();
        let mut link = redis::Client::open(url).and_then(|client| client.get_connection()).expect("Redis answers");
        for (key, dump, expires) in backup {
            let mut restore = redis::cmd("RESTORE");
            // A key that ran out while the backup was made has no value.
            if let Some(dump) = dump {
                restore.arg(key).arg(expires).arg(dump).arg("ABSTTL").exec(&mut link).expect("restores");
            }
        }
    }

    pub(crate) fn is_live_in_memory(&self) -> bool {
        self.redis.is_none()
    }

    pub(crate) fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.fixture.ledger
    }

    /// Rows of the ledger's tables, as text.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.fixture.rows(sql)
    }

    fn pairs(&self, sql: &str) -> BTreeSet<Vec<String>> {
        let rows = self.fixture.rows(sql);
        let count = rows.len();
        let set: BTreeSet<Vec<String>> = rows.into_iter().collect();
        assert_eq!(set.len(), count, "a row is there twice: {sql}");
        set
    }

    fn sums(&self, table: &str, after: i64) -> Sums {
        let sql = format!("SELECT dimension, bucket, key, count FROM {table} WHERE count <> 0 AND bucket > {after}");
        let rows = self.fixture.rows(&sql).into_iter();
        rows.map(|row| ((number(&row[0]) as u8, number(&row[1]), row[2].clone()), number(&row[3]))).collect()
    }

    /// The ledger's tables and its answers are what the model says. `pruned`: up to where verdicts are gone.
    pub(crate) fn check_ledger(&self, model: &Model, now_ms: i64, pruned: &BTreeMap<Uuid, u64>) {
        self.check_rows(model);
        self.check_likes(model);
        self.check_verdicts(model, pruned);
        assert_eq!(self.sums("rollup_hour", i64::MIN + 1), model.hours(), "rollup_hour");
        let after = now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT;
        let minutes: Sums = model.minutes().into_iter().filter(|((_, minute, _), _)| *minute > after).collect();
        assert_eq!(self.sums("rollup_minute", after), minutes, "rollup_minute");
        let totals = self.fixture.rows("SELECT dimension, key, count FROM rollup_total WHERE count <> 0");
        let totals: BTreeMap<_, _> =
            totals.into_iter().map(|row| ((number(&row[0]) as u8, row[1].clone()), number(&row[2]))).collect();
        assert_eq!(totals, all_totals(model), "rollup_total");
        let users = self.pairs("SELECT hour, event_type, user_id FROM user_hour");
        let expected = model.user_hours().into_iter().map(|(hour, kind, user)| strings([&hour, &kind, &user]));
        assert_eq!(users, expected.collect(), "user_hour");
        let count = self.fixture.ledger.count(&CountFilter::default()).expect("counts");
        assert_eq!(count, model.stored.len() as u64);
        for window in WINDOWS {
            let (dimension, zone) = (Dimension::Keyword, &self.zone);
            let found = self.fixture.ledger.top(&top(dimension, window), now_ms, zone).expect("answers");
            assert_eq!(found, model.top(dimension, window, now_ms, zone), "the ledger's list of {window:?}");
        }
    }

    fn check_rows(&self, model: &Model) {
        let columns = "event_id, event_type, coalesce(user_id, ''), coalesce(post_id, ''), coalesce(keyword, '')";
        let mut rows = self.fixture.rows(&format!("SELECT {columns} FROM events"));
        let mut expected: Vec<Vec<String>> = Vec::new();
        for stored in &model.stored {
            let event = &stored.event;
            let texts = [&event.user_id, &event.post_id, &event.keyword].map(|t| t.as_deref().unwrap_or_default());
            let [user, post, keyword] = texts;
            expected.push(strings([&event.id, &stored.kind.name(), &user, &post, &keyword]));
        }
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected, "events");
    }

    fn check_likes(&self, model: &Model) {
        let likes = self.pairs("SELECT user_id, post_id FROM post_like");
        assert_eq!(likes, model.liked.keys().map(|(user, post)| strings([user, post])).collect(), "post_like");
        let posts = self.pairs("SELECT post_id, like_count, version FROM post_stat WHERE version > 0");
        let expected = model.posts.iter().map(|(post, (count, version))| strings([post, count, version]));
        assert_eq!(posts, expected.collect(), "post_stat");
        let columns = "stream, position, post_id, user_id, action, like_count, version";
        let log = self.pairs(&format!("SELECT {columns} FROM post_like_log"));
        let expected = model.log.iter().map(|(stream, position, post, user, action, count, version, _)| {
            strings([stream, position, post, user, action, count, version])
        });
        assert_eq!(log, expected.collect(), "post_like_log");
        // In the order of their numbers the changes of a post are its history.
        let numbered = self.fixture.rows("SELECT post_id, version FROM post_like_log ORDER BY seq");
        let mut versions: BTreeMap<String, i64> = BTreeMap::new();
        for row in numbered {
            let version = versions.entry(row[0].clone()).or_default();
            *version += 1;
            assert_eq!(number(&row[1]), *version, "the log's order of {}", row[0]);
        }
    }

    fn check_verdicts(&self, model: &Model, pruned: &BTreeMap<Uuid, u64>) {
        let kind = |verdict: &Verdict| match verdict {
            Verdict::Duplicate => Some(1),
            Verdict::Dead => Some(2),
            Verdict::Erased => Some(7),
            Verdict::Erasure => Some(8),
            Verdict::Like(_) | Verdict::Post(_) => None,
        };
        let exceptions = model.verdicts.iter().filter_map(|((stream, at), verdict)| {
            let is_kept = *at > pruned.get(stream).copied().unwrap_or_default();
            is_kept.then(|| kind(verdict).map(|kind| strings([stream, at, &kind])))?
        });
        assert_eq!(self.pairs("SELECT stream, position, kind FROM verdict"), exceptions.collect(), "verdict");
        let dead = model.letters.keys().map(|(stream, at)| strings([stream, at]));
        assert_eq!(self.pairs("SELECT stream, position FROM dead_letter"), dead.collect(), "dead_letter");
    }

    /// The live store's answers are what the model says.
    pub(crate) fn check_live(&self, model: &Model, now_ms: i64, users: &[String]) {
        let mut totals = all_totals(model);
        // Mentions are the ledger's alone.
        totals.retain(|(dimension, _), _| *dimension <= Dimension::Component as u8);
        let found = self.live.totals().expect("answers").into_iter().filter(|(.., count)| *count != 0);
        let found: BTreeMap<_, _> = found.map(|(dimension, name, count)| ((dimension as u8, name), count)).collect();
        assert_eq!(found, totals, "totals of the live store");
        for dimension in Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Type) {
            for window in WINDOWS {
                let found = self.live.top(&top(dimension, window), now_ms).expect("answers");
                assert!(!found.approximate);
                let expected = model.top(dimension, window, now_ms, &self.zone);
                assert_eq!(found.items, expected, "{dimension:?} of {window:?} at {now_ms}");
            }
        }
        for user in users {
            let (of_the_hour, all) = model.recent(user, now_ms);
            let found = self.live.recent(user, now_ms).expect("answers");
            // What is older than an hour stays until the newest is; a store that was rebuilt has lost it.
            let (first, rest) = found.split_at(of_the_hour.len().min(found.len()));
            assert_eq!(first, of_the_hour, "recent searches of {user} at {now_ms}: {found:?}");
            assert!(rest.iter().all(|keyword| all.contains(keyword)), "{rest:?} of {all:?}, {user}");
            assert_eq!(self.fixture.ledger.recent(user, now_ms).expect("answers"), of_the_hour, "{user}");
        }
    }
}

/// Sums over all streams.
fn all_totals(model: &Model) -> BTreeMap<(u8, String), i64> {
    let mut totals: BTreeMap<(u8, String), i64> = BTreeMap::new();
    for ((_, dimension, name), count) in model.totals() {
        *totals.entry((dimension, name)).or_default() += count;
    }
    totals.retain(|_, count| *count != 0);
    totals
}

fn top(dimension: Dimension, window: Window) -> TopQuery {
    TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 1_000 }
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}

fn strings<const N: usize>(values: [&dyn std::fmt::Display; N]) -> Vec<String> {
    values.iter().map(|value| value.to_string()).collect()
}
