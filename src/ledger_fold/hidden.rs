//! Lists without deleted posts: read on until the page is full or the list ends.

use std::collections::HashSet;

/// The first `limit` names of a list that are not hidden. `first` reads as many names as it is told,
/// or all if there are fewer; `None` is passed on. `hidden` returns those of some names that lists
/// skip.
pub fn skip_hidden<C, T, E>(
    context: &mut C,
    limit: usize,
    mut first: impl FnMut(&mut C, usize) -> Result<Option<Vec<(String, T)>>, E>,
    hidden: impl Fn(&mut C, &[&str]) -> Result<HashSet<String>, E>,
) -> Result<Option<Vec<(String, T)>>, E> {
    let mut wanted = limit;
    loop {
        let Some(mut rows) = first(context, wanted)? else { return Ok(None) };
        let is_all = rows.len() < wanted;
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        let hidden = hidden(context, &names)?;
        rows.retain(|(name, _)| !hidden.contains(name));
        if is_all || rows.len() >= limit {
            rows.truncate(limit);
            return Ok(Some(rows));
        }
        wanted = wanted * 2 + 100;
    }
}
