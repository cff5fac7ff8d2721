//! Search: the event that says what was looked for; and the keys under which answers are kept.

use super::App;
use crate::events::{Event, EventType, fold_keyword};
use crate::journal::Wait;
use crate::limits::{LIST_ROWS_MAX, SEARCH_POSTS};
use crate::runtime::Ticket;

/// An event needs a user or a session: searches of nobody in particular share this one.
const ANONYMOUS_SESSION: &str = "search";

impl App {
    /// Records a SEARCH event, as typed, with the number of posts that were answered. Nobody waits for it: one that the
    /// journal refuses is counted as refused and lost, and the search goes on.
    pub fn record_search(&self, user_id: Option<&str>, keyword: &str, results: usize, ticket: &Ticket) {
        let now_ms = self.clock.now_ms();
        let event = Event {
            user_id: user_id.map(Into::into),
            session_id: user_id.is_none().then(|| ANONYMOUS_SESSION.into()),
            keyword: Some(keyword.into()),
            result_count: i64::try_from(results).ok(),
            ..Event::new(self.new_id(now_ms), EventType::Search, now_ms)
        };
        // A refusal is counted where it happens, and that is all that becomes of it.
        let _ = self.append_event(&event, ticket.worker(), Wait::Leisure);
    }
}

/// Under which key a post's likes are kept.
pub fn likes_key(post_id: &str) -> Box<str> {
    format!("likes {post_id}").into()
}

/// Under which key the first page of a search is kept, of one of two sizes.
pub fn search_key(keyword: &str, size: usize) -> String {
    format!("found {size} {keyword}")
}

/// Under which keys searches that find a hashtag are kept.
pub fn search_keys(hashtag: &str) -> impl Iterator<Item = Box<str>> {
    let typed = [fold_keyword(hashtag).into_owned(), format!("#{}", fold_keyword(hashtag))];
    typed.into_iter().flat_map(|typed| [SEARCH_POSTS, LIST_ROWS_MAX].map(|size| search_key(&typed, size).into()))
}
