//! The writer: turns batches into statements and sees them through.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::connect::{Cause, Dialer, Failure, Link, Session, WRITE_MS_MAX};
use super::encode::{Array, arrays_of};
use super::sql::{PostgresSql, UPKEEP_LOCK, snapshot};
use super::statements as statement;
use super::transaction::{self, AtOnce, Claimed, Fence, Rows};
use super::writes::{claim_of, clearing_time, counts_of, erasing_time, going, seen_like_arrays, writes};
use super::{erase, maintain, retire, term_index};
use crate::ledger::batch::draft::Draft;
use crate::ledger::batch::erasing::{Belonging, Erased, person_of};
use crate::ledger::batch::likes::{Action, LikeState, fold_likes};
use crate::ledger::batch::maybe_erased::MaybeErased;
use crate::ledger::batch::user_hours::UserHours;
use crate::ledger::sql::Sql;
use crate::ledger::stats::posts;
use crate::ledger::upkeep;
use crate::ledger::upkeep::pace::Pace;
use crate::ledger::upkeep::steps::Steps;
use crate::limits::{FOLD_MS_MAX, POSTGRES_BATCHES_TO_LOCK, POSTGRES_UNNEST_ROWS_MAX, TERM_INDEX_MS_MAX};
use crate::ports::{Batch, LedgerWriter, Position, StoreError, Verdicts, Watermark};

const DAY_MS: i64 = 86_400_000;

/// One sink's connection, dialled when it is needed.
pub(super) struct PostgresWriter {
    dialer: Arc<Dialer>,
    link: Option<Link>,
    users: UserHours,
    /// Who may have been erased, and how far that is known.
    erased: MaybeErased,
    erased_known: i64,
    /// Days since the epoch whose partitions are known to be there.
    days: HashSet<i64>,
    /// Batches that lock likes before they read them, as others were seen to change the same ones.
    batches_to_lock: u32,
    pace: Pace,
}

impl PostgresWriter {
    pub(super) fn new(dialer: Arc<Dialer>) -> PostgresWriter {
        PostgresWriter {
            dialer,
            link: None,
            users: UserHours::default(),
            erased: MaybeErased::default(),
            erased_known: 0,
            days: HashSet::new(),
            batches_to_lock: 0,
            pace: Pace::default(),
        }
    }

