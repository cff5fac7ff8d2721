//! The writer: turns batches into statements and sees them through.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::WRITE_MS_MAX;
use super::connect::{Dialer, Failure, Link, Session};
use super::encode::{Array, Field, arrays_of, copy_of};
use super::erase;
use super::statements as sql;
use super::transaction::{self, AtOnce, Claim, Claimed, EventRows, Fence, Statement, Writes};
use super::{deltas, fold, maintain, retire};
use crate::events::fold_keyword;
use crate::ledger_fold::{
    Action, Belonging, Clearing, Draft, Effects, Erased, Folding, KnownLikes, LikeFold, LikeState, MaybeErased,
    Recalled, RollupRow, UserHours, VerdictRow, content_grams, erased_users, fold_likes, folded_content, person_of,
};
use crate::limits::{
    LIVE_DAYS_KEPT, POSTGRES_BATCHES_TO_LOCK, POSTGRES_CLEARED_LIKE_US_MAX, POSTGRES_CLEARED_LIKES_USUAL,
    POSTGRES_ERASE_MS_MAX, POSTGRES_UNNEST_ROWS_MAX, POSTGRES_WRITE_STATEMENT_MS_MAX, ROLLUP_MINUTES_KEPT,
};
use crate::ports::{Batch, LedgerWriter, Position, StoreError, Verdicts, Watermark};

const DAY_MS: i64 = 86_400_000;

/// One sink's connection, dialled when it is needed.
pub(super) struct PostgresWriter {
    dialer: Arc<Dialer>,
    link: Option<Link>,
    users: UserHours,
    likes: KnownLikes,
    /// Who may have been erased, and how far that is known.
    erased: MaybeErased,
    erased_known: i64,
    /// Days since the epoch whose partitions are known to be there.
    days: HashSet<i64>,
    /// Batches that lock likes before they read them, as others were seen to change the same ones.
    batches_to_lock: u32,
    pub(super) folding: Folding,
}

impl PostgresWriter {
    pub(super) fn new(dialer: Arc<Dialer>) -> PostgresWriter {
        PostgresWriter {
            dialer,
            link: None,
            users: UserHours::default(),
            likes: KnownLikes::default(),
            erased: MaybeErased::default(),
            erased_known: 0,
            days: HashSet::new(),
            batches_to_lock: 0,
            folding: Folding::default(),
        }
    }

