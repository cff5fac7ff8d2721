//! A connection's work: batches go out until each is answered, the same rows with the same ids however often.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::account::Account;
use super::batch::{Batch, Target};
use super::client::{Attempt, Client};
use super::row::Refusal;
use crate::limits::{IMPORT_RETRY_MS_MAX, IMPORT_RETRY_MS_MIN, IMPORT_TICK_MS};

/// Sends what comes through a queue.
pub(super) struct Delivery {
    pub(super) client: Client,
    pub(super) account: Arc<Account>,
    pub(super) target: Target,
    /// Without progress for this long it gives up.
    pub(super) give_up_after: Duration,
}

/// What came of some rows.
enum Outcome {
    Rows(Vec<(usize, Refusal)>),
    Whole(Refusal),
    /// Given up, or a stop was asked for. `is_unknown`: they may have been taken.
    None {
        is_unknown: bool,
    },
}

impl Delivery {
    /// Until the queue is closed and empty, or a stop is asked for: then what waits in it is left.
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
        let rows_max = match self.target {
            Target::Events => batch.len().max(1),
            Target::Posts => 1,
        };
        let from = (0..batch.len()).step_by(rows_max).rev();
        let mut parts: Vec<Range<usize>> = from.map(|at| at..at + rows_max).collect();
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
        let mut tries = 0;
        loop {
            match self.client.send(self.target, batch.body(rows), rows.len()) {
                Attempt::Judged(refused) => return Outcome::Rows(refused),
                Attempt::Refused(refusal) => return Outcome::Whole(refusal),
                Attempt::Hopeless(why) => {
                    self.account.fail(why);
                    return Outcome::None { is_unknown: true };
                }
                Attempt::Unwelcome(why) => {
                    self.account.fail(why);
                    return Outcome::None { is_unknown: tries > 0 };
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
                    let pause = pause(tries).max(after.unwrap_or_default()).min(self.give_up_after - silent);
                    self.account.stop.sleep(pause);
                    if self.account.stop.is_asked() {
                        return Outcome::None { is_unknown: true };
                    }
                    tries += 1;
                    self.account.sent_again.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Twice as long each time, and never the same for two connections.
fn pause(tries: u32) -> Duration {
    let longest = IMPORT_RETRY_MS_MIN.saturating_mul(1 << tries.min(16)).min(IMPORT_RETRY_MS_MAX);
    Duration::from_millis(rand::random_range(longest / 2..=longest))
}
