//! Counts over several filters: an inverted index of the hours and UTC days that were counted.
//!
//! In an hour, every event that names two or more of component, keyword, post and page has a number; for each of these values and
//! each type there is the list of the numbers that name it. Events that name several values have their numbers in the lists of
//! all of these. A day's lists are those of its hours, one hour's numbers behind the other's, so that of a day some hours can be
//! counted alone. Lists lie in blocks by a hash of their value: of a day one row is read for each value, however many events
//! there are.
//!
//! Numbers ascend, and are written as gaps of 7 bits a byte, names as what they do not share with the one before:
//! J. Zobel and A. Moffat, "Inverted files for text search engines", ACM Computing Surveys 38 (2006).
//!
//! Like sets of users, lists are not believed while something of their time has to be counted again, and with the counting they
//! go; also with an erasure, which takes urls out of the rows. Their heads say so at once, they themselves go a little later.

use std::collections::HashMap;
use std::ops::Range;

use super::counting::{HOUR_MS, RawCount};
use super::cover::cover;
use super::posting_lists::{Lists, Posted, PostingLists, block_of, numbers, take, values_of};
use super::user_sets::BELIEVED;
use crate::events::{EventType, component_key};
use crate::limits::{POSTING_BLOCKS_MAX, POSTING_HEADS_READ};
use crate::ports::CountFilter;

/// Hours whose lists are kept together.
pub const POSTING_LENGTHS: [i64; 2] = [1, DAY_HOURS];
const DAY_HOURS: i64 = 24;

/// What is read of an hour's rows for their lists.
pub const POSTED_COLUMNS: &str = "event_type, component_id, keyword, post_id, url, element_id";
/// … and the condition that they name several values.
pub const POSTED: &str = "CASE WHEN component_id IS NULL AND element_id IS NULL THEN 0 ELSE 1 END + \
     CASE WHEN keyword IS NULL THEN 0 ELSE 1 END + \
     CASE WHEN post_id IS NULL THEN 0 ELSE 1 END + CASE WHEN url IS NULL THEN 0 ELSE 1 END > 1";

/// What is read for a count, a row each: hours, the first of them, and of a head how many blocks there are and the counts, of a
/// block its number and itself.
pub type PostingRow = (i64, i64, i64, Option<Vec<u8>>);

/// A head, and which of its numbers are those of the hours asked for.
#[derive(Debug, PartialEq)]
struct Chosen {
    length: i64,
    at: i64,
    blocks: i64,
    numbers: Range<u32>,
}

fn heads_sql(length: i64, ranges: &[Range<i64>]) -> String {
    let within: Vec<String> =
        ranges.iter().map(|Range { start, end }| format!("at > {} AND at < {end}", start - length)).collect();
    format!(
        "SELECT hours, at, blocks, counts FROM posting_head AS s WHERE hours = {length} AND ({}) AND blocks > 0 \
           AND at >= (SELECT rows_since * 24 FROM rollup_folded) AND {BELIEVED} ORDER BY at",
        within.join(" OR ")
    )
}

/// Of a head, what lies within hours; `None` where it cannot be read.
fn within((length, at, blocks, counts): &PostingRow, hours: &Range<i64>) -> Option<Chosen> {
    let mut counts: &[u8] = counts.as_deref()?;
    let (mut numbers, mut next) = (None, 0u32);
    for hour in *at..at + length {
        let first = next;
        next = next.checked_add(take(&mut counts)?)?;
        if hours.contains(&hour) {
            let begun = numbers.get_or_insert(first..next);
            begun.end = next;
        }
    }
    let is_ours = counts.is_empty() && (1..=POSTING_BLOCKS_MAX as i64).contains(blocks) && blocks.count_ones() == 1;
    is_ours.then_some(Chosen { length: *length, at: *at, blocks: *blocks, numbers: numbers? })
}

