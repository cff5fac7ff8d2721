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

/// What the server thinks of some rows.
enum Judgement {
    Rows(Vec<(usize, Refusal)>),
    Whole(Refusal),
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
        while let Some(rows) = parts.pop() {
            match self.send(&batch, &rows) {
                None => return self.account.abandon(),
                Some(Judgement::Rows(refused)) => {
                    refused.into_iter().for_each(|(index, refusal)| batch.refuse(rows.start + index, refusal));
                }
                Some(Judgement::Whole(refusal)) if rows.len() == 1 => batch.refuse(rows.start, refusal),
                Some(Judgement::Whole(_)) => {
                    let middle = rows.start + rows.len() / 2;
                    parts.extend([middle..rows.end, rows.start..middle]);
                }
            }
        }
        self.account.confirm(batch);
    }

    /// Sends some rows until they are judged. `None`: given up, or a stop was asked for.
    fn send(&self, batch: &Batch, rows: &Range<usize>) -> Option<Judgement> {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            match self.client.send(self.target, batch.body(rows), rows.len()) {
                Attempt::Judged(refused) => return Some(Judgement::Rows(refused)),
                Attempt::Refused(refusal) => return Some(Judgement::Whole(refusal)),
                Attempt::Hopeless(why) => {
                    self.account.fail(why);
                    return None;
                }
                Attempt::Again { why, after } => {
                    let silent = self.account.without_progress(began);
                    if silent >= self.give_up_after {
                        let (first, last) = batch.lines();
                        let seconds = silent.as_secs();
                        self.account.fail(format!("no progress for {seconds} s, at lines {first} to {last}: {why}"));
                        return None;
                    }
                    self.account.report(why);
                    // The last try comes when its time is up, not long after.
                    let pause = pause(tries).max(after.unwrap_or_default()).min(self.give_up_after - silent);
                    self.account.stop.sleep(pause);
                    if self.account.stop.is_asked() {
                        return None;
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
