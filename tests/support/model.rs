//! What the stores must hold, worked out the plain way: every record once, in the order in which the ledger took it.
//!
//! It shares with the program the types of its ports and the functions that name things (`fold_keyword`, `page_key`,
//! `component_key`). It has no batches, rollups or buckets: it lists what was stored and sums over the list.

#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::{BTreeMap, BTreeSet};

use event_tracker::events::{Dimension, Event, EventType, Record, component_key, fold_keyword, page_key};
use event_tracker::limits::{ID_MEMORY_MS, RECENT_SEARCHES_MAX, RECENT_SEARCHES_MS, ROLLUP_MINUTES_KEPT};
use event_tracker::ports::{
    CountFilter, Interval, LikeOutcome, Position, Ranked, RankingQuery, SeriesPoint, TopQuery, Verdict, Window,
};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::ledgers::Fixture;

/// Dimension, minute or hour since the epoch, name.
type Key = (u8, i64, String);
type Sums = BTreeMap<Key, i64>;

/// An event that was stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) stream: Uuid,
    pub(crate) event: Event<'static>,
    /// What a toggle turned out to be.
    pub(crate) kind: EventType,
    /// What it counts for, which an erasure leaves.
    counts: Vec<(Dimension, String, i64)>,
}

impl Stored {
    /// `net`: +1 or -1 if it changed a like.
    pub(crate) fn new(stream: Uuid, event: Event<'static>, kind: EventType, net: i64) -> Stored {
        let counts = counted(&event, kind, net);
        Stored { stream, event, kind, counts }
    }

    fn is_in(&self, from_ms: i64, to_ms: i64) -> bool {
        (from_ms..to_ms).contains(&self.event.event_time_ms)
    }

    fn matches(&self, filter: &CountFilter) -> bool {
        let event = &self.event;
        let element = event.element_id.as_deref().filter(|_| event.component_id.is_none());
        let keyword = event.keyword.as_deref().map(fold_keyword);
        let page = event.url.as_deref().map(page_key);
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        filter.event_type.is_none_or(|kind| kind == self.kind)
            && (filter.component_id.is_none() || filter.component_id == event.component_id)
            && is(&filter.element_id, element)
            && is(&filter.post_id, event.post_id.as_deref())
            && is(&filter.keyword, keyword.as_deref())
            && is(&filter.page, page.as_deref())
            && self.is_in(filter.from_ms.unwrap_or(i64::MIN), filter.to_ms.unwrap_or(i64::MAX))
    }
}

