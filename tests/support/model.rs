//! Statistics as a list of events gives them: what every ledger and live store must say.

#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_tracker::events::{Dimension, Event, EventType, component_key, fold_keyword, page_key};
use event_tracker::ports::{Ranked, RankingQuery, SeriesPoint};

/// What happened, one line a fact: when, what is counted, under which name, how much; and who did what when.
#[derive(Default)]
pub(crate) struct Model {
    counts: Vec<(i64, Dimension, String, i64)>,
    pub(crate) users: Vec<(i64, EventType, Option<String>)>,
    liked: HashMap<(String, String), bool>,
}

impl Model {
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        use Dimension::{Component, Keyword, Page, PostClicks, PostLikes, PostViews, ZeroResult};
        let at = event.event_time_ms;
        let text = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().map(str::to_owned);
        let (post, user) = (text(&event.post_id), text(&event.user_id));
        let mut kind = event.event_type;
        let mut count = |dimension, name: Option<String>, n| {
            self.counts.extend(name.map(|name| (at, dimension, name, n)));
        };
        match kind {
            EventType::Click => {
                count(Component, component_key(event.component_id, event.element_id.as_deref()), 1);
                count(PostClicks, post, 1);
            }
            EventType::PageView => {
                count(Page, event.url.as_deref().map(|url| page_key(url).into_owned()), 1);
                count(PostViews, post, 1);
            }
            EventType::Search => {
                let keyword = event.keyword.as_deref().map(|keyword| fold_keyword(keyword).into_owned());
                count(Keyword, keyword.clone(), 1);
                count(ZeroResult, keyword.filter(|_| event.result_count == Some(0)), 1);
            }
            EventType::Like | EventType::Unlike | EventType::Toggle => {
                let state =
                    self.liked.entry((user.clone().expect("a user"), post.clone().expect("a post"))).or_default();
                let wanted = if kind == EventType::Toggle { !*state } else { kind == EventType::Like };
                if wanted != *state {
                    count(PostLikes, post, if wanted { 1 } else { -1 });
                }
                *state = wanted;
                kind = if wanted { EventType::Like } else { EventType::Unlike };
            }
        }
        self.users.push((at, kind, user));
    }

    pub(crate) fn ranking(&self, query: &RankingQuery) -> Ranked {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for (at, dimension, name, n) in &self.counts {
            for (_, weight) in query.parts.iter().filter(|(wanted, _)| wanted == dimension) {
                if (query.from_ms..query.to_ms).contains(at) {
                    *sums.entry(name).or_default() += n * weight;
                }
            }
        }
        let mut ranked: Ranked = sums.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
        ranked.retain(|(_, sum)| *sum > 0);
        ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }

    pub(crate) fn point(&self, kind: Option<EventType>, from: i64, to: i64) -> SeriesPoint {
        let matches = self
            .users
            .iter()
            .filter(|(at, found, _)| (from..to).contains(at) && kind.is_none_or(|wanted| wanted == *found));
        let users: BTreeSet<&str> = matches.clone().filter_map(|(.., user)| user.as_deref()).collect();
        SeriesPoint { count: matches.count() as u64, users: users.len() as u64 }
    }
}

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