/// Heads by which hours are counted, days where there are some, and what none of them has.
fn choose<E>(
    hours: &Range<i64>,
    rows: &mut impl FnMut(String) -> Result<Vec<PostingRow>, E>,
) -> Result<(Vec<Chosen>, Vec<Range<i64>>), E> {
    let (mut chosen, mut rest): (Vec<Chosen>, _) = (Vec::new(), vec![hours.clone()]);
    for length in POSTING_LENGTHS.into_iter().rev() {
        if rest.is_empty() {
            break;
        }
        chosen.extend(rows(heads_sql(length, &rest))?.iter().filter_map(|row| within(row, hours)));
        chosen.sort_unstable_by_key(|head| head.at);
        rest.clear();
        let mut next = hours.start;
        for head in &chosen {
            if next < head.at {
                rest.push(next..head.at);
            }
            next = head.at + head.length;
        }
        if next < hours.end {
            rest.push(next..hours.end);
        }
    }
    Ok((chosen, rest))
}

fn blocks_sql(chosen: &[Chosen], values: &[Vec<u8>]) -> String {
    let mut wanted: Vec<String> = Vec::with_capacity(chosen.len() * values.len());
    for head in chosen {
        let mut numbers: Vec<i64> = values.iter().map(|value| block_of(value, head.blocks)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        wanted.extend(numbers.iter().map(|number| format!("({}, {}, {number})", head.length, head.at)));
    }
    // One after the other by the key, whatever is known of the table.
    format!(
        "SELECT CAST(column1 AS bigint), CAST(column2 AS bigint), CAST(column3 AS bigint), \
           (SELECT block FROM posting_block WHERE hours = column1 AND at = column2 AND number = column3) \
         FROM (VALUES {}) AS wanted",
        wanted.join(", ")
    )
}

/// The lists of a value in its block, by type; `None` where the block cannot be read.
fn lists_of<'b>(block: &'b [u8], value: &[u8]) -> Option<Vec<(u8, &'b [u8])>> {
    let (mut found, mut lists) = (Vec::new(), Lists::of(block));
    while let Some(gaps) = lists.next_list() {
        let (kind, of) = lists.key.split_last()?;
        if of == value {
            found.push((*kind, gaps));
        }
    }
    lists.is_whole().then_some(found)
}

/// How many events of some numbers are in a list of each value. The first value's lists by type, then the next one's …
fn shared_by(of_values: &[Vec<(u8, &[u8])>], wanted: Option<EventType>, numbers_of: &Range<u32>) -> Option<u64> {
    let Some((first, others)) = of_values.split_first() else { return Some(0) };
    let mut total = 0;
    for (kind, gaps) in first.iter().filter(|(kind, _)| wanted.is_none_or(|wanted| *kind == wanted as u8)) {
        let others = others.iter().map(|lists| lists.iter().find(|(other, _)| other == kind).map(|(_, gaps)| *gaps));
        let Some(mut lists) = others.collect::<Option<Vec<&[u8]>>>() else { continue };
        lists.push(gaps);
        // The shortest first: no more than it has can be in all.
        lists.sort_unstable_by_key(|gaps| gaps.len());
        let mut left: Vec<u32> =
            numbers(lists[0]).filter(|n| n.is_none_or(|n| numbers_of.contains(&n))).collect::<Option<_>>()?;
        for gaps in &lists[1..] {
            left = both(&left, gaps)?;
        }
        total += left.len() as u64;
    }
    Some(total)
}

fn both(left: &[u32], gaps: &[u8]) -> Option<Vec<u32>> {
    let (mut shared, mut left) = (Vec::new(), left.iter().copied().peekable());
    for number in numbers(gaps) {
        let number = number?;
        while left.next_if(|other| *other < number).is_some() {}
        match left.peek() {
            None => break,
            Some(other) if *other == number => shared.push(number),
            Some(_) => {}
        }
    }
    Some(shared)
}

