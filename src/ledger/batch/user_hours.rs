//! Which (hour, type, user) a batch adds to `user_hour`: steady users cost nothing.
//!
//! A bounded set remembers what this process has committed already. It is marked after the commit only: a batch that
//! failed writes its rows again. Forgetting is harmless, the insert ignores rows that are there.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::events::EventType;
use crate::limits::USER_HOURS_REMEMBERED_MAX;

/// The memory of one writer.
#[derive(Default)]
pub struct UserHours {
    hasher: RandomState,
    committed: HashSet<u64>,
    pending: Vec<u64>,
}

impl UserHours {
    /// Starts a batch: what the last one left uncommitted is forgotten.
    pub fn begin(&mut self) {
        self.pending.clear();
    }

    /// The rows that are not known to be there, each once, in key order.
    pub fn fresh<'a>(
        &mut self,
        seen: impl Iterator<Item = (i64, EventType, &'a str)>,
    ) -> Vec<(i64, EventType, &'a str)> {
        let mut batch = HashSet::new();
        let mut rows = Vec::new();
        for row in seen {
            let hash = self.hasher.hash_one(row);
            if !self.committed.contains(&hash) && batch.insert(hash) {
                self.pending.push(hash);
                rows.push(row);
            }
        }
        rows.sort_unstable();
        rows
    }

    /// Rows may be gone that are remembered.
    pub fn forget(&mut self) {
        self.committed.clear();
    }

    /// The batch is committed: its rows need not be written again.
    pub fn commit(&mut self) {
        if self.committed.len() + self.pending.len() > USER_HOURS_REMEMBERED_MAX {
            self.committed.clear();
        }
        self.committed.extend(self.pending.drain(..));
    }
}
