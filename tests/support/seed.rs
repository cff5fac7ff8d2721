//! Where the randomness of a test begins, so that a run can be had again.

/// `SEED` alone, or as many seeds as there is time for.
#[allow(dead_code, reason = "not every suite tries several")]
pub(crate) fn seeds(iterations: u64) -> impl Iterator<Item = u64> {
    let count = if std::env::var_os("SEED").is_some() { 1 } else { iterations };
    let first = seed();
    (0..count).map(move |n| first.wrapping_add(n))
}

/// A number of the environment, or what stands in its place.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")))
}

/// `SEED`, or a new one; either way it is printed.
pub(crate) fn seed() -> u64 {
    let seed = setting("SEED", rand::random());
    eprintln!("SEED={seed}");
    seed
}
