//! The stores under test, and how they are compared with the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_tracker::adapters::memory::MemoryLive;
use event_tracker::adapters::redis::RedisLive;
use event_tracker::events::Dimension;
use event_tracker::ports::{LiveStore, TopQuery};
use jiff::tz::TimeZone;

use super::instance::fast_directory;
use crate::support::bench::{Ledger as LedgerKind, Live as LiveKind};
use crate::support::ledgers::Fixture;
use crate::support::model::{Model, WINDOWS};
use crate::support::redis as redis_server;

pub(crate) struct Stores {
    kind: LedgerKind,
    pub(crate) fixture: Fixture,
    pub(crate) redis: Option<redis_server::Server>,
    pub(crate) live: Arc<dyn LiveStore>,
    pub(crate) zone: TimeZone,
}

/// Keys with their values and when they expire.
pub(crate) type Backup = Vec<(Vec<u8>, Option<Vec<u8>>, i64)>;

fn ledger_of(kind: LedgerKind) -> Fixture {
    match kind {
        LedgerKind::Postgres => Fixture::postgres(),
        LedgerKind::Sqlite => Fixture::sqlite_in(fast_directory()),
    }
}

impl Stores {
    pub(crate) fn new(ledger: LedgerKind, live: LiveKind) -> Stores {
        let redis = (live == LiveKind::Redis).then(redis_server::Server::start);
        let live = Arc::new(MemoryLive::new(TimeZone::UTC));
        Stores { kind: ledger, fixture: ledger_of(ledger), redis, live, zone: TimeZone::UTC }
    }

    pub(crate) fn clear(&mut self, zone: TimeZone) {
        self.zone = zone;
        self.fixture = ledger_of(self.kind);
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

    pub(crate) fn check_live(&self, model: &Model, now_ms: i64, users: &[String]) {
        let mut totals = model.totals();
        // Mentions are the ledger's alone.
        totals.retain(|(dimension, _), _| *dimension <= Dimension::Component as u8);
        let found = self.live.totals().expect("answers").into_iter().filter(|(.., count)| *count != 0);
        let found: BTreeMap<_, _> = found.map(|(dimension, name, count)| ((dimension as u8, name), count)).collect();
        assert_eq!(found, totals, "totals of the live store");
        for dimension in Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Type) {
            for window in WINDOWS {
                let query = TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 1_000 };
                let found = self.live.top(&query, now_ms).expect("answers");
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
