//! SEARCH: something was looked for; counts for the keyword, and for the zero-result keywords if nothing was found.

use super::{Dimension, EventStrategy, EventType, fold_keyword};

pub(super) const SEARCH: EventStrategy = EventStrategy {
    event_type: EventType::Search,
    name: "SEARCH",
    missing: |event| event.keyword.is_none().then_some(("metadata.keyword", "is required for SEARCH")),
    counts: |event, add| {
        let Some(keyword) = &event.keyword else { return };
        let keyword = fold_keyword(keyword);
        add(Dimension::Keyword, &keyword);
        if event.result_count == Some(0) {
            add(Dimension::ZeroResult, &keyword);
        }
    },
};
