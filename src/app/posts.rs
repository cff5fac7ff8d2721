//! Posts: put and deleted through the journal, in one order with their likes; read from the ledger.

use std::sync::Arc;

use super::App;
use super::ingest::Decisions;
use super::reads::{PATIENCE, Read};
use crate::events::{PostDelete, PostPut, encode_post_delete, encode_post_put};
use crate::journal::{AppendError, Until};
use crate::ports::Post;
use crate::runtime::Ticket;

impl App {
    /// Makes or replaces a post; the ticket covers the ledger's decision.
    pub fn put_post(&self, put: &PostPut<'_>, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        self.append_decided(Until::Ledger, ticket, |bytes| encode_post_put(put, bytes))
    }

    /// Removes a post, if it is there, and its likes; the ticket covers the ledger's decision.
    pub fn delete_post(&self, post_id: &str, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        let delete = PostDelete { post_id: post_id.into(), at_ms: self.clock.now_ms() };
        self.append_decided(Until::Ledger, ticket, |bytes| encode_post_delete(&delete, bytes))
    }

    /// A post with its likes, if there is one of that id.
    pub fn post(&self, post_id: String, ticket: &Arc<Ticket>) -> Read<Option<Post>> {
        let ledger = self.ledger.clone();
        self.ledger_lane.submit(ticket, PATIENCE, move || ledger.post(&post_id))
    }
}
