//! An instance's own copies, shown without asking anybody for about a second, and kept for when nobody can be asked.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{CACHE_LOCAL_ENTRIES_MAX, CACHE_LOCAL_MS, CACHE_LOCAL_SHARDS};
use crate::ports::CacheEntry;

/// A value and what is known of it. Times are milliseconds of this process's clock, which only goes forward.
#[derive(Debug)]
pub struct Copy {
    pub value: Arc<[u8]>,
    /// Of the shared entry; 0: the fill did not go through the shared cache.
    pub fence: u64,
    pub as_of_ms: i64,
    pub fill_ms: u32,
    pub ttl_ms: u32,
    pub until_ms: u64,
    pub since_ms: u64,
    // Before the clock's beginning where a young process has outdated it.
    looked_at_ms: AtomicI64,
    // Nobody sets out for a refresh before this.
    not_before_ms: AtomicU64,
    reads: AtomicU32,
    packed: Mutex<Vec<Packed>>,
}

/// An answer made of a copy, packed, with its ETag: what is made of one copy differs in what it says, and so in its tag.
type Packed = (Box<str>, Arc<[u8]>);

impl Copy {
    pub(super) fn of(entry: CacheEntry, now_ms: u64) -> Copy {
        let CacheEntry { value, fill_ms, as_of_ms, fence, fresh_ttl_ms: ttl_ms, fresh_left_ms } = entry;
        Copy {
            value,
            fence,
            as_of_ms,
            fill_ms,
            ttl_ms,
            until_ms: now_ms.saturating_add_signed(fresh_left_ms),
            since_ms: now_ms,
            looked_at_ms: AtomicI64::new(now_ms.cast_signed()),
            not_before_ms: AtomicU64::default(),
            reads: AtomicU32::default(),
            packed: Mutex::default(),
        }
    }

    /// The answer of that tag, packed by `pack` unless it is at hand: of the answers that are made of a copy the latest few
    /// are remembered that take no more than its value together.
    pub fn packed(&self, tag: &str, pack: impl FnOnce() -> Option<Vec<u8>>) -> Option<Arc<[u8]>> {
        let known = lock(&self.packed).iter().find(|(known, _)| **known == *tag).map(|(_, bytes)| bytes.clone());
        if known.is_some() {
            return known;
        }
        // Not under the lock. Two that come at once both pack, and the second replaces what the first has packed.
        let bytes: Arc<[u8]> = pack()?.into();
        if bytes.len() <= self.value.len() {
            let mut packed = lock(&self.packed);
            packed.retain(|(known, _)| **known != *tag);
            packed.push((tag.into(), bytes.clone()));
            while packed.len() > PACKED_MAX || packed.iter().map(|(_, one)| one.len()).sum::<usize>() > self.value.len()
            {
                packed.remove(0);
            }
        }
        Some(bytes)
    }

    /// Milliseconds until it expires; negative since then.
    pub fn left_ms(&self, now_ms: u64) -> i64 {
        self.until_ms.cast_signed() - now_ms.cast_signed()
    }

    /// Milliseconds since its fill.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        (i64::from(self.ttl_ms) - self.left_ms(now_ms)).max(0).cast_unsigned()
    }

    /// Milliseconds since the shared one was looked at.
    pub fn looked_ms(&self, now_ms: u64) -> u64 {
        (now_ms.cast_signed() - self.looked_at_ms.load(Ordering::Relaxed)).max(0).cast_unsigned()
    }

    /// The shared one was looked at and is this one, or there is nobody to ask.
    pub fn looked(&self, now_ms: u64) {
        self.looked_at_ms.store(now_ms.cast_signed(), Ordering::Relaxed);
    }

    /// The shared one may have changed: this one is not shown again without a look at it.
    pub fn outdated(&self) {
        self.looked_at_ms.fetch_sub(i64::from(CACHE_LOCAL_MS), Ordering::Relaxed);
    }

    /// There is a newer one: this one is shown on, and its next reader looks after it behind its answer.
    pub fn overtaken(&self, now_ms: u64) {
        let look_ms = now_ms.cast_signed() - i64::from(CACHE_LOCAL_MS - CACHE_LOCAL_MS / 5);
        self.looked_at_ms.fetch_min(look_ms, Ordering::Relaxed);
        self.not_before_ms.store(0, Ordering::Relaxed);
    }

    pub fn may_refresh(&self, now_ms: u64) -> bool {
        now_ms >= self.not_before_ms.load(Ordering::Relaxed)
    }

    /// Nobody sets out again for `ms`: another instance is at it, or it failed.
    pub fn rest(&self, now_ms: u64, ms: u64) {
        self.not_before_ms.fetch_max(now_ms + ms, Ordering::Relaxed);
    }

    /// Counts a reading, and says how many a millisecond there were.
    pub fn read(&self, now_ms: u64) -> f64 {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        f64::from(reads) / (now_ms.saturating_sub(self.since_ms).max(1)) as f64
    }
}

