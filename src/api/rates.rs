//! `RATE_LIMIT`: requests per second of a client.
//!
//! The generic cell rate algorithm (ATM Forum TM 4.0, as "virtual scheduling"): one number an address, the time at which
//! it would have used up what it was allowed; a second's worth may come at once. Addresses are kept in shards with a
//! bound: an attacker with many addresses costs memory that is known, and at the worst is not limited.
//!
//! Not the `governor` crate: it adds seven crates to the build, and its map of keys has no bound. The arithmetic that it
//! would replace has ten lines.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::http::network_of;
use crate::limits::{RATE_ADDRESSES_MAX, RATE_SHARDS};

const SECOND_US: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) passes: bool,
    /// Requests that would pass at once after this one.
    pub(super) remaining: u64,
    /// Until all of it is there again, in whole seconds.
    pub(super) reset_s: u64,
    /// Until one more passes, in whole seconds; at least 1 where this one did not.
    pub(super) retry_s: u64,
}

pub(super) struct Rates {
    per_second: u64,
    hasher: RandomState,
    // Until when an address has used up its allowance, microseconds of the monotonic clock.
    shards: Vec<Mutex<HashMap<IpAddr, u64>>>,
}

impl Rates {
    /// `per_second` is 1 or more.
    pub(super) fn new(per_second: u64) -> Rates {
        let shards = (0..RATE_SHARDS).map(|_| Mutex::default()).collect();
        Rates { per_second: per_second.clamp(1, SECOND_US), hasher: RandomState::new(), shards }
    }

    pub(super) fn limit(&self) -> u64 {
        self.per_second
    }

    pub(super) fn ask(&self, address: IpAddr, now_us: u64) -> Allowance {
        let address = network_of(address);
        let shard = &self.shards[self.hasher.hash_one(address) as usize % self.shards.len()];
        let mut used_until = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let each_us = SECOND_US / self.per_second;
        let used = used_until.get(&address).copied().unwrap_or(0).max(now_us);
        let after = used + each_us;
        let passes = after - now_us <= each_us * self.per_second;
        if passes {
            make_room(&mut used_until, address, now_us);
            used_until.insert(address, after);
        }
        let used = if passes { after } else { used };
        let free_us = (each_us * self.per_second).saturating_sub(used - now_us);
        Allowance {
            passes,
            remaining: free_us / each_us,
            reset_s: (used - now_us).div_ceil(SECOND_US),
            retry_s: each_us.saturating_sub(free_us).div_ceil(SECOND_US),
        }
    }
}

/// Forgets addresses that have everything again, and, where that frees nothing, all of the shard.
fn make_room(used_until: &mut HashMap<IpAddr, u64>, address: IpAddr, now_us: u64) {
    let max = RATE_ADDRESSES_MAX / RATE_SHARDS;
    if used_until.len() < max || used_until.contains_key(&address) {
        return;
    }
    used_until.retain(|_, until| *until > now_us);
    if used_until.len() >= max {
        used_until.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_as_much_as_time_brings() {
        let rates = Rates::new(10);
        let passed = (0..15).filter(|_| rates.ask(address(1), 0).passes).count();
        assert_eq!(passed, 10);
        let refused = rates.ask(address(1), 0);
        assert_eq!(refused, Allowance { passes: false, remaining: 0, reset_s: 1, retry_s: 1 });
        assert!(rates.ask(address(2), 0).passes, "each address has its own");
        assert!(!rates.ask(address(1), 99_999).passes);
        assert!(rates.ask(address(1), 100_000).passes);
        assert_eq!(rates.ask(address(1), 5_000_000).remaining, 9);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_its_ipv4() {
        let rates = Rates::new(1);
        assert!(rates.ask("2001:db8:1:2::1".parse().unwrap(), 0).passes);
        assert!(!rates.ask("2001:db8:1:2:ffff::9".parse().unwrap(), 0).passes);
        assert!(rates.ask("2001:db8:1:3::1".parse().unwrap(), 0).passes);
        assert!(rates.ask("::ffff:192.0.2.7".parse().unwrap(), 0).passes);
        assert!(!rates.ask(address(7), 0).passes);
    }

    #[test]
    fn a_million_addresses_take_bounded_room() {
        let rates = Rates::new(5);
        for number in 0..1_000_000u32 {
            rates.ask(IpAddr::from(number.to_be_bytes()), 0);
        }
        let kept: usize = rates.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= RATE_ADDRESSES_MAX, "{kept}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        /// In no window of any length pass more than a second's worth and what the window brings.
        #[test]
        fn no_window_lets_more_through(per_second in 1u64..50, gaps in proptest::collection::vec(0u64..200_000, 1..200)) {
            let rates = Rates::new(per_second);
            let mut now_us = 1;
            let mut passed = Vec::new();
            for gap in gaps {
                now_us += gap;
                if rates.ask(address(1), now_us).passes {
                    passed.push(now_us);
                }
            }
            let each_us = SECOND_US / per_second;
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    prop_assert!((last - first) as u64 <= per_second + (to - from) / each_us);
                }
            }
        }
    }
}
