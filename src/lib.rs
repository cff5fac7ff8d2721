//! A user-event tracker: an event is safe in a local journal before it is answered; the ledger follows the journal
//! and applies each batch exactly once; everything else follows the ledger.
//!
//! ```text
//!         core 0 … core n  (one worker a core; a connection lives on one worker)
//! HTTP ─► http ─► api ─► app ─► journal ── group commit, one fdatasync a frame ──► answer (ticket)
//!                  │               │ the same bytes, read back in order
//!                  │               ▼
//!                  │            ledger sink ─► PostgreSQL │ SQLite      source of truth, verdicts
//!                  │               │ up to the ledger's watermark
//!                  │               └─► live sink ─► Redis │ memory      sorted sets, recent lists
//!                  └─► reads, on lanes ─► live store │ ledger
//! ```
//!
//! Code map, in reading order: [`events`] (what happened, what it counts), [`journal`] (safe before it is answered),
//! [`sinks`] (the loops that follow), [`ports`] (what a store must promise) and [`adapters`] (those that do),
//! [`app`] (use cases), [`api`] (the contract's names and statuses), [`http`] (bytes and requests), [`runtime`]
//! (coroutines, tickets, clocks), [`commands`] (what can be typed), [`import`] (a client of the API), [`seed`]
//! (synthetic events), [`limits`] (every bound).
//!
//! Invariants: a 2xx means synced in the journal (`ACK=memory` alone excepted). Rows of the ledger =
//! Σ rollups with the pending counts = Σ totals of the live store, up to its watermark. No failure
//! of the live store delays the ledger or an answer; none of the ledger delays an answer that need
//! not wait for it. A sink acts on its watermark alone and never guesses.

/// Shadows std's macro in this crate: that one panics if standard error is closed or full.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::logging::tell(format_args!($($text)*)) };
}

pub mod adapters;
pub mod api;
pub mod app;
pub mod cache;
pub mod clock;
pub mod commands;
pub mod config;
pub mod events;
pub mod http;
pub mod import;
pub mod journal;
pub mod ledger;
pub mod limits;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod ports;
pub mod process;
pub mod runtime;
pub mod seed;
pub mod shutdown;
pub mod sinks;
