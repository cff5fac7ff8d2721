//! How many exports are under way: each holds a page in memory, so their number is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::EXPORTS_MAX;

#[derive(Debug, Default)]
pub struct Exports(AtomicUsize);

pub(super) struct Place(Arc<Exports>);

impl Exports {
    pub(super) fn enter(self: &Arc<Exports>) -> Option<Place> {
        let enter = |under_way| (under_way < EXPORTS_MAX).then_some(under_way + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
