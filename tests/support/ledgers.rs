//! A ledger of each kind under test, and journals to feed them.

#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use event_tracker::adapters::postgres::{self, PostgresLedger};
use event_tracker::adapters::sqlite::SqliteLedger;
use event_tracker::events::{Dimension, Event, EventType, PostPut, Record};
use event_tracker::ports::{
    Batch, Interval, Ledger, LedgerWriter, Position, Ranked, RankingQuery, SeriesPoint, SeriesQuery, Snapshot,
    StoreError, TopQuery, Verdicts, Watermark,
};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::postgres::Server;
use super::tables::{self, Rows};

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// 2026-11-22T10:30:30Z, a Sunday.
pub(crate) const NOW: i64 = 1_795_343_430_000;

/// A ledger under test and a way around it, to look at its tables.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The same ledger as one with many events, which finds the first names of its rankings by lists.
    pub(crate) by_lists: Arc<dyn Ledger>,
    query: Box<dyn Fn(&str) -> Rows + Send + Sync>,
    pub(crate) url: String,
    _keep: (Option<Arc<Server>>, Option<tempfile::TempDir>),
}

impl Fixture {
    pub(crate) fn postgres() -> Fixture {
        let server = Server::shared();
        let url = server.database("ledger", "");
        postgres::prepare(&url).expect("a fresh database takes the schema");
        let open = || PostgresLedger::new(&url, 4).expect("the URL is one");
        let (ledger, by_lists) = (open(), Arc::new(open().ranking_all_up_to(-1)));
        let direct = url.clone();
        let query = move |sql: &str| tables::of_postgres(&direct, sql);
        let _keep = (Some(server), None);
        Fixture { name: "postgres", ledger: Arc::new(ledger), by_lists, query: Box::new(query), url, _keep }
    }

    pub(crate) fn sqlite() -> Fixture {
        Fixture::sqlite_in(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn sqlite_in(directory: tempfile::TempDir) -> Fixture {
        let path = directory.path().join("ledger.db");
        let open = || SqliteLedger::open(&path).expect("a fresh file takes the schema");
        let (ledger, by_lists) = (open(), Arc::new(open().ranking_all_up_to(-1)));
        let url = path.display().to_string();
        let query = move |sql: &str| tables::of_sqlite(&path, sql);
        let _keep = (None, Some(directory));
        Fixture { name: "sqlite", ledger: Arc::new(ledger), by_lists, query: Box::new(query), url, _keep }
    }

    pub(crate) fn rows(&self, sql: &str) -> Rows {
        (self.query)(sql)
    }

    /// A page of a ranking, by lists and by reading all names: they must not differ.
    pub(crate) fn ranking(&self, query: &RankingQuery) -> Ranked {
        let read = |ledger: &dyn Ledger| ledger.ranking(query, NOW).expect("answers").expect("in time");
        let (all, by_lists) = (read(&*self.ledger), read(&*self.by_lists));
        assert_eq!(by_lists, all, "{} by lists: {query:?}", self.name);
        all
    }

    /// A list, by lists and by adding up all names: their scores must not differ.
    pub(crate) fn top(&self, query: &TopQuery) -> Vec<(String, f64)> {
        let read = |ledger: &dyn Ledger| ledger.top(query, NOW, &TimeZone::UTC).expect("answers");
        let (all, by_lists) = (read(&*self.ledger), read(&*self.by_lists));
        let is_close = all.iter().zip(&by_lists).all(|(one, other)| (one.1 - other.1).abs() < 1e-9 * one.1);
        assert!(all.len() == by_lists.len() && is_close, "{} {query:?}: {all:?} {by_lists:?}", self.name);
        all
    }

    pub(crate) fn series(
        &self,
        event_type: Option<EventType>,
        interval: Interval,
        edges_ms: Vec<i64>,
    ) -> Vec<SeriesPoint> {
        let query = SeriesQuery { event_type, interval, edges_ms };
        self.ledger.series(&query).expect("answers").expect("in time")
    }

    pub(crate) fn snapshot(&self, now_ms: i64) -> Snapshot {
        self.ledger.snapshot(now_ms, &TimeZone::UTC).expect("a snapshot")
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].parse().unwrap_or_else(|_| panic!("{sql}"))
    }

    pub(crate) fn feed(&self) -> Feed {
        Feed::on(&*self.ledger)
    }
}

/// The first page of a ranking.
pub(crate) fn ranking_of(parts: &[(Dimension, i64)], range: Range<i64>, limit: usize) -> RankingQuery {
    RankingQuery { parts: parts.to_vec(), from_ms: range.start, to_ms: range.end, after: None, before: 0, limit }
}

/// Runs `check` over every ledger.
pub(crate) fn each_ledger(mut check: impl FnMut(&Fixture)) {
    for fixture in [Fixture::postgres(), Fixture::sqlite()] {
        eprintln!("-- {}", fixture.name);
        check(&fixture);
    }
}

/// A journal's side: knows where it stands.
pub(crate) struct Feed {
    pub(crate) writer: Box<dyn LedgerWriter>,
    pub(crate) stream: Uuid,
    pub(crate) at: Watermark,
}

impl Feed {
    /// A journal that the ledger has not heard of.
    pub(crate) fn on(ledger: &dyn Ledger) -> Feed {
        let mut writer = ledger.open_writer().expect("a writer");
        let stream = Uuid::new_v4();
        writer.register(stream).expect("registers");
        Feed { writer, stream, at: Watermark::default() }
    }

