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
use super::user_sets::BELIEVED;
use crate::events::{EventType, fold_keyword, page_key};
use crate::limits::{
    POSTING_BLOCK_BYTES, POSTING_BLOCK_BYTES_MAX, POSTING_BLOCKS_MAX, POSTING_BYTES_MAX, POSTING_HEADS_READ,
    POSTING_NAME_BYTES,
};
use crate::ports::CountFilter;

/// Hours whose lists are kept together.
pub const POSTING_LENGTHS: [i64; 2] = [1, DAY_HOURS];
const DAY_HOURS: i64 = 24;

/// Rows of an hour that have a place in lists: what [`PostingLists::add`] takes, of several values.
pub const POSTED_COLUMNS: &str = "event_type, component_id, keyword, post_id, url";
/// … and the condition that they have several.
pub const POSTED: &str = "CASE WHEN component_id IS NULL THEN 0 ELSE 1 END + CASE WHEN keyword IS NULL THEN 0 ELSE 1 END + \
     CASE WHEN post_id IS NULL THEN 0 ELSE 1 END + CASE WHEN url IS NULL THEN 0 ELSE 1 END > 1";

/// Values of an event, as they are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    pub component_id: Option<i64>,
    pub keyword: Option<&'a str>,
    pub post_id: Option<&'a str>,
    pub url: Option<&'a str>,
}

/// What a value's lists stand under: which kind of value, then the value. A type follows.
fn value_key(kind: u8, value: &str) -> Vec<u8> {
    [&[kind], value.as_bytes()].concat()
}

fn values_of(component: Option<i64>, keyword: Option<&str>, post: Option<&str>, page: Option<&str>) -> Vec<Vec<u8>> {
    let component = component.map(|id| id.to_string());
    let values = [(b'c', component.as_deref()), (b'k', keyword), (b'p', post), (b'u', page)];
    values.into_iter().filter_map(|(kind, value)| Some(value_key(kind, value?))).collect()
}

fn block_of(value: &[u8], blocks: i64) -> i64 {
    i64::from(crc32c::crc32c(value)) & (blocks - 1)
}

#[derive(Default)]
struct List {
    gaps: Vec<u8>,
    /// Behind the last number.
    next: u32,
}

impl List {
    /// `None` where it is not behind the last one.
    fn push(&mut self, number: u32) -> Option<()> {
        put(&mut self.gaps, number.checked_sub(self.next)?);
        self.next = number.checked_add(1)?;
        Some(())
    }
}

/// Lists of an hour or a day that are being made.
#[derive(Default)]
pub struct PostingLists {
    lists: HashMap<Box<[u8]>, List>,
    /// Numbers of each hour.
    hours: Vec<u32>,
    events: u32,
    bytes: usize,
}

/// A row of `posting_head` and its blocks.
#[derive(Debug, PartialEq)]
pub struct Posted {
    /// How many events of each hour have a number.
    pub counts: Vec<u8>,
    /// A power of two, or none: there was too much to be listed.
    pub blocks: Vec<Vec<u8>>,
}

impl PostingLists {
    /// The next event of an hour.
    pub fn add(&mut self, kind: EventType, named: Named<'_>) {
        let keyword = named.keyword.map(fold_keyword);
        let number = self.events;
        for mut key in values_of(named.component_id, keyword.as_deref(), named.post_id, named.url.map(page_key)) {
            key.push(kind as u8);
            // Of one event no value comes twice.
            let _ = self.push(&key, number);
        }
        self.events += 1;
    }

    fn push(&mut self, key: &[u8], number: u32) -> Option<()> {
        let list = match self.lists.get_mut(key) {
            Some(list) => list,
            None => {
                self.bytes += key.len() + POSTING_NAME_BYTES;
                self.lists.entry(key.into()).or_default()
            }
        };
        let before = list.gaps.len();
        list.push(number)?;
        self.bytes += list.gaps.len() - before;
        Some(())
    }

