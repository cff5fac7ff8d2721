//! Posts that a keyword finds, over every ledger, against a look at each post.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use event_tracker::events::{EventType, PostDelete, PostPut, Record, fold_hashtag, fold_keyword};
use event_tracker::ports::PostSearch;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::ledgers::{NOW, each_ledger, like, seeded};

/// Pieces of contents and of keywords: a few, so that they meet.
const PIECES: [&str; 16] =
    ["고양이", "양이", "강아지", "이", " ", "Oak", "OAK", "a", "ak", "É", "e\u{301}", "%", "_", "\\", "'", "\u{1F333}"];
const HASHTAGS: [&str; 5] = ["고양이", "oak", "이", "%", "é"];

/// What is there: content, hashtags, when it was made.
type Posts = BTreeMap<String, (String, Vec<String>, i64)>;

fn text(random: &mut StdRng, pieces_max: usize) -> String {
    let pieces = random.random_range(1..=pieces_max);
    (0..pieces).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect()
}

fn naive(posts: &Posts, likes: &BTreeSet<(String, String)>, typed: &str, limit: usize) -> Vec<String> {
    let (keyword, hashtag) = (fold_keyword(typed), fold_hashtag(typed));
    let matches = |(_, (content, hashtags, _)): &(&String, &(String, Vec<String>, i64))| {
        hashtags.contains(&hashtag) || fold_keyword(content).contains(&*keyword)
    };
    let rank = |(id, (_, _, at_ms)): (&String, &(String, Vec<String>, i64))| {
        (Reverse(likes.iter().filter(|(_, post)| post == id).count()), Reverse(*at_ms), id.clone())
    };
    let mut ranked: Vec<_> = posts.iter().filter(matches).map(rank).collect();
    ranked.sort();
    ranked.into_iter().take(limit).map(|(.., id)| id).collect()
}

// claims: L21
#[test]
fn a_search_finds_exactly_what_a_look_at_every_post_would_whatever_was_replaced_and_deleted() {
    let mut random = seeded();
    let script: Vec<u64> = (0..12).map(|_| random.random()).collect();
    each_ledger(|fixture| {
        let (mut feed, mut posts, mut likes) = (fixture.feed(), Posts::new(), BTreeSet::new());
        for seed in &script {
            let mut random = <StdRng as rand::SeedableRng>::seed_from_u64(*seed);
            let batch = (0..random.random_range(1..40)).map(|_| step(&mut random, &mut posts, &mut likes)).collect();
            feed.apply(batch);
            for _ in 0..25 {
                let typed = match random.random_range(0..4) {
                    0 => HASHTAGS[random.random_range(0..HASHTAGS.len())].to_owned(),
                    _ => text(&mut random, 3),
                };
                let limit = random.random_range(1..30);
                let (keyword, hashtag) = (fold_keyword(&typed).into_owned(), fold_hashtag(&typed));
                let found = fixture.ledger.search(&PostSearch { keyword, hashtag, limit }).expect("answers");
                for post in &found {
                    let (content, hashtags, at_ms) = &posts[&post.post_id];
                    assert_eq!((&post.content, &post.hashtags, post.created_at_ms), (content, hashtags, *at_ms));
                    assert_eq!(fixture.ledger.post(&post.post_id).expect("answers").as_ref(), Some(post));
                }
                let found: Vec<String> = found.into_iter().map(|post| post.post_id).collect();
                assert_eq!(found, naive(&posts, &likes, &typed, limit), "{typed:?}, {limit} of {posts:?}");
            }
        }
        assert!(!posts.is_empty() && !likes.is_empty());
    });
}

/// One record, and what it does to the model. Few ids and times: replaced often, many ties.
fn step(random: &mut StdRng, posts: &mut Posts, likes: &mut BTreeSet<(String, String)>) -> Record<'static> {
    let id = format!("p{}", random.random_range(0..40));
    match random.random_range(0..10) {
        0 => {
            posts.remove(&id);
            likes.retain(|(_, post)| *post != id);
            Record::PostDelete(PostDelete { post_id: id.into(), at_ms: NOW })
        }
        1..=5 => {
            let hashtags: BTreeSet<&str> =
                (0..random.random_range(0..3)).map(|_| HASHTAGS[random.random_range(0..HASHTAGS.len())]).collect();
            let (content, at_ms) = (text(random, 6), NOW - random.random_range(0..3));
            let owned: Vec<String> = hashtags.iter().map(|&hashtag| hashtag.to_owned()).collect();
            posts.insert(id.clone(), (content.clone(), owned, at_ms));
            Record::PostPut(PostPut {
                post_id: id.into(),
                user_id: "author".into(),
                content: content.into(),
                hashtags: hashtags.into_iter().map(Into::into).collect(),
                image_urls: vec![],
                created_at_ms: Some(at_ms),
                at_ms: NOW,
            })
        }
        _ => {
            let user = format!("u{}", random.random_range(0..4));
            likes.insert((user.clone(), id.clone()));
            like(EventType::Like, &user, &id, NOW)
        }
    }
}
