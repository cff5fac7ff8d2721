//! A connection's work: batches go out until each is answered, the same rows with the same ids
//! however often.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::account::Account;
use super::batch::Batch;
use super::client::{Attempt, Client};
use super::row::Refusal;
use crate::clock::Backoff;
use crate::limits::IMPORT_TICK_MS;

/// First and longest pause before a batch is sent again.
const RETRY_MS: (u64, u64) = (100, 10_000);

pub(super) struct Delivery {
    pub(super) client: Client,
    pub(super) account: Arc<Account>,
    /// Without progress for this long it gives up.
    pub(super) give_up_after: Duration,
}

/// What came of some rows.
enum Outcome {
    Rows(Vec<(usize, Refusal)>),
    Whole(Refusal),
    /// Given up, or a stop was asked for. `is_unknown`: they may have been accepted.
    None {
        is_unknown: bool,
    },
}

impl Delivery {
    /// Until the queue is closed and empty, or a stop is asked for. A stop leaves queued batches.
    pub(super) fn run(&self, batches: &Receiver<Batch>) {
        loop {
            let next = batches.recv_timeout(Duration::from_millis(IMPORT_TICK_MS));
            match next {
                _ if self.account.stop.is_asked() => return,
                Ok(batch) => self.deliver(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn deliver(&self, mut batch: Batch) {
        let mut parts: Vec<Range<usize>> = Some(0..batch.len()).filter(|rows| !rows.is_empty()).into_iter().collect();
        let mut is_begun = false;
        while let Some(rows) = parts.pop() {
            match self.send(&batch, &rows) {
                Outcome::None { is_unknown } => {
                    if is_begun || is_unknown {
                        self.account.abandon();
                    }
                    return;
                }
                Outcome::Rows(refused) => {
                    is_begun = true;
                    refused.into_iter().for_each(|(index, refusal)| batch.refuse(rows.start + index, refusal));
                }
                Outcome::Whole(refusal) if rows.len() == 1 => batch.refuse(rows.start, refusal),
                Outcome::Whole(_) => {
                    let middle = rows.start + rows.len() / 2;
                    parts.extend([middle..rows.end, rows.start..middle]);
                }
            }
        }
        self.account.confirm(batch);
    }

    /// Sends some rows until they are judged.
    fn send(&self, batch: &Batch, rows: &Range<usize>) -> Outcome {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_MS.0, RETRY_MS.1);
        let mut is_unknown = false;
        loop {
            match self.client.send(batch.body(rows), rows.len()) {
                Attempt::Judged(refused) => return Outcome::Rows(refused),
                Attempt::Refused(refusal) => return Outcome::Whole(refusal),
                Attempt::Hopeless { why, is_unknown: is_last_unknown } => {
                    self.account.fail(why);
                    return Outcome::None { is_unknown: is_unknown || is_last_unknown };
                }
                Attempt::Again { why, after } => {
                    let silent = self.account.without_progress(began);
                    if silent >= self.give_up_after {
                        let (first, last) = batch.lines();
                        let seconds = silent.as_secs();
                        self.account.fail(format!("no progress for {seconds} s, at lines {first} to {last}: {why}"));
                        return Outcome::None { is_unknown: true };
                    }
                    self.account.report(why);
                    // The last try comes when its time is up, not long after.
                    let pause = backoff.pause().max(after.unwrap_or_default()).min(self.give_up_after - silent);
                    self.account.stop.sleep(pause);
                    if self.account.stop.is_asked() {
                        return Outcome::None { is_unknown: true };
                    }
                    is_unknown = true;
                    self.account.count_repeat();
                }
            }
        }
    }
}
