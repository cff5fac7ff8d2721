//! Posts that a keyword finds, over every ledger, against a look at each post.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use std::path::Path;
use std::time::{Duration, Instant};

use event_tracker::adapters::postgres::PostgresLedger;
use event_tracker::events::{EventType, PostDelete, PostPut, Record, fold_hashtag, fold_keyword};
use event_tracker::ports::{Post, PostRank, PostSearch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::ledgers::{Fixture, NOW, each_ledger, like, put, seeded};
use crate::support::{setting, sqlite_plans};

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

fn pages(fixture: &Fixture, typed: &str, limit: usize) -> Vec<String> {
    let (keyword, hashtag) = (fold_keyword(typed).into_owned(), fold_hashtag(typed));
    let mut query = PostSearch { keyword, hashtag, after: None, limit };
    let mut all = Vec::new();
    loop {
        let page = fixture.ledger.search(&query).expect("answers");
        let Some(last) = page.last() else { return all };
        let Post { post_id, created_at_ms, like_count, .. } = last.clone();
        query.after = Some(PostRank { like_count, created_at_ms, post_id });
        all.extend(page.into_iter().map(|post| post.post_id));
    }
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
                let found =
                    fixture.ledger.search(&PostSearch { keyword, hashtag, after: None, limit }).expect("answers");
                for post in &found {
                    let (content, hashtags, at_ms) = &posts[&post.post_id];
                    assert_eq!((&post.content, &post.hashtags, post.created_at_ms), (content, hashtags, *at_ms));
                    assert_eq!(fixture.ledger.post(&post.post_id).expect("answers").as_ref(), Some(post));
                }
                let found: Vec<String> = found.into_iter().map(|post| post.post_id).collect();
                assert_eq!(found, naive(&posts, &likes, &typed, limit), "{typed:?}, {limit} of {posts:?}");
                let paged = pages(fixture, &typed, random.random_range(1..5));
                assert_eq!(paged, naive(&posts, &likes, &typed, usize::MAX), "{typed:?}, page by page");
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
            let (hashtags, created_at_ms) = (hashtags.into_iter().map(Into::into).collect(), Some(at_ms));
            Record::PostPut(PostPut { hashtags, created_at_ms, ..put("author", &id, &content, NOW) })
        }
        _ => {
            let user = format!("u{}", random.random_range(0..4));
            likes.insert((user.clone(), id.clone()));
            like(EventType::Like, &user, &id, NOW)
        }
    }
}

/// Words, and in how many of a million posts each is.
const WORDS: [(&str, u32); 7] = [
    ("고양이", 600_000),
    ("여행", 100_000),
    ("커피", 20_000),
    ("등산", 5_000),
    ("독서회", 500),
    ("희귀종", 20),
    ("없는말", 0),
];
const SEARCHES: usize = 15;

/// `perf/search` runs it. `SEARCH_POSTS`: how many posts.
#[test]
#[ignore = "a measurement, not a claim"]
fn times_and_plans_of_search() {
    let posts = setting("SEARCH_POSTS", 1_000) as usize;
    sqlite_plans::watch();
    each_ledger(|fixture| {
        let filled = fill(fixture, posts);
        println!("\n{} with {posts} posts (filled in {:.0} s)\n", fixture.name, filled.as_secs_f64());
        println!("| keyword | posts that have it | median ms | slowest ms |\n|---|---|---|---|");
        for (word, _) in WORDS {
            let query = PostSearch { keyword: word.into(), hashtag: word.into(), after: None, limit: 20 };
            let took = |_| {
                let begun = Instant::now();
                let found = fixture.ledger.search(&query).map(|posts| posts.len());
                (begun.elapsed().as_secs_f64() * 1e3, found.map_err(|why| why.to_string()))
            };
            let mut all: Vec<_> = (0..SEARCHES).map(took).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (median, slowest, found) = (all[SEARCHES / 2].0, all[SEARCHES - 1].0, &all[0].1);
            let having = fixture.number(&format!("SELECT count(*) FROM post WHERE content LIKE '%{word}%'"));
            println!(
                "| {word} | {having} | {median:.1} | {slowest:.1} | {}",
                found.as_ref().err().map_or("", |why| why)
            );
        }
        print_plans(fixture);
    });
}

fn print_plans(fixture: &Fixture) {
    for (word, _) in [WORDS[0], WORDS[4]] {
        let query = PostSearch { keyword: word.into(), hashtag: word.into(), after: None, limit: 20 };
        let plans = if fixture.name == "postgres" {
            let ledger = PostgresLedger::new(&fixture.url, 1).expect("the URL is one");
            ledger.search_plans(&query).map_or_else(|why| why.to_string(), |lines| lines.join("\n"))
        } else {
            sqlite_plans::taken();
            fixture.ledger.search(&query).expect("finds");
            sqlite_plans::plans(Path::new(&fixture.url), &sqlite_plans::taken())
        };
        println!("\nPlans for {word}:\n\n```\n{plans}\n```");
    }
}

fn fill(fixture: &Fixture, posts: usize) -> Duration {
    let (mut feed, mut random, begun) = (fixture.feed(), StdRng::seed_from_u64(7), Instant::now());
    for from in (0..posts).step_by(5_000) {
        let batch = (from..(from + 5_000).min(posts)).map(|id| {
            let mut content: String = WORDS
                .iter()
                .filter(|(_, of)| random.random_range(0..1_000_000) < *of)
                .map(|(w, _)| format!("{w} "))
                .collect();
            content.push_str(&format!("{:x} {:x}", random.random::<u16>(), random.random::<u16>()));
            let created_at_ms = Some(NOW - random.random_range(0..1_000_000_000));
            let put = put(&format!("u{}", id % 1_000), &format!("p{id}"), &content, NOW);
            Record::PostPut(PostPut { created_at_ms, ..put })
        });
        feed.apply(batch.collect());
    }
    // A tenth as many likes as posts, most of them of few posts.
    for from in (0..posts / 10).step_by(5_000) {
        let batch = (from..(from + 5_000).min(posts / 10)).map(|user| {
            let post = (random.random::<f64>().powi(3) * posts as f64) as usize;
            like(EventType::Like, &format!("u{user}"), &format!("p{post}"), NOW)
        });
        feed.apply(batch.collect());
    }
    if fixture.name == "postgres" {
        fixture.rows("VACUUM ANALYZE post");
        fixture.rows("VACUUM ANALYZE post_stat");
    }
    begun.elapsed()
}
