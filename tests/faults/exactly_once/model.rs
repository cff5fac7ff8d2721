//! What the stores must hold, worked out the plain way: every record once, in the order in which the ledger took it.
//!
//! Nothing here is shared with the program but the types of its ports and the two functions that name things
//! (`fold_keyword`, `page_key`). No batches, no rollups, no buckets: a list of what was stored, and sums over it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_tracker::events::{Dimension, Event, EventType, Record, component_key, fold_keyword, page_key};
use event_tracker::limits::{ID_MEMORY_MS, RECENT_SEARCHES_MAX, RECENT_SEARCHES_MS};
use event_tracker::ports::{LikeOutcome, Position, Verdict, Window};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// Dimension, minute or hour since the epoch, name.
pub(crate) type Key = (u8, i64, String);
pub(crate) type Sums = BTreeMap<Key, i64>;

/// An event that was stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) stream: Uuid,
    pub(crate) event: Event<'static>,
    /// What a toggle turned out to be.
    pub(crate) kind: EventType,
    /// +1 or -1 where it changed a like.
    pub(crate) net: i64,
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
    /// Likes that went with their user: stream, when, post.
    unliked: Vec<(Uuid, i64, String)>,
    /// User, folded keyword (empty: all), up to when.
    forgotten: Vec<(String, String, i64)>,
}

impl Model {
    /// The ledger has taken the record at a position of a journal.
    pub(crate) fn take(&mut self, stream: Uuid, position: Position, record: &Record<'static>) {
        let of = match record {
            Record::Event(event) => event.user_id.as_deref().map(|u| (u, happened_ms(event))),
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
            self.letters.insert((stream, position), (text(&event.user_id), happened_ms(&event)));
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
        self.stored.push(Stored { stream, event, kind, net });
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
            self.liked.insert(pair, happened_ms(event))
        } else {
            self.liked.remove(&pair)
        };
        self.posts.insert(post.clone(), (count, version));
        let action = if liked { "LIKE" } else { "UNLIKE" };
        self.log.push((stream, position, post, user, action, count, version, happened_ms(event)));
        LikeOutcome { liked, changed, like_count: count, version }
    }

    /// Nothing names the user any more, and every count is what it was but for the likes.
    fn erase(&mut self, stream: Uuid, position: Position, user: &str, at_ms: i64) {
        let up_to = self.erased.entry(user.to_owned()).or_insert(at_ms);
        *up_to = at_ms.max(*up_to);
        for stored in &mut self.stored {
            let event = &mut stored.event;
            if event.user_id.as_deref() == Some(user) && happened_ms(event) <= at_ms {
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
            self.unliked.push((stream, at_ms, post));
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

    /// Every count by minute, summed from the stored events; none is zero.
    pub(crate) fn minutes(&self) -> Sums {
        let mut sums = Sums::new();
        for stored in &self.stored {
            for (dimension, name, count) in counted(stored) {
                *sums.entry((dimension as u8, stored.event.event_time_ms.div_euclid(60_000), name)).or_default() +=
                    count;
            }
        }
        for (_, at_ms, post) in &self.unliked {
            *sums.entry((Dimension::PostLikes as u8, at_ms.div_euclid(60_000), post.clone())).or_default() -= 1;
        }
        sums.retain(|_, count| *count != 0);
        sums
    }

    /// The same by hour.
    pub(crate) fn hours(&self) -> Sums {
        let mut sums = Sums::new();
        for ((dimension, minute, name), count) in self.minutes() {
            *sums.entry((dimension, minute.div_euclid(60), name)).or_default() += count;
        }
        sums.retain(|_, count| *count != 0);
        sums
    }

    /// All-time sums by stream, by dimension, for types by name too.
    pub(crate) fn totals(&self) -> BTreeMap<(Uuid, u8, String), i64> {
        let mut sums = BTreeMap::new();
        for stored in &self.stored {
            for (dimension, name, count) in counted(stored) {
                let name = if dimension == Dimension::Type { name } else { String::new() };
                *sums.entry((stored.stream, dimension as u8, name)).or_default() += count;
            }
        }
        for (stream, ..) in &self.unliked {
            *sums.entry((*stream, Dimension::PostLikes as u8, String::new())).or_default() -= 1;
        }
        sums.retain(|_, count| *count != 0);
        sums
    }

    /// Hour, type and user of every stored event.
    pub(crate) fn user_hours(&self) -> BTreeSet<(i64, u8, String)> {
        let of = |stored: &Stored| {
            let user = stored.event.user_id.as_deref()?.to_owned();
            Some((stored.event.event_time_ms.div_euclid(3_600_000), stored.kind as u8, user))
        };
        self.stored.iter().filter_map(of).collect()
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
        let mut sums: HashMap<String, i64> = HashMap::new();
        for ((of, at, name), count) in self.minutes() {
            if of == dimension as u8 && is_inside(at) {
                *sums.entry(name).or_default() += count;
            }
        }
        let positive = sums.into_iter().filter(|(_, count)| *count > 0);
        let mut list: Vec<(String, f64)> = positive.map(|(name, count)| (name, count as f64)).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        list
    }

    /// A user's searches that were not forgotten, newest first, no keyword twice: of the last hour, and all.
    pub(crate) fn recent(&self, user: &str, now_ms: i64) -> (Vec<String>, Vec<String>) {
        let searches = self.stored.iter().filter_map(|stored| {
            let event = &stored.event;
            let keyword = event.keyword.as_deref().filter(|_| event.event_type == EventType::Search)?;
            (event.user_id.as_deref()? == user).then_some((happened_ms(event), keyword))
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

/// A client's clock may be ahead of ours.
fn happened_ms(event: &Event<'_>) -> i64 {
    event.event_time_ms.min(event.received_at_ms)
}

fn text(value: &Option<std::borrow::Cow<'_, str>>) -> String {
    value.as_deref().unwrap_or_default().to_owned()
}

fn date(minute: i64, zone: &TimeZone) -> Date {
    Timestamp::from_second(minute * 60).expect("a time of ours").to_zoned_datetime(zone.clone()).date()
}

/// What a stored event counts towards: its own dimensions, and what it names beside them.
fn counted(stored: &Stored) -> Vec<(Dimension, String, i64)> {
    use Dimension::{
        Component, Keyword, MentionedComponent, MentionedKeyword, MentionedPage, MentionedPost, Page, PostClicks,
        PostLikes, PostViews, Type, ZeroResult,
    };
    let (event, kind) = (&stored.event, stored.kind);
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
    if stored.net != 0 {
        counts.push((PostLikes, text(&event.post_id), stored.net));
    }
    counts
}
