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
mod hidden;
mod leaders;
mod likes;
mod local_days;
mod maybe_erased;
mod open_day;
mod pace;
mod points;
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

pub use counting::{CountPlan, HOUR_MS, Named, RawCount, RollupCount, named_values, plan_count};
pub use cover::{Cover, cover};
pub use draft::{Draft, Effects, StoredRow};
pub use erasing::{Belonging, Erased, erased_users, hour_ranges, person_of};
pub use exact::{events_sql, few_events, name_sum_sql, open_sql, raw_sql, rollup_sql};
pub use export::{page_rows, row_bytes};
pub use hidden::skip_hidden;
pub use leaders::{Counts, Heads, Led, List, Page, Terms, Wanted, besides, leaders, led_by};
pub use likes::{Action, Buried, Clearing, KeptPost, LikeFold, LikeState, LogRow, fold_likes};
pub use local_days::{EdgeCount, day_starts, days_within_hours, rest_of_hour};
pub use maybe_erased::MaybeErased;
pub use open_day::{
    HAS_SET, NOT_OPEN, OPEN_DAYS, OfHour, OpenHours, begin_sql, day_of, known_sql, look_at_open, new_users_sql,
    rest_sql,
};
pub use pace::{Mark, Recounts};
pub use points::{CountedPoint, forget_sql, kinds, known_points, local_days, minutes_sql, points_of, points_sql, runs};
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
