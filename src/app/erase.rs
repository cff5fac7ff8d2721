//! Erasure: through the journal as every write, so that it takes its place among what the person did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::App;
use super::ingest::Decisions;
use super::reads::PATIENCE;
use crate::events::Erase;
use crate::journal::{AppendError, Wait};
use crate::runtime::{LaneFull, Pending, Ticket};
use crate::sinks::Until;

const LOOK: Duration = Duration::from_millis(5);

impl App {
    /// Erases a person; the ticket covers the ledger's part.
    pub fn erase_decided(&self, user_id: &str, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        let erase = self.erase_now(user_id);
        self.decide(Until::Ledger, ticket, |bytes| erase.encode(bytes))
    }

    /// Erases a person; the ticket covers the sync.
    pub fn erase_durably(&self, user_id: &str, ticket: &Arc<Ticket>) -> Result<(), AppendError> {
        let erase = self.erase_now(user_id);
        let wait = Wait::Durable(ticket.clone());
        self.journal.append(ticket.worker(), 1, wait, |bytes| erase.encode(bytes))
    }

    fn erase_now<'a>(&self, user_id: &'a str) -> Erase<'a> {
        Erase { user_id: user_id.into(), at_ms: self.clock.now_ms() }
    }

    /// The ticket covers that the live store shows what is in the journal now, or that `ms` have passed. Takes a thread of
    /// the lane for as long: for what is rare.
    pub fn live_reaches_now(&self, ms: u64, ticket: &Arc<Ticket>) -> Result<Pending<()>, LaneFull> {
        let (end, status) = (self.journal.end_position(), self.live_status.clone());
        self.live_lane.submit(ticket, PATIENCE, move || {
            let until = Instant::now() + Duration::from_millis(ms);
            while status.position() < end && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
        })
    }
}
