//! Users that may have been erased, in bounded memory: a Bloom filter, so that no erased user is missing and hardly any
//! other is held.

use fastbloom::BloomFilter;

use crate::limits::ERASED_FILTER_BITS;

const HASHES: u32 = 4;

/// Which users may have been erased.
#[derive(Default)]
pub struct MaybeErased {
    /// None before the first erasure: most ledgers have none.
    users: Option<BloomFilter>,
}

impl MaybeErased {
    pub fn add(&mut self, user: &str) {
        // A seed of its own, so that no client can choose ids that collide.
        let filter = || BloomFilter::with_num_bits(ERASED_FILTER_BITS).seed(&rand::random()).hashes(HASHES);
        self.users.get_or_insert_with(filter).insert(user);
    }

    pub fn holds(&self, user: &str) -> bool {
        self.users.as_ref().is_some_and(|users| users.contains(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_erased_user_is_held_and_hardly_any_other() {
        let mut erased = MaybeErased::default();
        assert!(!erased.holds("u0"));
        (0..100_000).for_each(|n| erased.add(&format!("u{n}")));
        assert!((0..100_000).all(|n| erased.holds(&format!("u{n}"))));
        // One of some 800 million at this size: three by chance would be a wonder.
        let others = (0..100_000).filter(|n| erased.holds(&format!("other{n}"))).count();
        assert!(others < 3, "{others}");
    }
}
