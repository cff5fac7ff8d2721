//! Likes and posts: a batch of actions folded over the state that the store locked.
//!
//! Each (user, post) is a switch, each post a counter of the switches that are on; deleting a post
//! switches all of them off. Folding in journal order, under the lock of the posts' rows, makes
//! every outcome what it would be with one action a transaction. Likes of a deleted post that the
//! batch does not name are never read: there may be millions, the store moves them to the log
//! itself (a [`Clearing`]).

use std::collections::{BTreeMap, HashMap};

use crate::events::{Erase, Event, EventType, PostDelete, PostPut};
use crate::ports::{LikeOutcome, PostOutcome, Verdict};

/// What one record does to a post or to its likes.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Its index in the batch.
    pub index: usize,
    pub post: &'a str,
    /// When it counts.
    pub at_ms: i64,
    /// When it happened, for an erasure: a client's clock may be ahead of ours.
    pub happened_ms: i64,
    pub deed: Deed<'a>,
}

/// See [`Action`].
#[derive(Clone, Copy, Debug)]
pub enum Deed<'a> {
    /// A like, unlike or toggle of a user.
    Like(EventType, &'a str),
    Put(&'a PostPut<'a>),
    Delete(&'a PostDelete<'a>),
    /// The person's like of the post goes, and the post itself if it is theirs.
    Erase(&'a Erase<'a>),
}

impl<'a> Action<'a> {
    /// The action that an event is, if it is one and says who and what.
    pub fn of_event(index: usize, event: &'a Event<'_>) -> Option<Action<'a>> {
        if !event.event_type.is_like() {
            return None;
        }
        let (user, post) = (event.user_id.as_deref()?, event.post_id.as_deref()?);
        let (at_ms, happened_ms) = (event.event_time_ms, event.happened_ms());
        Some(Action { index, post, at_ms, happened_ms, deed: Deed::Like(event.event_type, user) })
    }

    pub fn of_put(index: usize, put: &'a PostPut<'_>) -> Action<'a> {
        Action { index, post: &put.post_id, at_ms: put.at_ms, happened_ms: put.happened_ms(), deed: Deed::Put(put) }
    }

    pub fn of_delete(index: usize, delete: &'a PostDelete<'_>) -> Action<'a> {
        let (post, at_ms) = (&delete.post_id, delete.at_ms);
        Action { index, post, at_ms, happened_ms: at_ms, deed: Deed::Delete(delete) }
    }

    pub fn of_erase(index: usize, post: &'a str, erase: &'a Erase<'_>) -> Action<'a> {
        Action { index, post, at_ms: erase.at_ms, happened_ms: erase.at_ms, deed: Deed::Erase(erase) }
    }

    /// The (user, post) whose switch it is about, where it is one.
    pub fn pair(&self) -> Option<(&'a str, &'a str)> {
        match self.deed {
            Deed::Like(_, user) => Some((user, self.post)),
            Deed::Erase(erase) => Some((&erase.user_id, self.post)),
            _ => None,
        }
    }

    /// It is about the post itself, or may be.
    pub fn is_of_post(&self) -> bool {
        !matches!(self.deed, Deed::Like(..))
    }
}

/// What the store says about the posts and pairs of a batch: under its locks, or of one moment, and
/// written only if it is the same then.
#[derive(Clone, Debug, Default)]
pub struct LikeState {
    /// Post, likes, version; a post that is missing has none.
    pub posts: Vec<(String, i64, i64)>,
    /// (user, post) that are liked, and since when.
    pub liked: Vec<(String, String, i64)>,
    /// Of the posts that the batch puts or deletes, those that are there.
    pub kept: Vec<KeptPost>,
}

/// A post as the store has it.
#[derive(Clone, Debug)]
pub struct KeptPost {
    pub post: String,
    pub made_at_ms: i64,
    pub owner: String,
    /// When what it says happened; it may have been made earlier.
    pub written_at_ms: i64,
}

/// A change, as `post_like_log` keeps it.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    /// The index of its record in the batch.
    pub index: usize,
    pub user: &'a str,
    pub post: &'a str,
    pub at_ms: i64,
    /// Of what it tells of the user: the like or unlike; where a like went with its post or its
    /// user, that like.
    pub happened_ms: i64,
    pub outcome: LikeOutcome,
}

impl LogRow<'_> {
    /// When it happened, where that is another time than the one it counts at.
    pub fn happened_if_not_then(&self) -> Option<i64> {
        Some(self.happened_ms).filter(|ms| *ms != self.at_ms)
    }
}

/// Likes of a deleted post that no record of the batch names: all rows of the post but those of
/// `spared`. They are undone in the order of the user, from `like_count` and `version` on, before
/// anything else is written.
#[derive(Clone, Debug)]
pub struct Clearing<'a> {
    pub index: usize,
    pub post: &'a str,
    pub at_ms: i64,
    pub like_count: i64,
    pub version: i64,
    pub spared: Vec<&'a str>,
}

