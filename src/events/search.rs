//! SEARCH: something was looked for; counts for the keyword, and for the zero-result keywords where nothing was found.

use super::{Dimension, Event, EventStrategy, EventType, fold_keyword};

pub(super) struct Search;

impl EventStrategy for Search {
    fn event_type(&self) -> EventType {
        EventType::Search
    }

    fn name(&self) -> &'static str {
        "SEARCH"
    }

    fn missing(&self, event: &Event<'_>) -> Option<(&'static str, &'static str)> {
        event.keyword.is_none().then_some(("metadata.keyword", "is required for SEARCH"))
    }

    fn counts(&self, event: &Event<'_>, add: &mut dyn FnMut(Dimension, &str)) {
        let Some(keyword) = &event.keyword else { return };
        let keyword = fold_keyword(keyword);
        add(Dimension::Keyword, &keyword);
        if event.result_count == Some(0) {
            add(Dimension::ZeroResult, &keyword);
        }
    }
}
