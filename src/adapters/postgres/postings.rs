//! Makes and reads the lists of what several filters count: see `ledger_fold`. Whoever writes them holds the lock of the open
//! day's users, as with sets of users.

use std::ops::Range;

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Row, Transaction};

use super::connect::{Failure, Session};
use super::maintain::delete_in_steps;
use super::rankings::{MINUTE, literal};
use super::user_sets::state_of;
use super::writer::PostgresWriter;
use super::{few, fold, open_day};
use crate::events::EventType;
use crate::ledger_fold::{
    CLEARED, HOUR_MS, Joined, Longer, Named, POSTED, POSTED_COLUMNS, POSTING_LENGTHS, Posted, PostingLists, PostingRow,
    Postponed, RawCount, SetKey, SetMaker, count_posted, forget_postings_sql, join_hours, make_sets, next_long_sql,
    parts_of,
};
use crate::limits::{COUNT_EVENTS_FEW, POSTINGS_CLEARED};
use crate::ports::CountFilter;

const HEAD: &str = "posting_head";

/// What is due: first what holds no more goes, with what it says of people who were erased.
pub(super) fn make(writer: &mut PostgresWriter, has_time: &dyn Fn() -> bool) -> Result<bool, Failure> {
    let cleared = writer.step(clear)?;
    Ok(cleared | make_sets(&mut PostingMaker(writer), has_time)?)
}

/// True where there may be more.
fn clear(session: &mut Session) -> Result<bool, Failure> {
    let rows = session.client.query(&format!("{CLEARED} LIMIT {POSTINGS_CLEARED}"), &[])?;
    for row in &rows {
        let (length, at): (i64, i64) = (row.get(0), row.get(1));
        let mut transaction = session.client.transaction()?;
        open_day::lock(&mut transaction)?;
        let head = "DELETE FROM posting_head WHERE hours = $1 AND at = $2 AND blocks < 0";
        if transaction.execute(head, &[&length, &at])? > 0 {
            transaction.execute("DELETE FROM posting_block WHERE hours = $1 AND at = $2", &[&length, &at])?;
        }
        transaction.commit()?;
    }
    Ok(rows.len() == POSTINGS_CLEARED)
}

/// Makes them with a writer's connection.
struct PostingMaker<'w>(&'w mut PostgresWriter);

impl SetMaker for PostingMaker<'_> {
    type Error = Failure;
    const TABLE: &'static str = HEAD;
    const LENGTHS: &'static [i64] = &POSTING_LENGTHS;

    fn postponed(&mut self) -> &mut [Postponed; 2] {
        &mut self.0.folding.postings
    }

    fn numbers(&mut self, sql: String) -> Result<Vec<Option<i64>>, Failure> {
        self.0.numbers(sql)
    }

    fn make_few(&mut self, hours: &[i64]) -> Result<bool, Failure> {
        let hours = hours.to_vec();
        self.0.step(move |session| make_few(session, &hours))
    }

    fn make_hour(&mut self, hour: i64) -> Result<bool, Failure> {
        self.0.step(move |session| make_hour(session, hour))
    }

    fn make_long(&mut self, shorter: i64, set: SetKey) -> Result<bool, Failure> {
        self.0.step(move |session| make_long(session, shorter, set))
    }
}

/// False where something came in meanwhile. The lock is not held while rows are read.
fn make_hour(session: &mut Session, hour: i64) -> Result<bool, Failure> {
    let mut snapshot = fold::reading(session)?;
    let state = state_of(&mut snapshot, (1, hour))?;
    if state.is_empty() {
        return Ok(false);
    }
    let posted = posted_of(&mut snapshot, hour)?;
    snapshot.commit()?;
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if state_of(&mut transaction, (1, hour))? != state {
        return Ok(false);
    }
    write(&mut transaction, (1, hour), &posted)?;
    transaction.commit()?;
    Ok(true)
}

/// The lists of some hours of one UTC day, unless these have too many events for a step or something changes meanwhile.
fn make_few(session: &mut Session, hours: &[i64]) -> Result<bool, Failure> {
    let Some(day) = hours.first().map(|hour| hour.div_euclid(24)) else { return Ok(true) };
    let mut snapshot = fold::reading(session)?;
    let state = state_of(&mut snapshot, (24, day * 24))?;
    let sql = format!(
        "SELECT {POSTED_COLUMNS}, {MINUTE} / 60 FROM events WHERE {} AND {POSTED} LIMIT {COUNT_EVENTS_FEW} + 1",
        few::during(hours)
    );
    let rows = snapshot.query(&sql, &[])?;
    snapshot.commit()?;
    let are_counted = hours.iter().all(|hour| state.iter().any(|[at, ..]| *at == hour * 60));
    if !are_counted || i64::try_from(rows.len()).unwrap_or(i64::MAX) > COUNT_EVENTS_FEW {
        return Ok(false);
    }
    let posted = hours.iter().map(|hour| {
        let mut lists = PostingLists::default();
        rows.iter().filter(|row| row.get::<_, i64>(6) == *hour).for_each(|row| add(&mut lists, row));
        lists.end_hour();
        (*hour, lists.finish())
    });
    let posted: Vec<(i64, Posted)> = posted.collect();
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    if state_of(&mut transaction, (24, day * 24))? != state {
        return Ok(false);
    }
    write_hours(&mut transaction, &posted)?;
    transaction.commit()?;
    Ok(true)
}