    /// A step of housekeeping, with as much time as a batch has.
    pub(super) fn step<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Session) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        self.call(deadline(), job)
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

    /// Nothing where some of it is too late for that, or others change the same likes meanwhile: then only locks help. Its
    /// minutes are put off.
    fn run_at_once(
        &mut self,
        draft: &Draft<'_>,
        actions: &[Action<'_>],
        fence: Fence,
        deadline: Instant,
    ) -> Result<Option<Verdicts>, Failure> {
        loop {
            let Some(recalled) = self.see_likes(actions, deadline)? else { return Ok(None) };
            let (is_remembered, seen) = (recalled.is_remembered(), recalled.state);
            let fold = fold_likes(actions, &seen);
            let effects = draft.effects(actions, &fold, &mut self.users);
            if effects.rollups.has_older {
                return Ok(None);
            }
            let minutes = columns(&effects.rollups.minutes);
            let rows = minutes.into_iter().chain(user_arrays(&effects)).chain(arrays_of(&effects.rows));
            let rows: Vec<Array> = rows.collect();
            let first_hour = effects.rollups.first_hour();
            let likes = if actions.is_empty() { Vec::new() } else { seen_like_arrays(draft, &seen, &fold) };
            let apply = move |session: &mut Session| transaction::apply_all(session, fence, &rows, first_hour, &likes);
            match self.call(deadline, apply)? {
                AtOnce::Applied => {
                    self.users.commit();
                    self.likes.commit(&fold);
                    return Ok(Some(effects.verdicts));
                }
                AtOnce::Late => return Ok(None),
                AtOnce::Changed if is_remembered => self.likes.mistrust(),
                AtOnce::Changed => {
                    self.batches_to_lock = POSTGRES_BATCHES_TO_LOCK;
                    return Ok(None);
                }
            }
        }
    }

    /// The likes of a batch without locking them; nothing where that would be of no use.
    fn see_likes(&mut self, actions: &[Action<'_>], deadline: Instant) -> Result<Option<Recalled>, Failure> {
        if actions.is_empty() {
            return Ok(Some(Recalled::default()));
        }
        if self.batches_to_lock > 0 {
            self.batches_to_lock -= 1;
            return Ok(None);
        }
        let mut recalled = self.likes.recall(actions);
        if !recalled.unknown.is_empty() {
            let (posts, pairs) = (std::mem::take(&mut recalled.unknown), std::mem::take(&mut recalled.pairs));
            let see = move |session: &mut Session| transaction::see_likes(session, &posts, &pairs);
            let Some(seen) = self.call(deadline, see)? else { return Ok(None) };
            self.likes.learn(&mut recalled, seen);
        }
        Ok(Some(recalled))
    }

    fn run_in_steps(
        &mut self,
        mut draft: Draft<'_>,
        fence: Option<Fence>,
        deadline: Instant,
    ) -> Result<Verdicts, Failure> {
        let deadline = deadline + erasing_time(&draft);
        let (belongings, Claimed { new_ids, likes }) = self.begin(&draft, fence, deadline)?;
        draft.drop_known_ids(|id| new_ids.binary_search(id).is_ok());
        let actions = draft.actions(&belongings);
        self.likes.forget_posts(&actions);
        let fold = fold_likes(&actions, &likes);
        let effects = draft.effects(&actions, &fold, &mut self.users);
        let writes = writes(fence, &draft, &fold, &effects);
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
        if draft.erases.is_empty() {
            let claim = claim_of(draft, &draft.actions(&[]));
            let claimed = self.call(deadline, move |session| {
                transaction::begin(session, fence, "")?;
                transaction::claim(session, &claim)
            })?;
            return Ok((Vec::new(), claimed));
        }
        let users = going(draft);
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
        Ok((belongings, self.call(deadline, move |session| transaction::claim(session, &claim))?))
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
            let fence = Fence { stream: batch.stream, from: batch.from, to: batch.to, erased: self.erased_known };
            let draft = Draft::new(batch, dead, &self.erased_of(batch, deadline)?)?;
            match self.run(draft, Some(fence), deadline) {
                Err(Failure { error: StoreError::Fenced { found }, no_partition })
                    if found != Some(batch.from) || !self.learn_erased(deadline)? =>
                {
                    return Err(Failure { error: StoreError::Fenced { found }, no_partition });
                }
                Err(Failure { error: StoreError::Fenced { .. }, .. }) => {}
                result => return result,
            }
        }
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
        self.call(deadline(), move |session| transaction::watermark(session, stream)).map_err(|f| f.error)
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        let register =
            move |session: &mut Session| Ok(session.client.execute(sql::REGISTER, &[&stream]).map(|_| ())?);
        self.call(deadline(), register).map_err(|failure| failure.error)
    }

    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError> {
        let mut result = self.try_apply(batch, dead);
        if result.as_ref().is_err_and(|failure| failure.no_partition) {
            // A partition that we knew was dropped behind our back.
            self.days.clear();
            result = self.try_apply(batch, dead);
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
            let prune = "WITH gone AS (DELETE FROM verdict WHERE stream = $1 AND position <= $2), \
                 places AS (DELETE FROM left_out WHERE stream = $1 AND position <= $2) \
                 UPDATE watermark SET pruned = greatest(pruned, $2) WHERE stream = $1";
            Ok(session.client.execute(prune, &[&stream, &up_to]).map(|_| ())?)
        };
        self.call(deadline(), prune).map_err(|failure| failure.error)
    }

    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let today = now_ms.div_euclid(DAY_MS);
        self.days.retain(|day| (today - *day).abs() <= maintain::DAYS_REMEMBERED);
        let ahead = self.call(deadline(), move |session| maintain::run(session, now_ms)).map_err(|f| f.error)?;
        self.days.extend(ahead);
        Ok(())
    }

    fn add_up(&mut self) -> Result<(), StoreError> {
        self.call(deadline(), deltas::add).map_err(|failure| failure.error)
    }

    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError> {
        fold::run(self, now_ms, zone).map_err(|failure| failure.error)
    }

    fn retire(&mut self, now_ms: i64, retention_days: i64) -> Result<(), StoreError> {
        self.days.clear();
        self.call(deadline(), move |session| retire::run(session, now_ms, retention_days)).map_err(|f| f.error)
    }
}

