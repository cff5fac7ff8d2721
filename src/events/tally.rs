//! Counts of a batch, coalesced: what both the ledger's rollups and the live store's buckets are written from.

use std::collections::HashMap;

use super::{Dimension, Event, EventType, component_key, fold_keyword, page_key};

/// Where a count goes: what is counted, the minute since the epoch it happened in, under which name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyKey {
    pub dimension: Dimension,
    pub minute: i64,
    pub key: Box<str>,
}

/// Coalesced counts; a skewed batch of thousands of events is a few hundred of these. Never holds a zero.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: HashMap<(Dimension, i64), HashMap<Box<str>, i64>>,
}

impl Tally {
    pub fn add(&mut self, dimension: Dimension, minute: i64, key: &str, delta: i64) {
        let keys = self.counts.entry((dimension, minute)).or_default();
        match keys.get_mut(key) {
            Some(count) => *count += delta,
            None => {
                keys.insert(key.into(), delta);
            }
        }
    }

    /// All counts that are not zero, in the order of dimension, minute and key (bytewise): the order in which every
    /// instance locks the same rows.
    pub fn into_sorted(self) -> Vec<(TallyKey, i64)> {
        let all = self.counts.into_iter().flat_map(|((dimension, minute), keys)| {
            keys.into_iter().map(move |(key, count)| (TallyKey { dimension, minute, key }, count))
        });
        let mut all: Vec<(TallyKey, i64)> = all.filter(|(_, count)| *count != 0).collect();
        all.sort_unstable();
        all
    }
}

/// Counts a stored event under its type and under what its strategy names. `event_type` is the resolved one: a toggle
/// is stored, and counted, as the LIKE or UNLIKE it turned out to be. Returns a bit per dimension that it counts towards.
pub fn tally_event(tally: &mut Tally, event: &Event<'_>, event_type: EventType) -> u32 {
    let minute = event.minute();
    tally.add(Dimension::Type, minute, event_type.name(), 1);
    let mut counted = 0;
    (event_type.strategy().counts)(event, &mut |dimension, key| {
        counted |= 1 << dimension as u8;
        tally.add(dimension, minute, key, 1);
    });
    counted
}

/// Counts an event as the ledger does: as [`tally_event`], and each post, page, component and keyword that it names
/// beside its type's own dimensions, so that every count by one of them is a sum of rollups.
pub fn tally_stored(tally: &mut Tally, event: &Event<'_>, event_type: EventType) {
    let minute = event.minute();
    let counted = tally_event(tally, event, event_type);
    let is_counted = |dimensions: &[Dimension]| dimensions.iter().any(|d| counted >> *d as u8 & 1 == 1);
    let mut mention = |dimension, value: &str| tally.add(dimension, minute, &mention_key(event_type, value), 1);
    if let Some(post) = event.post_id.as_deref().filter(|_| !is_counted(&[Dimension::PostViews, Dimension::PostClicks]))
    {
        mention(Dimension::MentionedPost, post);
    }
    if let Some(url) = event.url.as_deref().filter(|_| !is_counted(&[Dimension::Page])) {
        mention(Dimension::MentionedPage, &page_key(url));
    }
    let component = component_key(event.component_id, event.element_id.as_deref());
    if let Some(component) = component.filter(|_| !is_counted(&[Dimension::Component])) {
        mention(Dimension::MentionedComponent, &component);
    }
    if let Some(keyword) = event.keyword.as_deref().filter(|_| !is_counted(&[Dimension::Keyword])) {
        mention(Dimension::MentionedKeyword, &fold_keyword(keyword));
    }
}

/// The key of a mention: the type, and what was named.
pub fn mention_key(event_type: EventType, value: &str) -> String {
    format!("{}\t{value}", event_type.name())
}

/// Counts the effect of a like that changed something: +1 or -1 net like of the post, at the time of the event.
pub fn tally_like(tally: &mut Tally, event: &Event<'_>, liked: bool) {
    if let Some(post) = &event.post_id {
        tally.add(Dimension::PostLikes, event.minute(), post, if liked { 1 } else { -1 });
    }
}

/// Counts likes that went with their post or with a person: that many net likes fewer, at the time of the removal.
pub fn tally_unliked(tally: &mut Tally, post: &str, at_ms: i64, likes_removed: i64) {
    if likes_removed != 0 {
        tally.add(Dimension::PostLikes, at_ms.div_euclid(60_000), post, -likes_removed);
    }
}