    /// Nothing is kept of an hour or a day with so much: it takes memory while it is made.
    pub fn is_too_large(&self) -> bool {
        self.bytes > POSTING_BYTES_MAX || self.events > u32::MAX / 2
    }

    /// The hour is over: the next one begins.
    pub fn end_hour(&mut self) {
        let before: u32 = self.hours.iter().sum();
        self.hours.push(self.events - before);
    }

    /// The next hour, of which these are blocks, and how many numbers it has; `None` where a block cannot be read.
    pub fn add_hour<'b>(&mut self, count: u32, blocks: impl Iterator<Item = &'b [u8]>) -> Option<()> {
        let first = self.events;
        for block in blocks {
            let mut lists = Lists::of(block);
            while let Some(gaps) = lists.next_list() {
                let key = std::mem::take(&mut lists.key);
                for number in numbers(gaps) {
                    self.push(&key, first.checked_add(number?)?)?;
                }
                lists.key = key;
            }
            lists.is_whole().then_some(())?;
        }
        self.events = first.checked_add(count)?;
        self.end_hour();
        Some(())
    }

    /// Nothing is kept of them.
    pub fn too_large(mut self) -> Posted {
        self.bytes = usize::MAX;
        self.finish()
    }

    /// As they are kept.
    pub fn finish(self) -> Posted {
        let mut counts = Vec::new();
        self.hours.iter().for_each(|count| put(&mut counts, *count));
        if self.is_too_large() {
            return Posted { counts, blocks: Vec::new() };
        }
        let encoded: usize = self.lists.iter().map(|(key, list)| key.len() + list.gaps.len()).sum();
        let number = encoded.div_ceil(POSTING_BLOCK_BYTES).min(self.lists.len()).next_power_of_two();
        let number = number.clamp(1, POSTING_BLOCKS_MAX);
        let mut of_block: Vec<Vec<(Box<[u8]>, List)>> = Vec::new();
        of_block.resize_with(number, Vec::new);
        for (key, list) in self.lists {
            let block = block_of(&key[..key.len() - 1], number as i64);
            of_block[block as usize].push((key, list));
        }
        let blocks: Vec<Vec<u8>> = of_block.into_iter().map(encode).collect();
        let is_large = blocks.iter().any(|block| block.len() > POSTING_BLOCK_BYTES_MAX);
        Posted { counts, blocks: if is_large { Vec::new() } else { blocks } }
    }
}

fn encode(mut lists: Vec<(Box<[u8]>, List)>) -> Vec<u8> {
    lists.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut block = Vec::new();
    let mut before: &[u8] = &[];
    for (key, list) in &lists {
        let shared = before.iter().zip(key).take_while(|(one, other)| one == other).count();
        put(&mut block, shared as u32);
        put(&mut block, (key.len() - shared) as u32);
        block.extend_from_slice(&key[shared..]);
        put(&mut block, list.gaps.len() as u32);
        block.extend_from_slice(&list.gaps);
        before = key;
    }
    block
}

