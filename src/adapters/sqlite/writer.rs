//! The writer: a batch is one immediate transaction of prepared statements.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::error::store_error;
use super::sql::SqliteSql;
use super::turns::Turns;
use super::watch::Watch;
use super::{erase, maintain, retire, search};
use crate::events::{Event, PostPut, fold_keyword};
use crate::ledger::batch::draft::{Draft, Effects, StoredRow};
use crate::ledger::batch::likes::{Action, Buried, KeptPost, LikeFold, LikeState, fold_likes};
use crate::ledger::batch::user_hours::UserHours;
use crate::ledger::batch::verdicts::VerdictRow;
use crate::ledger::frontier::Frontier;
use crate::ledger::sql::Sql;
use crate::ledger::stats::posts;
use crate::ledger::stats::search::folded_content;
use crate::ledger::upkeep;
use crate::ledger::upkeep::pace::Pace;
use crate::ledger::upkeep::steps::Steps;
use crate::limits::{SQLITE_STEP_MS_MAX, STORE_CALL_MS_MAX};
use crate::ports::{Batch, LedgerWriter, Position, StoreError, Verdicts, Watermark};

/// One sink's connection.
pub(super) struct SqliteWriter {
    connection: Connection,
    users: UserHours,
    /// How many were erased when `users` was last right: an erasure takes rows that it remembers.
    erased_seen: i64,
    turns: Arc<Turns>,
    watch: Arc<Watch>,
    pace: Pace,
}

impl SqliteWriter {
    pub(super) fn new(connection: Connection, turns: Arc<Turns>, watch: Arc<Watch>) -> SqliteWriter {
        let (users, pace) = (UserHours::default(), Pace::default());
        SqliteWriter { connection, users, erased_seen: 0, turns, watch, pace }
    }

    fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)
    }
}

impl LedgerWriter for SqliteWriter {
    fn watermark(&mut self, stream: Uuid) -> Result<Option<Watermark>, StoreError> {
        posts::watermark(&mut SqliteSql(&self.connection), stream)
    }

    fn register(&mut self, stream: Uuid) -> Result<(), StoreError> {
        let _turn = self.turns.of_batch();
        let register = "INSERT INTO watermark (stream, number, position, crc) \
             SELECT ?1, coalesce(max(number), 0) + 1, 0, 0 FROM watermark WHERE true ON CONFLICT DO NOTHING";
        self.connection.execute(register, [stream.to_string()]).map(|_| ()).map_err(store_error)
    }

    fn apply(&mut self, batch: &Batch<'_>, dead: &BTreeMap<Position, String>) -> Result<Verdicts, StoreError> {
        let _turn = self.turns.of_batch();
        let transaction = Self::begin(&mut self.connection)?;
        move_watermark(&transaction, batch)?;
        let draft = Draft::new(batch, dead, &erase::known(&transaction, batch).map_err(store_error)?)?;
        let erased = erase::count(&transaction).map_err(store_error)?;
        if erased != self.erased_seen {
            self.users.forget();
            self.erased_seen = erased;
        }
        let verdicts = write(&transaction, batch.stream, draft, &mut self.users)?;
        transaction.commit().map_err(store_error)?;
        self.users.commit();
        Ok(verdicts)
    }

    fn probe(&mut self, batch: &Batch<'_>, range: Range<usize>) -> Result<(), StoreError> {
        let part = Batch { records: batch.records[range].to_vec(), ..*batch };
        let nothing_dead = BTreeMap::new();
        let _turn = self.turns.of_batch();
        let transaction = Self::begin(&mut self.connection)?;
        let draft = Draft::new(&part, &nothing_dead, &erase::known(&transaction, &part).map_err(store_error)?)?;
        // A stream of its own: the positions of a part are not the batch's.
        write(&transaction, Uuid::nil(), draft, &mut self.users)?;
        transaction.rollback().map_err(store_error)
    }

    fn prune_verdicts(&mut self, stream: Uuid, up_to: Position) -> Result<(), StoreError> {
        maintain::prune(self, stream, i64::try_from(up_to).unwrap_or(i64::MAX))
    }