/// A row of `post_like_log`: stream, position, post, user, action, likes, version, when it happened.
pub(crate) type Change = (Uuid, Position, String, String, &'static str, i64, i64, i64);

/// Client ids live in two tables that take turns once a day.
#[derive(Default)]
struct Ids {
    current: BTreeSet<Uuid>,
    older: BTreeSet<Uuid>,
    since_ms: i64,
}

#[derive(Default)]
pub(crate) struct Model {
    ids: Ids,
    pub(crate) stored: Vec<Stored>,
    /// User and post, since when.
    pub(crate) liked: BTreeMap<(String, String), i64>,
    pub(crate) posts: BTreeMap<String, (i64, i64)>,
    pub(crate) log: Vec<Change>,
    /// Every verdict, those on likes that changed nothing included.
    pub(crate) verdicts: BTreeMap<(Uuid, Position), Verdict>,
    /// Rows of `dead_letter`: whose, and when.
    pub(crate) letters: BTreeMap<(Uuid, Position), (String, i64)>,
    /// Who was erased, up to when.
    erased: BTreeMap<String, i64>,
    /// Likes that went with their user: when, and of which post.
    unliked: Vec<(i64, String)>,
    /// User, folded keyword (empty: all), up to when.
    forgotten: Vec<(String, String, i64)>,
}

impl Model {
    /// An event that the ledger has taken, of whichever journal.
    pub(crate) fn take(&mut self, event: &Event<'static>) {
        self.take_record(Uuid::nil(), self.stored.len() as Position, &Record::Event(event.clone()));
    }

    /// The ledger has taken the record at a position of a journal.
    pub(crate) fn take_record(&mut self, stream: Uuid, position: Position, record: &Record<'static>) {
        let of = match record {
            Record::Event(event) => event.user_id.as_deref().map(|u| (u, event.happened_ms())),
            Record::Forget(forget) => Some((&*forget.user_id, forget.at_ms)),
            _ => None,
        };
        if of.is_some_and(|(user, at_ms)| self.erased.get(user).is_some_and(|up_to| at_ms <= *up_to)) {
            self.verdicts.insert((stream, position), Verdict::Erased);
            return;
        }
        let event = match record {
            Record::Event(event) => event.clone(),
            Record::Erase(erase) => {
                self.verdicts.insert((stream, position), Verdict::Erasure);
                return self.erase(stream, position, &erase.user_id, erase.at_ms);
            }
            Record::Forget(forget) => {
                let keyword = forget.keyword.as_deref().map(fold_keyword).unwrap_or_default().into_owned();
                return self.forgotten.push((forget.user_id.to_string(), keyword, forget.at_ms));
            }
            _ => panic!("none is written"),
        };
        if event.keyword.as_deref().is_some_and(|keyword| keyword.contains('\0')) {
            self.letters.insert((stream, position), (text(&event.user_id), event.happened_ms()));
            self.verdicts.insert((stream, position), Verdict::Dead);
            return;
        }
        if event.id_from_client {
            let is_new = !self.ids.current.contains(&event.id) && !self.ids.older.contains(&event.id);
            self.ids.current.insert(event.id);
            if !is_new {
                self.verdicts.insert((stream, position), Verdict::Duplicate);
                return;
            }
        }
        let (mut kind, mut net) = (event.event_type, 0);
        if kind.is_like() {
            let outcome = self.like(stream, position, &event);
            kind = if outcome.liked { EventType::Like } else { EventType::Unlike };
            net = if !outcome.changed { 0 } else { [-1, 1][usize::from(outcome.liked)] };
            self.verdicts.insert((stream, position), Verdict::Like(outcome));
        }
        self.stored.push(Stored::new(stream, event, kind, net));
    }

    fn like(&mut self, stream: Uuid, position: Position, event: &Event<'_>) -> LikeOutcome {
        let (user, post) = (text(&event.user_id), text(&event.post_id));
        let pair = (user.clone(), post.clone());
        let was = self.liked.contains_key(&pair);
        let liked = match event.event_type {
            EventType::Like => true,
            EventType::Unlike => false,
            _ => !was,
        };
        let changed = liked != was;
        let (count, version) = self.posts.get(&post).copied().unwrap_or_default();
        if !changed {
            return LikeOutcome { liked, changed, like_count: count, version };
        }
        let (count, version) = (count + if liked { 1 } else { -1 }, version + 1);
        if liked {
            self.liked.insert(pair, event.happened_ms())
        } else {
            self.liked.remove(&pair)
        };
        self.posts.insert(post.clone(), (count, version));
        let action = if liked { "LIKE" } else { "UNLIKE" };
        self.log.push((stream, position, post, user, action, count, version, event.happened_ms()));
        LikeOutcome { liked, changed, like_count: count, version }
    }

    /// Nothing names the user any more, and every count is what it was but for the likes.
    fn erase(&mut self, stream: Uuid, position: Position, user: &str, at_ms: i64) {
        let up_to = self.erased.entry(user.to_owned()).or_insert(at_ms);
        *up_to = at_ms.max(*up_to);
        for stored in &mut self.stored {
            let event = &mut stored.event;
            if event.user_id.as_deref() == Some(user) && event.happened_ms() <= at_ms {
                event.user_id = None;
            }
        }
        self.letters.retain(|_, (whose, happened_ms)| whose != user || *happened_ms > at_ms);
        let theirs =
            |(pair, since): (&(String, String), &i64)| (pair.0 == user && *since <= at_ms).then(|| pair.1.clone());
        let posts: Vec<String> = self.liked.iter().filter_map(theirs).collect();
        for post in posts {
            self.liked.remove(&(user.to_owned(), post.clone()));
            let (count, version) = self.posts[&post];
            self.posts.insert(post.clone(), (count - 1, version + 1));
            self.log.push((stream, position, post.clone(), String::new(), "UNLIKE", count - 1, version + 1, at_ms));
            self.unliked.push((at_ms, post));
        }
        for change in self.log.iter_mut().filter(|change| change.3 == user && change.7 <= at_ms) {
            change.3.clear();
        }
    }

    /// Housekeeping was done.
    pub(crate) fn maintain(&mut self, now_ms: i64) {
        if self.ids.since_ms <= now_ms - ID_MEMORY_MS {
            self.ids.older = std::mem::take(&mut self.ids.current);
            self.ids.since_ms = now_ms;
        }
    }

    /// Everything that counts: when, of which kind, under which name, how much.
    fn counts(&self) -> impl Iterator<Item = (i64, Dimension, &String, i64)> {
        let stored = self.stored.iter().flat_map(|stored| {
            let at_ms = stored.event.event_time_ms;
            stored.counts.iter().map(move |(dimension, name, count)| (at_ms, *dimension, name, *count))
        });
        stored.chain(self.unliked.iter().map(|(at_ms, post)| (*at_ms, Dimension::PostLikes, post, -1)))
    }

    /// Sums of counts by a key of the kind, the time and the name; none is zero.
    fn sums<K: Ord>(&self, key: impl Fn(Dimension, i64, &str) -> K) -> BTreeMap<K, i64> {
        let mut sums = BTreeMap::new();
        for (at_ms, dimension, name, count) in self.counts() {
            *sums.entry(key(dimension, at_ms, name)).or_default() += count;
        }
        sums.retain(|_, count| *count != 0);
        sums
    }

    fn minutes(&self) -> Sums {
        self.sums(|dimension, at_ms, name| (dimension as u8, at_ms.div_euclid(60_000), name.to_owned()))
    }

    fn hours(&self) -> Sums {
        self.sums(|dimension, at_ms, name| (dimension as u8, at_ms.div_euclid(3_600_000), name.to_owned()))
    }

    /// All-time sums by kind, of types by name.
    pub(crate) fn totals(&self) -> BTreeMap<(u8, String), i64> {
        let name_of =
            |dimension, name: &str| if dimension == Dimension::Type { name.to_owned() } else { String::new() };
        self.sums(|dimension, _, name| (dimension as u8, name_of(dimension, name)))
    }

    /// A list: the sums of the minutes that a window covers.
    pub(crate) fn top(&self, dimension: Dimension, window: Window, now_ms: i64, zone: &TimeZone) -> Vec<(String, f64)> {
        let minute = now_ms.div_euclid(60_000);
        let today = date(minute, zone);
        let is_inside = |at: i64| match window {
            Window::TenMinutes => (minute - 9..=minute).contains(&at),
            Window::Hour => (minute - 59..=minute).contains(&at),
            Window::Day => (minute.div_euclid(60) - 23..=minute.div_euclid(60)).contains(&at.div_euclid(60)),
            Window::Week => (0..=6).contains(&(today - date(at, zone)).get_days()),
        };
        let ranked = self.ranked(&[(dimension, 1)], |at_ms| is_inside(at_ms.div_euclid(60_000)));
        ranked.into_iter().map(|(name, count)| (name, count as f64)).collect()
    }

    fn ranked(&self, parts: &[(Dimension, i64)], is_inside: impl Fn(i64) -> bool) -> Ranked {
        let mut sums: BTreeMap<&String, i64> = BTreeMap::new();
        for (at_ms, dimension, name, count) in self.counts() {
            if let Some((_, weight)) = parts.iter().find(|(of, _)| *of == dimension)
                && is_inside(at_ms)
            {
                *sums.entry(name).or_default() += count * weight;
            }
        }
        let positive = sums.into_iter().filter(|(_, sum)| *sum > 0);
        let mut ranked: Ranked = positive.map(|(name, sum)| (name.clone(), sum)).collect();
        ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ranked
    }

    pub(crate) fn ranking(&self, query: &RankingQuery) -> Ranked {
        self.ranked(&query.parts, |at_ms| (query.from_ms..query.to_ms).contains(&at_ms))
    }

    pub(crate) fn count(&self, filter: &CountFilter) -> u64 {
        self.stored.iter().filter(|stored| stored.matches(filter)).count() as u64
    }

    /// The users of events in a range, once for each event.
    pub(crate) fn users(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &str> {
        let inside = self.stored.iter().filter(move |stored| stored.is_in(from_ms, to_ms));
        inside.filter_map(|stored| stored.event.user_id.as_deref())
    }

    pub(crate) fn point(&self, kind: Option<EventType>, from_ms: i64, to_ms: i64) -> SeriesPoint {
        let is_of = |stored: &&Stored| stored.is_in(from_ms, to_ms) && kind.is_none_or(|kind| kind == stored.kind);
        let stored: Vec<&Stored> = self.stored.iter().filter(is_of).collect();
        let users: BTreeSet<&str> = stored.iter().filter_map(|stored| stored.event.user_id.as_deref()).collect();
        SeriesPoint { count: stored.len() as u64, users: users.len() as u64 }
    }

    /// A user's searches that were not forgotten, newest first, no keyword twice: of the last hour, and all.
    pub(crate) fn recent(&self, user: &str, now_ms: i64) -> (Vec<String>, Vec<String>) {
        let searches = self.stored.iter().filter_map(|stored| {
            let event = &stored.event;
            let keyword = event.keyword.as_deref().filter(|_| event.event_type == EventType::Search)?;
            (event.user_id.as_deref()? == user).then_some((event.happened_ms(), keyword))
        });
        let is_forgotten = |at_ms: i64, keyword: &str| {
            let folded = fold_keyword(keyword);
            self.forgotten
                .iter()
                .any(|(of, what, up_to)| of == user && at_ms <= *up_to && (what.is_empty() || *what == *folded))
        };
        let mut searches: Vec<_> = searches.filter(|(at_ms, keyword)| !is_forgotten(*at_ms, keyword)).collect();
        searches.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
        let newest = |searches: Vec<(i64, &str)>| {
            let mut list: Vec<String> = Vec::new();
            for (_, keyword) in searches {
                if list.len() < RECENT_SEARCHES_MAX && !list.iter().any(|k| fold_keyword(k) == fold_keyword(keyword)) {
                    list.push(keyword.to_owned());
                }
            }
            list
        };
        let of_the_hour = searches.iter().copied().filter(|(at_ms, _)| *at_ms > now_ms - RECENT_SEARCHES_MS).collect();
        (newest(of_the_hour), newest(searches))
    }
}

/// What is compared with the ledger: its tables, and its answers.
impl Model {
    /// Points that follow each other.
    pub(crate) fn check_series(
        &self,
        fixture: &Fixture,
        event_type: Option<EventType>,
        (interval, unit): (Interval, i64),
        from_ms: i64,
        points: i64,
    ) {
        let edges: Vec<i64> = (0..=points).map(|n| from_ms + n * unit).collect();
        let expected: Vec<_> = edges.windows(2).map(|edge| self.point(event_type, edge[0], edge[1])).collect();
        let read = fixture.series(event_type, interval, edges);
        assert_eq!(read, expected, "{} {interval:?} {event_type:?} from {from_ms}", fixture.name);
    }

    /// `pruned`: up to where verdicts were removed.
    pub(crate) fn check_ledger(&self, fixture: &Fixture, now_ms: i64, zone: &TimeZone, pruned: &BTreeMap<Uuid, u64>) {
        self.check_rows(fixture);
        self.check_likes(fixture);
        self.check_verdicts(fixture, pruned);
        self.check_sums(fixture, now_ms);
        assert_eq!(fixture.ledger.count(&CountFilter::default()).expect("counts"), self.stored.len() as u64);
        for window in WINDOWS {
            let query = TopQuery { parts: vec![(Dimension::Keyword, 1.0)], window, hot: false, limit: 1_000 };
            let found = fixture.ledger.top(&query, now_ms, zone).expect("answers");
            assert_eq!(found, self.top(Dimension::Keyword, window, now_ms, zone), "the ledger's list of {window:?}");
        }
    }

    pub(crate) fn check_rows(&self, fixture: &Fixture) {
        let columns = "event_id, event_type, coalesce(user_id, ''), coalesce(post_id, ''), coalesce(keyword, '')";
        let rows = self.stored.iter().map(|Stored { event, kind, .. }| {
            strings([&event.id, &kind.name(), &text(&event.user_id), &text(&event.post_id), &text(&event.keyword)])
        });
        same_rows(fixture, &format!("SELECT {columns} FROM events"), rows);
        let users: BTreeSet<_> = self
            .stored
            .iter()
            .filter_map(|Stored { event, kind, .. }| {
                let user = event.user_id.as_deref()?;
                Some(strings([&event.event_time_ms.div_euclid(3_600_000), &(*kind as u8), &user]))
            })
            .collect();
        same_rows(fixture, "SELECT hour, event_type, user_id FROM user_hour", users);
    }

    fn check_likes(&self, fixture: &Fixture) {
        let likes = self.liked.keys().map(|(user, post)| strings([user, post]));
        same_rows(fixture, "SELECT user_id, post_id FROM post_like", likes);
        let posts = self.posts.iter().map(|(post, (count, version))| strings([post, count, version]));
        same_rows(fixture, "SELECT post_id, like_count, version FROM post_stat WHERE version > 0", posts);
        let columns = "stream, position, post_id, user_id, action, like_count, version";
        let log = self.log.iter().map(|(stream, position, post, user, action, count, version, _)| {
            strings([stream, position, post, user, action, count, version])
        });
        same_rows(fixture, &format!("SELECT {columns} FROM post_like_log"), log);
        // In the order of their numbers the changes of a post are its history.
        let mut versions: BTreeMap<String, i64> = BTreeMap::new();
        for row in fixture.rows("SELECT post_id, version FROM post_like_log ORDER BY seq") {
            let version = versions.entry(row[0].clone()).or_default();
            *version += 1;
            assert_eq!(row[1], version.to_string(), "the log's order of {}", row[0]);
        }
    }

    fn check_verdicts(&self, fixture: &Fixture, pruned: &BTreeMap<Uuid, u64>) {
        let kind = |verdict: &Verdict| match verdict {
            Verdict::Duplicate => Some(1),
            Verdict::Dead => Some(2),
            Verdict::Erased => Some(7),
            Verdict::Erasure => Some(8),
            Verdict::Like(_) | Verdict::Post(_) => None,
        };
        let exceptions = self.verdicts.iter().filter_map(|((stream, at), verdict)| {
            let is_kept = *at > pruned.get(stream).copied().unwrap_or_default();
            is_kept.then(|| kind(verdict).map(|kind| strings([stream, at, &kind])))?
        });
        same_rows(fixture, "SELECT stream, position, kind FROM verdict", exceptions);
        let dead = self.letters.keys().map(|(stream, at)| strings([stream, at]));
        same_rows(fixture, "SELECT stream, position FROM dead_letter", dead);
    }

    pub(crate) fn check_sums(&self, fixture: &Fixture, now_ms: i64) {
        let row = |((dimension, bucket, name), count): (Key, i64)| strings([&dimension, &bucket, &name, &count]);
        let hours = "SELECT dimension, bucket, key, count FROM rollup_hour WHERE count <> 0";
        same_rows(fixture, hours, self.hours().into_iter().map(row));
        let after = now_ms.div_euclid(60_000) - ROLLUP_MINUTES_KEPT;
        let minutes = "SELECT dimension, bucket, key, count FROM rollup_minute WHERE count <> 0 AND bucket >";
        let kept = self.minutes().into_iter().filter(|((_, minute, _), _)| *minute > after);
        same_rows(fixture, &format!("{minutes} {after}"), kept.map(row));
        let totals = self.totals().into_iter().map(|((dimension, name), count)| strings([&dimension, &name, &count]));
        same_rows(fixture, "SELECT dimension, key, count FROM rollup_total WHERE count <> 0", totals);
    }
}

/// Compares the rows of a query with the expected ones, in any order.
#[track_caller]
fn same_rows(fixture: &Fixture, sql: &str, expected: impl IntoIterator<Item = Vec<String>>) {
    let (mut rows, mut expected) = (fixture.rows(sql), expected.into_iter().collect::<Vec<_>>());
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected, "{}: {sql}", fixture.name);
}

fn strings<const N: usize>(values: [&dyn std::fmt::Display; N]) -> Vec<String> {
    values.iter().map(|value| value.to_string()).collect()
}

fn text(value: &Option<std::borrow::Cow<'_, str>>) -> String {
    value.as_deref().unwrap_or_default().to_owned()
}

fn date(minute: i64, zone: &TimeZone) -> Date {
    Timestamp::from_second(minute * 60).expect("a time of ours").to_zoned_datetime(zone.clone()).date()
}

/// What a stored event counts towards: its own dimensions, and what it names beside them.
fn counted(event: &Event<'_>, kind: EventType, net: i64) -> Vec<(Dimension, String, i64)> {
    use Dimension::{
        Component, Keyword, MentionedComponent, MentionedKeyword, MentionedPage, MentionedPost, Page, PostClicks,
        PostLikes, PostViews, Type, ZeroResult,
    };
    let mut counts = vec![(Type, kind.name().to_owned(), 1)];
    let mut add = |own: Option<Dimension>, mentioned: Dimension, value: String| match own {
        Some(dimension) => counts.push((dimension, value, 1)),
        None => counts.push((mentioned, format!("{}\t{value}", kind.name()), 1)),
    };
    if let Some(component) = component_key(event.component_id, event.element_id.as_deref()) {
        add((kind == EventType::Click).then_some(Component), MentionedComponent, component);
    }
    if let Some(post) = event.post_id.as_deref() {
        let own = match kind {
            EventType::Click => Some(PostClicks),
            EventType::PageView => Some(PostViews),
            _ => None,
        };
        add(own, MentionedPost, post.to_owned());
    }
    if let Some(url) = event.url.as_deref() {
        add((kind == EventType::PageView).then_some(Page), MentionedPage, page_key(url).into_owned());
    }
    if let Some(keyword) = event.keyword.as_deref() {
        let folded = fold_keyword(keyword).into_owned();
        add((kind == EventType::Search).then_some(Keyword), MentionedKeyword, folded.clone());
        if kind == EventType::Search && event.result_count == Some(0) {
            counts.push((ZeroResult, folded, 1));
        }
    }
    if net != 0 {
        counts.push((PostLikes, text(&event.post_id), net));
    }
    counts
}

pub(crate) const WINDOWS: [Window; 4] = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];

/// What the lists of the API sum.
pub(crate) const LISTS: [&[(Dimension, i64)]; 8] = [
    &[(Dimension::Keyword, 1)],
    &[(Dimension::ZeroResult, 1)],
    &[(Dimension::PostViews, 1)],
    &[(Dimension::PostClicks, 1)],
    &[(Dimension::PostLikes, 1)],
    &[(Dimension::PostViews, 1), (Dimension::PostClicks, 3), (Dimension::PostLikes, 10)],
    &[(Dimension::Page, 1)],
    &[(Dimension::Component, 1)],
];