fn write_hours(transaction: &mut Transaction<'_>, posted: &[(i64, Posted)]) -> Result<(), postgres::Error> {
    let hours: Vec<i64> = posted.iter().map(|(hour, _)| *hour).collect();
    transaction.execute("DELETE FROM posting_block WHERE hours = 1 AND at = ANY ($1)", &[&hours])?;
    let (mut ats, mut numbers, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for (hour, posted) in posted {
        for (number, block) in posted.blocks.iter().enumerate() {
            ats.push(*hour);
            numbers.push(number as i64);
            blocks.push(block.as_slice());
        }
    }
    let insert = "INSERT INTO posting_block (hours, at, number, block) \
                  SELECT 1, * FROM unnest($1::int8[], $2::int8[], $3::bytea[])";
    transaction.execute(insert, &[&ats, &numbers, &blocks])?;
    let lengths: Vec<i64> = posted.iter().map(|(_, posted)| posted.blocks.len() as i64).collect();
    let counts: Vec<&[u8]> = posted.iter().map(|(_, posted)| posted.counts.as_slice()).collect();
    let heads = "INSERT INTO posting_head (hours, at, blocks, counts) \
                 SELECT 1, * FROM unnest($1::int8[], $2::int8[], $3::bytea[]) \
                 ON CONFLICT (hours, at) DO UPDATE SET blocks = excluded.blocks, counts = excluded.counts";
    transaction.execute(heads, &[&hours, &lengths, &counts]).map(|_| ())
}

/// A row of [`POSTED_COLUMNS`].
fn add(lists: &mut PostingLists, row: &Row) {
    let (component_id, element_id) = (row.get(1), row.get(5));
    let named = Named { component_id, element_id, keyword: row.get(2), post_id: row.get(3), url: row.get(4) };
    if let Some(kind) = EventType::from_name(row.get(0)) {
        lists.add(kind, named);
    }
}

fn posted_of(snapshot: &mut Transaction<'_>, hour: i64) -> Result<Posted, postgres::Error> {
    let (from, to) = (literal(hour * HOUR_MS), literal((hour + 1) * HOUR_MS));
    let sql =
        format!("SELECT {POSTED_COLUMNS} FROM events WHERE event_time >= {from} AND event_time < {to} AND {POSTED}");
    let mut lists = PostingLists::default();
    let mut rows = snapshot.query_raw(&sql, std::iter::empty::<&str>())?;
    while let Some(row) = rows.next()? {
        add(&mut lists, &row);
        if lists.is_too_large() {
            break;
        }
    }
    lists.end_hour();
    Ok(lists.finish())
}

fn make_long(session: &mut Session, shorter: i64, set: SetKey) -> Result<bool, Failure> {
    let mut snapshot = fold::reading(session)?;
    let state = state_of(&mut snapshot, set)?;
    let joined = join_hours(set, |sql| rows_of(&mut snapshot, &sql))?;
    snapshot.commit()?;
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    let due = transaction.query_opt(&next_long_sql(HEAD, shorter, set.0, Longer::Of(set.1)), &[])?;
    if due.is_none() || state_of(&mut transaction, set)? != state {
        return Ok(true);
    }
    match &joined {
        Joined::Lists(posted) => write(&mut transaction, set, posted)?,
        Joined::NotNow => {}
        Joined::Broken => transaction.batch_execute(&format!("DELETE FROM {HEAD} WHERE {}", parts_of(shorter, set)))?,
    }
    transaction.commit()?;
    Ok(matches!(joined, Joined::Lists(_)))
}

fn rows_of(transaction: &mut Transaction<'_>, sql: &str) -> Result<Vec<PostingRow>, postgres::Error> {
    Ok(transaction.query(sql, &[])?.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

fn write(transaction: &mut Transaction<'_>, (length, at): SetKey, posted: &Posted) -> Result<(), postgres::Error> {
    transaction.execute("DELETE FROM posting_block WHERE hours = $1 AND at = $2", &[&length, &at])?;
    let blocks = "INSERT INTO posting_block (hours, at, number, block) \
                  SELECT $1, $2, n - 1, block FROM unnest($3::bytea[]) WITH ORDINALITY AS b(block, n)";
    transaction.execute(blocks, &[&length, &at, &posted.blocks])?;
    let head = "INSERT INTO posting_head (hours, at, blocks, counts) VALUES ($1, $2, $3, $4) \
                ON CONFLICT (hours, at) DO UPDATE SET blocks = excluded.blocks, counts = excluded.counts";
    transaction.execute(head, &[&length, &at, &(posted.blocks.len() as i64), &posted.counts]).map(|_| ())
}

/// Of hours whose rows an erasure changed. Behind the lock.
pub(super) fn erase(session: &mut Session, hours: &[Range<i64>]) -> Result<(), Failure> {
    match hours.is_empty() {
        true => Ok(()),
        false => Ok(session.client.batch_execute(&forget_postings_sql(hours))?),
    }
}

/// Hours before this one have no rows any more.
pub(super) fn retire(session: &mut Session, since_hour: i64) -> Result<(), Failure> {
    let mut transaction = session.client.transaction()?;
    open_day::lock(&mut transaction)?;
    transaction.execute("DELETE FROM posting_head WHERE at < $1", &[&since_hour])?;
    transaction.commit()?;
    delete_in_steps(session, "posting_block", "hours IN (1, 24) AND at < $1", since_hour)
}

/// What they tell of a count, and what is left of it.
pub(super) fn count(
    transaction: &mut Transaction<'_>,
    filter: &CountFilter,
    range: RawCount,
) -> Result<(u64, Vec<RawCount>), postgres::Error> {
    count_posted(filter, range, |sql| rows_of(transaction, &sql))
}
