//! A batch on its way into a ledger: which records are stored, and all that follows from them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::deltas::{Deltas, deltas_of};
use super::erasing::{Belonging, Erased, erase_actions, person_of};
use super::likes::{Action, Deed, LikeFold};
use super::user_hours::UserHours;
use crate::events::{
    Erase, Event, EventType, Forget, PostPut, Record, Tally, fold_keyword, page_key, tally_like, tally_stored,
    tally_unliked,
};
use crate::ports::{Batch, Position, PostOutcome, StoreError, Verdict, Verdicts};

/// 9999-12-31T23:59:59.999Z: past it days have no four-digit year and PostgreSQL's time soon ends.
const EVENT_TIME_MS_MAX: i64 = 253_402_300_799_999;

/// A batch, sorted into what happens to its records.
pub struct Draft<'b> {
    batch: &'b Batch<'b>,
    /// Events to store, in journal order.
    events: Vec<(usize, &'b Event<'b>)>,
    /// Posts to put or delete, in journal order.
    posts: Vec<Action<'b>>,
    /// Ids that clients chose, each once.
    pub client_ids: Vec<Uuid>,
    pub forgets: Vec<&'b Forget<'b>>,
    /// Erasures and their records, in journal order.
    pub erases: Vec<(usize, &'b Erase<'b>)>,
    pub dead: Vec<(Position, &'b str)>,
    verdicts: Verdicts,
    /// The newest time of receipt: what "now" is to the batch.
    pub now_ms: i64,
}

/// A row of `events`.
#[derive(Clone, Debug)]
pub struct StoredRow<'b> {
    pub event: &'b Event<'b>,
    pub position: Position,
    /// As stored: a toggle is a LIKE or an UNLIKE by now.
    pub event_type: EventType,
    /// The names that the event counts under. They stay if its user is erased.
    pub page: Option<Cow<'b, str>>,
    pub keyword_key: Option<Cow<'b, str>>,
}

/// All that a batch writes besides likes and letters.
pub struct Effects<'b> {
    pub rows: Vec<StoredRow<'b>>,
    pub deltas: Deltas,
    /// Rows of `user_hour` that may be new.
    pub users: Vec<(i64, EventType, &'b str)>,
    /// Of every record that has one, in order.
    pub verdicts: Verdicts,
}

