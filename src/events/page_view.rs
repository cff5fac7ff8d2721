//! PAGE_VIEW: a page, post or component was seen; counts for the page's path and for the post.

use super::{Dimension, EventStrategy, EventType, page_key};

pub(super) const PAGE_VIEW: EventStrategy = EventStrategy {
    event_type: EventType::PageView,
    name: "PAGE_VIEW",
    missing: |event| {
        let named = event.url.is_some() || event.post_id.is_some() || event.component_id.is_some();
        (!named).then_some(("metadata.url", "is required for PAGE_VIEW (or metadata.postId or metadata.componentId)"))
    },
    counts: |event, add| {
        if let Some(url) = &event.url {
            add(Dimension::Page, &page_key(url));
        }
        if let Some(post) = &event.post_id {
            add(Dimension::PostViews, post);
        }
    },
};
