//! Lists without deleted posts: read on until the page is full or the list ends.

use std::collections::HashSet;

use crate::ledger::sql::{Column, Sql, Value};
use crate::ports::StoreError;

/// The first `limit` names of a list that are not deleted posts. `first` reads as many names as it is told, or all if there
/// are fewer.
pub fn skip_hidden<T>(
    sql: &mut dyn Sql,
    limit: usize,
    mut first: impl FnMut(&mut dyn Sql, usize) -> Result<Vec<(String, T)>, StoreError>,
) -> Result<Vec<(String, T)>, StoreError> {
    let mut wanted = limit;
    loop {
        let mut rows = first(sql, wanted)?;
        let is_all = rows.len() < wanted;
        let hidden = hidden(sql, rows.iter().map(|(name, _)| name.as_str()).collect())?;
        rows.retain(|(name, _)| !hidden.contains(name));
        if is_all || rows.len() >= limit {
            rows.truncate(limit);
            return Ok(rows);
        }
        wanted = wanted * 2 + 100;
    }
}

/// Those of some posts that are deleted.
fn hidden(sql: &mut dyn Sql, posts: Vec<&str>) -> Result<HashSet<String>, StoreError> {
    let rows = sql.dialect().rows(1, &[("post", "text")]);
    let query = format!("SELECT post_id FROM tombstone WHERE post_id IN (SELECT post FROM {rows})");
    let mut rows = sql.query(&query, &[Value::Rows(&[Column::Texts(posts)])])?;
    Ok(rows.iter_mut().map(|row| row.take_text(0)).collect())
}
