//! The event: one type from the edge to the ledger, and what each kind of event needs and counts.

mod click;
mod codec;
mod keyword;
mod like;
mod page;
mod page_view;
mod search;
mod sketch;
mod strategies;
mod tally;

pub use codec::{Corrupt, Erase, Forget, PostDelete, PostPut, Record, decode_record, decode_records};
pub use keyword::{fold_hashtag, fold_keyword};
pub use page::{PageRules, page_key, set_page_rules};
pub use sketch::Sketch;
pub use strategies::STRATEGIES;
pub use tally::{Tally, TallyKey, mention_key, tally_event, tally_like, tally_stored, tally_unliked};

use std::borrow::Cow;
use uuid::Uuid;

/// What happened, as the ledger names it. The number is what the journal stores: never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventType {
    Click = 1,
    PageView = 2,
    Search = 3,
    Like = 4,
    Unlike = 5,
    /// A like that the ledger decides to be `LIKE` or `UNLIKE` by the state it finds; never sent as an event.
    Toggle = 6,
}

impl EventType {
    /// LIKE, UNLIKE and toggles change a post's state; their effect is known only to the ledger.
    pub fn is_like(self) -> bool {
        matches!(self, EventType::Like | EventType::Unlike | EventType::Toggle)
    }
}

/// A field by its name in the contract, and what to do about it.
type Missing = Option<(&'static str, &'static str)>;

type Add<'a> = dyn FnMut(Dimension, &str) + 'a;

/// One kind of event: what it needs and what it counts towards.
pub struct EventStrategy {
    pub event_type: EventType,
    /// Its name in the contract, upper case.
    pub name: &'static str,
    /// The first field that is missing.
    pub missing: fn(&Event<'_>) -> Missing,
    /// Calls `add` for each dimension and key that the event counts towards, the type's own total excepted.
    pub counts: fn(event: &Event<'_>, add: &mut Add<'_>),
}

/// What can be counted and ranked. The number is what stores keep: never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dimension {
    /// Events by type; its sum is the number of rows in the ledger.
    Type = 1,
    /// Searches by normalised keyword.
    Keyword = 2,
    /// Searches that found nothing, by normalised keyword.
    ZeroResult = 3,
    /// Page views by post.
    PostViews = 4,
    /// Clicks by post.
    PostClicks = 5,
    /// Likes minus unlikes that changed something, by post; may fall below zero within a bucket.
    PostLikes = 6,
    /// Page views by page: see [`page_key`].
    Page = 7,
    /// Clicks by component or element: see [`component_key`].
    Component = 8,
    /// Events by post, where their type's own dimensions do not say so: key `TYPE\tpost`. This and what follows is kept
    /// by the ledger alone, for exact counts.
    MentionedPost = 9,
    /// Events by url path, likewise.
    MentionedPage = 10,
    /// Events by component, likewise.
    MentionedComponent = 11,
    /// Events by folded keyword, likewise.
    MentionedKeyword = 12,
}

impl Dimension {
    /// All that are ranked and live, by number.
    pub const ALL: [Dimension; 8] = [
        Dimension::Type,
        Dimension::Keyword,
        Dimension::ZeroResult,
        Dimension::PostViews,
        Dimension::PostClicks,
        Dimension::PostLikes,
        Dimension::Page,
        Dimension::Component,
    ];

    /// Are its names posts, which lists skip once they are deleted?
    pub fn names_posts(self) -> bool {
        matches!(self, Dimension::PostViews | Dimension::PostClicks | Dimension::PostLikes)
    }

    /// A ranked one by its number.
    pub fn from_code(code: u8) -> Option<Dimension> {
        Self::ALL.into_iter().find(|d| *d as u8 == code)
    }
}

/// A user's action as it is stored: always valid, made by `api` from a request or read back from the journal.
///
/// Strings borrow from the request's body or the journal's frame; none holds U+0000.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub id: Uuid,
    /// The client chose the id: it is an idempotency key and is deduplicated.
    pub id_from_client: bool,
    pub event_type: EventType,
    pub user_id: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    pub component_id: Option<i64>,
    pub element_id: Option<Cow<'a, str>>,
    /// As typed: trimmed, NFC. Counted under [`fold_keyword`].
    pub keyword: Option<Cow<'a, str>>,
    pub post_id: Option<Cow<'a, str>>,
    pub url: Option<Cow<'a, str>>,
    pub referrer: Option<Cow<'a, str>>,
    pub result_count: Option<i64>,
    /// A JSON object as sent, without texts that PostgreSQL cannot store.
    pub properties: Option<Cow<'a, str>>,
    /// When it happened, clamped; milliseconds since the epoch.
    pub event_time_ms: i64,
    /// When it came in; milliseconds since the epoch.
    pub received_at_ms: i64,
}

impl<'a> Event<'a> {
    /// An event without user, post or keyword; the server chose its id, and `at_ms` is both its
    /// time and its receipt.
    pub fn new(id: Uuid, event_type: EventType, at_ms: i64) -> Event<'a> {
        Event {
            id,
            id_from_client: false,
            event_type,
            user_id: None,
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
            received_at_ms: at_ms,
        }
    }

    /// Every text that it has, in the order in which records hold them: never to be changed.
    pub fn texts(&self) -> [&Option<Cow<'a, str>>; 8] {
        [
            &self.user_id,
            &self.session_id,
            &self.element_id,
            &self.keyword,
            &self.post_id,
            &self.url,
            &self.referrer,
            &self.properties,
        ]
    }

    /// The minute since the epoch that the event counts in.
    pub fn minute(&self) -> i64 {
        self.event_time_ms.div_euclid(60_000)
    }

    /// When it counts as having happened: a client's clock may be ahead of ours.
    pub fn happened_ms(&self) -> i64 {
        self.event_time_ms.min(self.received_at_ms)
    }

    /// The user's recent search that this event is, if it is one: user and keyword as typed.
    pub fn recent_search(&self) -> Option<(&str, &str)> {
        match (self.event_type, &self.user_id, &self.keyword) {
            (EventType::Search, Some(user), Some(keyword)) => Some((user, keyword)),
            _ => None,
        }
    }
}

/// What a click counts for: its component, or its element if it has no component. The sign keeps an element `7`
/// apart from the component 7.
pub fn component_key(component_id: Option<i64>, element_id: Option<&str>) -> Option<String> {
    component_id.map(|id| id.to_string()).or_else(|| element_id.map(|element| format!("{ELEMENT_SIGN}{element}")))
}

/// Begins the name of an element among the names of components, which are digits.
pub const ELEMENT_SIGN: char = '#';
