//! A store under test, and a sink's side of it.

use std::sync::Arc;

use event_tracker::adapters::{memory::MemoryLive, redis::RedisLive};
use event_tracker::clock::Clock;
use event_tracker::events::{Dimension, TallyKey};
use event_tracker::ports::{
    LiveBatch, LiveState, LiveStore, LiveWriter, RecentChange, Snapshot, StoreError, TopQuery, Watermark, Window,
};
use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::support::redis::{Server, admin};

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const STREAM: Uuid = Uuid::from_u128(1);

pub(crate) struct Bench {
    pub(crate) store: Arc<dyn LiveStore>,
    pub(crate) writer: Box<dyn LiveWriter>,
    pub(crate) at: Watermark,
    pub(crate) now_ms: i64,
    fresh: Fresh,
}

/// Makes the store that its adapter has after everything was lost, with days of a time zone.
type Fresh = Arc<dyn Fn(TimeZone) -> Arc<dyn LiveStore>>;

impl Bench {
    pub(crate) fn new(fresh: Fresh, now_ms: i64) -> Bench {
        let (store, writer, at) = (fresh(zone()), fresh(zone()).open_writer().unwrap(), Watermark::default());
        let mut bench = Bench { store, writer, at, now_ms, fresh };
        bench.lose(zone());
        bench.rebuild(&Snapshot::default()).unwrap();
        bench.writer.register(STREAM).unwrap();
        bench
    }

    pub(crate) fn lose(&mut self, zone: TimeZone) {
        self.store = (self.fresh)(zone);
        self.writer = self.store.open_writer().unwrap();
        assert_eq!(self.writer.state(STREAM).unwrap(), LiveState::Lost);
    }

    pub(crate) fn rebuild(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let seen = self.writer.state(STREAM)?;
        self.writer.rebuild(STREAM, seen, &mut |_| Ok(snapshot.clone()), self.now_ms)
    }

    pub(crate) fn apply(&mut self, counts: &[(Dimension, i64, &str, i64)], recent: Vec<RecentChange>) {
        let batch = self.batch(counts, recent);
        self.writer.apply(&batch).unwrap();
        self.at = batch.to;
    }

    pub(crate) fn batch(&self, counts: &[(Dimension, i64, &str, i64)], recent: Vec<RecentChange>) -> LiveBatch {
        let key = |dimension, minute, key: &str| TallyKey { dimension, minute, key: key.into() };
        let mut counts: Vec<(TallyKey, i64)> = counts.iter().map(|(d, m, k, n)| (key(*d, *m, k), *n)).collect();
        counts.sort();
        let to = Watermark { position: self.at.position + 1, crc: self.at.crc + 7 };
        LiveBatch { stream: STREAM, from: self.at, to, now_ms: self.now_ms, counts, recent, ..LiveBatch::default() }
    }

    /// Time passes: a union kept for a second is not what we see.
    pub(crate) fn top(&mut self, dimension: Dimension, window: Window) -> Vec<(String, f64)> {
        self.now_ms += 1_000;
        self.top_at(dimension, window, self.now_ms)
    }

    pub(crate) fn top_at(&self, dimension: Dimension, window: Window, now_ms: i64) -> Vec<(String, f64)> {
        let query = TopQuery { parts: vec![(dimension, 1.0)], window, hot: false, limit: 1_000 };
        self.store.top(&query, now_ms).unwrap().items
    }

    pub(crate) fn recent(&self, user: &str) -> Vec<String> {
        self.store.recent(user, self.now_ms).unwrap()
    }
}

/// A time 10 s into a minute and 40 minutes or so into an hour, within the last hour of the real
/// one.
pub(crate) fn some_now() -> i64 {
    let now = Clock::System.now_ms();
    now - now.rem_euclid(MINUTE_MS) + 10_000
}

pub(crate) fn minute(at_ms: i64) -> i64 {
    at_ms.div_euclid(MINUTE_MS)
}

pub(crate) fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(9))
}

pub(crate) fn on_both(claim: impl Fn(Bench)) {
    claim(Bench::new(Arc::new(|zone| Arc::new(MemoryLive::new(zone))), some_now()));
    let (_server, bench) = on_redis();
    claim(bench);
}

pub(crate) fn on_redis() -> (Server, Bench) {
    let server = Server::start();
    let bench = Bench::new(of_redis(server.url()), some_now());
    (server, bench)
}

fn of_redis(url: String) -> Fresh {
    Arc::new(move |zone| {
        admin(&url, "FLUSHDB").unwrap();
        Arc::new(RedisLive::new(&url, 4, zone).unwrap())
    })
}

pub(crate) fn rows(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(name, score)| ((*name).to_owned(), *score)).collect()
}

pub(crate) fn search(user: &str, keyword: &str, at_ms: i64) -> RecentChange {
    RecentChange::Add { user_id: user.into(), keyword: keyword.into(), at_ms }
}

pub(crate) fn forget(user: &str, keyword: Option<&str>, at_ms: i64) -> RecentChange {
    RecentChange::Forget { user_id: user.into(), keyword: keyword.map(str::to_owned), at_ms }
}

pub(crate) const ALL: [Window; 4] = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];
