//! Likes: an action into the journal and on to the ledger's decision; a post's likes as the ledger has them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::App;
use super::ingest::Decisions;
use super::reads::{PATIENCE, Read};
use crate::events::{Event, encode_event};
use crate::journal::{AppendError, Until};
use crate::ports::Likes;
use crate::runtime::Ticket;

impl App {
    /// Takes a like, unlike or toggle, whatever `ACK` says: the ticket covers the ledger's decision.
    pub fn take_like(&self, event: &Event<'_>, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        // A toggle counts as what its strategy says: what it turns out to be is not known yet.
        let counted_as = event.event_type.strategy().event_type();
        self.counters.decoded_by_type[counted_as as usize].fetch_add(1, Ordering::Relaxed);
        match self.append_decided(Until::Ledger, ticket, |bytes| encode_event(event, bytes)) {
            Ok(decisions) => {
                self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                Ok(decisions)
            }
            Err(why) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                Err(why)
            }
        }
    }

    /// A post's likes, and whether a user is among them.
    pub fn likes(&self, post_id: String, user_id: Option<String>, ticket: &Arc<Ticket>) -> Read<Likes> {
        let ledger = self.ledger.clone();
        self.ledger_lane.submit(ticket, PATIENCE, move || ledger.likes(&post_id, user_id.as_deref()))
    }
}