/// What lists tell of several filters over a range of time, and what has to be counted from rows. `rows` reads
/// [`PostingRow`]s.
pub fn count_posted<E>(
    filter: &CountFilter,
    range: RawCount,
    mut rows: impl FnMut(String) -> Result<Vec<PostingRow>, E>,
) -> Result<(u64, Vec<RawCount>), E> {
    let CountFilter { event_type, component_id, element_id, keyword, post_id, page, .. } = filter;
    let component = component_key(*component_id, element_id.as_deref());
    let values = values_of(component.as_deref(), keyword.as_deref(), post_id.as_deref(), page.as_deref());
    let all = (0, vec![range]);
    let (Some(from_ms), Some(to_ms)) = (range.from_ms, range.to_ms) else { return Ok(all) };
    let cover = cover(from_ms..to_ms, None);
    let Some(hours) = cover.hours.filter(|_| values.len() > 1) else { return Ok(all) };
    let (chosen, rest) = choose(&hours, &mut rows)?;
    if chosen.is_empty() {
        return Ok(all);
    }
    let mut counted = 0;
    for some in chosen.chunks(POSTING_HEADS_READ) {
        let blocks: HashMap<(i64, i64, i64), Vec<u8>> = rows(blocks_sql(some, &values))?
            .into_iter()
            .filter_map(|(length, at, number, block)| Some(((length, at, number), block?)))
            .collect();
        let of_head = |head: &Chosen| {
            let of_value =
                |value: &Vec<u8>| lists_of(blocks.get(&(head.length, head.at, block_of(value, head.blocks)))?, value);
            shared_by(&values.iter().map(of_value).collect::<Option<Vec<_>>>()?, *event_type, &head.numbers)
        };
        let Some(of_some) = some.iter().map(of_head).sum::<Option<u64>>() else { return Ok(all) };
        counted += of_some;
    }
    let rest = rest.into_iter().map(|hours| hours.start * HOUR_MS..hours.end * HOUR_MS);
    Ok((counted, side_by_side(cover.raw.into_iter().chain(rest).collect())))
}

/// Ranges that follow each other are one.
fn side_by_side(mut ranges: Vec<Range<i64>>) -> Vec<RawCount> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut parts: Vec<RawCount> = Vec::new();
    for range in ranges {
        match parts.last_mut() {
            Some(last) if last.to_ms == Some(range.start) => last.to_ms = Some(range.end),
            _ => parts.push(RawCount { from_ms: Some(range.start), to_ms: Some(range.end) }),
        }
    }
    parts
}

/// What the lists of a day's hours are together.
#[derive(Debug, PartialEq)]
pub enum Joined {
    Lists(Posted),
    /// One of the hours is being made anew: not now.
    NotNow,
    /// One cannot be read: all are made anew.
    Broken,
}

/// Joins the lists of some hours; `rows` reads [`PostingRow`]s. An hour without a head has no events.
pub fn join_hours<E>(
    (length, first): (i64, i64),
    mut rows: impl FnMut(String) -> Result<Vec<PostingRow>, E>,
) -> Result<Joined, E> {
    let heads = format!(
        "SELECT hours, at, blocks, counts FROM posting_head WHERE hours = 1 AND at >= {first} AND at < {first} + {length}"
    );
    let mut heads: HashMap<i64, (i64, Option<Vec<u8>>)> =
        rows(heads)?.into_iter().map(|(_, at, blocks, counts)| (at, (blocks, counts))).collect();
    if heads.values().any(|(blocks, _)| *blocks < 0) {
        return Ok(Joined::NotNow);
    }
    let mut lists = PostingLists::default();
    for hour in first..first + length {
        let Some((blocks, counts)) = heads.remove(&hour) else {
            lists.end_hour();
            continue;
        };
        // There was too much to be listed, and so there is in the day.
        if blocks == 0 {
            return Ok(Joined::Lists(Posted::default()));
        }
        let blocks = format!(
            "SELECT hours, at, number, block FROM posting_block WHERE hours = 1 AND at = {hour} ORDER BY number"
        );
        let blocks: Vec<Vec<u8>> = rows(blocks)?.into_iter().filter_map(|(.., block)| block).collect();
        let count = counts.and_then(|counts| take(&mut &counts[..]));
        if count.and_then(|count| lists.add_hour(count, blocks.iter().map(Vec::as_slice))).is_none() {
            return Ok(Joined::Broken);
        }
        if lists.is_too_large() {
            break;
        }
    }
    Ok(Joined::Lists(lists.finish()))
}

