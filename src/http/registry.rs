//! Which connections are open, how long each has been idle, and how many an address has: for making room and for
//! stopping.
//!
//! An outsider never closes a connection's socket: it shuts it down, under the lock that the connection leaves the
//! list with, so the number cannot belong to another socket by then; the connection sees its end and leaves by itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::limits::CLIENT_IPV6_PREFIX_BITS;

/// Not idle.
const BUSY: u64 = u64::MAX;

pub(super) struct Entry {
    socket: RawFd,
    idle_since_ms: AtomicU64,
    told_to_leave: AtomicBool,
    slot: AtomicUsize,
}

impl Entry {
    /// Between two requests since that time of the monotonic clock. Ordered with the flag of a stop: either the stop
    /// sees an idle connection or the connection sees the stop.
    pub(super) fn idle(&self, now_ms: u64) {
        self.idle_since_ms.store(now_ms, Ordering::SeqCst);
    }

    pub(super) fn busy(&self) {
        self.idle_since_ms.store(BUSY, Ordering::Relaxed);
    }

    fn dismiss(&self, how: libc::c_int) {
        self.told_to_leave.store(true, Ordering::Relaxed);
        // SAFETY: shutdown takes any number; the caller holds the lock that the connection leaves the list with, so
        // the descriptor is still its own.
        unsafe { libc::shutdown(self.socket, how) };
    }
}

/// Every open connection, in one list a worker.
pub(super) struct Registry {
    lists: Vec<Mutex<Vec<Arc<Entry>>>>,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Registry {
    pub(super) fn new(workers: usize) -> Registry {
        Registry { lists: (0..workers).map(|_| Mutex::default()).collect(), addresses: Mutex::default() }
    }

    pub(super) fn enter(&self, worker: usize, socket: RawFd) -> Arc<Entry> {
        let mut list = lock(&self.lists[worker]);
        let entry = Arc::new(Entry {
            socket,
            idle_since_ms: AtomicU64::new(BUSY),
            told_to_leave: AtomicBool::new(false),
            slot: AtomicUsize::new(list.len()),
        });
        list.push(entry.clone());
        entry
    }

    /// Before the socket closes.
    pub(super) fn leave(&self, worker: usize, entry: &Entry) {
        let mut list = lock(&self.lists[worker]);
        let slot = entry.slot.load(Ordering::Relaxed);
        let left = list.swap_remove(slot);
        assert!(std::ptr::eq(&*left, entry), "a connection leaves its own place");
        if let Some(moved) = list.get(slot) {
            moved.slot.store(slot, Ordering::Relaxed);
        }
    }

    /// Tells the connection that has been idle for the longest time to leave; false: none is idle.
    pub(super) fn shed_longest_idle(&self) -> bool {
        let mut longest: Option<(u64, usize, Arc<Entry>)> = None;
        for (worker, list) in self.lists.iter().enumerate() {
            for entry in lock(list).iter().filter(|entry| !entry.told_to_leave.load(Ordering::Relaxed)) {
                let since = entry.idle_since_ms.load(Ordering::Relaxed);
                if since != BUSY && longest.as_ref().is_none_or(|(other, ..)| since < *other) {
                    longest = Some((since, worker, entry.clone()));
                }
            }
        }
        let Some((_, worker, entry)) = longest else { return false };
        let list = lock(&self.lists[worker]);
        let is_still_here =
            list.get(entry.slot.load(Ordering::Relaxed)).is_some_and(|other| Arc::ptr_eq(other, &entry));
        if is_still_here {
            entry.dismiss(libc::SHUT_RD);
        }
        // Where it left meanwhile, there is room as well.
        true
    }

    pub(super) fn dismiss_idle(&self) {
        for list in &self.lists {
            for entry in lock(list).iter().filter(|entry| entry.idle_since_ms.load(Ordering::SeqCst) != BUSY) {
                entry.dismiss(libc::SHUT_RD);
            }
        }
    }

    pub(super) fn cut_all(&self) {
        for list in &self.lists {
            for entry in lock(list).iter() {
                entry.dismiss(libc::SHUT_RDWR);
            }
        }
    }

    /// One more connection of an address; false: it has `max` already.
    pub(super) fn count_address(&self, address: IpAddr, max: usize) -> bool {
        let mut addresses = lock(&self.addresses);
        let count = addresses.entry(address).or_insert(0);
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    pub(super) fn uncount_address(&self, address: IpAddr) {
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

/// The client that an address belongs to, for every limit that counts clients: a site has a whole network of IPv6
/// addresses, so it is the first 64 bits. An IPv4 address in IPv6 form is itself.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << (128 - CLIENT_IPV6_PREFIX_BITS)))),
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_more_connections_than_it_may() {
        let registry = Registry::new(1);
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(registry.count_address(address, 2) && registry.count_address(address, 2));
        assert!(!registry.count_address(address, 2));
        assert!(registry.count_address(IpAddr::from([192, 0, 2, 2]), 2));
        registry.uncount_address(address);
        assert!(registry.count_address(address, 2));
    }
}
