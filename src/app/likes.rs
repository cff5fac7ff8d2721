//! Likes: an action into the journal and on to the ledger's decision; a post's likes as the ledger has them.

use std::sync::Arc;

use super::App;
use super::ingest::{Decisions, wait_for_follower};
use super::reads::{PATIENCE, Read};
use crate::events::Event;
use crate::journal::{AppendError, Until};
use crate::ports::Likes;
use crate::runtime::Ticket;

impl App {
    /// Takes a like, unlike or toggle, whatever `ACK` says: the ticket covers the ledger's decision.
    pub fn take_like(&self, event: &Event<'_>, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        let (wait, decisions) = wait_for_follower(Until::Ledger, ticket);
        self.append_event(event, ticket.worker(), wait)?;
        Ok(decisions)
    }

    /// A post's likes, and whether a user is among them.
    pub fn likes(&self, post_id: String, user_id: Option<String>, ticket: &Arc<Ticket>) -> Read<Likes> {
        let ledger = self.ledger.clone();
        self.ledger_lane.submit(ticket, PATIENCE, move || ledger.likes(&post_id, user_id.as_deref()))
    }
}

/// Under which key a post's likes are kept.
pub fn likes_key(post_id: &str) -> Box<str> {
    format!("likes {post_id}").into()
}