/// Says that what some hours are in holds no more: it goes with the next [`CLEARED`] and is made anew.
pub fn forget_postings_sql(hours: &[Range<i64>]) -> String {
    let of_length = |length: &i64| {
        let mut at: Vec<i64> = hours.iter().cloned().flatten().map(|hour| hour.div_euclid(*length) * length).collect();
        at.dedup();
        let at: Vec<String> = at.iter().map(i64::to_string).collect();
        format!("hours = {length} AND at IN ({})", at.join(", "))
    };
    let of_hours: Vec<String> = POSTING_LENGTHS.iter().map(of_length).collect();
    format!("UPDATE posting_head SET blocks = -1 WHERE {}", of_hours.join(" OR "))
}

/// `SELECT hours, at` of what holds no more: a day after its hours, of which it could be made anew.
pub const CLEARED: &str = "SELECT hours, at FROM posting_head WHERE blocks < 0 ORDER BY hours, at";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::posting_lists::Named;
    use super::*;

    type Event = (usize, Option<u8>, Option<u8>, Option<u8>, Option<u8>);

    const KINDS: [EventType; 3] = [EventType::Click, EventType::PageView, EventType::Search];

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let value = || prop::option::of(0..4u8);
        prop::collection::vec((0..3usize, value(), value(), value(), value()), 0..60)
    }

    /// So that there are several blocks.
    fn long(value: u8) -> String {
        value.to_string().repeat(300)
    }

    fn lists_of_hour(events: &[Event]) -> Posted {
        let mut lists = PostingLists::default();
        for (kind, component, keyword, post, page) in events {
            let text = |value: &Option<u8>, prefix: &str| value.map(|value| format!("{prefix}{}", long(value)));
            let (keyword, post, url) = (text(keyword, "K"), text(post, "p"), text(page, "https://example.org/"));
            let named = Named {
                component_id: component.map(i64::from),
                element_id: None,
                keyword: keyword.as_deref(),
                post_id: post.as_deref(),
                url: url.as_deref(),
            };
            if [component, &keyword.as_ref().map(|_| 0), &post.as_ref().map(|_| 0), page]
                .iter()
                .filter(|v| v.is_some())
                .count()
                > 1
            {
                lists.add(KINDS[*kind], named);
            }
        }
        lists.end_hour();
        lists.finish()
    }

    fn store_of(rows: &HashMap<(i64, i64), Posted>) -> rusqlite::Connection {
        let store = rusqlite::Connection::open_in_memory().expect("opens");
        let tables = "CREATE TABLE posting_head (hours, at, blocks, counts); CREATE TABLE series (at, users); \
             CREATE TABLE posting_block (hours, at, number, block); CREATE TABLE rollup_folded AS SELECT 0 AS rows_since";
        store.execute_batch(tables).expect("makes");
        for ((length, at), Posted { counts, blocks }) in rows {
            let head = rusqlite::params![length, at, blocks.len() as i64, counts];
            store.execute("INSERT INTO posting_head VALUES (?1, ?2, ?3, ?4)", head).expect("inserts");
            for (number, block) in blocks.iter().enumerate() {
                let block = rusqlite::params![length, at, number as i64, block];
                store.execute("INSERT INTO posting_block VALUES (?1, ?2, ?3, ?4)", block).expect("inserts");
            }
        }
        store
    }

    fn rows_of(store: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<PostingRow>> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        store.prepare(sql)?.query_map([], row)?.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
        #[test]
        fn lists_count_what_names_all_values(
            of_hours in prop::collection::vec(events(), 24), asked in (prop::option::of(0..3usize), prop::option::of(0..4u8),
            prop::option::of(0..4u8), prop::option::of(0..4u8), prop::option::of(0..4u8)), cut in (0..30i64, 0..30i64), stored_days in any::<bool>(),
        ) {
            let (kind, component, keyword, post, page) = asked;
            prop_assume!([component, keyword, post, page].iter().flatten().count() > 1);
            let mut rows: HashMap<(i64, i64), Posted> = HashMap::new();
            for (hour, events) in of_hours.iter().enumerate() {
                rows.insert((1, 24 + hour as i64), lists_of_hour(events));
            }
            if stored_days {
                let store = store_of(&rows);
                let Ok(Joined::Lists(day)) = join_hours((24, 24), |sql| rows_of(&store, &sql)) else { panic!("lists") };
                rows.insert((24, 24), day);
            }
            let (first, end) = (20 + cut.0.min(cut.1), 20 + cut.0.max(cut.1) + 1);
            let filter = CountFilter {
                event_type: kind.map(|kind| KINDS[kind]),
                component_id: component.map(i64::from),
                keyword: keyword.map(|value| format!("k{}", long(value))),
                post_id: post.map(|value| format!("p{}", long(value))),
                page: page.map(|value| format!("/{}", long(value))),
                ..CountFilter::default()
            };
            let range = RawCount { from_ms: Some(first * HOUR_MS), to_ms: Some(end * HOUR_MS) };
            let store = store_of(&rows);
            let (counted, rest) = count_posted(&filter, range, |sql| rows_of(&store, &sql)).expect("answers");
            let expected = (24..48i64).filter(|hour| (first..end).contains(hour)).flat_map(|hour| &of_hours[(hour - 24) as usize]);
            let expected = expected.filter(|event| {
                let is = |asked: Option<u8>, has: Option<u8>| asked.is_none_or(|asked| has == Some(asked));
                kind.is_none_or(|kind| event.0 == kind) && is(component, event.1) && is(keyword, event.2) && is(post, event.3) && is(page, event.4)
            });
            prop_assert_eq!(counted, expected.count() as u64);
            let left: Vec<Range<i64>> = [first..end.min(24), first.max(48)..end].into_iter().filter(|range| !range.is_empty()).collect();
            let left = left.into_iter().map(|hours| hours.start * HOUR_MS..hours.end * HOUR_MS).collect();
            prop_assert_eq!(rest, side_by_side(left));
        }

        #[test]
        fn whatever_bytes_stand_in_a_block_are_read_or_refused(
            events in events(), at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..9),
        ) {
            let mut block = lists_of_hour(&events).blocks.concat();
            let at = at.index(block.len() + 1);
            block.splice(at..(at + bytes.len()).min(block.len()), bytes);
            lists_of(&block, b"p1");
            let mut lists = PostingLists::default();
            lists.add_hour(9, [&*block].into_iter());
            let found = lists_of(&block, b"p1").unwrap_or_default();
            shared_by(&[found.clone(), found], None, &(0..u32::MAX));
        }
    }

    #[test]
    fn a_day_is_joined_of_hours_that_can_be_read_and_of_none_that_is_made_anew() {
        let some = [(0, Some(1), None, Some(1), None)];
        let hours = HashMap::from([((1, 24), lists_of_hour(&some)), ((1, 30), lists_of_hour(&some))]);
        let joined = |change: &str| {
            let store = store_of(&hours);
            store.execute_batch(change).expect("changes");
            join_hours((24, 24), |sql| rows_of(&store, &sql)).expect("answers")
        };
        let Joined::Lists(whole) = joined("") else { panic!("lists") };
        assert_eq!((whole.counts.len(), whole.counts.iter().sum::<u8>()), (24, 2));
        assert_eq!(joined("UPDATE posting_head SET blocks = 0 WHERE at = 30"), Joined::Lists(Posted::default()));
        assert_eq!(joined("UPDATE posting_head SET blocks = -1 WHERE at = 30"), Joined::NotNow);
        assert_eq!(joined("UPDATE posting_head SET counts = x'80'"), Joined::Broken);
        assert_eq!(joined("UPDATE posting_block SET block = x'ff'"), Joined::Broken);
    }
}