    pub(crate) fn batch<'a>(&self, records: Vec<Record<'a>>) -> Batch<'a> {
        let position = self.at.position + records.len() as u64;
        let to = Watermark { position, crc: (position as u32).wrapping_mul(2_654_435_761) };
        Batch { stream: self.stream, from: self.at, to, records }
    }

    pub(crate) fn try_apply(
        &mut self,
        records: Vec<Record<'_>>,
        dead: &[(Position, &str)],
    ) -> Result<Verdicts, StoreError> {
        let batch = self.batch(records);
        let dead: BTreeMap<Position, String> = dead.iter().map(|(at, why)| (*at, (*why).to_owned())).collect();
        let verdicts = self.writer.apply(&batch, &dead)?;
        self.at = batch.to;
        Ok(verdicts)
    }

    pub(crate) fn apply(&mut self, records: Vec<Record<'_>>) -> Verdicts {
        self.try_apply(records, &[]).expect("applies")
    }

    /// Whatever is due at `NOW`: a call does what it can in its time.
    pub(crate) fn fold_all(&mut self) {
        while self.writer.fold(NOW, &TimeZone::UTC).expect("folds") {}
    }
}

pub(crate) fn event(event_type: EventType, at_ms: i64) -> Event<'static> {
    Event {
        id: Uuid::new_v4(),
        id_from_client: false,
        event_type,
        user_id: Some("u1".into()),
        session_id: None,
        component_id: None,
        element_id: None,
        keyword: None,
        post_id: None,
        url: None,
        referrer: None,
        result_count: None,
        properties: None,
        event_time_ms: at_ms,
        received_at_ms: NOW,
    }
}

pub(crate) fn search(user: &str, keyword: &str, at_ms: i64) -> Record<'static> {
    let (user_id, keyword) = (Some(user.to_owned().into()), Some(keyword.to_owned().into()));
    Record::Event(Event { user_id, keyword, ..event(EventType::Search, at_ms) })
}

pub(crate) fn click(component: i64, at_ms: i64) -> Record<'static> {
    Record::Event(Event { component_id: Some(component), ..event(EventType::Click, at_ms) })
}

pub(crate) fn like(event_type: EventType, user: &str, post: &str, at_ms: i64) -> Record<'static> {
    let (user_id, post_id) = (Some(user.to_owned().into()), Some(post.to_owned().into()));
    Record::Event(Event { user_id, post_id, ..event(event_type, at_ms) })
}

/// A post without hashtags and images, made when it came in.
pub(crate) fn put(user: &str, post: &str, content: &str, at_ms: i64) -> PostPut<'static> {
    PostPut {
        post_id: post.to_owned().into(),
        user_id: user.to_owned().into(),
        content: content.to_owned().into(),
        hashtags: vec![],
        image_urls: vec![],
        created_at_ms: None,
        at_ms,
    }
}

/// An event that came in then.
pub(crate) fn received(record: Record<'static>, received_at_ms: i64) -> Record<'static> {
    match record {
        Record::Event(event) => Record::Event(Event { received_at_ms, ..event }),
        other => other,
    }
}

pub(crate) fn with_id(record: Record<'static>, id: Uuid) -> Record<'static> {
    match record {
        Record::Event(event) => Record::Event(Event { id, id_from_client: true, ..event }),
        other => other,
    }
}

pub(crate) const KEYWORDS: [&str; 5] = ["Chair", "chair", "ÉCOLE", "école", "고양이"];

/// A random event of any kind within the last three days, often sharing names with others.
pub(crate) fn random_event(random: &mut StdRng) -> Event<'static> {
    let types = [
        EventType::Click,
        EventType::PageView,
        EventType::Search,
        EventType::Search,
        EventType::Like,
        EventType::Unlike,
        EventType::Toggle,
    ];
    let kind = types[random.random_range(0..types.len())];
    let old = random.random_range(0..4) == 0;
    let age = if old { random.random_range(0..3 * DAY) } else { random.random_range(0..2 * HOUR) };
    let mut event = event(kind, NOW - age);
    let mut maybe = |text: String| (random.random_range(0..2) == 0).then(|| text.into());
    event.session_id = maybe("s".to_owned());
    event.referrer = maybe("https://example.org/ref".to_owned());
    event.properties = maybe(r#"{"a": [1, 2.5, "é"], "b": null}"#.to_owned());
    event.element_id = maybe("button".to_owned());
    event.user_id = Some(format!("u{}", random.random_range(0..20)).into());
    let urls = ["/a?x=1", "https://example.org/a#b", "https://example.org", "/b", "?q"];
    if kind == EventType::Search || random.random_range(0..5) == 0 {
        event.keyword = Some(KEYWORDS[random.random_range(0..KEYWORDS.len())].into());
    }
    if kind == EventType::PageView || random.random_range(0..3) == 0 {
        event.url = Some(urls[random.random_range(0..urls.len())].into());
    }
    if kind.is_like() || random.random_range(0..2) == 0 {
        event.post_id = Some(format!("p{}", random.random_range(0..5)).into());
    }
    if kind == EventType::Click || random.random_range(0..4) == 0 {
        event.component_id = Some(random.random_range(1..4));
    }
    event.result_count = (kind == EventType::Search).then(|| random.random_range(0..3));
    event
}

pub(crate) fn seeded() -> StdRng {
    StdRng::seed_from_u64(super::seed())
}
