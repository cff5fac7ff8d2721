//! What a connection waits for, and when it gives up: a ticket and a deadline.

use std::sync::Arc;

use crate::runtime::{Deadline, Fired, Ticket, arm, arm_from, register, unregister};

/// The connection's ticket and deadline: one thing to wait for and one time to give up.
pub(super) struct Watch {
    pub(super) worker: usize,
    pub(super) ticket: Arc<Ticket>,
    deadline: Arc<Deadline>,
    socket: i32,
}

impl Watch {
    pub(super) fn new(worker: usize, socket: i32) -> Watch {
        let ticket = Arc::new(Ticket::of_current(worker));
        let deadline = Deadline::new(socket, ticket.clone());
        register(worker, deadline.clone());
        Watch { worker, ticket, deadline, socket }
    }

    pub(super) fn arm(&self, action: Fired, after_ms: u64) {
        arm(self.worker, &self.deadline, action, after_ms);
    }

    /// The same, counted from a time that is known already.
    pub(super) fn arm_from(&self, now_ms: u64, action: Fired, after_ms: u64) {
        arm_from(self.worker, &self.deadline, now_ms, action, after_ms);
    }

    pub(super) fn disarm(&self) {
        self.deadline.clear();
    }

    pub(super) fn fired(&self) -> Fired {
        self.deadline.fired()
    }

    /// Waits for the ticket, at most so long: false when the time is over. An expired ticket is of no more use, even
    /// where the last completion came at the same moment: the next thing under way gets a fresh one.
    pub(super) fn wait(&mut self, ms: u64) -> bool {
        self.arm(Fired::Ticket, ms);
        let done = self.ticket.wait();
        self.disarm();
        if self.fired() == Fired::Ticket {
            *self = Watch::new(self.worker, self.socket);
        }
        done
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        unregister(self.worker, &self.deadline);
    }
}