    /// Runs a job on the connection, dialling if there is none; drops it after an error that ends it.
    fn call<R: Send + 'static>(
        &mut self,
        deadline: Instant,
        job: impl FnOnce(&mut Session) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.dialer.dial_writer()?,
        };
        let result = link.call(deadline, job);
        self.link = (!link.is_broken()).then_some(link);
        result
    }

    /// Applies a batch, or tries it and rolls back.
    fn run(&mut self, draft: Draft<'_>, fence: Option<Fence>, deadline: Instant) -> Result<Verdicts, Failure> {
        self.ensure_days(&draft, deadline)?;
        let actions = draft.actions(&[]);
        let is_plain = draft.client_ids.is_empty()
            && !actions.iter().any(Action::is_of_post)
            && draft.forgets.is_empty()
            && draft.erases.is_empty()
            && draft.dead.is_empty()
            && !draft.has_dropped()
            && draft.events().count() <= POSTGRES_UNNEST_ROWS_MAX;
        if let Some(fence) = fence.filter(|_| is_plain)
            && let Some(verdicts) = self.run_at_once(&draft, &actions, fence, deadline)?
        {
            return Ok(verdicts);
        }
        self.run_in_steps(draft, fence, deadline)
    }

    /// `None` if others change the same likes meanwhile: then only locks help.
    fn run_at_once(
        &mut self,
        draft: &Draft<'_>,
        actions: &[Action<'_>],
        fence: Fence,
        deadline: Instant,
    ) -> Result<Option<Verdicts>, Failure> {
        let Some(seen) = self.see_likes(draft, actions, deadline)? else { return Ok(None) };
        let fold = fold_likes(actions, &seen);
        let effects = draft.effects(actions, &fold, &mut self.users);
        let likes = if actions.is_empty() { Vec::new() } else { seen_like_arrays(draft, &seen, &fold) };
        let (counts, events) = (counts_of(&effects), arrays_of(&effects.rows));
        let rows = Rows { counts, events, first_day: draft.first_day(), likes };
        match self.call(deadline, move |session| transaction::apply_all(session, fence, &rows))? {
            AtOnce::Applied => {
                self.users.commit();
                Ok(Some(effects.verdicts))
            }
            AtOnce::Changed => {
                self.batches_to_lock = POSTGRES_BATCHES_TO_LOCK;
                Ok(None)
            }
        }
    }

    /// The likes of a batch without locking them; none if that would be of no use.
    fn see_likes(
        &mut self,
        draft: &Draft<'_>,
        actions: &[Action<'_>],
        deadline: Instant,
    ) -> Result<Option<LikeState>, Failure> {
        if actions.is_empty() {
            return Ok(Some(LikeState::default()));
        }
        if self.batches_to_lock > 0 {
            self.batches_to_lock -= 1;
            return Ok(None);
        }
        let claim = claim_of(draft, actions);
        self.call(deadline, move |session| transaction::see_likes(session, &claim))
    }

    fn run_in_steps(
        &mut self,
        mut draft: Draft<'_>,
        fence: Option<Fence>,
        deadline: Instant,
    ) -> Result<Verdicts, Failure> {
        let deadline = deadline + erasing_time(&draft);
        let (belongings, Claimed { number, new_ids, likes }) = self.begin(&draft, fence, deadline)?;
        draft.drop_known_ids(|id| new_ids.binary_search(id).is_ok());
        let actions = draft.actions(&belongings);
        let fold = fold_likes(&actions, &likes);
        let effects = draft.effects(&actions, &fold, &mut self.users);
        let writes = writes(fence, number, &draft, &fold, &effects);
        self.call(deadline + clearing_time(&fold), move |session| transaction::finish(session, &writes))?;
        if fence.is_some() {
            self.users.commit();
        }
        Ok(effects.verdicts)
    }

    /// Opens the transaction: what those whom the batch erases made and like, and what it has locked and read.
    fn begin(
        &mut self,
        draft: &Draft<'_>,
        fence: Option<Fence>,
        deadline: Instant,
    ) -> Result<(Vec<Belonging>, Claimed), Failure> {
        let stream = fence.map(|fence| fence.stream);
        if draft.erases.is_empty() {
            let claim = claim_of(draft, &draft.actions(&[]));
            let claimed = self.call(deadline, move |session| {
                transaction::begin(session, fence, "")?;
                transaction::claim(session, stream, &claim)
            })?;
            return Ok((Vec::new(), claimed));
        }
        let users = going(draft, stream.unwrap_or_default());
        let first = format!(
            "SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto; SET LOCAL statement_timeout = {}; \
             LOCK TABLE watermark IN SHARE ROW EXCLUSIVE MODE; ",
            deadline.saturating_duration_since(Instant::now()).as_millis()
        );
        let belongings = self.call(deadline, move |session| {
            transaction::begin(session, fence, &first)?;
            erase::belongings(session, &users)
        })?;
        let claim = claim_of(draft, &draft.actions(&belongings));
        Ok((belongings, self.call(deadline, move |session| transaction::claim(session, stream, &claim))?))
    }

    /// Learns who was erased since it looked; true where there was somebody. Their user hours are gone, whatever this
    /// writer remembers.
    fn learn_erased(&mut self, deadline: Instant) -> Result<bool, Failure> {
        let known = self.erased_known;
        loop {
            let at = self.erased_known;
            let (users, newest) = self.call(deadline, move |session| erase::behind(session, at))?;
            users.iter().for_each(|user| self.erased.add(user));
            self.erased_known = newest;
            if newest == at {
                break;
            }
        }
        self.users.forget();
        Ok(self.erased_known > known)
    }

    /// Those of a batch's users that were erased, as far as is known: whoever was since keeps the batch out.
    fn erased_of(&mut self, batch: &Batch<'_>, deadline: Instant) -> Result<Erased, Failure> {
        let users = batch.records.iter().filter_map(person_of).map(|(user, _)| user);
        let users: BTreeSet<&str> = users.filter(|user| self.erased.holds(user) && !user.contains('\0')).collect();
        if users.is_empty() {
            return Ok(Erased::new());
        }
        let users = Array::texts(users.into_iter());
        self.call(deadline, move |session| erase::among(session, &users))
    }

    fn try_apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, Failure> {
        let deadline = deadline();
        loop {
            let draft = Draft::new(batch, dead, &self.erased_of(batch, deadline)?)?;
            let (stream, from, to) = (batch.stream, batch.from, batch.to);
            let fence = Fence { stream, from, to, erased: self.erased_known, newest_ms: draft.newest_ms() };
            match self.run(draft, Some(fence), deadline) {
                Err(Failure { error: StoreError::Fenced { found }, cause })
                    if found != Some(batch.from) || !self.learn_erased(deadline)? =>
                {
                    return Err(Failure { error: StoreError::Fenced { found }, cause });
                }
                Err(Failure { error: StoreError::Fenced { .. }, .. }) => {}
                result => return result,
            }
        }
    }

    /// Builds indexes of days that are over, as far as the time goes; true if there may be more.
    fn build_term_indexes(&mut self, today: i64) -> Result<bool, StoreError> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(FOLD_MS_MAX) {
            if !self.pace.has_time(Instant::now()) || !self.build_term_index(today)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Builds one index; true if it did, as there may be more.
    fn build_term_index(&mut self, today: i64) -> Result<bool, StoreError> {
        let missing = self.call(deadline(), move |session| term_index::missing(session, today)).map_err(|f| f.error)?;
        let next = missing.into_iter().find(|missing| self.pace.indexes.is_due(missing.day, Instant::now()));
        let Some(next) = next else { return Ok(false) };
        let (day, deadline) = (next.day, deadline() + Duration::from_millis(TERM_INDEX_MS_MAX));
        let begun = Instant::now();
        let built = self.call(deadline, move |session| term_index::build(session, &next));
        self.pace.spend(begun.elapsed());
        self.pace.indexes.settle(day, built.is_ok(), Instant::now());
        built.map_err(|failure| failure.error)
    }

    /// Makes the partitions of a batch's days, before its transaction.
    fn ensure_days(&mut self, draft: &Draft<'_>, deadline: Instant) -> Result<(), Failure> {
        let wanted: BTreeSet<i64> = draft.events().map(|event| event.event_time_ms.div_euclid(DAY_MS)).collect();
        let missing: Vec<i64> = wanted.into_iter().filter(|day| !self.days.contains(day)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let days = missing.clone();
        self.call(deadline, move |session| maintain::ensure_partitions(session, &days))?;
        self.days.extend(missing);
        Ok(())
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_millis(WRITE_MS_MAX)
}

impl LedgerWriter for PostgresWriter {
    fn watermark(&mut self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        self.look(move |sql| posts::watermark(sql, stream))
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        let register =
            move |session: &mut Session| Ok(session.client.execute(statement::REGISTER, &[&stream]).map(|_| ())?);
        self.call(deadline(), register).map_err(|failure| failure.error)
    }

    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError> {
        let mut result = self.try_apply(batch, dead);
        match result.as_ref().map_err(|failure| failure.cause) {
            Err(Cause::NoPartition) => {
                // Another program dropped a partition that we knew.
                self.days.clear();
                result = self.try_apply(batch, dead);
            }
            // The failed connection was given up, so this is a fresh one.
            Err(Cause::StaleStatement) => result = self.try_apply(batch, dead),
            _ => {}
        }
        result.map_err(|failure| failure.error)
    }

    fn probe(&mut self, batch: &Batch<'_>, range: Range<usize>) -> Result<(), StoreError> {
        let part = Batch { records: batch.records[range].to_vec(), ..*batch };
        let nothing_dead = BTreeMap::new();
        let deadline = deadline();
        let erased = self.erased_of(&part, deadline).map_err(|failure| failure.error)?;
        let draft = Draft::new(&part, &nothing_dead, &erased)?;
        self.run(draft, None, deadline).map(|_| ()).map_err(|failure| failure.error)
    }

    fn prune_verdicts(&mut self, stream: Uuid, up_to: Position) -> Result<(), StoreError> {
        let up_to = up_to.cast_signed();
        let prune = move |session: &mut Session| {
            let prune = "WITH pruned AS (DELETE FROM verdict WHERE stream = $1 AND position <= $2) \
                 UPDATE watermark SET pruned = greatest(pruned, $2) WHERE stream = $1";
            Ok(session.client.execute(prune, &[&stream, &up_to]).map(|_| ())?)
        };
        self.call(deadline(), prune).map_err(|failure| failure.error)
    }

    fn clock_ms(&mut self) -> Result<Option<i64>, StoreError> {
        self.call(deadline(), maintain::clock_ms).map(Some).map_err(|failure| failure.error)
    }

    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let today = now_ms.div_euclid(DAY_MS);
        self.days.retain(|day| (today - *day).abs() <= maintain::DAYS_REMEMBERED);
        let ahead = self.call(deadline(), move |session| maintain::prepare(session, now_ms)).map_err(|f| f.error)?;
        self.days.extend(ahead);
        upkeep::maintain::run(self, now_ms)?;
        self.call(deadline(), move |session| maintain::switch_ids(session, now_ms)).map_err(|failure| failure.error)
    }

    fn add_up(&mut self) -> Result<(), StoreError> {
        upkeep::compact::run(self)?;
        self.call(deadline(), maintain::summarize).map_err(|failure| failure.error)
    }

    fn spare(&mut self) {
        self.pace.spare(Instant::now());
    }

    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError> {
        let is_left = upkeep::run(self, now_ms, zone);
        let is_more = self.build_term_indexes(now_ms.div_euclid(DAY_MS));
        Ok(is_left? | is_more?)
    }

    fn retire(&mut self, now_ms: i64, retention_days: i64) -> Result<(), StoreError> {
        self.days.clear();
        let retire = move |session: &mut Session| retire::run(session, now_ms, retention_days);
        let since = self.call(deadline(), retire).map_err(|failure| failure.error)?;
        upkeep::retention::forget_users(self, since)
    }
}

impl Steps for PostgresWriter {
    fn step<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let step = move |session: &mut Session| {
            let mut transaction = session.client.transaction()?;
            // A crash of the server may undo a step that was just committed; then it is due again.
            transaction.batch_execute(&format!("SET LOCAL synchronous_commit = off; {UPKEEP_LOCK}"))?;
            let done = job(&mut PostgresSql::on(&mut transaction))?;
            transaction.commit()?;
            Ok(done)
        };
        self.call(deadline(), step).map_err(|failure| failure.error)
    }

    fn look<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let look = move |session: &mut Session| Ok(job(&mut PostgresSql::on(&mut snapshot(session)?))?);
        self.call(deadline(), look).map_err(|failure| failure.error)
    }

    fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }
}
