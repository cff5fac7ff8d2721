//! What a batch writes, as statements and arrays.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::encode::{Array, Field, arrays_of, copy_of};
use super::erase::Going;
use super::statements as sql;
use super::transaction::{Claim, Counts, EventRows, Fence, Statement, Writes};
use crate::events::fold_keyword;
use crate::ledger::batch::draft::{Draft, Effects};
use crate::ledger::batch::erasing::erased_users;
use crate::ledger::batch::likes::{Action, Clearing, LikeFold, LikeState};
use crate::ledger::batch::verdicts::VerdictRow;
use crate::ledger::stats::search::{content_grams, folded_content};
use crate::limits::{
    POSTGRES_CLEARED_LIKE_US_MAX, POSTGRES_CLEARED_LIKES_USUAL, POSTGRES_ERASE_MS_MAX, POSTGRES_UNNEST_ROWS_MAX,
    POSTGRES_WRITE_STATEMENT_MS_MAX,
};
use crate::ports::{Position, Verdicts};

/// The rest of a transaction. The order matters: likes that a clearing spares are written behind it, and an erasure is of
/// all that the batch has stored.
pub(super) fn writes(
    fence: Option<Fence>,
    number: i16,
    draft: &Draft<'_>,
    fold: &LikeFold<'_>,
    effects: &Effects<'_>,
) -> Writes {
    let events = match effects.rows.len() <= POSTGRES_UNNEST_ROWS_MAX {
        true => EventRows::Arrays(arrays_of(&effects.rows)),
        false => EventRows::Copy(copy_of(&effects.rows, number)),
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
    let tombstones = write_tombstones(stream, draft, fold);
    let others = [allow_time(fold)].into_iter().chain(clearings).chain(others).chain(tombstones).flatten();
    Writes {
        events,
        number,
        counts: counts_of(effects),
        others: others.collect(),
        erasing: going(draft, stream),
        commit: fence.is_some(),
    }
}

pub(super) fn going(draft: &Draft<'_>, stream: Uuid) -> Vec<Going> {
    let users = erased_users(&draft.erases).into_iter();
    users
        .map(|(user, (up_to_ms, index))| Going {
            user: user.to_owned(),
            up_to_ms,
            stream,
            position: draft.position(index).cast_signed(),
        })
        .collect()
}

/// What erasures may take beyond what a batch usually does.
pub(super) fn erasing_time(draft: &Draft<'_>) -> Duration {
    match draft.erases.is_empty() {
        true => Duration::ZERO,
        false => Duration::from_millis(POSTGRES_ERASE_MS_MAX),
    }
}

/// Posts that are deleted get a tombstone, and posts that are put lose theirs.
fn write_tombstones(stream: Uuid, draft: &Draft<'_>, fold: &LikeFold<'_>) -> [Option<Statement>; 2] {
    let lift = || Statement {
        sql: sql::LIFT,
        values: vec![Box::new(Array::texts(fold.put.iter().map(|(put, _)| &*put.post_id)))],
    };
    let buried = &fold.tombstones;
    let bury = || Statement {
        sql: sql::BURY,
        values: vec![
            Box::new(stream),
            Box::new(Array::texts(buried.iter().map(|buried| buried.post))),
            Box::new(Array::bigs(buried.iter().map(|buried| buried.version))),
            Box::new(Array::bigs(buried.iter().map(|buried| buried.at_ms))),
            Box::new(Array::bigs(buried.iter().map(|buried| draft.position(buried.index).cast_signed()))),
        ],
    };
    [(!fold.put.is_empty()).then(lift), (!buried.is_empty()).then(bury)]
}

/// What a transaction must read and lock for a batch. Ids and posts sorted: every instance locks in one order.
pub(super) fn claim_of(draft: &Draft<'_>, actions: &[Action<'_>]) -> Claim {
    let mut ids = draft.client_ids.clone();
    ids.sort_unstable();
    let posts: BTreeSet<&str> = actions.iter().map(|action| action.post).collect();
    let named: BTreeSet<&str> = actions.iter().filter(|action| action.is_of_post()).map(|action| action.post).collect();
    let pairs: HashSet<(&str, &str)> = actions.iter().filter_map(Action::pair).collect();
    let (pair_users, pair_posts) = pairs.into_iter().map(|(user, post)| (user.to_owned(), post.to_owned())).unzip();
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    let (posts, named_posts) = (owned(posts), owned(named));
    Claim { ids, posts, pair_users, pair_posts, named_posts, first_day: draft.first_day() }
}

pub(super) fn counts_of(effects: &Effects<'_>) -> Counts {
    let (deltas, users) = (&effects.deltas, &effects.users);
    Counts {
        deltas: [
            Array::of(&Type::INT2, deltas.rows.iter().map(|(dimension, _)| Field::Small(*dimension as i16))),
            Array::of(&Type::BYTEA, deltas.rows.iter().map(|(_, counts)| Field::Bytes(counts))),
        ],
        oldest_minute: deltas.oldest_minute,
        users: [
            Array::bigs(users.iter().map(|(hour, ..)| *hour)),
            Array::of(&Type::INT2, users.iter().map(|(_, kind, _)| Field::Small(*kind as i16))),
            Array::texts(users.iter().map(|(.., user)| *user)),
        ],
    }
}

fn boxed(stream: Option<Uuid>, arrays: Vec<Array>) -> Vec<Box<dyn ToSql + Sync + Send>> {
    let stream = stream.map(|stream| Box::new(stream) as Box<dyn ToSql + Sync + Send>);
    stream.into_iter().chain(arrays.into_iter().map(|array| Box::new(array) as _)).collect()
}

/// What clearing may take beyond what a batch usually does: else a post with millions of likes could never go, and the
/// ledger not go on.
pub(super) fn clearing_time(fold: &LikeFold<'_>) -> Duration {
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
pub(super) fn seen_like_arrays(draft: &Draft<'_>, seen: &LikeState, fold: &LikeFold<'_>) -> Vec<Array> {
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
            Array::of(&Type::INT8, rows.iter().map(|(_, row)| big(row.version))),
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
