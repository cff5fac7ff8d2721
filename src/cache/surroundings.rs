//! The outside of the cache: time, chance, and where its blocking steps run.

pub type Job = Box<dyn FnOnce() + Send>;

/// Where a step runs: all of them may block there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Calls of the shared cache.
    Shared,
    /// Fills from the live store.
    Live,
    /// Fills from the ledger: half of its pool, so that reads which are not cached keep the other half.
    Ledger,
}

/// What the cache has of the world.
pub trait Surroundings: Send + Sync {
    /// A clock that only goes forward.
    fn now_ms(&self) -> u64;
    /// Uniform in [0, 1).
    fn random(&self) -> f64;
    /// Unique.
    fn token(&self) -> u128;
    /// Runs a step; false, and it never runs, where too many wait.
    fn run(&self, lane: Lane, job: Job) -> bool;
    /// The same after a while. A step that finds no room is tried again.
    fn run_after(&self, ms: u64, lane: Lane, job: Job);
}
