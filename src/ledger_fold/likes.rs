//! Likes: a batch of actions folded over the state that the store locked.
//!
//! Each (user, post) is a switch, each post a counter of the switches that are on. Folding in journal order, under
//! the lock of the posts' rows, makes every outcome what it would be with one action a transaction.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::events::{Event, EventType};
use crate::ports::LikeOutcome;

/// A like, unlike or toggle of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Its index in the batch.
    pub index: usize,
    pub event_type: EventType,
    pub user: &'a str,
    pub post: &'a str,
    pub at_ms: i64,
}

impl<'a> Action<'a> {
    /// The action that an event is, if it is one and says who and what.
    pub fn of(index: usize, event: &'a Event<'_>) -> Option<Action<'a>> {
        if !event.event_type.is_like() {
            return None;
        }
        let (user, post) = (event.user_id.as_deref()?, event.post_id.as_deref()?);
        Some(Action { index, event_type: event.event_type, user, post, at_ms: event.event_time_ms })
    }
}

/// What the store says about the posts and pairs of a batch, read under its locks.
#[derive(Clone, Debug, Default)]
pub struct LikeState {
    /// Post, likes, version; a post that is missing has none.
    pub posts: Vec<(String, i64, i64)>,
    /// (user, post) that are liked.
    pub liked: Vec<(String, String)>,
}

/// A change, as `post_like_log` keeps it.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    pub action: Action<'a>,
    pub outcome: LikeOutcome,
}

/// All that a batch does to likes.
#[derive(Clone, Debug, Default)]
pub struct LikeFold<'a> {
    /// One for each action, in its order.
    pub outcomes: Vec<LikeOutcome>,
    /// Changes, in journal order.
    pub log: Vec<LogRow<'a>>,
    /// Rows that `post_like` gains: user, post, when. In the order of (post, user).
    pub added: Vec<(&'a str, &'a str, i64)>,
    /// Rows that it loses: user, post. In the order of (post, user).
    pub removed: Vec<(&'a str, &'a str)>,
    /// Posts that changed: likes and version. In the order of the post.
    pub posts: Vec<(&'a str, i64, i64)>,
}

/// A pair's switch as the batch leaves it.
struct Switch {
    before: bool,
    now: bool,
    at_ms: i64,
}

/// Folds `actions`, in journal order, over `state`.
pub fn fold_likes<'a>(actions: &[Action<'a>], state: &LikeState) -> LikeFold<'a> {
    let liked: HashSet<(&str, &str)> = state.liked.iter().map(|(user, post)| (user.as_str(), post.as_str())).collect();
    let known: HashMap<&str, (i64, i64)> = state.posts.iter().map(|(p, n, v)| (p.as_str(), (*n, *v))).collect();
    let mut switches: HashMap<(&str, &str), Switch> = HashMap::new();
    let mut posts: HashMap<&str, (i64, i64, bool)> = HashMap::new();
    let mut fold = LikeFold::default();
    for action in actions {
        let switch = match switches.entry((action.post, action.user)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let before = liked.contains(&(action.user, action.post));
                entry.insert(Switch { before, now: before, at_ms: action.at_ms })
            }
        };
        let (count, version, touched) = posts.entry(action.post).or_insert_with(|| {
            let (count, version) = known.get(action.post).copied().unwrap_or_default();
            (count, version, false)
        });
        let wanted = match action.event_type {
            EventType::Unlike => false,
            EventType::Toggle => !switch.now,
            _ => true,
        };
        let changed = wanted != switch.now;
        if changed {
            // A count below its rows cannot be: but a hand that edited one must not make us store a negative.
            *count = (*count + if wanted { 1 } else { -1 }).max(0);
            *version += 1;
            *touched = true;
            switch.now = wanted;
            switch.at_ms = action.at_ms;
        }
        let outcome = LikeOutcome { liked: wanted, changed, like_count: *count, version: *version };
        fold.outcomes.push(outcome);
        if changed {
            fold.log.push(LogRow { action: *action, outcome });
        }
    }
    for ((post, user), switch) in switches {
        match (switch.before, switch.now) {
            (false, true) => fold.added.push((user, post, switch.at_ms)),
            (true, false) => fold.removed.push((user, post)),
            _ => {}
        }
    }
    fold.posts = posts.into_iter().filter(|(_, (.., touched))| *touched).map(|(p, (n, v, _))| (p, n, v)).collect();
    fold.posts.sort_unstable();
    fold.added.sort_unstable_by_key(|(user, post, _)| (*post, *user));
    fold.removed.sort_unstable_by_key(|(user, post)| (*post, *user));
    fold
}
