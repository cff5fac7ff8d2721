//! A watch over the workers: one that stands still (a blocking call in a coroutine, an endless loop) would leave its
//! connections without an answer for ever while the others look well. Better an end, which whoever runs us restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{spawn_on, worker_count};

/// Starts a thread that asks every worker for a sign of life each `every`, and aborts the process when one has given
/// none for `misses_max` times in a row.
///
/// Counted in the thread's own turns rather than in time: a process that was stopped as a whole, or a machine that
/// slept, is not taken for one that hangs.
pub fn watch(every: Duration, misses_max: u32) {
    let run = move || {
        let mut workers: Vec<Pulse> = (0..worker_count()).map(|_| Pulse::default()).collect();
        loop {
            for (id, pulse) in workers.iter_mut().enumerate() {
                if pulse.ask(id) > misses_max {
                    tracing::error!(worker = id, "a worker stands still; the process ends so that it can be restarted");
                    std::process::abort();
                }
            }
            thread::sleep(every);
        }
    };
    thread::Builder::new().name("heartbeat".into()).spawn(run).expect("a thread at start");
}

/// What is known of one worker.
#[derive(Default)]
struct Pulse {
    asked: bool,
    answered: Arc<AtomicBool>,
    misses: u32,
}

impl Pulse {
    /// Asks again if the last question was answered, so that questions never pile up. Returns the misses in a row.
    fn ask(&mut self, worker: usize) -> u32 {
        if self.asked && !self.answered.swap(false, Ordering::AcqRel) {
            self.misses += 1;
            return self.misses;
        }
        (self.asked, self.misses) = (true, 0);
        let answered = self.answered.clone();
        spawn_on(worker, move || answered.store(true, Ordering::Release));
        0
    }
}
