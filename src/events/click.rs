//! CLICK: a component or element was clicked. It counts for the component, or for the element if there is no
//! component, and for the post.

use super::{Dimension, EventStrategy, EventType, component_key};

pub(super) const CLICK: EventStrategy = EventStrategy {
    event_type: EventType::Click,
    name: "CLICK",
    missing: |event| {
        let named = event.component_id.is_some() || event.element_id.is_some();
        (!named).then_some(("metadata.componentId", "is required for CLICK (or metadata.elementId)"))
    },
    counts: |event, add| {
        if let Some(component) = component_key(event.component_id, event.element_id.as_deref()) {
            add(Dimension::Component, &component);
        }
        if let Some(post) = &event.post_id {
            add(Dimension::PostClicks, post);
        }
    },
};
