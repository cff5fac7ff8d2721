//! PAGE_VIEW: a page, post or component was seen; counts for the page's path and for the post.

use super::{Dimension, Event, EventStrategy, EventType, page_key};

pub(super) struct PageView;

impl EventStrategy for PageView {
    fn event_type(&self) -> EventType {
        EventType::PageView
    }

    fn name(&self) -> &'static str {
        "PAGE_VIEW"
    }

    fn missing(&self, event: &Event<'_>) -> Option<(&'static str, &'static str)> {
        let named = event.url.is_some() || event.post_id.is_some() || event.component_id.is_some();
        (!named).then_some(("metadata.url", "is required for PAGE_VIEW (or metadata.postId or metadata.componentId)"))
    }

    fn counts(&self, event: &Event<'_>, add: &mut dyn FnMut(Dimension, &str)) {
        if let Some(url) = &event.url {
            add(Dimension::Page, &page_key(url));
        }
        if let Some(post) = &event.post_id {
            add(Dimension::PostViews, post);
        }
    }
}
