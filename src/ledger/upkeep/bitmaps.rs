//! Bitmaps of days and of 32 days, made of those of hours and days.

use std::collections::{BTreeMap, HashSet};

use roaring::RoaringBitmap;

use super::steps::Steps;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::{Column, Sql, Value};
use crate::ledger::stats::bitmaps::{BitmapKey, ERASED, TIERS, bytes, read};
use crate::ports::StoreError;

/// Makes what is due, the newest first; true if something is left.
pub fn run<S: Steps>(steps: &mut S, has_time: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    if steps.pace().has_all_bitmaps {
        return Ok(false);
    }
    let mut is_left = false;
    for tiers in TIERS.windows(2) {
        let (shorter, tier) = (tiers[0], tiers[1]);
        for first in steps.look(move |sql| due(sql, shorter, tier))? {
            if !has_time() {
                return Ok(true);
            }
            is_left |= !steps.step(move |sql| make(sql, shorter, (tier, first)))?;
        }
    }
    steps.pace().has_all_bitmaps = !is_left;
    Ok(is_left)
}

/// The first hours of closed buckets of a tier without a bitmap, all of whose shorter ones are there; the newest first. Compared
/// here: the server would plan the join for a table that it knows to be empty.
fn due(sql: &mut dyn Sql, shorter: i64, tier: i64) -> Result<Vec<i64>, StoreError> {
    let frontier = Frontier::read(sql)?;
    let bitmaps = format!(
        "SELECT hours, at FROM visitor_bitmap WHERE event_type = 0 AND hours IN ({shorter}, {tier}) AND at >= 0"
    );
    let made: HashSet<BitmapKey> = sql.query(&bitmaps, &[])?.iter().map(|row| (row.int(0), row.int(1))).collect();
    let hours = format!(
        "SELECT at / 60, CASE WHEN users IS NULL THEN 0 ELSE 1 END FROM series WHERE minutes = 60 AND event_type = 0 \
           AND at >= {} AND at < {}",
        frontier.rows_since * 1_440,
        frontier.until_hour.div_euclid(tier) * tier * 60
    );
    let mut is_whole: BTreeMap<i64, bool> = BTreeMap::new();
    sql.each(&hours, &[], &mut |row| {
        let hour = row.int(0);
        let has_part = row.int(1) == 1 && made.contains(&(shorter, hour.div_euclid(shorter) * shorter));
        *is_whole.entry(hour.div_euclid(tier) * tier).or_insert(true) &= has_part;
        Ok(())
    })?;
    let is_due = |(first, is_whole): &(i64, bool)| {
        *is_whole && *first >= frontier.rows_since * 24 && !made.contains(&(tier, *first))
    };
    Ok(is_whole.into_iter().rev().filter(is_due).map(|(first, _)| first).collect())
}

/// False if a shorter one is damaged: its hours are then counted again.
fn make(sql: &mut dyn Sql, shorter: i64, key: BitmapKey) -> Result<bool, StoreError> {
    let (tier, first) = key;
    // Something may have changed since it was found to be due.
    let missing = format!(
        "SELECT 1 FROM series AS s WHERE minutes = 60 AND event_type = 0 AND at >= {first} * 60 AND at < ({first} + {tier}) * 60 \
           AND (users IS NULL OR NOT EXISTS (SELECT 1 FROM visitor_bitmap AS part \
             WHERE part.hours = {shorter} AND part.event_type = 0 AND part.at = s.at / 60 / {shorter} * {shorter})) LIMIT 1"
    );
    if sql.first(&missing, &[])?.is_some() {
        return Ok(true);
    }
    let parts = format!(
        "SELECT members FROM visitor_bitmap WHERE hours = {shorter} AND event_type = 0 AND at >= {first} AND at < {}",
        first + tier
    );
    let union = union_of(sql, &parts)?;
    match &union {
        Some(union) => write(sql, tier, &[(0, first, bytes(union))])?,
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

/// Stores bitmaps of a tier: type (0: all), first hour, members.
pub fn write(sql: &mut dyn Sql, tier: i64, bitmaps: &[(i64, i64, Vec<u8>)]) -> Result<(), StoreError> {
    debug_assert!(bitmaps.iter().all(|(_, at, _)| tier == ERASED || at.rem_euclid(tier) == 0));
    let columns = [
        Column::Ints(bitmaps.iter().map(|(kind, ..)| *kind).collect()),
        Column::Ints(bitmaps.iter().map(|(_, at, _)| *at).collect()),
        Column::Bytes(bitmaps.iter().map(|(.., members)| members.as_slice()).collect()),
    ];
    let rows = sql.dialect().rows(1, &[("event_type", "bigint"), ("at", "bigint"), ("members", "bytea")]);
    let statement = format!(
        "INSERT INTO visitor_bitmap (hours, event_type, at, members) SELECT {tier}, event_type, at, members FROM {rows} \
         WHERE true ON CONFLICT (hours, event_type, at) DO UPDATE SET members = excluded.members"
    );
    sql.execute(&statement, &[Value::Rows(&columns)]).map(drop)
}

/// Adds the ordinals of erased users to the bitmap of the erased: who comes back gets a new ordinal.
/// The `hours` in which they may have rows left are counted again.
pub fn erase(sql: &mut dyn Sql, ordinals: &[i64], hours: &[i64]) -> Result<(), StoreError> {
    sql.batch(super::compact::FORGET_OPEN_MINUTES)?;
    if !hours.is_empty() {
        sql.batch(&super::compact::mark_counted_dirty_sql(hours))?;
    }
    if ordinals.is_empty() {
        return Ok(());
    }
    let more: RoaringBitmap = ordinals.iter().filter_map(|ordinal| u32::try_from(*ordinal).ok()).collect();
    let before = union_of(sql, &format!("SELECT members FROM visitor_bitmap WHERE hours = {ERASED}"))?;
    if before.is_none() {
        // The bitmap of erased users is damaged: all bitmaps are counted again from rows, which no
        // longer name them.
        sql.batch("DELETE FROM visitor_bitmap")?;
        count_again(sql, "true")?;
    }
    write(sql, ERASED, &[(0, 0, bytes(&(before.unwrap_or_default() | more)))])
}
