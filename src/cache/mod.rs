//! The read path: for a hot key one query per expiry over all instances, and no request that waits for it. A request takes
//! the copy at hand, or waits on a flight; what blocks runs in steps on lanes. Knows no store by name, no HTTP and no
//! clock: time, chance and threads are handed in as [`Surroundings`], so that all of it runs in a simulation too.

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

pub use ask::Ask;
pub use fill::{Fill, FillError, Filled, Hit, How, Outcome, Stage};
pub use local::Copy;
pub use policy::Policy;
pub use state::Cache;
pub use stats::{CacheStats, WAIT_BOUNDS_MS};
pub use surroundings::{Job, Lane, Surroundings};
