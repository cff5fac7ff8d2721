//! Search: the event that says what was looked for.

use super::App;
use crate::events::{Event, EventType};
use crate::journal::Wait;
use crate::runtime::Ticket;

/// An event needs a user or a session: searches of nobody in particular share this one.
const ANONYMOUS_SESSION: &str = "search";

impl App {
    /// Records a SEARCH event, as typed, with the number of posts that were answered. Nobody waits for it: one that the
    /// journal refuses is counted as refused and lost, and the search goes on.
    pub fn record_search(&self, user_id: Option<&str>, keyword: &str, results: usize, ticket: &Ticket) {
        let now_ms = self.clock.now_ms();
        let event = Event {
            id: self.new_id(now_ms),
            id_from_client: false,
            event_type: EventType::Search,
            user_id: user_id.map(Into::into),
            session_id: user_id.is_none().then(|| ANONYMOUS_SESSION.into()),
            component_id: None,
            element_id: None,
            keyword: Some(keyword.into()),
            post_id: None,
            url: None,
            referrer: None,
            result_count: i64::try_from(results).ok(),
            properties: None,
            event_time_ms: now_ms,
            received_at_ms: now_ms,
        };
        // A refusal is counted where it happens, and that is all that becomes of it.
        let _ = self.append_event(&event, ticket.worker(), Wait::Leisure);
    }
}