/// Copies by key, bounded in number and bytes.
pub(super) struct Local {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Of each shard. A copy that takes more is not kept.
    shard_bytes_max: usize,
}

#[derive(Default)]
struct Shard {
    copies: HashMap<Box<str>, Arc<Copy>>,
    bytes: usize,
}

/// Answers of a copy that are remembered packed: lists of a few lengths, names typed in a few ways.
const PACKED_MAX: usize = 8;
/// What one copy takes beside its key and value, and what it may be packed to.
const OVERHEAD_BYTES: usize = 240;

impl Local {
    pub(super) fn new(bytes_max: usize) -> Local {
        let shards = (0..CACHE_LOCAL_SHARDS).map(|_| Mutex::default()).collect();
        Local { shards, hasher: RandomState::new(), shard_bytes_max: bytes_max / CACHE_LOCAL_SHARDS }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Copy>> {
        self.shard(key).copies.get(key).cloned()
    }

    /// Keeps a copy, unless there is the same or one of a higher fence; returns the one that is kept. A copy that
    /// `is_spoiled` is returned and not kept: asked here, under the lock that a removal takes, so that what a removal
    /// has taken away does not come back behind it.
    pub(super) fn put(&self, key: &str, copy: Copy, now_ms: u64, is_spoiled: impl FnOnce() -> bool) -> Arc<Copy> {
        let mut shard = self.shard(key);
        if is_spoiled() {
            return Arc::new(copy);
        }
        // Fences alone order copies: instances need not agree on the time. What was filled without one is now. Past its
        // time a copy keeps nothing out: a store that has lost its fences and its clock begins lower.
        if let Some(kept) = shard.copies.get(key)
            && copy.fence > 0
            && (kept.fence == copy.fence || kept.fence > copy.fence && kept.left_ms(now_ms) > 0)
        {
            kept.looked(now_ms);
            return kept.clone();
        }
        let copy = Arc::new(copy);
        shard.keep(key, copy.clone(), self.shard_bytes_max);
        copy
    }

    pub(super) fn remove(&self, key: &str) {
        self.shard(key).remove(key);
    }

    pub(super) fn each(&self, mut act: impl FnMut(&Copy)) {
        for shard in &self.shards {
            let copies: Vec<Arc<Copy>> = lock(shard).copies.values().cloned().collect();
            copies.iter().for_each(|copy| act(copy));
        }
    }

    pub(super) fn size(&self) -> (usize, usize) {
        self.shards
            .iter()
            .map(|shard| lock(shard))
            .fold((0, 0), |(copies, bytes), shard| (copies + shard.copies.len(), bytes + shard.bytes))
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % CACHE_LOCAL_SHARDS])
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guards plain data for a few lines: nothing in there panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn keep(&mut self, key: &str, copy: Arc<Copy>, bytes_max: usize) {
        self.remove(key);
        let bytes = bytes_of(key, &copy);
        if bytes > bytes_max {
            return;
        }
        self.bytes += bytes;
        self.copies.insert(key.into(), copy);
        while self.copies.len() > CACHE_LOCAL_ENTRIES_MAX / CACHE_LOCAL_SHARDS || self.bytes > bytes_max {
            let Some(oldest) = self.oldest(key) else { return };
            self.remove(&oldest);
        }
    }

    /// The one that was looked after longest ago: a key that nobody reads is not looked after. A shard holds few.
    fn oldest(&self, but: &str) -> Option<Box<str>> {
        let others = self.copies.iter().filter(|(key, _)| ***key != *but);
        others.min_by_key(|(_, copy)| copy.looked_at_ms.load(Ordering::Relaxed)).map(|(key, _)| key.clone())
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, copy)) = self.copies.remove_entry(key) {
            self.bytes -= bytes_of(&key, &copy);
        }
    }
}

