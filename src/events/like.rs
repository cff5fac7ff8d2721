//! LIKE and UNLIKE: set or clear a user's like of a post. Idempotent, so what they count towards (net likes of the
//! post) is known only once the ledger has folded them in journal order: see `tally_like`.

use super::{Dimension, Event, EventStrategy, EventType};

pub(super) struct Like;
pub(super) struct Unlike;

fn missing_user_or_post(event: &Event<'_>) -> Option<(&'static str, &'static str)> {
    if event.user_id.is_none() {
        return Some(("userId", "is required for LIKE and UNLIKE"));
    }
    event.post_id.is_none().then_some(("metadata.postId", "is required for LIKE and UNLIKE"))
}

impl EventStrategy for Like {
    fn event_type(&self) -> EventType {
        EventType::Like
    }

    fn name(&self) -> &'static str {
        "LIKE"
    }

    fn missing(&self, event: &Event<'_>) -> Option<(&'static str, &'static str)> {
        missing_user_or_post(event)
    }

    fn counts(&self, _: &Event<'_>, _: &mut dyn FnMut(Dimension, &str)) {}
}

impl EventStrategy for Unlike {
    fn event_type(&self) -> EventType {
        EventType::Unlike
    }

    fn name(&self) -> &'static str {
        "UNLIKE"
    }

    fn missing(&self, event: &Event<'_>) -> Option<(&'static str, &'static str)> {
        missing_user_or_post(event)
    }

    fn counts(&self, _: &Event<'_>, _: &mut dyn FnMut(Dimension, &str)) {}
}
