//! Who likes the posts that are liked right now: what a writer need not read again.
//!
//! A like is folded over the post's count, its version and whether its user liked it before. Whatever changes the likes of a post
//! changes its version, and a batch is stored only where each of its posts has the version that it was folded over: so a
//! writer may remember, and need not hear of what others do. A post is read as a whole once it was asked for often enough
//! to be worth it; till then pair by pair. Of users a hash of 128 bits is kept, keyed by chance.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::likes::{Action, LikeFold, LikeState};
use crate::limits::{KNOWN_LIKES_MAX, KNOWN_LIKES_MISTRUSTED_BATCHES, KNOWN_LIKES_POST};

/// A post is read as a whole if it has no more likes than this for each time it was asked for. Measured on PostgreSQL: reading one
/// of a post's takes 1.3 µs, looking one up 4, and a batch that need not read anything saves some 250 µs.
const WHOLE_PER_LOOK: i64 = 16;

/// The memory of one writer.
#[derive(Default)]
pub struct KnownLikes {
    hashers: [RandomState; 2],
    posts: HashMap<String, KnownPost>,
    /// How many users are remembered, with posts as so many.
    held: usize,
    /// Batches that remember nothing: others change likes too.
    mistrusted: u32,
}

#[derive(Default)]
struct KnownPost {
    looks: i64,
    /// Nothing till it is read as a whole.
    whole: Option<Likers>,
}

/// All who like a post.
struct Likers {
    like_count: i64,
    version: i64,
    users: HashSet<(u64, u64)>,
}

/// What is known of a batch, and what has to be read.
#[derive(Default)]
pub struct Recalled {
    pub state: LikeState,
    /// Posts to read, in order, with how many likes one may have to be read as a whole.
    pub unknown: Vec<(String, i64)>,
    /// Pairs of theirs: user, post.
    pub pairs: Vec<(String, String)>,
    /// Some posts are from memory, and may have changed long ago.
    pub is_remembered: bool,
}

/// What was read, of one moment.
#[derive(Clone, Debug, Default)]
pub struct SeenLikes {
    /// Post, likes, version, and whether all of its likes were read.
    pub posts: Vec<(String, i64, i64, bool)>,
    /// User, post; some may be there twice.
    pub liked: Vec<(String, String)>,
}

