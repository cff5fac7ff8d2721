//! Recent searches of all users in memory, bounded in bytes: the user whose list was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::events::fold_keyword;
use crate::limits::{LIVE_RECENT_BYTES_MAX, of_memory};
use crate::live::{Forgotten, Search, forget_searches, merge_search, still_recent};
use crate::ports::RecentChange;

/// What a user takes beside the texts: places in both maps, allocations, and an empty list.
const USER_OVERHEAD_BYTES: usize = 250;
/// What a search or a forgetting takes beside its texts: its place in a list that has room for more, allocations.
const ITEM_OVERHEAD_BYTES: usize = 150;

#[derive(Default)]
pub(super) struct RecentLists {
    by_user: HashMap<Arc<str>, OfUser>,
    /// Users by the time of their last use, which is a number of its own for each.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    bytes: usize,
}

#[derive(Default)]
struct OfUser {
    searches: Vec<Search>,
    /// For as long as a late search may meet it.
    forgotten: Forgotten,
    used: u64,
    bytes: usize,
}

impl OfUser {
    fn bytes(&self, user_id: &str) -> usize {
        let searches =
            self.searches.iter().map(|search| ITEM_OVERHEAD_BYTES + search.folded.len() + search.typed.len());
        let forgotten = self.forgotten.texts().map(|text| ITEM_OVERHEAD_BYTES + text.len());
        USER_OVERHEAD_BYTES + user_id.len() + searches.chain(forgotten).sum::<usize>()
    }

    fn change(&mut self, change: &RecentChange, now_ms: i64) {
        match change {
            RecentChange::Add { keyword, at_ms, .. } => {
                let search = Search::new(keyword, *at_ms);
                if !still_recent(*at_ms, now_ms) || self.forgotten.covers(&search) {
                    return;
                }
                if self.searches.first().is_some_and(|newest| !still_recent(newest.at_ms, now_ms)) {
                    self.searches.clear();
                }
                merge_search(&mut self.searches, search);
            }
            RecentChange::Forget { keyword, at_ms, .. } => {
                let folded = keyword.as_deref().map(fold_keyword);
                self.forgotten.add(folded.as_deref().unwrap_or_default(), *at_ms, now_ms);
                forget_searches(&mut self.searches, folded.as_deref(), *at_ms);
            }
        }
    }
}

impl RecentLists {
    /// Applies a change, and makes room.
    pub(super) fn change(&mut self, change: &RecentChange, now_ms: i64) {
        self.with(change.user_id(), |of_user| of_user.change(change, now_ms));
        self.shrink();
    }

    pub(super) fn put(&mut self, user_id: &str, searches: Vec<Search>) {
        self.with(user_id, |of_user| of_user.searches = searches);
        self.shrink();
    }

    /// A user's searches, newest first, if the newest is recent. To read a list is to use it.
    pub(super) fn get(&mut self, user_id: &str, now_ms: i64) -> Vec<String> {
        if !self.by_user.contains_key(user_id) {
            return Vec::new();
        }
        self.with(user_id, |of_user| match of_user.searches.first() {
            Some(newest) if still_recent(newest.at_ms, now_ms) => {
                of_user.searches.iter().map(|search| search.typed.clone()).collect()
            }
            _ => Vec::new(),
        })
    }

    /// Drops what no read and no late search can meet any more.
    pub(super) fn forget_old(&mut self, now_ms: i64) {
        let (by_use, bytes) = (&mut self.by_use, &mut self.bytes);
        self.by_user.retain(|_, of_user| {
            let is_recent = of_user.searches.first().is_some_and(|newest| still_recent(newest.at_ms, now_ms));
            let stays = is_recent || of_user.forgotten.is_needed(now_ms);
            if !stays {
                by_use.remove(&of_user.used);
                *bytes -= of_user.bytes;
            }
            stays
        });
    }

    /// Uses the list of a user, who is the latest then. One that is empty afterwards goes.
    fn with<T>(&mut self, user_id: &str, act: impl FnOnce(&mut OfUser) -> T) -> T {
        self.uses += 1;
        let (user, mut of_user) =
            self.by_user.remove_entry(user_id).unwrap_or_else(|| (user_id.into(), OfUser::default()));
        self.by_use.remove(&of_user.used);
        self.bytes -= of_user.bytes;
        let result = act(&mut of_user);
        if !of_user.searches.is_empty() || !of_user.forgotten.is_empty() {
            (of_user.used, of_user.bytes) = (self.uses, of_user.bytes(user_id));
            self.bytes += of_user.bytes;
            self.by_use.insert(self.uses, user.clone());
            self.by_user.insert(user, of_user);
        }
        result
    }

    fn shrink(&mut self) {
        while self.bytes > of_memory(LIVE_RECENT_BYTES_MAX) {
            let Some((_, user)) = self.by_use.pop_first() else { return };
            if let Some(of_user) = self.by_user.remove(&user) {
                self.bytes -= of_user.bytes;
            }
        }
    }
}
