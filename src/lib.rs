//! A user-event tracker: an event is safe in a local journal before it is answered; the ledger follows the journal
//! and applies each batch exactly once; everything else follows the ledger.

pub mod adapters;
pub mod clock;
pub mod events;
pub mod journal;
pub mod http;
pub mod ledger_fold;
pub mod limits;
pub mod live;
pub mod ports;
pub mod runtime;
pub mod sinks;
