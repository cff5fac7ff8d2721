//! Lists of events by what they name, as they are made and kept: see `postings`.

use std::collections::HashMap;

use crate::events::{EventType, component_key, fold_keyword, page_key};
use crate::limits::{
    POSTING_BLOCK_BYTES, POSTING_BLOCK_BYTES_MAX, POSTING_BLOCKS_MAX, POSTING_BYTES_MAX, POSTING_NAME_BYTES,
};

/// Values of an event, as they are stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    pub component_id: Option<i64>,
    pub element_id: Option<&'a str>,
    pub keyword: Option<&'a str>,
    pub post_id: Option<&'a str>,
    pub url: Option<&'a str>,
}

/// What a value's lists stand under: which kind of value, then the value. A type follows.
fn value_key(kind: u8, value: &str) -> Vec<u8> {
    [&[kind], value.as_bytes()].concat()
}

pub(super) fn values_of(
    component: Option<&str>,
    keyword: Option<&str>,
    post: Option<&str>,
    page: Option<&str>,
) -> Vec<Vec<u8>> {
    let values = [(b'c', component), (b'k', keyword), (b'p', post), (b'u', page)];
    values.into_iter().filter_map(|(kind, value)| Some(value_key(kind, value?))).collect()
}

pub(super) fn block_of(value: &[u8], blocks: i64) -> i64 {
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

/// A row of `posting_head` and its blocks; nothing of either where there was too much to be listed.
#[derive(Debug, Default, PartialEq)]
pub struct Posted {
    /// How many events of each hour have a number.
    pub counts: Vec<u8>,
    /// A power of two.
    pub blocks: Vec<Vec<u8>>,
}

impl PostingLists {
    /// The next event of an hour.
    pub fn add(&mut self, kind: EventType, named: Named<'_>) {
        let component = component_key(named.component_id, named.element_id);
        let (keyword, page) = (named.keyword.map(fold_keyword), named.url.map(page_key));
        let number = self.events;
        for mut key in values_of(component.as_deref(), keyword.as_deref(), named.post_id, page.as_deref()) {
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

    /// As they are kept.
    pub fn finish(self) -> Posted {
        if self.is_too_large() {
            return Posted::default();
        }
        let mut counts = Vec::new();
        self.hours.iter().for_each(|count| put(&mut counts, *count));
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
        match blocks.iter().any(|block| block.len() > POSTING_BLOCK_BYTES_MAX) {
            true => Posted::default(),
            false => Posted { counts, blocks },
        }
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
pub(super) fn take(bytes: &mut &[u8]) -> Option<u32> {
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
pub(super) fn numbers(mut gaps: &[u8]) -> impl Iterator<Item = Option<u32>> {
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
pub(super) struct Lists<'b> {
    rest: &'b [u8],
    pub(super) key: Vec<u8>,
    is_broken: bool,
}

impl<'b> Lists<'b> {
    pub(super) fn of(block: &'b [u8]) -> Lists<'b> {
        Lists { rest: block, key: Vec::new(), is_broken: false }
    }

    /// Gaps of the next list, whose key is in `key` then.
    pub(super) fn next_list(&mut self) -> Option<&'b [u8]> {
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

    pub(super) fn is_whole(&self) -> bool {
        !self.is_broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_kept_in_their_order() {
        let (mut lists, large) = (List::default(), [0, 1, 127, 128, 300, 70_000, u32::MAX / 2, u32::MAX - 1]);
        assert!(large.iter().all(|number| lists.push(*number).is_some()));
        assert!(lists.push(7).is_none());
        assert_eq!(numbers(&lists.gaps).collect::<Option<Vec<_>>>().as_deref(), Some(&large[..]));
    }
}