    fn maintain(&mut self, now_ms: i64) -> Result<(), StoreError> {
        upkeep::maintain::run(self, now_ms)?;
        maintain::switch_ids(self, now_ms)
    }

    fn add_up(&mut self) -> Result<(), StoreError> {
        upkeep::compact::run(self)
    }

    fn spare(&mut self) {
        self.pace.spare(Instant::now());
    }

    fn fold(&mut self, now_ms: i64, zone: &TimeZone) -> Result<bool, StoreError> {
        upkeep::run(self, now_ms, zone)
    }

    fn retire(&mut self, now_ms: i64, retention_days: i64) -> Result<(), StoreError> {
        retire::run(self, now_ms, retention_days)
    }
}

impl Steps for SqliteWriter {
    /// When no batch waits, and interrupted if it takes too long.
    fn step<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let _turn = self.turns.of_step();
        let _guard = self.watch.guard(&self.connection, Duration::from_millis(SQLITE_STEP_MS_MAX));
        let transaction = Self::begin(&mut self.connection)?;
        let done = job(&mut SqliteSql(&transaction))?;
        transaction.commit().map_err(store_error)?;
        Ok(done)
    }

    fn look<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut dyn Sql) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let _guard = self.watch.guard(&self.connection, Duration::from_millis(STORE_CALL_MS_MAX));
        let transaction = self.connection.transaction().map_err(store_error)?;
        job(&mut SqliteSql(&transaction))
    }

    fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }
}

fn move_watermark(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<(), StoreError> {
    let (from, to) = (batch.from, batch.to);
    let moved = transaction
        .prepare_cached("UPDATE watermark SET position = ?1, crc = ?2 WHERE stream = ?3 AND position = ?4 AND crc = ?5")
        .and_then(|mut statement| {
            let (position, from_position) = (to.position.cast_signed(), from.position.cast_signed());
            statement.execute(params![position, to.crc, batch.stream.to_string(), from_position, from.crc])
        })
        .map_err(store_error)?;
    if moved == 1 {
        return Ok(());
    }
    Err(StoreError::Fenced { found: posts::watermark(&mut SqliteSql(transaction), batch.stream)? })
}

/// Everything of a batch but its watermark.
fn write(
    transaction: &Transaction<'_>,
    stream: Uuid,
    mut draft: Draft<'_>,
    users: &mut UserHours,
) -> Result<Verdicts, StoreError> {
    draft.events().try_for_each(check_event)?;
    let frontier = Frontier::read(&mut SqliteSql(transaction))?;
    if draft.first_day().is_some_and(|day| day < frontier.rows_since) {
        return Err(StoreError::Poison("rows of its day are gone: it is too old to be stored".to_owned()));
    }
    draft.puts().try_for_each(check_post)?;
    let newest_ms = draft.newest_ms();
    let new_ids = claim_ids(transaction, &draft.client_ids).map_err(store_error)?;
    draft.drop_known_ids(|id| new_ids.contains(id));
    let belongings = erase::belongings(transaction, &draft).map_err(store_error)?;
    let actions = draft.actions(&belongings);
    let state = like_state(transaction, &actions).map_err(store_error)?;
    let fold = fold_likes(&actions, &state);
    let effects = draft.effects(&actions, &fold, users);
    let write_all = || {
        let number = number_of(transaction, stream)?;
        effects.rows.iter().try_for_each(|row| insert_event(transaction, row, number))?;
        write_counts(transaction, &effects)?;
        clear_likes(transaction, stream, &draft, &fold)?;
        write_likes(transaction, stream, &draft, &fold)?;
        write_posts(transaction, &fold)?;
        write_exceptions(transaction, stream, &draft, &effects.verdicts)?;
        write_forgets(transaction, &draft)?;
        write_tombstones(transaction, stream, &draft, &fold)
    };
    write_all().map_err(store_error)?;
    transaction
        .prepare_cached("UPDATE watermark SET newest_ms = max(newest_ms, ?2) WHERE stream = ?1")
        .and_then(|mut newest| newest.execute(params![stream.to_string(), newest_ms]))
        .map_err(store_error)?;
    erase::erase(transaction, stream, &draft)?;
    Ok(effects.verdicts)
}

/// SQLite would keep a text with U+0000 and cut it when it is read by tools; the other ledger refuses it.
fn check_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
    if texts.into_iter().any(|text| text.as_bytes().contains(&0)) {
        return Err(StoreError::Poison("a text holds U+0000".to_owned()));
    }
    Ok(())
}