/// The rest of a transaction. The order matters: likes that a clearing spares are written behind it, and an erasure is of
/// all that the batch has stored.
fn writes(fence: Option<Fence>, draft: &Draft<'_>, fold: &LikeFold<'_>, effects: &Effects<'_>) -> Writes {
    let events = match effects.rows.len() <= POSTGRES_UNNEST_ROWS_MAX {
        true => EventRows::Arrays(arrays_of(&effects.rows)),
        false => EventRows::Copy(copy_of(&effects.rows)),
    };
    let stream = fence.map_or(Uuid::nil(), |fence| fence.stream);
    let clearings = fold.clearings.iter().map(|clearing| Some(clear_likes(stream, draft, clearing)));
    let others = [
        write_likes(stream, draft, fold),
        write_posts(fold),
        delete_posts(fold),
        write_verdicts(stream, &effects.verdicts),
        write_letters(stream, draft),
        write_forgets(draft),
    ];
    let places = give_up_places(stream, draft, effects);
    let takes_back = !places.is_empty();
    let others = [allow_time(fold)].into_iter().chain(clearings).chain(others).flatten().chain(places);
    Writes {
        events,
        rollups: rollup_arrays(stream, effects),
        takes_back,
        first_hour: effects.rollups.first_hour(),
        others: others.collect(),
        erasing: going(draft),
        commit: fence.is_some(),
    }
}

fn going(draft: &Draft<'_>) -> Vec<(String, i64)> {
    erased_users(&draft.erases).into_iter().map(|(user, up_to_ms)| (user.to_owned(), up_to_ms)).collect()
}

/// What erasures may take beyond what a batch usually does.
fn erasing_time(draft: &Draft<'_>) -> Duration {
    match draft.erases.is_empty() {
        true => Duration::ZERO,
        false => Duration::from_millis(POSTGRES_ERASE_MS_MAX),
    }
}

/// Posts that were deleted leave the lists, and come back with what happened since.
fn give_up_places(stream: Uuid, draft: &Draft<'_>, effects: &Effects<'_>) -> Vec<Statement> {
    let places = &effects.places;
    if places.gone.is_empty() {
        return Vec::new();
    }
    let minute = draft.now_ms.div_euclid(60_000);
    let regain = |sql: &'static str, rows: &[RollupRow]| {
        let positions = rows.iter().map(|row| places.gone.get(&*row.key).map_or(0, |position| position.cast_signed()));
        let [dimensions, buckets, keys, counts] = columns(rows);
        let mut values = boxed(None, vec![dimensions, buckets, keys, counts, Array::bigs(positions)]);
        values.push(Box::new(stream));
        (!rows.is_empty()).then_some(Statement { sql, values })
    };
    let (hour, listed) = (minute.div_euclid(60), (LIVE_DAYS_KEPT + 1) * 24);
    let gone = Statement {
        sql: sql::GIVE_UP.as_str(),
        values: vec![
            Box::new(Array::texts(places.gone.keys().copied())),
            Box::new(Array::bigs(places.gone.values().map(|position| position.cast_signed()))),
            Box::new(stream),
            Box::new(hour - listed),
            Box::new(hour + 1),
            Box::new(hour + listed),
            Box::new(minute - ROLLUP_MINUTES_KEPT),
        ],
    };
    let since = [
        regain(sql::REGAIN_MINUTES.as_str(), &places.since.minutes),
        regain(sql::REGAIN_HOURS.as_str(), &places.since.hours),
    ];
    [gone].into_iter().chain(since.into_iter().flatten()).collect()
}

