//! What the journal's crash model is made of: a disk that loses, tears and lies, and who remembers what it was told.

#![allow(dead_code, reason = "each suite uses a part")]

pub(crate) mod disk;
pub(crate) mod oracle;

use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use event_tracker::events::{Forget, Record, decode_records};
use event_tracker::journal::{AppendError, Journal, ReadError, Wait};
use event_tracker::ports::Watermark;
use event_tracker::runtime::{self, Ticket};

pub(crate) const WORKERS: usize = 2;

pub(crate) fn start_runtime() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| runtime::start(WORKERS, false));
}

/// Runs in a coroutine, as a request does, and hands its result back.
pub(crate) fn in_coroutine<T: Send + 'static>(worker: usize, job: impl FnOnce() -> T + Send + 'static) -> T {
    start_runtime();
    let (done, result) = mpsc::channel();
    runtime::spawn_on(worker, move || done.send(job()).expect("somebody waits"));
    result.recv_timeout(Duration::from_secs(20)).expect("every append is answered")
}

/// Appends records, of which only the last is waited for. True once it is durable, false where that failed; an error where it
/// was not taken.
pub(crate) fn append(journal: &Journal, lane: usize, records: &[(i64, usize)]) -> Result<bool, AppendError> {
    let ticket = Arc::new(Ticket::of_current(lane % WORKERS));
    for (at, (number, length)) in records.iter().enumerate() {
        let forget = Forget { user_id: "u".repeat(*length).into(), keyword: None, at_ms: *number };
        let wait = if at + 1 < records.len() { Wait::Leisure } else { Wait::Durable(ticket.clone()) };
        journal.append(lane, 1, wait, |out| forget.encode(out))?;
    }
    assert!(ticket.wait());
    Ok(!ticket.take_failed())
}

/// What each position after `from` holds: the number of a record, or `None` if it is lost.
pub(crate) fn read_with_lost(journal: &Journal, from: Watermark) -> Result<Vec<Option<i64>>, ReadError> {
    let mut reader = journal.reader(from)?;
    let mut found = Vec::new();
    while let Some(frames) = reader.next(u64::MAX, 1_000, 1 << 20)? {
        assert_eq!(frames.from.position as usize + frames.count(), frames.to.position as usize);
        found.extend(decode_records(&frames.bytes, frames.count()).unwrap().into_iter().map(|record| match record {
            Record::Forget(forget) => Some(forget.at_ms),
            Record::Lost => None,
            other => panic!("{other:?} was not written"),
        }));
    }
    Ok(found)
}

/// The numbers of all records after `from`, of which none is lost.
pub(crate) fn read(journal: &Journal, from: Watermark) -> Vec<i64> {
    let found = read_with_lost(journal, from).unwrap();
    found.into_iter().map(|number| number.expect("no position is lost")).collect()
}

pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
