//! Who remembers: two stores that follow the journal, and what its callers were told.
//!
//! Both stores are durable of themselves, as a database elsewhere is. `shadow` follows everything that is published at
//! once; `slow` lags, so segments stay for it and go behind it. Both must find their place after every crash.

use std::collections::{BTreeMap, BTreeSet};

use event_tracker::events::{Record, decode_records};
use event_tracker::journal::{Journal, ReadError};
use event_tracker::ports::{Position, Watermark};

/// A record's number: its lane, and how many came before it there.
pub(crate) fn number(lane: u64, sequence: u64) -> i64 {
    i64::try_from(lane << 32 | sequence).expect("small")
}

/// A store that follows the journal exactly once.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) at: Watermark,
    pub(crate) numbers: Vec<i64>,
}

impl Store {
    /// Follows for at most `records_max` records, but always a frame; true where something was read. An error of the
    /// disk is no violation and ends it.
    pub(crate) fn follow(&mut self, journal: &Journal, up_to: Position, records_max: usize) -> Result<bool, String> {
        let mut reader = match journal.reader(self.at) {
            Ok(reader) => reader,
            Err(ReadError::Io(_)) => return Ok(false),
            Err(error) => return Err(format!("a store at {:?} cannot go on: {error}", self.at)),
        };
        match reader.next(up_to, records_max, 1 << 20) {
            Ok(Some(frames)) => {
                let records = decode_records(&frames.bytes, frames.count()).map_err(|e| e.to_string())?;
                if frames.from != self.at || records.len() as u64 != frames.to.position - frames.from.position {
                    return Err(format!("frames from {:?}, the store is at {:?}", frames.from, self.at));
                }
                for record in records {
                    match record {
                        Record::Forget(forget) => self.numbers.push(forget.at_ms),
                        other => return Err(format!("nobody wrote {other:?}")),
                    }
                }
                self.at = frames.to;
                Ok(true)
            }
            Ok(None) | Err(ReadError::Io(_)) => Ok(false),
            Err(error) => Err(format!("a store at {:?} cannot read on: {error}", self.at)),
        }
    }

    pub(crate) fn follow_to_the_end(&mut self, journal: &Journal) -> Result<(), String> {
        while self.follow(journal, Position::MAX, 64)? {}
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) shadow: Store,
    pub(crate) slow: Store,
    pub(crate) acknowledged: BTreeSet<i64>,
    /// Taken, and answered with a failure or not at all: it may be there or not.
    pub(crate) unknown: BTreeSet<i64>,
    marks: Vec<Watermark>,
}

impl Oracle {
    /// The shadow follows what is published; from here on it must stay.
    pub(crate) fn see(&mut self, journal: &Journal) -> Result<(), String> {
        let known = self.shadow.numbers.len();
        self.shadow.follow_to_the_end(journal)?;
        self.marks.push(self.shadow.at);
        for number in &self.shadow.numbers[known..] {
            if !self.unknown.contains(number) {
                return Err(format!("{number:#x} is in the journal and was never taken, or was gone already"));
            }
        }
        Ok(())
    }

    /// A journal was opened: everything that was acknowledged or published is in it, in order, once.
    pub(crate) fn check_recovered(&mut self, journal: &Journal) -> Result<(), String> {
        let published = self.shadow.at;
        if journal.end().position < published.position {
            return Err(format!("it ends at {}, {} was published", journal.end().position, published.position));
        }
        self.see(journal)?;
        if self.shadow.at != journal.end() {
            return Ok(()); // The disk failed while it was read.
        }
        self.check_lanes()?;
        self.check_marks(journal)?;
        let all: BTreeSet<i64> = self.shadow.numbers.iter().copied().collect();
        if let Some(lost) = self.acknowledged.difference(&all).next() {
            return Err(format!("{lost:#x} was acknowledged and is lost"));
        }
        // What is not there now must never come back.
        self.unknown.clear();
        self.unknown.extend(&all);
        Ok(())
    }

    /// Each lane's records, in the order in which it appended them, none twice.
    fn check_lanes(&self) -> Result<(), String> {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for number in &self.shadow.numbers {
            if last.insert(number >> 32, *number).is_some_and(|before| before >= *number) {
                return Err(format!("{number:#x} stands behind a later one of its lane, or is there twice"));
            }
        }
        Ok(())
    }

    /// Every watermark that a store may still have finds its frame; one behind removed segments is told so.
    fn check_marks(&self, journal: &Journal) -> Result<(), String> {
        for mark in self.marks.iter().rev().step_by(1 + self.marks.len() / 16) {
            match journal.reader(*mark) {
                Ok(_) | Err(ReadError::Io(_)) => {}
                Err(ReadError::Gone(_)) if mark.position < self.slow.at.position => {}
                Err(error) => return Err(format!("the watermark {mark:?}: {error}")),
            }
        }
        Ok(())
    }

    /// The slow store moves on, and has seen what the shadow saw.
    pub(crate) fn move_slow(&mut self, journal: &Journal, records_max: usize) -> Result<(), String> {
        self.slow.follow(journal, self.shadow.at.position, records_max)?;
        if self.shadow.numbers[..self.slow.numbers.len()] != self.slow.numbers {
            return Err("the slow store reads other records than were published".into());
        }
        Ok(())
    }
}