/// What a transaction must read and lock for a batch. Ids and posts sorted: every instance locks in one order.
fn claim_of(draft: &Draft<'_>, actions: &[Action<'_>]) -> Claim {
    let mut ids = draft.client_ids.clone();
    ids.sort_unstable();
    let posts: BTreeSet<&str> = actions.iter().map(|action| action.post).collect();
    let named: BTreeSet<&str> = actions.iter().filter(|action| action.is_of_post()).map(|action| action.post).collect();
    let pairs: HashSet<(&str, &str)> = actions.iter().filter_map(Action::pair).collect();
    let (pair_users, pair_posts) = pairs.into_iter().map(|(user, post)| (user.to_owned(), post.to_owned())).unzip();
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    Claim { ids, posts: owned(posts), pair_users, pair_posts, named_posts: owned(named) }
}

fn columns(rows: &[RollupRow]) -> [Array; 4] {
    [
        Array::of(&Type::INT2, rows.iter().map(|row| Field::Small(row.dimension as i16))),
        Array::bigs(rows.iter().map(|row| row.bucket)),
        Array::texts(rows.iter().map(|row| &*row.key)),
        Array::bigs(rows.iter().map(|row| row.count)),
    ]
}

fn user_arrays(effects: &Effects<'_>) -> [Array; 3] {
    [
        Array::bigs(effects.users.iter().map(|(hour, ..)| *hour)),
        Array::of(&Type::INT2, effects.users.iter().map(|(_, kind, _)| Field::Small(*kind as i16))),
        Array::texts(effects.users.iter().map(|(.., user)| *user)),
    ]
}

fn rollup_arrays(stream: Uuid, effects: &Effects<'_>) -> Vec<Array> {
    let totals = &effects.rollups.totals;
    let totals = [
        Array::of(&Type::UUID, totals.iter().map(|_| Field::Bytes(stream.as_bytes()))),
        Array::of(&Type::INT2, totals.iter().map(|(dimension, ..)| Field::Small(*dimension as i16))),
        Array::texts(totals.iter().map(|(_, key, _)| &**key)),
        Array::bigs(totals.iter().map(|(.., count)| *count)),
    ];
    let (minutes, hours) = (columns(&effects.rollups.minutes), columns(&effects.rollups.hours));
    minutes.into_iter().chain(hours).chain(user_arrays(effects)).chain(totals).collect()
}

fn boxed(stream: Option<Uuid>, arrays: Vec<Array>) -> Vec<Box<dyn ToSql + Sync + Send>> {
    let stream = stream.map(|stream| Box::new(stream) as Box<dyn ToSql + Sync + Send>);
    stream.into_iter().chain(arrays.into_iter().map(|array| Box::new(array) as _)).collect()
}

/// What clearing may take beyond what a batch usually does: else a post with millions of likes could never go, and the
/// ledger not go on.
fn clearing_time(fold: &LikeFold<'_>) -> Duration {
    let likes: i64 = fold.clearings.iter().map(|clearing| clearing.like_count).sum();
    match likes > POSTGRES_CLEARED_LIKES_USUAL {
        true => Duration::from_micros(likes.cast_unsigned().saturating_mul(POSTGRES_CLEARED_LIKE_US_MAX)),
        false => Duration::ZERO,
    }
}

fn allow_time(fold: &LikeFold<'_>) -> Option<Statement> {
    let time = clearing_time(fold);
    let statement_ms = (Duration::from_millis(POSTGRES_WRITE_STATEMENT_MS_MAX) + time).as_millis().to_string();
    (!time.is_zero()).then(|| Statement { sql: sql::ALLOW_TIME, values: vec![Box::new(statement_ms)] })
}

