//! What a batch does to the ledger: pure functions, so that both products decide alike.
//!
//! A batch becomes a [`draft::Draft`]; the store removes client ids that it already had and hands in the like state that it
//! locked; [`draft::Draft::effects`] then says everything that is to be written.

pub mod deltas;
pub mod draft;
pub mod erasing;
pub mod likes;
pub mod maybe_erased;
pub mod user_hours;
pub mod verdicts;
