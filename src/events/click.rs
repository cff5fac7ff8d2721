//! CLICK: a component or element was clicked; counts for the component and for the post it shows.

use super::{Dimension, Event, EventStrategy, EventType};

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
        if let Some(component) = event.component_id {
            add(Dimension::Component, &component.to_string());
        }
        if let Some(post) = &event.post_id {
            add(Dimension::PostClicks, post);
        }
    }
}
