//! The read path: for a hot key one query per expiry over all instances, and no request that waits for it.
//!
//! Owns the policy: what a request is shown (`policy`, `early`), an instance's own copies (`local`), one fill a key and
//! process (`flight`), how a fill goes through the shared cache and its lock (`errand`), what happens when a store is away
//! (`breaker`), and deletions after writes (`writes`). Knows no store by name, no HTTP and no clock: time, chance and
//! threads are handed in as [`Surroundings`], so that the whole of it runs in a simulation too.
//!
//! The idea: whoever reads never does the work. A request takes the copy at hand, or waits on a flight; what blocks runs
//! in steps on lanes, whoever started it may leave.

mod ask;
pub mod breaker;
pub mod early;
mod errand;
mod fill;
pub mod flight;
mod keeper;
mod local;
pub mod policy;
mod state;
mod stats;
mod surroundings;
mod sync;
mod writes;

pub use ask::{Ask, waker};
pub use fill::{Fill, FillError, Filled, Hit, How, Outcome, Stage};
pub use local::Copy;
pub use policy::Policy;
pub use state::Cache;
pub use stats::{CacheStats, WAIT_BOUNDS_MS};
pub use surroundings::{Job, Lane, Surroundings};
