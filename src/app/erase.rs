//! Erasure: through the journal as every write, so that it takes its place among what the person did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::App;
use super::ingest::Decisions;
use super::reads::{PATIENCE, Read};
use crate::events::{Erase, encode_erase};
use crate::journal::{AppendError, Until, Wait};
use crate::ports::Belongings;
use crate::runtime::{LaneFull, Pending, Ticket};

const LOOK: Duration = Duration::from_millis(5);

impl App {
    /// Erases a person; the ticket covers the ledger's part.
    pub fn erase_decided(&self, user_id: &str, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        let erase = self.erase_now(user_id);
        self.append_decided(Until::Ledger, ticket, |bytes| encode_erase(&erase, bytes))
    }

    /// Erases a person; the ticket covers the sync.
    pub fn erase_durably(&self, user_id: &str, ticket: &Arc<Ticket>) -> Result<(), AppendError> {
        let erase = self.erase_now(user_id);
        let wait = Wait::Durable(ticket.clone());
        self.journal.append(ticket.worker(), 1, wait, |bytes| encode_erase(&erase, bytes))
    }

    fn erase_now<'a>(&self, user_id: &'a str) -> Erase<'a> {
        Erase { user_id: user_id.into(), at_ms: self.clock.now_ms() }
    }

    /// The posts that a person made or likes.
    pub fn belongings(&self, user_id: String, limit: usize, ticket: &Arc<Ticket>) -> Read<Belongings> {
        let ledger = self.ledger.clone();
        self.ledger_lane.submit(ticket, PATIENCE, move || ledger.belongings(&user_id, limit))
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
