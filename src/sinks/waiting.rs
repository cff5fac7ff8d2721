//! Requests that wait for a follower: from a position of the journal to the outcomes of its records.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use crate::journal::{Pending, Position, Wait};
use crate::limits::WAITS_SWEEP_MIN;
use crate::ports::{Verdict, Verdicts};
use crate::runtime::{Ticket, complete};

/// Whose progress an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The ledger has decided.
    Ledger,
    /// The live store shows it.
    Live,
}

/// What one append learns from a follower: its ticket is finished when all its records were applied.
pub struct Decision {
    ticket: Arc<Ticket>,
    waiting: Arc<Waiting>,
    until: Until,
    // Index within the append, and the verdict; plain records have none.
    verdicts: Mutex<Vec<(u32, Verdict)>>,
    durable: AtomicBool,
    abandoned: AtomicBool,
}

impl Decision {
    /// What the journal is given with the append.
    pub fn wait(self: &Arc<Decision>) -> Wait {
        // The ledger says when its next batch begins.
        Wait::Applied { pending: self.clone(), is_deferred: self.until == Until::Ledger }
    }

    /// The records are synced, whatever the follower does.
    pub fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    /// The request has given up: an outage must not collect such decisions.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// The exceptional verdicts so far, by index within the append.
    pub fn verdicts(&self) -> Vec<(u32, Verdict)> {
        lock(&self.verdicts).clone()
    }
}

impl Pending for Decision {
    fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    fn durable(self: Arc<Self>, first: Position, count: u32) {
        self.durable.store(true, Ordering::Release);
        self.waiting.clone().push(first, count, self);
    }
}

struct Waiter {
    first: Position,
    last: Position,
    decision: Arc<Decision>,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    // Looked through for abandoned waits once it is this long: twice what was left the last time, so that the look
    // costs a constant a push and the queue stays below twice the connections.
    sweep_at: usize,
}

/// The waits for both followers, in the order of positions.
#[derive(Default)]
pub struct Waiting {
    queues: [Mutex<Queue>; 2],
    ledger_thread: OnceLock<Thread>,
}

impl Waiting {
    fn queue(&self, until: Until) -> &Mutex<Queue> {
        &self.queues[until as usize]
    }

    /// A decision of this follower, which finishes `ticket` once.
    pub fn decide(self: &Arc<Waiting>, until: Until, ticket: Arc<Ticket>) -> Arc<Decision> {
        Arc::new(Decision {
            ticket,
            waiting: self.clone(),
            until,
            verdicts: Mutex::default(),
            durable: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        })
    }

    /// The journal's writer calls this before it publishes the positions, so no follower can be past them.
    fn push(&self, first: Position, count: u32, decision: Arc<Decision>) {
        let until = decision.until;
        let mut queue = lock(self.queue(until));
        assert!(queue.waiters.back().is_none_or(|last| last.last < first), "positions ascend");
        queue.waiters.push_back(Waiter { first, last: first + u64::from(count) - 1, decision });
        if queue.waiters.len() >= queue.sweep_at.max(WAITS_SWEEP_MIN) {
            queue.waiters.retain(|waiter| !waiter.decision.abandoned.load(Ordering::Acquire));
            queue.sweep_at = 2 * queue.waiters.len();
        }
        drop(queue);
        if let (Until::Ledger, Some(thread)) = (until, self.ledger_thread.get()) {
            thread.unpark();
        }
    }

    /// The calling thread is the ledger's sink: whoever begins to wait for it ends its linger (`thread::park`).
    pub fn serve_ledger(&self) {
        let _ = self.ledger_thread.set(std::thread::current());
    }

    /// Somebody waits for this follower.
    pub fn any(&self, until: Until) -> bool {
        !lock(self.queue(until)).waiters.is_empty()
    }

    /// The first position that is waited for, where a follower that stands at `applied` has decided it already.
    pub fn first_undecided(&self, until: Until, applied: Position) -> Option<Position> {
        lock(self.queue(until)).waiters.front().map(|w| w.first).filter(|first| *first <= applied)
    }

    /// A follower has applied everything up to `applied`; `verdicts` are those of the positions it applied just now.
    pub fn settle(&self, until: Until, applied: Position, verdicts: &Verdicts) {
        let mut queue = lock(self.queue(until));
        for waiter in queue.waiters.iter().take_while(|w| w.first <= applied) {
            let from = verdicts.partition_point(|(position, _)| *position < waiter.first);
            let of_waiter = verdicts[from..].iter().take_while(|(position, _)| *position <= waiter.last);
            let of_waiter = of_waiter.map(|(position, verdict)| {
                let index = u32::try_from(position - waiter.first).expect("an append is one frame at most");
                (index, *verdict)
            });
            lock(&waiter.decision.verdicts).extend(of_waiter);
        }
        let done = queue.waiters.partition_point(|w| w.last <= applied);
        let done: Vec<Waiter> = queue.waiters.drain(..done).collect();
        drop(queue);
        complete(done.into_iter().map(|w| w.decision.ticket.clone()), true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
