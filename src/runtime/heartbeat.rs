//! A watch over the workers. A worker that stands still (a blocking call in a coroutine, an endless
//! loop) would leave its connections without an answer while the others look well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{spawn_on, worker_count};

/// Workers that stand still now.
static STUCK: AtomicUsize = AtomicUsize::new(0);

/// How many workers stand still now: the process is not well.
pub fn stuck_workers() -> usize {
    STUCK.load(Ordering::Relaxed)
}

/// Starts a thread that asks every worker for a sign of life each `every`. A worker that has given
/// none for `misses_max` times in a row stands still until its next one. Nothing ends the process:
/// `/healthz/live` says so.
///
/// Counted in the thread's own turns rather than in time: a process that was stopped as a whole, or
/// a machine that slept, is not taken for one that hangs.
pub fn watch(every: Duration, misses_max: u32) {
    let run = move || {
        let mut workers: Vec<Pulse> = (0..worker_count()).map(|_| Pulse::default()).collect();
        loop {
            for (id, pulse) in workers.iter_mut().enumerate() {
                let was_stuck = pulse.misses > misses_max;
                let is_stuck = pulse.ask(id) > misses_max;
                match (was_stuck, is_stuck) {
                    (false, true) => tracing::error!(worker = id, "a worker stands still; /healthz/live answers 503"),
                    (true, false) => tracing::warn!(worker = id, "a worker runs again"),
                    _ => {}
                }
            }
            let stuck = workers.iter().filter(|pulse| pulse.misses > misses_max).count();
            STUCK.store(stuck, Ordering::Relaxed);
            thread::sleep(every);
        }
    };
    crate::process::spawn("heartbeat", run);
}

/// What is known of one worker.
#[derive(Default)]
struct Pulse {
    asked: bool,
    answered: Arc<AtomicBool>,
    misses: u32,
}

impl Pulse {
    /// Asks again if the last question was answered, so that questions never pile up. Returns the
    /// misses in a row.
    fn ask(&mut self, worker: usize) -> u32 {
        if self.asked && !self.answered.swap(false, Ordering::AcqRel) {
            self.misses = self.misses.saturating_add(1);
            return self.misses;
        }
        (self.asked, self.misses) = (true, 0);
        let answered = self.answered.clone();
        spawn_on(worker, move || answered.store(true, Ordering::Release));
        0
    }
}
