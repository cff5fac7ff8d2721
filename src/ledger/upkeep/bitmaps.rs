//! Bitmaps of days and of 32 days, made of those of hours and days.

use roaring::RoaringBitmap;

use super::steps::Steps;
use crate::ledger::sql::{Sql, Value};
use crate::ledger::stats::bitmaps::{BitmapKey, ERASED, TIERS, bytes, read};
use crate::limits::SPAN_DAYS;
use crate::ports::StoreError;

/// Bitmaps that are looked for at once.
const LOOKED_FOR: usize = 50;

/// Makes what is due, the newest first; true if something is left.
pub fn run<S: Steps>(steps: &mut S, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let mut is_left = false;
    for tiers in TIERS.windows(2) {
        let (shorter, tier) = (tiers[0], tiers[1]);
        while has_time() {
            let next = steps.look(move |sql| sql.numbers(&next_sql(shorter, tier, None), &[]))?;
            if next.is_empty() {
                break;
            }
            for first in next.into_iter().take_while(|_| has_time()) {
                is_left |= !steps.step(move |sql| make(sql, shorter, (tier, first)))?;
            }
        }
    }
    Ok(is_left || !has_time())
}

/// The first hours of closed buckets of a tier without a bitmap, all of whose shorter ones are there; the newest first. `only`:
/// this one.
fn next_sql(shorter: i64, tier: i64, only: Option<i64>) -> String {
    let only = only.map_or(String::new(), |hour| format!("AND s.at >= {hour} * 60 AND s.at < ({hour} + {tier}) * 60"));
    let made = |tier: i64| {
        format!(
            "SELECT 1 FROM visitor_bitmap AS made \
             WHERE hours = {tier} AND made.event_type = 0 AND made.at = s.at / 60 / {tier} * {tier}"
        )
    };
    format!(
        "SELECT first FROM (SELECT s.at / 60 / {tier} * {tier} AS first FROM series AS s \
           WHERE minutes = 60 AND event_type = 0 {only} \
             AND s.at / 60 / {tier} * {tier} >= (SELECT rows_since * 24 FROM rollup_state) \
             AND s.at < (SELECT until_hour / {tier} * {tier} * 60 FROM rollup_state) AND NOT EXISTS ({}) \
           GROUP BY 1 HAVING min(CASE WHEN users IS NOT NULL AND EXISTS ({}) THEN 1 ELSE 0 END) = 1) AS whole \
         ORDER BY first DESC LIMIT {LOOKED_FOR}",
        made(tier),
        made(shorter)
    )
}

/// False if a shorter one is damaged: its hours are then counted again.
fn make(sql: &mut dyn Sql, shorter: i64, key: BitmapKey) -> Result<bool, StoreError> {
    let (tier, first) = key;
    if sql.first(&next_sql(shorter, tier, Some(first)), &[])?.is_none() {
        return Ok(true);
    }
    let parts = format!(
        "SELECT members FROM visitor_bitmap WHERE hours = {shorter} AND event_type = 0 AND at >= {first} AND at < {}",
        first + tier
    );
    let union = union_of(sql, &parts)?;
    match &union {
        Some(union) => write(sql, key, 0, &bytes(union))?,
        None => count_again(sql, &format!("at >= {first} * 60 AND at < ({first} + {tier}) * 60"))?,
    }
    Ok(union.is_some())
}

/// The union of stored bitmaps; `None` if one is damaged.
fn union_of(sql: &mut dyn Sql, query: &str) -> Result<Option<RoaringBitmap>, StoreError> {
    let mut union = Some(RoaringBitmap::new());
    sql.each(query, &[], &mut |row| {
        union = union.take().zip(read(row.bytes(0))).map(|(one, other)| one | other);
        Ok(())
    })?;
    Ok(union)
}

/// Has hours counted again that match a condition: their bitmaps are damaged.
fn count_again(sql: &mut dyn Sql, condition: &str) -> Result<(), StoreError> {
    sql.batch(&format!(
        "UPDATE series SET users = NULL, count = count + 1 WHERE minutes = 60 AND event_type = 0 AND {condition} \
           AND at >= (SELECT rows_since * 1440 FROM rollup_state)"
    ))
}

/// Stores a bitmap.
pub fn write(sql: &mut dyn Sql, (tier, at): BitmapKey, kind: i64, members: &[u8]) -> Result<(), StoreError> {
    debug_assert!(tier == ERASED || at.rem_euclid(tier) == 0 && tier <= 24 * SPAN_DAYS);
    let statement = "INSERT INTO visitor_bitmap (hours, event_type, at, members) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (hours, event_type, at) DO UPDATE SET members = excluded.members";
    sql.execute(statement, &[Value::Int(tier), Value::Int(kind), Value::Int(at), Value::Bytes(members)]).map(drop)
}

/// Erased users leave their ordinals to the bitmap of those, and come back with others. Hours in which they may have something
/// left are counted again.
pub fn erase(sql: &mut dyn Sql, ordinals: &[i64], hours: &[i64]) -> Result<(), StoreError> {
    if !hours.is_empty() {
        sql.batch(&super::compact::mark_counted_dirty_sql(hours))?;
    }
    if ordinals.is_empty() {
        return Ok(());
    }
    let more: RoaringBitmap = ordinals.iter().filter_map(|ordinal| u32::try_from(*ordinal).ok()).collect();
    let before = union_of(sql, &format!("SELECT members FROM visitor_bitmap WHERE hours = {ERASED}"))?;
    if before.is_none() {
        // Those who were erased before cannot be told from others: every bitmap is made again.
        sql.batch("DELETE FROM visitor_bitmap")?;
        count_again(sql, "true")?;
    }
    write(sql, (ERASED, 0), 0, &bytes(&(before.unwrap_or_default() | more)))
}