fn bytes_of(key: &str, copy: &Copy) -> usize {
    // With what it may be packed to, which comes later.
    OVERHEAD_BYTES + key.len() + 2 * copy.value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CACHE_ENTRY_BYTES_MAX, CACHE_LOCAL_BYTES_MAX};

    fn copy(bytes: usize, fence: u64, now_ms: u64) -> Copy {
        let value = vec![0; bytes].into();
        Copy::of(
            CacheEntry { value, fill_ms: 5, as_of_ms: 0, fence, fresh_ttl_ms: 1_000, fresh_left_ms: 1_000 },
            now_ms,
        )
    }

    fn put(local: &Local, key: &str, copy: Copy, now_ms: u64) -> Arc<Copy> {
        local.put(key, copy, now_ms, || false)
    }

    #[test]
    fn copies_are_bounded_in_number_and_bytes_and_those_in_use_stay() {
        let local = Local::new(CACHE_LOCAL_BYTES_MAX);
        put(&local, "busy", copy(100, 1, 0), 0);
        for n in 0..100_000u64 {
            put(&local, &format!("key {n}"), copy(if n < 50_000 { 10 } else { 20_000 }, 1, n), n);
            local.get("busy").expect("it is read all the time").looked(n);
        }
        let (copies, bytes) = local.size();
        assert!((1_000..=CACHE_LOCAL_ENTRIES_MAX).contains(&copies), "{copies}");
        assert!((CACHE_LOCAL_BYTES_MAX / 2..=CACHE_LOCAL_BYTES_MAX).contains(&bytes), "{bytes}");
        for n in 0..1_000 {
            let large = format!("large {n}");
            put(&local, &large, copy(CACHE_ENTRY_BYTES_MAX, 1, n), n);
            assert!(local.get(&large).is_some(), "the largest entry fits");
            assert!(local.size().1 <= CACHE_LOCAL_BYTES_MAX, "{:?}", local.size());
        }
        assert!(local.size().1 > CACHE_LOCAL_BYTES_MAX / 2, "{:?}", local.size());
        put(&local, "too large", copy(CACHE_LOCAL_BYTES_MAX, 1, 0), 0);
        assert!(local.get("too large").is_none());
    }

    #[test]
    fn a_copy_is_outdated_in_a_process_that_is_younger_than_a_copy_may_be_too() {
        let copy = copy(1, 0, 5);
        copy.outdated();
        assert_eq!(copy.looked_ms(6), 1_001);
    }

    #[test]
    fn a_copy_that_was_overtaken_is_shown_on_and_looked_after_at_once() {
        let policy = super::super::Policy::fresh_for(60_000);
        for looked_ago in [0, 300, 900] {
            let copy = copy(1, 1, 5_000 - looked_ago);
            copy.rest(5_000, 150);
            copy.overtaken(5_000);
            assert_eq!(policy.stand(copy.left_ms(5_000), copy.looked_ms(5_000)), super::super::policy::Stand::Look);
            assert!(copy.may_refresh(5_000));
        }
    }

    #[test]
    fn the_higher_fence_stays_and_a_fill_without_one_is_the_latest() {
        let local = Local::new(CACHE_LOCAL_BYTES_MAX);
        put(&local, "a", copy(1, 20, 0), 0);
        assert_eq!(put(&local, "a", copy(1, 10, 500), 500).fence, 20, "an older one read late");
        assert_eq!(put(&local, "a", copy(1, 21, 500), 500).fence, 21);
        assert_eq!(put(&local, "a", copy(1, 21, 900), 900).since_ms, 500, "the same one, looked at");
        assert_eq!(put(&local, "a", copy(1, 0, 950), 950).fence, 0, "filled here, without the lock");
        assert_eq!(put(&local, "a", copy(1, 21, 990), 990).fence, 21, "what all instances see");
        assert_eq!(put(&local, "a", copy(1, 5, 1_990), 1_990).fence, 5, "it has expired, and the fences began again");
        local.remove("a");
        assert!(local.get("a").is_none() && local.size() == (0, 0));
    }

    #[test]
    fn the_latest_answers_of_a_copy_stay_packed_few_and_small_together() {
        let copy = copy(100, 1, 0);
        let pack = |tag: &str, bytes: Vec<u8>| copy.packed(tag, || Some(bytes)).expect("packed").to_vec();
        let at_hand = |tag: &str| copy.packed(tag, || panic!("{tag} is at hand")).expect("packed").to_vec();
        assert_eq!(pack("too large", vec![1; 101]), [1; 101]);
        assert_eq!(pack("a", vec![2; 60]), [2; 60]);
        assert_eq!(pack("b", vec![3; 40]), [3; 40]);
        assert_eq!((at_hand("a"), at_hand("b")), (vec![2; 60], vec![3; 40]));
        assert_eq!(pack("c", vec![4; 1]), [4; 1]);
        assert_eq!((at_hand("b"), at_hand("c")), (vec![3; 40], vec![4; 1]));
        assert_eq!(pack("a", vec![5; 2]), [5; 2], "it had to go");
        (0..100u8).for_each(|n| assert_eq!(pack(&format!("n {n}"), vec![n]), [n]));
        assert_eq!(lock(&copy.packed).len(), PACKED_MAX);
        assert!(copy.packed("nothing", || None).is_none());
    }

    #[test]
    fn what_was_written_meanwhile_is_returned_and_not_kept() {
        let local = Local::new(CACHE_LOCAL_BYTES_MAX);
        assert_eq!(local.put("a", copy(1, 20, 0), 0, || true).fence, 20);
        assert!(local.get("a").is_none());
    }
}
