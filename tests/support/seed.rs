//! Where the randomness of a test begins, so that a run can be had again.

/// `SEED`, or a new one; either way it is printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    let given = given.map(|text| text.parse().unwrap_or_else(|_| panic!("SEED={text} is no whole number")));
    let seed = given.unwrap_or_else(rand::random::<u64>);
    eprintln!("SEED={seed}");
    seed
}
