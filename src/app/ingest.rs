//! Taking events: into the journal, and, where asked, on to the ledger's decision.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Ack, App};
use crate::events::Event;
use crate::journal::{AppendError, Wait};
use crate::limits::FRAME_BYTES_MAX;
use crate::ports::Verdict;
use crate::runtime::Ticket;
use crate::sinks::{Decision, Until};

pub enum Taken {
    /// Nothing.
    Now,
    /// Its ticket.
    Durable,
    /// Its ticket; then the decisions tell what became of the events.
    Decided(Decisions),
}

pub struct Decisions(Vec<(u32, Arc<Decision>)>);

impl Decisions {
    /// Everything is synced in the journal, whatever the ledger does.
    pub fn are_durable(&self) -> bool {
        self.0.iter().all(|(_, decision)| decision.is_durable())
    }

    pub fn abandon(&self) {
        self.0.iter().for_each(|(_, decision)| decision.abandon());
    }

    /// The verdict on the only record of the request, if it has one.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdicts().first().map(|(_, verdict)| *verdict)
    }

    /// Exceptional verdicts by index within the request, in order.
    pub fn verdicts(&self) -> Vec<(usize, Verdict)> {
        let of_part = |(offset, decision): &(u32, Arc<Decision>)| {
            let offset = *offset;
            decision.verdicts().into_iter().map(move |(index, verdict)| ((offset + index) as usize, verdict))
        };
        self.0.iter().flat_map(of_part).collect()
    }
}

impl App {
    /// Takes one event. With `wait_for_ledger` (or `ACK=ledger`) the ticket covers the ledger's decision.
    pub fn take_event(
        &self,
        event: &Event<'_>,
        ticket: &Arc<Ticket>,
        wait_for_ledger: bool,
    ) -> Result<Taken, AppendError> {
        let (wait, taken) = self.wait_for(ticket, wait_for_ledger);
        self.append_event(event, ticket.worker(), wait)?;
        Ok(taken)
    }

    /// Takes a like, unlike or toggle, whatever `ACK` says: the ticket covers the ledger's decision.
    pub fn take_like(&self, event: &Event<'_>, ticket: &Arc<Ticket>) -> Result<Decisions, AppendError> {
        let (wait, decisions) = self.wait_for_follower(Until::Ledger, ticket);
        self.append_event(event, ticket.worker(), wait)?;
        Ok(decisions)
    }

    /// One event into the journal, counted by its type and by what became of it.
    pub(super) fn append_event(&self, event: &Event<'_>, core: usize, wait: Wait) -> Result<(), AppendError> {
        self.count(event);
        let append = self.journal.append(core, 1, wait, |bytes| event.encode(bytes));
        append.inspect_err(|_| self.count_refused(1))?;
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the events of a batch, in order; calls `pause` between events, so that other connections may run.
    /// An error may come after some were taken: the same ids again do no harm.
    pub fn take_events(
        &self,
        events: &[Event<'_>],
        ticket: &Arc<Ticket>,
        wait_for_ledger: bool,
        pause: &mut dyn FnMut(),
    ) -> Result<Taken, AppendError> {
        let mut decisions = Vec::new();
        let mut last = Taken::Now;
        let mut bytes = Vec::new();
        let mut first = 0;
        for (index, event) in events.iter().enumerate() {
            pause();
            self.count(event);
            event.encode(&mut bytes);
            let count = (index + 1 - first) as u32;
            // Half a frame is more than any one record: an append always fits.
            if bytes.len() < FRAME_BYTES_MAX / 2 && index + 1 < events.len() {
                continue;
            }
            let (wait, taken) = self.wait_for(ticket, wait_for_ledger);
            let append = self.journal.append(ticket.worker(), count, wait, |out| out.extend_from_slice(&bytes));
            append.inspect_err(|_| self.count_refused((events.len() - first) as u64))?;
            self.counters.accepted.fetch_add(u64::from(count), Ordering::Relaxed);
            match taken {
                Taken::Decided(one) => decisions.extend(one.0.into_iter().map(|(_, d)| (first as u32, d))),
                other => last = other,
            }
            bytes.clear();
            first = index + 1;
        }
        Ok(if decisions.is_empty() { last } else { Taken::Decided(Decisions(decisions)) })
    }

    /// One record into the journal; the ticket covers the follower's part.
    pub fn decide(
        &self,
        until: Until,
        ticket: &Arc<Ticket>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Decisions, AppendError> {
        let (wait, decisions) = self.wait_for_follower(until, ticket);
        self.journal.append(ticket.worker(), 1, wait, encode)?;
        Ok(decisions)
    }

    fn wait_for(&self, ticket: &Arc<Ticket>, wait_for_ledger: bool) -> (Wait, Taken) {
        match self.ack {
            Ack::Memory if !wait_for_ledger => (Wait::Nothing, Taken::Now),
            Ack::Journal if !wait_for_ledger => (Wait::Durable(ticket.clone()), Taken::Durable),
            _ => {
                let (wait, decisions) = self.wait_for_follower(Until::Ledger, ticket);
                (wait, Taken::Decided(decisions))
            }
        }
    }

    fn count(&self, event: &Event<'_>) {
        // A toggle counts as what its strategy says: what it turns out to be is not known yet.
        let counted_as = event.event_type.strategy().event_type;
        self.counters.decoded_by_type[counted_as as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_refused(&self, events: u64) {
        self.counters.refused.fetch_add(events, Ordering::Relaxed);
    }

    /// A wait for one append's records, and what it will tell.
    fn wait_for_follower(&self, until: Until, ticket: &Arc<Ticket>) -> (Wait, Decisions) {
        let decision = self.waiting.decide(until, ticket.clone());
        (decision.wait(), Decisions(vec![(0, decision)]))
    }
}
