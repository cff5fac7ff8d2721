//! Lanes: OS threads with a bounded queue in front, on which blocking clients run for coroutines.
//!
//! A coroutine submits a job with its ticket and sleeps on the ticket; the job's result waits in a
//! slot. A job whose requester has left is dropped before it starts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::{Ticket, complete};
use crate::limits::LANE_QUEUE_MAX;

/// The lane's queue is full: the store is slower than what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many reads wait for the store")]
pub struct LaneFull;

struct Job {
    run: Box<dyn FnOnce() + Send>,
    /// Who waits for it; none: it runs however late.
    asker: Option<(Arc<Ticket>, Instant)>,
}

/// What a job came to, once its ticket is done. Empty: it has not run, or it panicked.
pub struct Pending<T>(Arc<Mutex<Option<T>>>);

impl<T> Pending<T> {
    pub fn take(self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Threads for one store.
pub struct Lane {
    jobs: Sender<Job>,
}

impl Lane {
    /// Starts `threads` threads, named after the store. They end when the lane is dropped.
    pub fn start(name: &str, threads: usize) -> Lane {
        let (jobs, taken) = bounded(LANE_QUEUE_MAX);
        for number in 0..threads.max(1) {
            let taken: Receiver<Job> = taken.clone();
            crate::process::spawn(&format!("{name}-lane-{number}"), move || taken.iter().for_each(run));
        }
        Lane { jobs }
    }

    /// Puts a job in line. Its end finishes the ticket once; `patience` is how long it may wait for
    /// a thread.
    pub fn submit<T: Send + 'static>(
        &self,
        ticket: &Arc<Ticket>,
        patience: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>, LaneFull> {
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        let run = Box::new(move || {
            let result = job();
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        ticket.add();
        match self.jobs.try_send(Job { run, asker: Some((ticket.clone(), Instant::now() + patience)) }) {
            Ok(()) => Ok(Pending(slot)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                ticket.finish(true);
                Err(LaneFull)
            }
        }
    }

    /// Puts a job in line that nobody waits for. The job comes back where there is no room.
    pub fn run(&self, run: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
        self.jobs.try_send(Job { run, asker: None }).map_err(|error| error.into_inner().run)
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        self.jobs.len()
    }
}

fn run(job: Job) {
    if job.asker.as_ref().is_none_or(|(_, not_after)| Instant::now() < *not_after) {
        // A panic is reported by the panic hook; the slot stays empty and the request is answered
        // with a 500.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.run));
    }
    if let Some((ticket, _)) = job.asker {
        complete([ticket], true);
    }
}
