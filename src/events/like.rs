//! LIKE and UNLIKE: set or clear a user's like of a post. Idempotent, so what they count towards (net likes of the
//! post) is known only once the ledger has folded them in journal order: see `tally_like`.

use super::{EventStrategy, EventType};

pub(super) const LIKE: EventStrategy = EventStrategy {
    event_type: EventType::Like,
    name: "LIKE",
    missing: |event| match (&event.user_id, &event.post_id) {
        (None, _) => Some(("userId", "is required for LIKE and UNLIKE")),
        (_, None) => Some(("metadata.postId", "is required for LIKE and UNLIKE")),
        _ => None,
    },
    counts: |_, _| (),
};

pub(super) const UNLIKE: EventStrategy = EventStrategy { event_type: EventType::Unlike, name: "UNLIKE", ..LIKE };
