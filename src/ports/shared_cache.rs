//! The shared cache: values, locks and hints that the instances have in common. Policy is `cache`'s.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::error::StoreError;

/// Unique to one acquisition of a lock.
pub type LockToken = u128;

/// A stored value, as its reader needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    pub value: Arc<[u8]>,
    /// How long its fill took.
    pub fill_ms: u32,
    /// The state of the store that it shows, milliseconds since the epoch.
    pub as_of_ms: i64,
    /// Grows with each acquisition of the key's lock.
    pub fence: u64,
    /// How long it was to be fresh when it was stored.
    pub fresh_ttl_ms: u32,
    /// How long it still is, by the store's own clock; negative once it has expired.
    pub fresh_left_ms: i64,
}

/// A value to store.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub value: &'a [u8],
    pub fill_ms: u32,
    pub as_of_ms: i64,
    pub fence: u64,
    /// 0: not stored.
    pub fresh_ttl_ms: u32,
    /// It is kept for this long after it expired, if its key is read more than once.
    pub stale_cap_ms: u32,
}

/// What there is of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheRead {
    Entry(CacheEntry),
    /// A fill failed lately.
    Throttled {
        error: Box<[u8]>,
        left_ms: u32,
    },
    Missing,
}

/// What came of a try at a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    Owned {
        fence: u64,
    },
    /// There is another entry than the one that the caller knows; no lock was taken.
    Newer(CacheEntry),
    /// A fill failed lately; no lock was taken.
    Throttled {
        error: Box<[u8]>,
        left_ms: u32,
    },
    /// Somebody else has it.
    Busy,
}

/// What some instance did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Stored a value, or gave a lock up.
    Stored(&'a str),
    Removed(&'a str),
    /// Hints may have been missed.
    Anything,
}

/// Values with their freshness, a lock per key, and hints. Loses anything at any time. It claims C1
/// to C9 of `docs/claims.md`. Calls block.
pub trait SharedCache: Send + Sync {
    /// What there is of a key; an entry before a mark.
    fn read(&self, key: &str) -> Result<CacheRead, StoreError>;

    /// Tries the lock, for a lease. `seen`: the fence of the entry that the caller knows.
    fn acquire(&self, key: &str, token: LockToken, lease_ms: u32, seen: Option<u64>) -> Result<Acquired, StoreError>;

    /// Whether each token still had its lock, which it then has for another lease.
    fn renew(&self, locks: &[(&str, LockToken)], lease_ms: u32) -> Result<Vec<bool>, StoreError>;

    /// Stores, gives the lock up and tells the others, in one step. False: nothing was stored.
    fn store(&self, key: &str, token: LockToken, entry: &NewEntry<'_>) -> Result<bool, StoreError>;

    /// The fill failed: gives the lock up, and marks the key for so long. An entry stays. False: nothing was done.
    fn fail(&self, key: &str, token: LockToken, error: &[u8], throttle_ms: u32) -> Result<bool, StoreError>;

    /// Gives the lock up.
    fn release(&self, key: &str, token: LockToken) -> Result<(), StoreError> {
        self.fail(key, token, b"", 0).map(drop)
    }

    /// Deletes entry, lock and mark of each key.
    fn invalidate(&self, keys: &[&str]) -> Result<(), StoreError>;

    /// Calls `on_change`, from a thread of its own, until `stop` is set: hints, which may be lost. There are none if
    /// all changes are made in this process.
    fn watch(&self, _: Box<dyn Fn(Change<'_>) + Send>, _: Arc<AtomicBool>) -> Result<(), StoreError> {
        Ok(())
    }
}
