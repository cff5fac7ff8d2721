//! Entrances to the pure parts of the API for tests and fuzzing, which compare them with models.
//! Built with the feature `test-hooks` only.

use std::sync::atomic::AtomicU64;

use uuid::Uuid;

use super::json_guard::{check_depth, check_object};
use super::query::{Query, decode};
use super::wire::{self, AgeMax, Receipt};
use crate::events::Event;

/// The decoded parameters of a query; `None`: refused.
pub fn query(text: &str) -> Option<Vec<(String, String)>> {
    Query::parse(text).ok().map(Query::into_pairs)
}

/// A decoded path segment; `None`: refused.
pub fn segment(text: &str) -> Option<String> {
    decode(text, false).ok().map(std::borrow::Cow::into_owned)
}

/// Whether text is nested at most so deep.
pub fn fits_depth(json: &str, depth_max: usize) -> bool {
    check_depth(json, depth_max).is_ok()
}

/// What of an object a store would refuse: `Depth`, `Nul` or `Surrogate`.
pub fn object_fault(json: &str, depth_max: usize) -> Option<String> {
    check_object(json, depth_max).err().map(|fault| format!("{fault:?}"))
}

/// The event in an object of a request, with the id 7 where it names none, or the tag of its refusal.
pub fn event(text: &str, now_ms: i64, retention_ms: i64) -> Result<Event<'_>, &'static str> {
    let receipt = Receipt { now_ms, age: AgeMax::of(retention_ms), sent_at_ms: None, truncated: &AtomicU64::new(0) };
    let judged = wire::event(text, receipt, || Uuid::from_u128(7));
    judged.map_err(|rejection| rejection.tag)
}