impl<'b> Draft<'b> {
    /// Sorts a batch; `Poison` where an event's time cannot be stored. `erased` are those that the
    /// ledger has erased.
    pub fn new(
        batch: &'b Batch<'b>,
        dead: &'b BTreeMap<Position, String>,
        erased: &Erased,
    ) -> Result<Draft<'b>, StoreError> {
        let mut draft = Draft {
            batch,
            events: Vec::with_capacity(batch.records.len()),
            posts: Vec::new(),
            client_ids: Vec::new(),
            forgets: Vec::new(),
            erases: Vec::new(),
            dead: Vec::new(),
            verdicts: Vec::new(),
            now_ms: i64::MIN,
        };
        let mut ids = HashSet::new();
        let mut erased_here: HashMap<&str, i64> = HashMap::new();
        for (index, record) in batch.records.iter().enumerate() {
            let position = batch.position(index);
            if let Some((user, happened_ms)) = person_of(record)
                && [erased.get(user), erased_here.get(user)].into_iter().flatten().any(|at_ms| happened_ms <= *at_ms)
            {
                draft.verdicts.push((position, Verdict::Erased));
                continue;
            }
            if let Some(reason) = dead.get(&position) {
                draft.dead.push((position, reason));
                draft.verdicts.push((position, Verdict::Dead));
                continue;
            }
            match record {
                Record::Forget(forget) => draft.forgets.push(forget),
                Record::PostPut(put) => {
                    check_times(position, [put.at_ms, put.created_at_ms.unwrap_or_default()])?;
                    draft.add_post(Action::of_put(index, put));
                }
                Record::PostDelete(delete) => {
                    check_times(position, [delete.at_ms, 0])?;
                    draft.add_post(Action::of_delete(index, delete));
                }
                Record::Erase(erase) => {
                    check_times(position, [erase.at_ms, 0])?;
                    draft.now_ms = draft.now_ms.max(erase.at_ms);
                    let at_ms = erased_here.entry(&erase.user_id).or_insert(erase.at_ms);
                    *at_ms = erase.at_ms.max(*at_ms);
                    draft.erases.push((index, erase));
                    draft.verdicts.push((position, Verdict::Erasure));
                }
                Record::Lost => {}
                Record::Event(event) => {
                    check_times(position, [event.event_time_ms, event.received_at_ms])?;
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

    fn add_post(&mut self, action: Action<'b>) {
        self.now_ms = self.now_ms.max(action.at_ms);
        self.posts.push(action);
    }

    /// Records are dropped, and so have verdicts to write.
    pub fn has_dropped(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// Posts that are put, whether or not they last to the end of the batch.
    pub fn puts(&self) -> impl Iterator<Item = &'b PostPut<'b>> + '_ {
        self.posts.iter().filter_map(|action| match action.deed {
            Deed::Put(put) => Some(put),
            _ => None,
        })
    }

    /// The latest time that the batch counts something at, or that it was received at.
    pub fn newest_ms(&self) -> i64 {
        self.events().map(|event| event.event_time_ms).max().unwrap_or(i64::MIN).max(self.now_ms).max(0)
    }

    /// The first UTC day of an event that will be stored, since the epoch; `None` without events.
    pub fn first_day(&self) -> Option<i64> {
        self.events().map(|event| event.event_time_ms.div_euclid(86_400_000)).min()
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

    /// Likes, unlikes and toggles that will be stored, and what happens to posts, in journal order.
    /// `belongings` are of those whom the batch erases.
    pub fn actions<'x>(&self, belongings: &'x [Belonging]) -> Vec<Action<'x>>
    where
        'b: 'x,
    {
        let likes = self.events.iter().filter_map(|(index, event)| Action::of_event(*index, event));
        let mut actions: Vec<Action<'x>> = likes.chain(self.posts.iter().copied()).collect();
        if !self.erases.is_empty() {
            let named = actions.iter().filter_map(|action| match action.deed {
                Deed::Like(_, user) => Some((action.index, user, action.post, action.happened_ms)),
                Deed::Put(put) => Some((action.index, &*put.user_id, action.post, action.happened_ms)),
                _ => None,
            });
            let erasing = erase_actions(&self.erases, belongings, named);
            actions.extend(erasing);
        }
        if actions.iter().any(Action::is_of_post) {
            actions.sort_by_key(|action| action.index);
        }
        actions
    }

    /// The position of a record, for its rows in the log.
    pub fn position(&self, index: usize) -> Position {
        self.batch.position(index)
    }

    /// A dead record as the journal holds it, and whose it is and when it happened, for its row in
    /// `dead_letter`.
    pub fn letter(&self, position: Position) -> (Vec<u8>, Option<(&'b str, i64)>) {
        let record = &self.batch.records[(position - self.batch.from.position - 1) as usize];
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        // No table keeps a name with U+0000, and nobody of that name can be erased.
        (bytes, person_of(record).filter(|(user, _)| !user.contains('\0')))
    }

    /// Decides everything else, now that duplicates are out and likes are folded.
    pub fn effects<'x>(&self, actions: &[Action<'x>], fold: &LikeFold<'x>, users: &mut UserHours) -> Effects<'x>
    where
        'b: 'x,
    {
        let mut tally = Tally::default();
        let mut verdicts = self.verdicts.clone();
        for (action, verdict) in actions.iter().zip(&fold.outcomes) {
            if let (true, Verdict::Post(PostOutcome::Deleted { likes_removed, .. })) = (action.is_of_post(), verdict) {
                tally_unliked(&mut tally, action.post, action.at_ms, *likes_removed);
            }
            // An erasure is several actions and has its verdict already.
            if !matches!(action.deed, Deed::Erase(_)) {
                verdicts.push((self.batch.position(action.index), *verdict));
            }
        }
        verdicts.sort_unstable_by_key(|(position, _)| *position);
        let rows = self.rows(actions, fold, &mut tally);
        users.begin();
        let users = users.fresh(rows.iter().filter_map(|row| {
            let user = row.event.user_id.as_deref()?;
            Some((row.event.minute().div_euclid(60), row.event_type, user))
        }));
        let deltas = deltas_of(tally, self.now_ms);
        Effects { rows, deltas, users, verdicts }
    }

    /// The rows to store, counted.
    fn rows<'x>(&self, actions: &[Action<'x>], fold: &LikeFold<'x>, tally: &mut Tally) -> Vec<StoredRow<'x>>
    where
        'b: 'x,
    {
        let mut rows = Vec::with_capacity(self.events.len());
        let mut likes = actions.iter().zip(&fold.outcomes).filter(|(action, _)| !action.is_of_post()).peekable();
        for (index, event) in &self.events {
            let mut event_type = event.event_type;
            if let Some((_, Verdict::Like(outcome))) = likes.next_if(|(action, _)| action.index == *index) {
                event_type = outcome.stored_type();
                if outcome.changed {
                    tally_like(tally, event, outcome.liked);
                }
            } else if event_type == EventType::Toggle {
                // Names no user or post: the edge refuses it, a journal may still hold it.
                event_type = EventType::Like;
            }
            tally_stored(tally, event, event_type);
            let page = event.url.as_deref().map(page_key);
            let keyword_key = event.keyword.as_deref().map(fold_keyword);
            let position = self.batch.position(*index);
            rows.push(StoredRow { event, position, event_type, page, keyword_key });
        }
        rows
    }
}

fn check_times(position: Position, times_ms: [i64; 2]) -> Result<(), StoreError> {
    let storable = 0..=EVENT_TIME_MS_MAX;
    if times_ms.iter().all(|ms| storable.contains(ms)) {
        return Ok(());
    }
    Err(StoreError::Poison(format!("record {position}: its time is outside of 1970 to 9999")))
}
