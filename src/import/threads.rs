//! The threads of an import: one that reads, and one for each connection.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};

use super::account::Account;
use super::batch::Batch;
use super::client::Client;
use super::deliver::Delivery;
use super::row::{Row, Source};
use super::state::Confirmed;
use super::{Settings, Stop};
use crate::limits::{IMPORT_SAVE_MS, IMPORT_TICK_MS};

/// How reading ended: with this many rows, or before the end; or why it could not go on.
pub(super) type Read = Result<Option<u64>, String>;

pub(super) struct Threads {
    reader: JoinHandle<Read>,
    connections: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

impl Threads {
    /// Sends the rows of `source` that are not confirmed yet.
    pub(super) fn start(mut source: Box<dyn Source>, settings: &Settings, account: &Arc<Account>) -> Threads {
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
        let reader = thread::spawn(move || feed(&mut *source, &confirmed, &stop, events_max, &batches));
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
fn feed(
    source: &mut dyn Source,
    confirmed: &Confirmed,
    stop: &Stop,
    events_max: usize,
    batches: &Sender<Batch>,
) -> Read {
    let mut row = Row::default();
    let mut batch = Batch::default();
    let mut rows = confirmed.all_before.row;
    let end = loop {
        if stop.is_asked() {
            return Ok(None);
        }
        match source.next(&mut row) {
            Ok(true) => rows = row.end.row,
            Ok(false) => break Ok(Some(rows)),
            Err(why) => break Err(why),
        }
        let is_done = confirmed.has_beyond(rows - 1);
        if (is_done || !batch.has_room(&row, events_max))
            && !batch.is_empty()
            && batches.send(std::mem::take(&mut batch)).is_err()
        {
            return Ok(None);
        }
        if !is_done {
            batch.add(&mut row);
        }
    };
    if !batch.is_empty() && batches.send(batch).is_err() {
        return Ok(None);
    }
    end
}