fn put(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The value at the front; `None` where it does not end or is none of ours.
fn take(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

/// Numbers of a list; `None` once it cannot be read.
fn numbers(mut gaps: &[u8]) -> impl Iterator<Item = Option<u32>> {
    let mut next = 0u32;
    std::iter::from_fn(move || {
        if gaps.is_empty() {
            return None;
        }
        let number = take(&mut gaps).and_then(|gap| next.checked_add(gap)).filter(|number| *number < u32::MAX);
        match number {
            Some(number) => next = number + 1,
            None => gaps = &[],
        }
        Some(number)
    })
}

/// The lists of a block, one after the other.
struct Lists<'b> {
    rest: &'b [u8],
    key: Vec<u8>,
    is_broken: bool,
}

impl<'b> Lists<'b> {
    fn of(block: &'b [u8]) -> Lists<'b> {
        Lists { rest: block, key: Vec::new(), is_broken: false }
    }

    /// Gaps of the next list, whose key is in `key` then.
    fn next_list(&mut self) -> Option<&'b [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let list = self.take_list();
        self.is_broken |= list.is_none();
        list
    }

    fn take_list(&mut self) -> Option<&'b [u8]> {
        let shared = take(&mut self.rest)? as usize;
        let length = take(&mut self.rest)? as usize;
        let (own, rest) = self.rest.split_at_checked(length)?;
        (shared <= self.key.len() && shared + length > 0).then_some(())?;
        self.key.truncate(shared);
        self.key.extend_from_slice(own);
        self.rest = rest;
        let length = take(&mut self.rest)? as usize;
        let (gaps, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(gaps)
    }

    fn is_whole(&self) -> bool {
        !self.is_broken
    }
}

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
    let CountFilter { event_type, component_id, keyword, post_id, page, .. } = filter;
    let values = values_of(*component_id, keyword.as_deref(), post_id.as_deref(), page.as_deref());
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

/// What an hour's head is good for, for the lists of its day.
#[derive(Debug, PartialEq)]
pub enum HourHead {
    /// So many numbers.
    Of(u32),
    /// There was too much to be listed, and so there is in the day.
    TooLarge,
    /// It holds no more, or cannot be read.
    Gone,
}

impl HourHead {
    /// Of a row of `posting_head`.
    pub fn of(blocks: i64, mut counts: &[u8]) -> HourHead {
        match blocks {
            0 => HourHead::TooLarge,
            1.. => take(&mut counts).map_or(HourHead::Gone, HourHead::Of),
            _ => HourHead::Gone,
        }
    }
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

/// `SELECT hours, at` of what holds no more.
pub const CLEARED: &str = "SELECT hours, at FROM posting_head WHERE blocks < 0";

/// What the lists of some hours are made of: as long as it is the same, so are their rows.
pub fn hours_state_sql((length, first): (i64, i64)) -> String {
    format!(
        "SELECT at, count, (SELECT coalesce(max(seq), 0) FROM erased) FROM series \
         WHERE minutes = 60 AND event_type = 0 AND at >= {first} * 60 AND at < ({first} + {length}) * 60 \
           AND users IS NOT NULL ORDER BY at"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            let mut day = PostingLists::default();
            for (hour, events) in of_hours.iter().enumerate() {
                let posted = lists_of_hour(events);
                let HourHead::Of(count) = HourHead::of(posted.blocks.len() as i64, &posted.counts) else { panic!("a count") };
                day.add_hour(count, posted.blocks.iter().map(Vec::as_slice)).expect("they can be read");
                rows.insert((1, 24 + hour as i64), posted);
            }
            if stored_days {
                rows.insert((24, 24), day.finish());
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
            let read = |sql: String| -> rusqlite::Result<Vec<PostingRow>> {
                let rows = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                store.prepare(&sql)?.query_map([], rows)?.collect()
            };
            let (counted, rest) = count_posted(&filter, range, read).expect("answers");
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
    fn what_is_too_large_has_no_blocks_and_numbers_of_any_size_are_kept() {
        let (mut lists, large) = (List::default(), [0, 1, 127, 128, 300, 70_000, u32::MAX / 2, u32::MAX - 1]);
        assert!(large.iter().all(|number| lists.push(*number).is_some()));
        assert!(lists.push(7).is_none());
        assert_eq!(numbers(&lists.gaps).collect::<Option<Vec<_>>>().as_deref(), Some(&large[..]));
        assert_eq!(lists_of_hour(&[(0, Some(1), Some(1), None, None)]).blocks.len(), 1);
        assert!(PostingLists::default().too_large().blocks.is_empty());
        assert_eq!(HourHead::of(0, &[5]), HourHead::TooLarge);
        assert_eq!(HourHead::of(1, &[5]), HourHead::Of(5));
        assert_eq!(HourHead::of(-1, &[5]), HourHead::Gone);
        assert_eq!(HourHead::of(1, &[]), HourHead::Gone);
    }
}