/// All that a batch does to likes and posts.
#[derive(Clone, Debug, Default)]
pub struct LikeFold<'a> {
    /// One for each action, in its order.
    pub outcomes: Vec<Verdict>,
    pub clearings: Vec<Clearing<'a>>,
    /// Changes by users that the batch names, in journal order.
    pub log: Vec<LogRow<'a>>,
    /// Rows that `post_like` gains, or that get another time: user, post, when it happened. In the
    /// order of (post, user).
    pub added: Vec<(&'a str, &'a str, i64)>,
    /// Rows that it loses beside the clearings: user, post. In the order of (post, user).
    pub removed: Vec<(&'a str, &'a str)>,
    /// Posts whose likes or version changed: likes and version. In the order of the post.
    pub posts: Vec<(&'a str, i64, i64)>,
    /// Posts as the batch leaves them, with the time they were made. In the order of the post.
    pub put: Vec<(&'a PostPut<'a>, i64)>,
    /// Posts that are there and go. In their order.
    pub deleted: Vec<&'a str>,
    /// Posts that the batch leaves deleted, be it that they never were there. In their order.
    pub tombstones: Vec<Buried<'a>>,
}

/// A tombstone that a batch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buried<'a> {
    pub post: &'a str,
    pub version: i64,
    pub at_ms: i64,
    /// The index of the deletion in the batch.
    pub index: usize,
}

/// A pair's switch.
#[derive(Default)]
struct Switch {
    before: bool,
    now: bool,
    /// When the like happened, where it is on.
    since_ms: i64,
    /// It was switched since the batch began, so where it is on, it is on since another time.
    is_newer: bool,
}

/// A post on its way through the batch.
#[derive(Default)]
struct Folding<'a> {
    like_count: i64,
    version: i64,
    touched: bool,
    /// Of the users that the batch names.
    switches: BTreeMap<&'a str, Switch>,
    /// The post was there before the batch, made then.
    was_made_at: Option<i64>,
    is_made_at: Option<i64>,
    /// Whose it is, if it is there, and when they wrote what it says.
    owner: Option<(&'a str, i64)>,
    put: Option<&'a PostPut<'a>>,
    /// Its deletion, unless it was put after that.
    buried: Option<Buried<'a>>,
}

/// Folds `actions`, in journal order, over `state`.
pub fn fold_likes<'a>(actions: &[Action<'a>], state: &'a LikeState) -> LikeFold<'a> {
    let mut posts = begin(actions, state);
    let mut fold = LikeFold::default();
    for action in actions {
        let post = posts.get_mut(action.post).expect("every post of the batch was begun with");
        let outcome = match action.deed {
            Deed::Like(event_type, user) => Verdict::Like(post.like(action, event_type, user, &mut fold)),
            Deed::Put(put) => Verdict::Post(post.put(action, put)),
            Deed::Delete(_) => Verdict::Post(post.delete(action, &mut fold)),
            Deed::Erase(erase) => Verdict::Post(post.erase(action, erase, &mut fold)),
        };
        fold.outcomes.push(outcome);
    }
    for (name, post) in posts {
        post.end(name, &mut fold);
    }
    fold
}

fn begin<'a>(actions: &[Action<'a>], state: &'a LikeState) -> BTreeMap<&'a str, Folding<'a>> {
    let stats: HashMap<&str, (i64, i64)> = state.posts.iter().map(|(p, n, v)| (p.as_str(), (*n, *v))).collect();
    let kept: HashMap<&str, &KeptPost> = state.kept.iter().map(|kept| (kept.post.as_str(), kept)).collect();
    let mut posts: BTreeMap<&str, Folding<'_>> = BTreeMap::new();
    for action in actions {
        let post = posts.entry(action.post).or_insert_with(|| {
            let (like_count, version) = stats.get(action.post).copied().unwrap_or_default();
            let kept = kept.get(action.post);
            let made_at = kept.map(|kept| kept.made_at_ms);
            let owner = kept.map(|kept| (kept.owner.as_str(), kept.written_at_ms));
            Folding { like_count, version, was_made_at: made_at, is_made_at: made_at, owner, ..Folding::default() }
        });
        if let Some((user, _)) = action.pair() {
            post.switches.entry(user).or_default();
        }
    }
    for (user, name, since_ms) in &state.liked {
        let switch = posts.get_mut(name.as_str()).and_then(|post| post.switches.get_mut(user.as_str()));
        if let Some(switch) = switch {
            (switch.before, switch.now, switch.since_ms) = (true, true, *since_ms);
        }
    }
    posts
}

