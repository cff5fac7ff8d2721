//! A batch on its way into a ledger: which records are stored, and all that follows from them.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::likes::{Action, LikeFold};
use super::rollups::{Rollups, split_rollups};
use super::user_hours::UserHours;
use crate::events::{
    Event, EventType, Forget, LOST_RECORD, Record, Tally, encode_event, encode_forget, tally_like, tally_stored,
};
use crate::ports::{Batch, Position, StoreError, Verdict, Verdicts};

/// 9999-12-31T23:59:59.999Z: past it days have no four-digit year and PostgreSQL's time soon ends.
const EVENT_TIME_MS_MAX: i64 = 253_402_300_799_999;

/// A batch, sorted into what happens to its records.
pub struct Draft<'b> {
    batch: &'b Batch<'b>,
    /// Events to store, in journal order.
    events: Vec<(usize, &'b Event<'b>)>,
    /// Ids that clients chose, each once.
    pub client_ids: Vec<Uuid>,
    pub forgets: Vec<&'b Forget<'b>>,
    pub dead: Vec<(Position, &'b str)>,
    verdicts: Verdicts,
    /// The newest time of receipt: what "now" is to the batch.
    pub now_ms: i64,
}

/// A row of `events`.
#[derive(Clone, Copy, Debug)]
pub struct StoredRow<'b> {
    pub event: &'b Event<'b>,
    /// As stored: a toggle is a LIKE or an UNLIKE by now.
    pub event_type: EventType,
}

/// All that a batch writes besides likes and letters.
pub struct Effects<'b> {
    pub rows: Vec<StoredRow<'b>>,
    pub rollups: Rollups,
    /// Rows of `user_hour` that may be new.
    pub users: Vec<(i64, EventType, &'b str)>,
    /// Of every record that has one, in order.
    pub verdicts: Verdicts,
}

impl<'b> Draft<'b> {
    /// Sorts a batch; `Poison` where an event's time cannot be stored.
    pub fn new(batch: &'b Batch<'b>, dead: &'b BTreeMap<Position, String>) -> Result<Draft<'b>, StoreError> {
        let mut draft = Draft {
            batch,
            events: Vec::with_capacity(batch.records.len()),
            client_ids: Vec::new(),
            forgets: Vec::new(),
            dead: Vec::new(),
            verdicts: Vec::new(),
            now_ms: i64::MIN,
        };
        let mut ids = HashSet::new();
        for (index, record) in batch.records.iter().enumerate() {
            let position = batch.position(index);
            if let Some(reason) = dead.get(&position) {
                draft.dead.push((position, reason));
                draft.verdicts.push((position, Verdict::Dead));
                continue;
            }
            match record {
                Record::Forget(forget) => draft.forgets.push(forget),
                Record::Lost => {}
                Record::Event(event) => {
                    check_time(position, event)?;
                    draft.now_ms = draft.now_ms.max(event.received_at_ms);
                    if event.id_from_client && !ids.insert(event.id) {
                        draft.verdicts.push((position, Verdict::Duplicate));
                        continue;
                    }
                    if event.id_from_client {
                        draft.client_ids.push(event.id);
                    }
                    draft.events.push((index, event));
                }
            }
        }
        Ok(draft)
    }

    /// Events that will be stored, as far as is known.
    pub fn events(&self) -> impl Iterator<Item = &'b Event<'b>> + '_ {
        self.events.iter().map(|(_, event)| *event)
    }

    /// Takes out the events whose client id the store had already.
    pub fn drop_known_ids(&mut self, is_new: impl Fn(&Uuid) -> bool) {
        let (batch, verdicts) = (self.batch, &mut self.verdicts);
        self.events.retain(|(index, event)| {
            let keep = !event.id_from_client || is_new(&event.id);
            if !keep {
                verdicts.push((batch.position(*index), Verdict::Duplicate));
            }
            keep
        });
    }

    /// Likes, unlikes and toggles that will be stored, in journal order.
    pub fn actions(&self) -> Vec<Action<'b>> {
        self.events.iter().filter_map(|(index, event)| Action::of(*index, event)).collect()
    }

    /// The position of an action, for its row in the log.
    pub fn position(&self, action: &Action<'_>) -> Position {
        self.batch.position(action.index)
    }

    /// A dead record as the journal holds it, for its row in `dead_letter`.
    pub fn record_bytes(&self, position: Position) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.batch.records[(position - self.batch.from.position - 1) as usize] {
            Record::Event(event) => encode_event(event, &mut bytes),
            Record::Forget(forget) => encode_forget(forget, &mut bytes),
            Record::Lost => bytes.extend_from_slice(&LOST_RECORD),
        }
        bytes
    }

    /// Decides everything else, now that duplicates are out and likes are folded.
    pub fn effects(&self, actions: &[Action<'b>], fold: &LikeFold<'b>, users: &mut UserHours) -> Effects<'b> {
        let mut verdicts = self.verdicts.clone();
        let mut rows = Vec::with_capacity(self.events.len());
        let mut tally = Tally::default();
        let mut likes = actions.iter().zip(&fold.outcomes).peekable();
        for (index, event) in &self.events {
            let mut event_type = event.event_type;
            if let Some((_, outcome)) = likes.next_if(|(action, _)| action.index == *index) {
                event_type = outcome.stored_type();
                verdicts.push((self.batch.position(*index), Verdict::Like(*outcome)));
                if outcome.changed {
                    tally_like(&mut tally, event, outcome.liked);
                }
            } else if event_type == EventType::Toggle {
                // Names no user or post: the edge refuses it, a journal may still hold it.
                event_type = EventType::Like;
            }
            tally_stored(&mut tally, event, event_type);
            rows.push(StoredRow { event, event_type });
        }
        verdicts.sort_unstable_by_key(|(position, _)| *position);
        users.begin();
        let users = users.fresh(rows.iter().filter_map(|row| {
            let user = row.event.user_id.as_deref()?;
            Some((row.event.minute().div_euclid(60), row.event_type, user))
        }));
        let rollups = split_rollups(tally, self.now_ms);
        Effects { rows, rollups, users, verdicts }
    }
}

fn check_time(position: Position, event: &Event<'_>) -> Result<(), StoreError> {
    let storable = 0..=EVENT_TIME_MS_MAX;
    if storable.contains(&event.event_time_ms) && storable.contains(&event.received_at_ms) {
        return Ok(());
    }
    Err(StoreError::Poison(format!("record {position}: its time is outside of 1970 to 9999")))
}