fn check_post(put: &PostPut<'_>) -> Result<(), StoreError> {
    let texts = [&put.post_id, &put.user_id, &put.content].into_iter();
    check_texts(texts.chain(&put.hashtags).chain(&put.image_urls).map(|text| &**text))
}

fn check_event(event: &Event<'_>) -> Result<(), StoreError> {
    check_texts(event.texts().into_iter().filter_map(|text| text.as_deref()))
}

/// The ids that are new; they are remembered in the current table.
fn claim_ids(transaction: &Transaction<'_>, ids: &[Uuid]) -> rusqlite::Result<HashSet<Uuid>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let current: String = transaction.query_row("SELECT name FROM event_id_current", [], |row| row.get(0))?;
    let (current, older) = if current == "a" { ("event_id_a", "event_id_b") } else { ("event_id_b", "event_id_a") };
    let mut insert = transaction.prepare_cached(&format!("INSERT OR IGNORE INTO {current} VALUES (?1)"))?;
    let mut find = transaction.prepare_cached(&format!("SELECT 1 FROM {older} WHERE event_id = ?1"))?;
    let mut new = HashSet::with_capacity(ids.len());
    for id in ids {
        let text = id.to_string();
        if insert.execute([&text])? == 1 && !find.exists([&text])? {
            new.insert(*id);
        }
    }
    Ok(new)
}

fn like_state(transaction: &Transaction<'_>, actions: &[Action<'_>]) -> rusqlite::Result<LikeState> {
    let mut state = LikeState::default();
    if actions.is_empty() {
        return Ok(state);
    }
    let mut stat = transaction.prepare_cached("SELECT like_count, version FROM post_stat WHERE post_id = ?1")?;
    let mut like = transaction.prepare_cached("SELECT liked_at FROM post_like WHERE user_id = ?1 AND post_id = ?2")?;
    let (mut posts, mut pairs) = (HashSet::new(), HashSet::new());
    for action in actions {
        if posts.insert(action.post)
            && let Some((count, version)) =
                stat.query_row([action.post], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        {
            state.posts.push((action.post.to_owned(), count, version));
        }
        if let Some((user, post)) = action.pair()
            && pairs.insert((user, post))
            && let Some(since_ms) = like.query_row([user, post], |row| row.get(0)).optional()?
        {
            state.liked.push((user.to_owned(), post.to_owned(), since_ms));
        }
    }
    let mut kept = transaction
        .prepare_cached("SELECT created_at, user_id, coalesce(written_at, created_at) FROM post WHERE post_id = ?1")?;
    let named: HashSet<&str> = actions.iter().filter(|action| action.is_of_post()).map(|action| action.post).collect();
    for post in named {
        let of_row = |row: &rusqlite::Row<'_>| {
            let (made_at_ms, owner, written_at_ms) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(KeptPost { post: post.to_owned(), made_at_ms, owner, written_at_ms })
        };
        state.kept.extend(kept.query_row([post], of_row).optional()?);
    }
    Ok(state)
}

/// The journal's number in `events`; 0 for a probe, whose rows are rolled back.
fn number_of(transaction: &Transaction<'_>, stream: Uuid) -> rusqlite::Result<i64> {
    let number = transaction
        .prepare_cached("SELECT number FROM watermark WHERE stream = ?1")?
        .query_row([stream.to_string()], |row| row.get(0))
        .optional()?;
    Ok(number.unwrap_or(0))
}

