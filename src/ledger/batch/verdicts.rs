//! Verdicts as rows of the table `verdict`: one mapping for both ledgers.

use std::collections::HashSet;

use crate::limits::CLEARED_LIKES_READ_MAX;
use crate::ports::{LikeOutcome, PostOutcome, Verdict, Verdicts};

const DUPLICATE: i16 = 1;
const DEAD: i16 = 2;
const POST_CREATED: i16 = 3;
const POST_REPLACED: i16 = 4;
const POST_DELETED: i16 = 5;
const POST_ABSENT: i16 = 6;
const ERASED: i16 = 7;
const ERASURE: i16 = 8;

/// The columns of `verdict` behind its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictRow {
    pub kind: i16,
    /// Of a post that was put.
    pub created_at_ms: Option<i64>,
    /// Of a post that was put: its likes; of one that was deleted: those that went with it.
    pub likes: Option<i64>,
    /// Of a post that was put or deleted.
    pub version: Option<i64>,
}

impl VerdictRow {
    /// The row of a verdict; a like has none, its row is in `post_like_log`.
    pub fn of(verdict: &Verdict) -> Option<VerdictRow> {
        let plain = |kind| VerdictRow { kind, created_at_ms: None, likes: None, version: None };
        Some(match *verdict {
            Verdict::Like(_) => return None,
            Verdict::Duplicate => plain(DUPLICATE),
            Verdict::Dead => plain(DEAD),
            Verdict::Erased => plain(ERASED),
            Verdict::Erasure => plain(ERASURE),
            Verdict::Post(PostOutcome::Put { replaced, created_at_ms, like_count, version }) => VerdictRow {
                kind: if replaced { POST_REPLACED } else { POST_CREATED },
                created_at_ms: Some(created_at_ms),
                likes: Some(like_count),
                version: Some(version),
            },
            Verdict::Post(PostOutcome::Deleted { existed, likes_removed, version }) => VerdictRow {
                kind: if existed { POST_DELETED } else { POST_ABSENT },
                created_at_ms: None,
                likes: Some(likes_removed),
                version: Some(version),
            },
        })
    }

    /// What the row says.
    pub fn verdict(self) -> Verdict {
        let (likes, version) = (self.likes.unwrap_or_default(), self.version.unwrap_or_default());
        let deleted = |existed| Verdict::Post(PostOutcome::Deleted { existed, likes_removed: likes, version });
        let put = |replaced| {
            let created_at_ms = self.created_at_ms.unwrap_or_default();
            Verdict::Post(PostOutcome::Put { replaced, created_at_ms, like_count: likes, version })
        };
        match self.kind {
            DEAD => Verdict::Dead,
            ERASED => Verdict::Erased,
            ERASURE => Verdict::Erasure,
            POST_CREATED => put(false),
            POST_REPLACED => put(true),
            POST_DELETED => deleted(true),
            POST_ABSENT => deleted(false),
            _ => Verdict::Duplicate,
        }
    }
}

/// The ranges of positions (exclusive, inclusive) in which `post_like_log` is read for the verdicts of `after <
/// position <= up_to`: the rows of posts that went with many likes, and of persons, are stepped over.
pub fn log_ranges(after: i64, up_to: i64, rows: &[(i64, VerdictRow)]) -> Vec<(i64, i64)> {
    let is_long = |row: &VerdictRow| {
        let many = row.likes.is_some_and(|likes| likes > CLEARED_LIKES_READ_MAX);
        row.kind == ERASURE || (matches!(row.kind, POST_DELETED | POST_ABSENT) && many)
    };
    let mut ranges = Vec::new();
    let mut from = after;
    for (position, _) in rows.iter().filter(|(_, row)| is_long(row)) {
        ranges.push((from, position - 1));
        from = *position;
    }
    ranges.push((from, up_to));
    ranges.retain(|(from, to)| from < to);
    ranges
}

/// Verdicts from their rows and those of the log, each in the order of positions: a row of the log whose record has a
/// verdict of its own is a like that went with its post or its user.
pub fn merge_verdicts(rows: Vec<(i64, VerdictRow)>, log: Vec<(i64, LikeOutcome)>) -> Verdicts {
    let known: HashSet<i64> = rows.iter().map(|(position, _)| *position).collect();
    let likes = log.into_iter().filter(|(position, _)| !known.contains(position));
    let likes = likes.map(|(position, outcome)| (position.cast_unsigned(), Verdict::Like(outcome)));
    let others = rows.into_iter().map(|(position, row)| (position.cast_unsigned(), row.verdict()));
    let mut verdicts: Verdicts = others.chain(likes).collect();
    verdicts.sort_unstable_by_key(|(position, _)| *position);
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_around_posts_that_went_with_many_likes() {
        let deleted = |likes_removed| PostOutcome::Deleted { existed: true, likes_removed, version: 9 };
        let gone = |likes| VerdictRow::of(&Verdict::Post(deleted(likes)));
        let row = |position, likes| (position, gone(likes).unwrap());
        assert_eq!(log_ranges(3, 9, &[]), [(3, 9)]);
        assert_eq!(log_ranges(3, 9, &[row(5, 1_000)]), [(3, 9)]);
        assert_eq!(log_ranges(3, 9, &[row(4, 2_000), row(7, 2_000)]), [(4, 6), (7, 9)]);
        assert_eq!(log_ranges(3, 9, &[row(5, 2_000), row(9, 2_000)]), [(3, 4), (5, 8)]);
        assert_eq!(log_ranges(3, 3, &[]), []);
    }

    #[test]
    fn every_verdict_but_a_like_reads_back_from_its_row() {
        let put = |replaced| Verdict::Post(PostOutcome::Put { replaced, created_at_ms: 7, like_count: 3, version: 9 });
        let deleted = |existed| Verdict::Post(PostOutcome::Deleted { existed, likes_removed: 5, version: 9 });
        let plain = [Verdict::Duplicate, Verdict::Dead, Verdict::Erased, Verdict::Erasure];
        for verdict in plain.into_iter().chain([put(false), put(true), deleted(false), deleted(true)]) {
            assert_eq!(VerdictRow::of(&verdict).map(VerdictRow::verdict), Some(verdict));
        }
    }
}
