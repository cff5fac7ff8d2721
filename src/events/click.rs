//! CLICK: a component or element was clicked. It counts for the component, or for the element if there is no
//! component, and for the post.

use super::{Dimension, Event, EventStrategy, EventType, component_key};

pub(super) struct Click;

impl EventStrategy for Click {
    fn event_type(&self) -> EventType {
        EventType::Click
    }

    fn name(&self) -> &'static str {
        "CLICK"
    }

    fn missing(&self, event: &Event<'_>) -> Option<(&'static str, &'static str)> {
        let named = event.component_id.is_some() || event.element_id.is_some();
        (!named).then_some(("metadata.componentId", "is required for CLICK (or metadata.elementId)"))
    }

    fn counts(&self, event: &Event<'_>, add: &mut dyn FnMut(Dimension, &str)) {
        if let Some(component) = component_key(event.component_id, event.element_id.as_deref()) {
            add(Dimension::Component, &component);
        }
        if let Some(post) = &event.post_id {
            add(Dimension::PostClicks, post);
        }
    }
}
