//! The threads of an import: one that reads, and one per connection, which sends each batch until it
//! is answered, the same rows with the same ids each time.

use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::account::Account;
use super::batch::Batch;
use super::client::{Attempt, Client};
use super::row::{Refusal, Row, Rows};
use super::state::Confirmed;
use super::{Settings, Stop};
use crate::clock::Backoff;
use crate::limits::{IMPORT_SAVE_MS, IMPORT_TICK_MS};

/// First and longest pause before a batch is sent again.
const RETRY_MS: (u64, u64) = (100, 10_000);

/// How reading ended: with this many rows, or before the end; or why it could not go on.
pub(super) type Read = Result<Option<u64>, String>;

pub(super) struct Threads {
    reader: JoinHandle<Read>,
    connections: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

impl Threads {
    /// Sends the rows that are not confirmed yet.
    pub(super) fn start(mut source: Rows, settings: &Settings, account: &Arc<Account>) -> Threads {
        // As many wait as are under way: enough to never wait for the reader, and no more in
        // memory.
        let (batches, queue) = bounded(settings.connections);
        let connection = |_| {
            let (client, account) = (Client::new(&settings.server), account.clone());
            let delivery = Delivery { client, account, give_up_after: settings.give_up_after };
            let queue = queue.clone();
            thread::spawn(move || delivery.run(&queue))
        };
        let connections = (0..settings.connections).map(connection).collect();
        let (confirmed, stop, events_max) = (account.confirmed(), account.stop.clone(), settings.batch);
        let reader = thread::spawn(move || feed(&mut source, &confirmed, &stop, events_max, &batches));
        Threads { reader, connections, stop: account.stop.clone() }
    }

    /// No connection works any more.
    pub(super) fn are_done(&self) -> bool {
        self.connections.iter().all(JoinHandle::is_finished)
    }

    /// Waits for those that end. The reader may sleep on an input that gives nothing: it is left to
    /// the process's end.
    pub(super) fn join(self) -> Read {
        for connection in self.connections {
            connection.join().map_err(|_| "a connection's thread has panicked; please report this".to_owned())?;
        }
        let since = Instant::now();
        while !self.reader.is_finished() {
            if self.stop.is_asked() && since.elapsed() > Duration::from_millis(IMPORT_SAVE_MS) {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(IMPORT_TICK_MS / 10));
        }
        self.reader.join().map_err(|_| "the reading thread has panicked; please report this".to_owned())?
    }
}

/// Cuts rows into batches, none of which holds or spans rows that are confirmed already.
fn feed(source: &mut Rows, confirmed: &Confirmed, stop: &Stop, events_max: usize, batches: &Sender<Batch>) -> Read {
    let mut row = Row { end: confirmed.all_before.clone(), ..Row::default() };
    let mut batch = Batch::default();
    while !stop.is_asked() {
        let read = source.next(&mut row);
        let is_row = read == Ok(true);
        let is_done = is_row && confirmed.has_beyond(row.end.row - 1);
        let is_full = !is_row || is_done || !batch.has_room(&row, events_max);
        if is_full && !batch.is_empty() && batches.send(std::mem::take(&mut batch)).is_err() {
            return Ok(None);
        }
        match read? {
            false => return Ok(Some(row.end.row)),
            true if is_done => {}
            true => batch.add(&mut row),
        }
    }
    Ok(None)
}

/// A connection and its work.
struct Delivery {
    client: Client,
    account: Arc<Account>,
    /// Without progress for this long it gives up.
    give_up_after: Duration,
}

impl Delivery {
    /// Until the queue is closed and empty, or a stop is asked for. A stop leaves queued batches.
    fn run(&self, batches: &Receiver<Batch>) {
        loop {
            match batches.recv_timeout(Duration::from_millis(IMPORT_TICK_MS)) {
                _ if self.account.stop.is_asked() => return,
                Ok(batch) => self.deliver(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn deliver(&self, mut batch: Batch) {
        let mut parts: Vec<_> = std::iter::once(0..batch.len()).collect();
        let mut is_begun = false;
        while let Some(rows) = parts.pop().filter(|rows| !rows.is_empty()) {
            match self.send(&batch, &rows) {
                None => {
                    if is_begun {
                        self.account.abandon();
                    }
                    return;
                }
                Some(Ok(refused)) => {
                    is_begun = true;
                    refused.into_iter().for_each(|(index, refusal)| batch.refuse(rows.start + index, refusal));
                }
                Some(Err(refusal)) if rows.len() == 1 => batch.refuse(rows.start, refusal),
                Some(Err(_)) => {
                    let middle = rows.start + rows.len() / 2;
                    parts.extend([middle..rows.end, rows.start..middle]);
                }
            }
        }
        self.account.confirm(batch);
    }

    /// Sends some rows until the server judges each, or refuses the whole. `None`: given up, or a
    /// stop was asked for.
    fn send(&self, batch: &Batch, rows: &Range<usize>) -> Option<Result<Vec<(usize, Refusal)>, Refusal>> {
        let account = &self.account;
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_MS.0, RETRY_MS.1);
        let mut is_repeat = false;
        loop {
            let (why, after) = match self.client.send(batch.body(rows), rows.len()) {
                Attempt::Judged(refused) => return Some(Ok(refused)),
                Attempt::Refused(refusal) => return Some(Err(refusal)),
                Attempt::Hopeless { why, is_unknown } => {
                    if is_unknown || is_repeat {
                        account.abandon();
                    }
                    account.fail(why);
                    return None;
                }
                Attempt::Again { why, after } => (why, after),
            };
            let silent = account.without_progress(began);
            if silent >= self.give_up_after {
                let (first, last) = batch.lines();
                let seconds = silent.as_secs();
                account.fail(format!("no progress for {seconds} s, at lines {first} to {last}: {why}"));
            } else {
                account.report(why);
                // The last try comes when its time is up, not long after.
                let pause = backoff.pause().max(after.unwrap_or_default()).min(self.give_up_after - silent);
                account.stop.sleep(pause);
            }
            if account.stop.is_asked() {
                account.abandon();
                return None;
            }
            is_repeat = true;
            account.count_repeat();
        }
    }
}