fn clear_likes(stream: Uuid, draft: &Draft<'_>, clearing: &Clearing<'_>) -> Statement {
    let Clearing { index, post, at_ms, like_count, version, spared } = clearing;
    let values: Vec<Box<dyn ToSql + Sync + Send>> = vec![
        Box::new((*post).to_owned()),
        Box::new(Array::texts(spared.iter().copied())),
        Box::new(stream),
        Box::new(draft.position(*index).cast_signed()),
        Box::new(*like_count),
        Box::new(*version),
        Box::new(*at_ms),
    ];
    Statement { sql: sql::CLEAR_LIKES, values }
}

fn write_posts(fold: &LikeFold<'_>) -> Option<Statement> {
    let lists = |list: &[Cow<'_, str>]| serde_json::to_string(list).expect("texts are JSON");
    let hashtags: Vec<String> = fold.put.iter().map(|(put, _)| lists(&put.hashtags)).collect();
    let image_urls: Vec<String> = fold.put.iter().map(|(put, _)| lists(&put.image_urls)).collect();
    let folded: Vec<Option<String>> = fold.put.iter().map(|(put, _)| folded_content(&put.content)).collect();
    let texts = fold.put.iter().zip(&folded).map(|((put, _), folded)| folded.as_deref().unwrap_or(&put.content));
    let grams: Vec<String> = texts.map(|text| array_text(&content_grams(text))).collect();
    let written =
        fold.put.iter().map(|(put, made_at_ms)| Some(put.happened_ms()).filter(|written_ms| written_ms != made_at_ms));
    let values = boxed(
        None,
        vec![
            Array::texts(fold.put.iter().map(|(put, _)| &*put.post_id)),
            Array::texts(fold.put.iter().map(|(put, _)| &*put.user_id)),
            Array::texts(fold.put.iter().map(|(put, _)| &*put.content)),
            Array::texts(hashtags.iter().map(String::as_str)),
            Array::texts(image_urls.iter().map(String::as_str)),
            Array::of(&Type::TIMESTAMPTZ, fold.put.iter().map(|(_, made_at_ms)| Field::time(*made_at_ms))),
            Array::of(&Type::TEXT, folded.iter().map(|folded| Field::text_or_null(folded.as_deref()))),
            Array::texts(grams.iter().map(String::as_str)),
            Array::of(&Type::TIMESTAMPTZ, written.map(time_or_null)),
        ],
    );
    (!fold.put.is_empty()).then_some(Statement { sql: sql::WRITE_POSTS, values })
}

fn time_or_null(ms: Option<i64>) -> Field<'static> {
    ms.map_or(Field::Null, Field::time)
}

