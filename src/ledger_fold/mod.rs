//! What every ledger decides alike, as pure functions: so that two ledgers give one answer.
//!
//! A batch becomes a [`Draft`]; the store takes client ids that were there before out of it and hands in the like
//! state it locked; [`Draft::effects`] then says all that is to be written. What a count or a ranked list reads is
//! decided here too. Nothing here does I/O; an adapter only binds the results.

mod counting;
mod cover;
mod draft;
mod erasing;
mod exact;
mod export;
mod known_likes;
mod leaders;
mod likes;
mod local_days;
mod open_day;
mod pace;
mod places;
mod points;
mod posting_lists;
mod postings;
mod postponed;
mod ranking;
mod recent;
mod retention;
mod rollups;
mod search;
mod sums;
mod user_hours;
mod user_sets;
mod verdicts;

pub use counting::{CountPlan, HOUR_MS, RawCount, RawMatch, RollupCount, plan_count};
pub use cover::{Cover, cover};
pub use draft::{Draft, Effects, Places, StoredRow};
pub use erasing::{Belonging, Erased, MaybeErased, erased_users, hour_ranges, person_of};
pub use exact::{events_sql, few_events, name_sum_sql, open_sql, raw_name, raw_sql, rollup_sql, with_gone};
pub use export::{page_rows, row_bytes};
pub use known_likes::{KnownLikes, Recalled, SeenLikes};
pub use leaders::{Counts, Heads, Led, List, Page, Terms, Wanted, besides, leaders, led_by};
pub use likes::{Action, Clearing, KeptPost, LikeFold, LikeState, LogRow, fold_likes};
pub use local_days::{EdgeCount, day_starts, days_within_hours, drop_left_out, left_out_sql, rest_of_hour};
pub use open_day::{
    HAS_SET, NOT_OPEN, OPEN_DAYS, OfHour, OpenHours, begin_sql, day_of, known_sql, look_at_open, new_users_sql,
    rest_sql,
};
pub use pace::{Mark, Recounts};
pub use places::{LeftOutRow, left_out};
pub use points::{CountedPoint, forget_sql, kinds, known_points, local_days, minutes_sql, points_of, points_sql, runs};
pub use posting_lists::{Named, Posted, PostingLists};
pub use postings::{
    CLEARED, Joined, POSTED, POSTED_COLUMNS, POSTING_LENGTHS, PostingRow, count_posted, forget_postings_sql, join_hours,
};
pub use postponed::{Folding, Postponed};
pub use ranking::{RankPlan, SCORE_NOTHING, hours_of_hot, plan_leaders, plan_rank, sort_ranked};
pub use recent::{RecentRow, newest_by_user};
pub use retention::{newest_trusted_day, retire_until, uncounted_day_sql};
pub use rollups::{RollupRow, Rollups, split_rollups};
pub use search::{content_grams, first_posts, folded_content, keyword_grams};
pub use sums::{Folded, Sums, minutes_gone_sql, sums};
pub use user_hours::UserHours;
pub use user_sets::{
    GONE, Longer, SetKey, SetMaker, UserUnion, choose_sets, forget_sets_since_sql, hours_state_sql, make_sets,
    members_sql, next_long_sql, numbers_sql, parts_of, set_of, union_of,
};
pub use verdicts::{VerdictRow, log_ranges, merge_verdicts};
