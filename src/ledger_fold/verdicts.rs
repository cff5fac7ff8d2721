//! Verdicts as rows of the table `verdict`: one mapping for both ledgers.

use crate::ports::{PostOutcome, Verdict};

const DUPLICATE: i16 = 1;
const DEAD: i16 = 2;
const POST_CREATED: i16 = 3;
const POST_REPLACED: i16 = 4;
const POST_DELETED: i16 = 5;
const POST_ABSENT: i16 = 6;

/// The columns of `verdict` behind its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictRow {
    pub kind: i16,
    /// Of a post that was put.
    pub created_at_ms: Option<i64>,
    /// Of a post that was put: its likes; of one that was deleted: those that went with it.
    pub likes: Option<i64>,
}

impl VerdictRow {
    /// The row of a verdict; a like has none, its row is in `post_like_log`.
    pub fn of(verdict: &Verdict) -> Option<VerdictRow> {
        let plain = |kind| VerdictRow { kind, created_at_ms: None, likes: None };
        Some(match *verdict {
            Verdict::Like(_) => return None,
            Verdict::Duplicate => plain(DUPLICATE),
            Verdict::Dead => plain(DEAD),
            Verdict::Post(PostOutcome::Put { replaced, created_at_ms, like_count }) => VerdictRow {
                kind: if replaced { POST_REPLACED } else { POST_CREATED },
                created_at_ms: Some(created_at_ms),
                likes: Some(like_count),
            },
            Verdict::Post(PostOutcome::Deleted { existed, likes_removed }) => VerdictRow {
                kind: if existed { POST_DELETED } else { POST_ABSENT },
                created_at_ms: None,
                likes: Some(likes_removed),
            },
        })
    }

    /// What the row says.
    pub fn verdict(self) -> Verdict {
        let likes = self.likes.unwrap_or_default();
        let put = |replaced| {
            let created_at_ms = self.created_at_ms.unwrap_or_default();
            Verdict::Post(PostOutcome::Put { replaced, created_at_ms, like_count: likes })
        };
        match self.kind {
            DEAD => Verdict::Dead,
            POST_CREATED => put(false),
            POST_REPLACED => put(true),
            POST_DELETED => Verdict::Post(PostOutcome::Deleted { existed: true, likes_removed: likes }),
            POST_ABSENT => Verdict::Post(PostOutcome::Deleted { existed: false, likes_removed: likes }),
            _ => Verdict::Duplicate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_but_a_like_reads_back_from_its_row() {
        let put = |replaced| Verdict::Post(PostOutcome::Put { replaced, created_at_ms: 7, like_count: 3 });
        let deleted = |existed| Verdict::Post(PostOutcome::Deleted { existed, likes_removed: 5 });
        for verdict in [Verdict::Duplicate, Verdict::Dead, put(false), put(true), deleted(false), deleted(true)] {
            assert_eq!(VerdictRow::of(&verdict).map(VerdictRow::verdict), Some(verdict));
        }
    }
}
