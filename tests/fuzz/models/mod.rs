//! Slow, obviously right models of what reads foreign bytes, and the checks that hold the real thing against them. `make
//! test` runs the checks on generated input (tests/http_models.rs), `make fuzz` on input that coverage guides.

pub(crate) mod chunks;
pub(crate) mod events;
pub(crate) mod head;
pub(crate) mod query;

/// The cuts that the first bytes of an input name, and the rest of it.
#[allow(dead_code, reason = "only targets that cut use it")]
pub(crate) fn split_seed(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((count, rest)) = data.split_first() else { return (Vec::new(), data) };
    let count = usize::from(count % 4).min(rest.len() / 2);
    let (cuts, rest) = rest.split_at(count * 2);
    (cuts.chunks(2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1])).collect(), rest)
}