fn insert_event(transaction: &Transaction<'_>, row: &StoredRow<'_>, number: i64) -> rusqlite::Result<()> {
    let event = row.event;
    let mut id = [0; Hyphenated::LENGTH];
    let id: &str = event.id.hyphenated().encode_lower(&mut id);
    transaction
        .prepare_cached(
            "INSERT INTO events (event_id, event_type, user_id, session_id, component_id, element_id, keyword, post_id, url, \
               referrer, result_count, properties, event_time, received_at, page, keyword_key, stream, position) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            id,
            row.event_type.name(),
            event.user_id.as_deref(),
            event.session_id.as_deref(),
            event.component_id,
            event.element_id.as_deref(),
            event.keyword.as_deref(),
            event.post_id.as_deref(),
            event.url.as_deref(),
            event.referrer.as_deref(),
            event.result_count,
            event.properties.as_deref(),
            event.event_time_ms,
            event.received_at_ms,
            row.page.as_deref(),
            row.keyword_key.as_deref(),
            number,
            row.position.cast_signed(),
        ])?;
    Ok(())
}

/// Posts that are deleted get a tombstone, and posts that are put lose theirs.
fn write_tombstones(
    transaction: &Transaction<'_>,
    stream: Uuid,
    draft: &Draft<'_>,
    fold: &LikeFold<'_>,
) -> rusqlite::Result<()> {
    let mut lift = transaction.prepare_cached("DELETE FROM tombstone WHERE post_id = ?1")?;
    fold.put.iter().try_for_each(|(put, _)| lift.execute([&*put.post_id]).map(drop))?;
    let mut bury = transaction.prepare_cached(
        "INSERT OR REPLACE INTO tombstone (post_id, version, at_ms, stream, position) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for Buried { post, version, at_ms, index } in &fold.tombstones {
        let position = draft.position(*index).cast_signed();
        bury.execute(params![post, version, at_ms, stream.to_string(), position])?;
    }
    Ok(())
}

fn write_counts(transaction: &Transaction<'_>, effects: &Effects<'_>) -> rusqlite::Result<()> {
    let mut delta = transaction
        .prepare_cached("INSERT INTO rollup_delta (dimension, oldest_minute, counts) VALUES (?1, ?2, ?3)")?;
    for (dimension, counts) in &effects.deltas.rows {
        delta.execute(params![*dimension as i64, effects.deltas.oldest_minute, counts])?;
    }
    let mut user = transaction.prepare_cached("INSERT OR IGNORE INTO user_hour VALUES (?1, ?2, ?3)")?;
    for (hour, kind, user_id) in &effects.users {
        user.execute(params![hour, *kind as i64, user_id])?;
    }
    Ok(())
}

fn clear_likes(
    transaction: &Transaction<'_>,
    stream: Uuid,
    draft: &Draft<'_>,
    fold: &LikeFold<'_>,
) -> rusqlite::Result<()> {
    for clearing in &fold.clearings {
        let spared = serde_json::to_string(&clearing.spared).expect("texts are JSON");
        let position = draft.position(clearing.index).cast_signed();
        let (post, count, version) = (clearing.post, clearing.like_count, clearing.version);
        transaction
            .prepare_cached(
                "INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at, \
                   happened_at) \
                 SELECT ?3, ?4, post_id, user_id, 'UNLIKE', max(?5 - n, 0), ?6 + n, ?7, liked_at FROM \
                   (SELECT post_id, user_id, liked_at, row_number() OVER (ORDER BY user_id) AS n FROM post_like \
                    WHERE post_id = ?1 AND user_id NOT IN (SELECT value FROM json_each(?2))) ORDER BY n",
            )?
            .execute(params![post, spared, stream.to_string(), position, count, version, clearing.at_ms])?;
        transaction
            .prepare_cached(
                "DELETE FROM post_like WHERE post_id = ?1 AND user_id NOT IN (SELECT value FROM json_each(?2))",
            )?
            .execute(params![post, spared])?;
    }
    Ok(())
}