/// An array as the server reads it from a text.
fn array_text(numbers: &[i32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

fn delete_posts(fold: &LikeFold<'_>) -> Option<Statement> {
    let values = boxed(None, vec![Array::texts(fold.deleted.iter().copied())]);
    (!fold.deleted.is_empty()).then_some(Statement { sql: sql::DELETE_POSTS, values })
}

fn write_likes(stream: Uuid, draft: &Draft<'_>, fold: &LikeFold<'_>) -> Option<Statement> {
    if fold.posts.is_empty() {
        return None;
    }
    let mut values = boxed(None, like_arrays(draft, fold));
    values.push(Box::new(stream));
    Some(Statement { sql: sql::WRITE_LIKES.as_str(), values })
}

/// The posts as they were seen, by name and version, and what is written.
fn seen_like_arrays(draft: &Draft<'_>, seen: &LikeState, fold: &LikeFold<'_>) -> Vec<Array> {
    let posts = Array::texts(seen.posts.iter().map(|(post, ..)| post.as_str()));
    let versions = Array::bigs(seen.posts.iter().map(|(.., version)| *version));
    [posts, versions].into_iter().chain(like_arrays(draft, fold)).collect()
}

/// Rows of likes, posts and the log, in the order of the statements' parameters.
fn like_arrays(draft: &Draft<'_>, fold: &LikeFold<'_>) -> Vec<Array> {
    let times = |ms: &mut dyn Iterator<Item = i64>| Array::of(&Type::TIMESTAMPTZ, ms.map(Field::time));
    let log = &fold.log;
    vec![
        Array::texts(fold.added.iter().map(|(user, ..)| *user)),
        Array::texts(fold.added.iter().map(|(_, post, _)| *post)),
        times(&mut fold.added.iter().map(|(.., at_ms)| *at_ms)),
        Array::texts(fold.removed.iter().map(|(user, _)| *user)),
        Array::texts(fold.removed.iter().map(|(_, post)| *post)),
        Array::texts(fold.posts.iter().map(|(post, ..)| *post)),
        Array::bigs(fold.posts.iter().map(|(_, count, _)| *count)),
        Array::bigs(fold.posts.iter().map(|(.., version)| *version)),
        Array::bigs(log.iter().map(|row| draft.position(row.index).cast_signed())),
        Array::texts(log.iter().map(|row| row.post)),
        Array::texts(log.iter().map(|row| row.user)),
        Array::texts(log.iter().map(|row| row.outcome.stored_type().name())),
        Array::bigs(log.iter().map(|row| row.outcome.like_count)),
        Array::bigs(log.iter().map(|row| row.outcome.version)),
        times(&mut log.iter().map(|row| row.at_ms)),
        Array::of(&Type::TIMESTAMPTZ, log.iter().map(|row| time_or_null(row.happened_if_not_then()))),
    ]
}

fn write_verdicts(stream: Uuid, verdicts: &Verdicts) -> Option<Statement> {
    let row_of = |(position, verdict): &(Position, _)| Some((position.cast_signed(), VerdictRow::of(verdict)?));
    let rows: Vec<(i64, VerdictRow)> = verdicts.iter().filter_map(row_of).collect();
    let big = |number: Option<i64>| number.map_or(Field::Null, Field::Big);
    let values = boxed(
        Some(stream),
        vec![
            Array::bigs(rows.iter().map(|(position, _)| *position)),
            Array::of(&Type::INT2, rows.iter().map(|(_, row)| Field::Small(row.kind))),
            Array::of(&Type::INT8, rows.iter().map(|(_, row)| big(row.created_at_ms))),
            Array::of(&Type::INT8, rows.iter().map(|(_, row)| big(row.likes))),
        ],
    );
    (!rows.is_empty()).then_some(Statement { sql: sql::WRITE_VERDICTS, values })
}

fn write_letters(stream: Uuid, draft: &Draft<'_>) -> Option<Statement> {
    let dead = &draft.dead;
    let letters: Vec<_> = dead.iter().map(|(position, _)| draft.letter(*position)).collect();
    let users = letters.iter().map(|(_, person)| Field::text_or_null(person.map(|(user, _)| user)));
    let happened = letters.iter().map(|(_, person)| person.map_or(Field::Null, |(_, ms)| Field::Big(ms)));
    let values = boxed(
        Some(stream),
        vec![
            Array::bigs(dead.iter().map(|(position, _)| position.cast_signed())),
            Array::texts(dead.iter().map(|(_, reason)| reason.split('\0').next().unwrap_or_default())),
            Array::of(&Type::BYTEA, letters.iter().map(|(record, _)| Field::Bytes(record))),
            Array::of(&Type::TEXT, users),
            Array::of(&Type::INT8, happened),
        ],
    );
    (!dead.is_empty()).then_some(Statement { sql: sql::WRITE_LETTERS, values })
}

fn write_forgets(draft: &Draft<'_>) -> Option<Statement> {
    // One statement may not touch a row twice: the last time of each wins here.
    let mut until: BTreeMap<(&str, String), i64> = BTreeMap::new();
    for forget in &draft.forgets {
        let keyword = forget.keyword.as_deref().map(|keyword| fold_keyword(keyword).into_owned());
        let at = until.entry((&forget.user_id, keyword.unwrap_or_default())).or_insert(forget.at_ms);
        *at = (*at).max(forget.at_ms);
    }
    let values = boxed(
        None,
        vec![
            Array::texts(until.keys().map(|(user, _)| *user)),
            Array::texts(until.keys().map(|(_, keyword)| keyword.as_str())),
            Array::bigs(until.values().copied()),
        ],
    );
    (!until.is_empty()).then_some(Statement { sql: sql::WRITE_FORGETS, values })
}