impl KnownLikes {
    /// Looks up what the likes of a batch are folded over.
    pub fn recall(&mut self, actions: &[Action<'_>]) -> Recalled {
        self.mistrusted = self.mistrusted.saturating_sub(1);
        let mut by_post: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
        for (user, post) in actions.iter().filter_map(Action::pair) {
            by_post.entry(post).or_default().insert(user);
        }
        let mut recalled = Recalled::default();
        for (post, users) in by_post {
            if let Some(likers) = self.posts.get(post).and_then(|known| known.whole.as_ref()) {
                recalled.state.posts.push((post.to_owned(), likers.like_count, likers.version));
                let liked = users.into_iter().filter(|user| likers.users.contains(&hash(&self.hashers, user)));
                recalled.state.liked.extend(liked.map(|user| (user.to_owned(), post.to_owned(), 0)));
                continue;
            }
            recalled.unknown.push((post.to_owned(), self.worth_reading(post)));
            recalled.pairs.extend(users.into_iter().map(|user| (user.to_owned(), post.to_owned())));
        }
        recalled.is_remembered = !recalled.state.posts.is_empty();
        recalled
    }

    fn worth_reading(&mut self, post: &str) -> i64 {
        if self.mistrusted > 0 {
            return -1;
        }
        let known = self.posts.entry(post.to_owned()).or_insert_with(|| {
            self.held += KNOWN_LIKES_POST;
            KnownPost::default()
        });
        known.looks += 1;
        known.looks.saturating_mul(WHOLE_PER_LOOK)
    }

    /// Adds what was read to what was known, and remembers posts that were read as a whole.
    pub fn learn(&mut self, recalled: &mut Recalled, seen: SeenLikes) {
        for (post, like_count, version, is_whole) in seen.posts {
            if let Some(known) = self.posts.get_mut(&post).filter(|_| is_whole) {
                known.whole = Some(Likers { like_count, version, users: HashSet::new() });
            }
            recalled.state.posts.push((post, like_count, version));
        }
        for (user, post) in seen.liked {
            if let Some((likers, hashers, held)) = self.whole(&post) {
                *held += usize::from(likers.users.insert(hash(hashers, &user)));
            }
            recalled.state.liked.push((user, post, 0));
        }
        recalled.state.posts.sort_unstable();
    }

    /// The batch is stored: what it changed is as the fold says.
    pub fn commit(&mut self, fold: &LikeFold<'_>) {
        for (post, like_count, version) in &fold.posts {
            if let Some((likers, ..)) = self.whole(post) {
                (likers.like_count, likers.version) = (*like_count, *version);
            }
        }
        for (user, post, _) in &fold.added {
            if let Some((likers, hashers, held)) = self.whole(post) {
                *held += usize::from(likers.users.insert(hash(hashers, user)));
            }
        }
        for (user, post) in &fold.removed {
            if let Some((likers, hashers, held)) = self.whole(post) {
                *held -= usize::from(likers.users.remove(&hash(hashers, user)));
            }
        }
        if self.held > KNOWN_LIKES_MAX {
            self.forget();
        }
    }

    /// A post that is known as a whole, and what its users are hashed by and counted in.
    fn whole(&mut self, post: &str) -> Option<(&mut Likers, &[RandomState; 2], &mut usize)> {
        let likers = self.posts.get_mut(post)?.whole.as_mut()?;
        Some((likers, &self.hashers, &mut self.held))
    }

    /// The likes of these posts are changed by a batch that has read them itself.
    pub fn forget_posts(&mut self, actions: &[Action<'_>]) {
        for action in actions {
            if let Some(gone) = self.posts.remove(action.post) {
                self.held -= KNOWN_LIKES_POST + gone.whole.map_or(0, |likers| likers.users.len());
            }
        }
    }

    /// What was remembered was not so any more: others change the same likes. For a while nothing is remembered.
    pub fn mistrust(&mut self) {
        self.forget();
        self.mistrusted = KNOWN_LIKES_MISTRUSTED_BATCHES;
    }

    fn forget(&mut self) {
        self.posts.clear();
        self.held = 0;
    }
}

fn hash(hashers: &[RandomState; 2], user: &str) -> (u64, u64) {
    (hashers[0].hash_one(user), hashers[1].hash_one(user))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::events::EventType;
    use crate::ledger_fold::likes::{Deed, fold_likes};

    /// Posts with version and users, as a ledger has them.
    type Posts = BTreeMap<String, (i64, HashSet<String>)>;

    fn like<'a>(kind: EventType, user: &'a str, post: &'a str) -> Action<'a> {
        Action { index: 0, post, at_ms: 0, happened_ms: 0, deed: Deed::Like(kind, user) }
    }

    fn read(posts: &Posts, recalled: &Recalled) -> SeenLikes {
        let mut seen = SeenLikes::default();
        for (name, most) in &recalled.unknown {
            let (version, users) = &posts[name];
            let is_whole = users.len() as i64 <= *most;
            seen.posts.push((name.clone(), users.len() as i64, *version, is_whole));
            let wanted = |user: &String| is_whole || recalled.pairs.contains(&(user.clone(), name.clone()));
            seen.liked.extend(users.iter().filter(|user| wanted(user)).map(|user| (user.clone(), name.clone())));
        }
        seen
    }

    /// What a batch does with what is known, and whether its posts have the versions that it was folded over.
    fn apply(known: &mut KnownLikes, posts: &mut Posts, actions: &[Action<'_>]) -> (bool, usize) {
        let mut recalled = known.recall(actions);
        let unread = recalled.unknown.len();
        let seen = read(posts, &recalled);
        known.learn(&mut recalled, seen);
        let named: HashSet<&str> = actions.iter().map(|action| action.post).collect();
        // Else a batch that others keep changing would be tried for ever, and its posts never be locked.
        assert_eq!(recalled.is_remembered, unread < named.len(), "what was read is not remembered");
        let fold = fold_likes(actions, &recalled.state);
        if recalled.state.posts.iter().any(|(post, _, version)| posts[post].0 != *version) {
            assert!(recalled.is_remembered, "what was read just now is as it was read");
            known.mistrust();
            return (false, unread);
        }
        for (post, like_count, version) in &recalled.state.posts {
            assert_eq!((posts[post].1.len() as i64, posts[post].0), (*like_count, *version));
        }
        fold.added.iter().for_each(|(user, post, _)| _ = posts.get_mut(*post).unwrap().1.insert((*user).into()));
        for (user, post) in &fold.removed {
            assert!(posts.get_mut(*post).unwrap().1.remove(*user), "{user} liked {post}");
        }
        for (post, like_count, version) in &fold.posts {
            let (now, users) = posts.get_mut(*post).unwrap();
            *now = *version;
            assert_eq!(*like_count, users.len() as i64, "{post}");
        }
        known.commit(&fold);
        (true, unread)
    }

    #[test]
    fn what_is_remembered_is_what_is_stored_or_has_another_version() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut posts: Posts = (0..5).map(|n| (format!("p{n}"), (0, HashSet::new()))).collect();
            let mut writers = [KnownLikes::default(), KnownLikes::default()];
            // The second one comes by now and then, or never.
            let other = [0.0, 0.02, 0.5][random.random_range(0..3)];
            for _ in 0..300 {
                let named: Vec<(EventType, String, String)> = (0..random.random_range(1..6))
                    .map(|_| {
                        let kind = [EventType::Toggle, EventType::Like, EventType::Unlike][random.random_range(0..3)];
                        (kind, format!("u{}", random.random_range(0..40)), format!("p{}", random.random_range(0..5)))
                    })
                    .collect();
                let actions: Vec<Action<'_>> = named.iter().map(|(kind, user, post)| like(*kind, user, post)).collect();
                let known = &mut writers[usize::from(random.random_bool(other))];
                if random.random_range(0..20) == 0 {
                    known.forget_posts(&actions);
                }
                if !apply(known, &mut posts, &actions).0 {
                    assert!(apply(known, &mut posts, &actions).0, "{seed}: read anew, it is stored");
                }
                let held = |known: &KnownLikes| {
                    let users = known.posts.values().filter_map(|post| post.whole.as_ref()).map(|all| all.users.len());
                    users.sum::<usize>() + known.posts.len() * KNOWN_LIKES_POST
                };
                assert_eq!(known.held, held(known));
            }
        }
    }

    #[test]
    fn a_post_is_read_as_a_whole_once_that_is_worth_it_and_then_not_again() {
        let users: HashSet<String> = (0..100).map(|n| format!("u{n}")).collect();
        let mut posts: Posts = [("p".to_owned(), (100, users))].into();
        let mut known = KnownLikes::default();
        let mut read = 0;
        for n in 0..20 {
            let user = format!("v{n}");
            let (is_stored, unread) = apply(&mut known, &mut posts, &[like(EventType::Like, &user, "p")]);
            assert!(is_stored);
            read += unread;
        }
        assert_eq!(read, 7, "a hundred and six are sixteen for each of seven looks");
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = KnownLikes::default();
        let mut posts = Posts::new();
        let most = KNOWN_LIKES_MAX / KNOWN_LIKES_POST;
        for n in 0..2 * most {
            let name = format!("p{n}");
            posts.insert(name.clone(), (0, HashSet::new()));
            apply(&mut known, &mut posts, &[like(EventType::Toggle, "u", &name)]);
            assert!(known.held <= KNOWN_LIKES_MAX && known.posts.len() <= most);
            posts.remove(&name);
        }
    }
}