impl<'a> Folding<'a> {
    fn like(
        &mut self,
        action: &Action<'a>,
        event_type: EventType,
        user: &'a str,
        fold: &mut LikeFold<'a>,
    ) -> LikeOutcome {
        let switch = self.switches.entry(user).or_default();
        let wanted = match event_type {
            EventType::Unlike => false,
            EventType::Toggle => !switch.now,
            _ => true,
        };
        let changed = wanted != switch.now;
        if changed {
            (switch.now, switch.since_ms, switch.is_newer) = (wanted, action.happened_ms, true);
            self.step(if wanted { 1 } else { -1 });
        }
        let outcome = LikeOutcome { liked: wanted, changed, like_count: self.like_count, version: self.version };
        if changed {
            let Action { index, post, at_ms, happened_ms, .. } = *action;
            fold.log.push(LogRow { index, user, post, at_ms, happened_ms, outcome });
        }
        outcome
    }

    fn put(&mut self, action: &Action<'a>, put: &'a PostPut<'a>) -> PostOutcome {
        let replaced = self.is_made_at.is_some();
        let created_at_ms = put.created_at_ms.or(self.is_made_at).unwrap_or(put.at_ms);
        self.is_made_at = Some(created_at_ms);
        self.put = Some(put);
        self.owner = Some((&put.user_id, action.happened_ms));
        self.buried = None;
        self.version += 1;
        self.touched = true;
        PostOutcome::Put { replaced, created_at_ms, like_count: self.like_count, version: self.version }
    }

    fn delete(&mut self, action: &Action<'a>, fold: &mut LikeFold<'a>) -> PostOutcome {
        let existed = self.is_made_at.take().is_some();
        self.put = None;
        let likes_removed = self.like_count;
        let Action { index, post, at_ms, .. } = *action;
        let on: Vec<&'a str> = self.switches.iter().filter(|(_, switch)| switch.now).map(|(user, _)| *user).collect();
        on.into_iter().for_each(|user| self.switch_off(user, action, fold));
        if self.like_count > 0 {
            let spared = self.switches.keys().copied().collect();
            let (like_count, version) = (self.like_count, self.version);
            fold.clearings.push(Clearing { index, post, at_ms, like_count, version, spared });
            self.version += self.like_count;
            self.like_count = 0;
        }
        self.version += 1;
        self.touched = true;
        self.buried = Some(Buried { post, version: self.version, at_ms, index });
        PostOutcome::Deleted { existed, likes_removed, version: self.version }
    }

    /// Removes the person's part of a post: the post itself, or a like. What is newer than the erasure
    /// stays, even if the erasure reaches the ledger later: the person came back.
    fn erase(&mut self, action: &Action<'a>, erase: &'a Erase<'a>, fold: &mut LikeFold<'a>) -> PostOutcome {
        let (user, up_to_ms) = (&*erase.user_id, erase.at_ms);
        let is_theirs = self.owner.is_some_and(|(owner, written_ms)| owner == user && written_ms <= up_to_ms);
        if self.is_made_at.is_some() && is_theirs {
            return self.delete(action, fold);
        }
        let is_liked = self.switches.get(user).is_some_and(|switch| switch.now && switch.since_ms <= up_to_ms);
        if is_liked {
            self.switch_off(user, action, fold);
        }
        PostOutcome::Deleted { existed: false, likes_removed: i64::from(is_liked), version: self.version }
    }

    fn switch_off(&mut self, user: &'a str, action: &Action<'a>, fold: &mut LikeFold<'a>) {
        let Action { index, post, at_ms, .. } = *action;
        let switch = self.switches.entry(user).or_default();
        (switch.now, switch.is_newer) = (false, true);
        let happened_ms = switch.since_ms;
        self.step(-1);
        let outcome = LikeOutcome { liked: false, changed: true, like_count: self.like_count, version: self.version };
        fold.log.push(LogRow { index, user, post, at_ms, happened_ms, outcome });
    }

    fn step(&mut self, by: i64) {
        // A count below its rows cannot be: but a hand that edited one must not make us store a
        // negative.
        self.like_count = (self.like_count + by).max(0);
        self.version += 1;
        self.touched = true;
    }

    fn end(self, name: &'a str, fold: &mut LikeFold<'a>) {
        for (user, switch) in &self.switches {
            match (switch.before, switch.now) {
                (before, true) if !before || switch.is_newer => fold.added.push((user, name, switch.since_ms)),
                (true, false) => fold.removed.push((user, name)),
                _ => {}
            }
        }
        if self.touched {
            fold.posts.push((name, self.like_count, self.version));
        }
        fold.tombstones.extend(self.buried);
        match (self.put, self.is_made_at) {
            (Some(put), Some(made_at_ms)) => fold.put.push((put, made_at_ms)),
            (_, None) if self.was_made_at.is_some() => fold.deleted.push(name),
            _ => {}
        }
    }
}