fn write_posts(transaction: &Transaction<'_>, fold: &LikeFold<'_>) -> rusqlite::Result<()> {
    let list = |list: &[Cow<'_, str>]| serde_json::to_string(list).expect("texts are JSON");
    for (put, made_at_ms) in &fold.put {
        search::forget(transaction, &put.post_id)?;
        let folded = folded_content(&put.content);
        let (hashtags, image_urls) = (list(&put.hashtags), list(&put.image_urls));
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO post (post_id, user_id, content, hashtags, image_urls, created_at, folded, written_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, nullif(?8, ?6))",
            )?
            .execute(params![
                put.post_id,
                put.user_id,
                put.content,
                hashtags,
                image_urls,
                made_at_ms,
                folded,
                put.happened_ms()
            ])?;
        transaction
            .prepare_cached(
                "INSERT INTO post_stat (post_id, made_at) VALUES (?1, ?2) \
                 ON CONFLICT DO UPDATE SET made_at = excluded.made_at",
            )?
            .execute(params![put.post_id, made_at_ms])?;
        search::remember(transaction, &put.post_id, folded.as_deref().unwrap_or(&put.content), &put.hashtags)?;
    }
    for post in &fold.deleted {
        search::forget(transaction, post)?;
        transaction.prepare_cached("DELETE FROM post WHERE post_id = ?1")?.execute([post])?;
        transaction.prepare_cached("UPDATE post_stat SET made_at = NULL WHERE post_id = ?1")?.execute([post])?;
    }
    Ok(())
}

fn write_likes(
    transaction: &Transaction<'_>,
    stream: Uuid,
    draft: &Draft<'_>,
    fold: &LikeFold<'_>,
) -> rusqlite::Result<()> {
    if fold.posts.is_empty() {
        return Ok(());
    }
    let stream = stream.to_string();
    let mut log = transaction.prepare_cached(
        "INSERT INTO post_like_log (stream, position, post_id, user_id, action, like_count, version, changed_at, \
                                    happened_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for row in &fold.log {
        let outcome = &row.outcome;
        let position = draft.position(row.index).cast_signed();
        let (name, count) = (outcome.stored_type().name(), outcome.like_count);
        let (version, happened_ms) = (outcome.version, row.happened_if_not_then());
        log.execute(params![stream, position, row.post, row.user, name, count, version, row.at_ms, happened_ms])?;
    }
    let mut add = transaction.prepare_cached(
        "INSERT INTO post_like (user_id, post_id, liked_at) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET liked_at = excluded.liked_at",
    )?;
    for (user, post, at_ms) in &fold.added {
        add.execute(params![user, post, at_ms])?;
    }
    let mut remove = transaction.prepare_cached("DELETE FROM post_like WHERE user_id = ?1 AND post_id = ?2")?;
    for (user, post) in &fold.removed {
        remove.execute(params![user, post])?;
    }
    let mut stat = transaction.prepare_cached(
        "INSERT INTO post_stat (post_id, like_count, version) VALUES (?1, ?2, ?3) \
         ON CONFLICT DO UPDATE SET like_count = excluded.like_count, version = excluded.version",
    )?;
    for (post, count, version) in &fold.posts {
        stat.execute(params![post, count, version])?;
    }
    Ok(())
}

fn write_exceptions(
    transaction: &Transaction<'_>,
    stream: Uuid,
    draft: &Draft<'_>,
    verdicts: &Verdicts,
) -> rusqlite::Result<()> {
    let stream = stream.to_string();
    let mut insert = transaction.prepare_cached(
        "INSERT INTO verdict (stream, position, kind, created_at_ms, likes, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (position, verdict) in verdicts {
        if let Some(VerdictRow { kind, created_at_ms, likes, version }) = VerdictRow::of(verdict) {
            insert.execute(params![stream, position.cast_signed(), kind, created_at_ms, likes, version])?;
        }
    }
    let mut letter = transaction.prepare_cached(
        "INSERT INTO dead_letter (stream, position, reason, record, at, user_id, happened_ms) \
         VALUES (?1, ?2, ?3, ?4, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?5, ?6)",
    )?;
    for (position, reason) in &draft.dead {
        let (record, person) = draft.letter(*position);
        let (user, happened_ms) = person.unzip();
        letter.execute(params![stream, position.cast_signed(), reason, record, user, happened_ms])?;
    }
    Ok(())
}

fn write_forgets(transaction: &Transaction<'_>, draft: &Draft<'_>) -> rusqlite::Result<()> {
    if draft.forgets.is_empty() {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO recent_forgotten VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
    )?;
    for forget in &draft.forgets {
        let keyword = forget.keyword.as_deref().map(fold_keyword).unwrap_or_default();
        insert.execute(params![forget.user_id, keyword, forget.at_ms])?;
    }
    Ok(())
}
