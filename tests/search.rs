//! Search by the front door, over both pairs of stores: what is found, in which order, and what the search leaves
//! behind; and random posts, likes and searches against a look at each post.

mod support;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use event_tracker::events::{fold_hashtag, fold_keyword};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs};
use support::client::Client;
use support::{eventually, postgres, seed};

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn search(client: &mut Client, keyword: &str, more: &str) -> Value {
    client.read(&format!("/api/search?keyword={}{more}", encoded(keyword)))
}

#[track_caller]
fn ids(answer: &Value) -> Vec<&str> {
    let posts = answer["posts"].as_array().unwrap_or_else(|| panic!("posts: {answer}")).iter();
    posts.map(|post| post["postId"].as_str().expect("an id")).collect()
}

#[track_caller]
fn finds(client: &mut Client, keyword: &str, expected: &[&str]) {
    let answer = search(client, keyword, "");
    assert_eq!(ids(&answer), expected, "{keyword}");
}

/// Nobody waits for the event of a search: it is not even in the journal when the answer comes.
#[track_caller]
fn searches_recorded(bench: &Bench, expected: i64) {
    let mut client = bench.client();
    eventually(Duration::from_secs(10), || match client.read("/api/statistics?eventType=SEARCH")["count"].as_i64() {
        Some(count) if count == expected => Ok(()),
        count => Err(format!("{count:?} searches and not {expected}")),
    });
}

fn put(client: &mut Client, id: &str, content: &str, hashtags: &[&str]) {
    let second = id.bytes().map(i64::from).sum::<i64>();
    let post = json!({"postId":id,"userId":"author","content":content,"hashtags":hashtags,"createdAt":(1_000_000_000 + second) * 1_000});
    let status = client.post("/api/posts", &post).status;
    assert!(status == 200 || status == 201, "{status}");
}

fn like(client: &mut Client, user: &str, post: &str) {
    client.post("/api/posts/like", &json!({"userId":user,"postId":post,"action":"like"})).expect(200);
}

#[test]
fn a_post_is_found_by_hashtag_and_by_what_it_says_in_any_case_and_language() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        put(&mut client, "a", "우리집 고양이가 잔다", &["일상"]);
        put(&mut client, "b", "An OAK chair, naïve CAFE\u{301}", &["#Oak", "고양이"]);
        put(&mut client, "c", "100% cotton_shirt C:\\temp 'it' \"so\" \u{1F333}", &["Sale"]);
        for (keyword, expected) in [
            ("고양이", &["b", "a"][..]),
            ("#고양이", &["b"]),
            ("양이", &["a"]),
            ("고", &["a"]),
            ("이가 잔", &["a"]),
            ("일상", &["a"]),
            ("oak", &["b"]),
            ("OaK cHaIr", &["b"]),
            ("café", &["b"]),
            ("CAFE\u{301}", &["b"]),
            ("NAÏVE", &["b"]),
            ("sale", &["c"]),
            ("sal", &[]),
            ("0%", &["c"]),
            ("%", &["c"]),
            ("_", &["c"]),
            ("n_s", &["c"]),
            ("t_s", &[]),
            ("\\", &["c"]),
            ("\\t", &["c"]),
            ("'it'", &["c"]),
            ("\"", &["c"]),
            ("\u{1F333}", &["c"]),
            ("  oak\t", &["b"]),
            ("없는말", &[]),
            ("#", &[]),
            ("OR 1=1 --", &[]),
        ] {
            finds(&mut client, keyword, expected);
        }
        let answer = search(&mut client, " Oak ", "&userId=7");
        assert_eq!(
            (&answer["keyword"], &answer["source"], &answer["stale"]),
            (&json!("Oak"), &json!("ledger"), &json!(false))
        );
        assert!(answer["asOf"].as_str().expect("a time").parse::<jiff::Timestamp>().is_ok(), "{answer}");
        assert_eq!(answer["posts"][0], client.read("/api/posts/b"), "a post is what it is elsewhere");
    });
}

#[test]
fn most_likes_come_first_then_the_newest_then_the_id_and_no_more_than_asked_for() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        // `ad` and `bc` were made in the same moment, `zz` is the newest.
        for id in ["bc", "ad", "aa", "zz", "ab"] {
            put(&mut client, id, "tie", &[]);
        }
        like(&mut client, "1", "aa");
        like(&mut client, "2", "aa");
        like(&mut client, "1", "ab");
        finds(&mut client, "tie", &["aa", "ab", "zz", "ad", "bc"]);
        let likes: Vec<i64> = search(&mut client, "tie", "")["posts"]
            .as_array()
            .expect("posts")
            .iter()
            .map(|post| post["likeCount"].as_i64().expect("a count"))
            .collect();
        assert_eq!(likes, [2, 1, 0, 0, 0]);
        assert_eq!(ids(&search(&mut client, "tie", "&limit=2")), ["aa", "ab"]);
        for number in 0..25 {
            put(&mut client, &format!("many{number:02}"), "tie", &["tie"]);
        }
        assert_eq!(ids(&search(&mut client, "tie", "")).len(), 20);
        assert_eq!(ids(&search(&mut client, "tie", "&limit=100")).len(), 30, "found twice, there once");
        // What is gone is not found, what was replaced is found by what it says now.
        client.send("DELETE", "/api/posts/aa", &[], b"").expect(204);
        put(&mut client, "ab", "knot", &["Bow"]);
        assert_eq!(ids(&search(&mut client, "tie", "&limit=2")), ["many19", "many09"]);
        finds(&mut client, "knot", &["ab"]);
        finds(&mut client, "bow", &["ab"]);
        put(&mut client, "ab", "plain", &[]);
        finds(&mut client, "bow", &[]);
        finds(&mut client, "knot", &[]);
        put(&mut client, "aa", "tie again", &[]);
        let anew = search(&mut client, "tie again", "");
        assert_eq!(anew["posts"][0]["likeCount"], 0, "its likes went with it");
    });
}

/// Follows `next` from the first page to the last: the ids of each page, and the largest body.
fn pages(client: &mut Client, keyword: &str, more: &str) -> (Vec<Vec<String>>, usize) {
    let (mut pages, mut largest, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = client.get(&format!("/api/search?keyword={}{more}{cursor}", encoded(keyword))).expect(200);
        largest = largest.max(answer.body.len());
        let body = answer.json();
        pages.push(ids(&body).into_iter().map(str::to_owned).collect());
        assert!(pages.len() <= 100, "it does not end: {pages:?}");
        match body.get("next") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().expect("a cursor")),
            None => return (pages, largest),
        }
    }
}

#[test]
fn posts_of_the_largest_size_come_in_answers_of_one_mebibyte() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let url = format!("https://images.example/{}", "\u{1}".repeat(2_000));
        let content = format!("huge {}", "\u{1}".repeat(16_000));
        for n in 0..8 {
            let post = json!({"postId":format!("p{n}"),"userId":"author","content":content,"hashtags":["large"],
                              "imageUrls":vec![&url; 20],"createdAt":1_700_000_001_000_i64 - n});
            client.post("/api/posts", &post).expect(201);
        }
        let expected: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
        for keyword in ["huge", "#large"] {
            for limit in ["", "&limit=100"] {
                let (pages, largest) = pages(&mut client, keyword, limit);
                assert_eq!(pages.concat(), expected, "each post once, in order");
                assert!(pages.iter().all(|page| !page.is_empty()), "{pages:?}");
                assert!((700_000..=1_048_576).contains(&largest), "{largest} bytes in one answer");
            }
        }
        // A page after the first one is not a search of its own.
        searches_recorded(bench, 4);
    });
}

#[test]
fn a_cursor_continues_a_search_whose_likes_change_and_is_refused_elsewhere() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        // `ad` and `bc` were made in the same moment.
        for id in ["bc", "ad", "aa", "zz", "ab"] {
            put(&mut client, id, "tie", &["knot"]);
        }
        like(&mut client, "1", "aa");
        like(&mut client, "2", "aa");
        like(&mut client, "1", "ab");
        for keyword in ["tie", "#knot"] {
            let (pages, _) = pages(&mut client, keyword, "&limit=2");
            assert_eq!(pages, [vec!["aa", "ab"], vec!["zz", "ad"], vec!["bc"]]);
        }
        assert!(search(&mut client, "tie", "&limit=5").get("next").is_none(), "there are no more");
        let first = search(&mut client, "tie", "&limit=2");
        let next = first["next"].as_str().expect("there are more");
        client.send("DELETE", "/api/posts/zz", &[], b"").expect(204);
        assert_eq!(ids(&search(&mut client, "tie", &format!("&limit=2&cursor={next}"))), ["ad", "bc"]);
        let number = client.read("/api/statistics?eventType=SEARCH")["count"].as_i64().expect("a count");
        assert!(number <= 4, "{number} searches");
        for (keyword, cursor) in [("knot", next), ("tie", "x"), ("tie", &next[2..]), ("tie", &format!("{next}00"))] {
            let answer = client.get(&format!("/api/search?keyword={keyword}&cursor={cursor}")).expect(400).json();
            assert_eq!(answer["error"], "invalid_cursor", "{keyword} {cursor}");
            assert!(answer["errors"]["cursor"].is_string(), "{answer}");
        }
    });
}

#[test]
fn what_is_wrong_with_a_search_is_named_by_its_field() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        for (query, field) in [
            ("", "keyword"),
            ("?keyword=", "keyword"),
            ("?keyword=%20%09", "keyword"),
            (&format!("?keyword={}", "k".repeat(201)), "keyword"),
            ("?keyword=a&userId=undefined", "userId"),
            (&format!("?keyword=a&userId={}", "u".repeat(129)), "userId"),
            ("?keyword=a&limit=0", "limit"),
            ("?keyword=a&limit=101", "limit"),
            ("?keyword=a&limit=x", "limit"),
        ] {
            let answer = client.get(&format!("/api/search{query}")).expect(400).json();
            assert_eq!(answer["error"], "invalid_parameter", "{query}");
            assert!(answer["errors"][field].is_string(), "{query}: {answer}");
        }
        for bad in ["?keyword=%ff", "?keyword=a%00", "?keyword=%zz"] {
            assert_eq!(client.get(&format!("/api/search{bad}")).expect(400).json()["error"], "invalid_encoding");
        }
        assert_eq!(
            client.send("POST", "/api/search?keyword=a", &[], b"").expect(405).header("allow"),
            Some("GET, HEAD")
        );
        search(&mut client, &"한".repeat(66), "");
        search(&mut client, &"k".repeat(200), "");
        searches_recorded(bench, 2);
        bench.settle();
        assert_eq!(bench.event_rows(), 2, "what was refused is no event");
    });
}

#[test]
fn a_search_is_an_event_as_typed_with_what_it_found() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        put(&mut client, "a", "고양이 oak", &[]);
        search(&mut client, " Oak ", "&userId=7");
        search(&mut client, "고양이", "&userId=7");
        search(&mut client, "OAK", "&userId=7");
        search(&mut client, "Nothing", "&userId=8");
        search(&mut client, "nothing", "");
        let cached = search(&mut client, "oak", "");
        // Asked for without a body: nothing was shown to anybody.
        client.send("HEAD", "/api/search?keyword=oak", &[], b"").expect(200);
        searches_recorded(bench, 6);
        bench.check_sums();
        assert_eq!(client.read("/api/statistics?keyword=oak")["count"], 3);
        let rows = bench.rows(
            "SELECT keyword, coalesce(user_id, '-'), coalesce(session_id, '-'), result_count FROM events \
             WHERE event_type = 'SEARCH' ORDER BY received_at, event_id",
        );
        let strings = |row: [&str; 4]| row.map(str::to_owned).to_vec();
        let mut expected = [
            ["Oak", "7", "-", "1"],
            ["고양이", "7", "-", "1"],
            ["OAK", "7", "-", "1"],
            ["Nothing", "8", "-", "0"],
            ["nothing", "-", "search", "0"],
            ["oak", "-", "search", "1"],
        ]
        .map(strings);
        let mut rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.to_vec()).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected);
        assert_eq!(client.read("/api/search/recent/7")["keywords"], json!(["OAK", "고양이"]));
        eventually(Duration::from_secs(5), || {
            let empty = client.read("/api/statistics/popular/keywords?mode=zero-result");
            let items = json!([{"rank":1,"keyword":"nothing","count":2}]);
            if empty["items"] == items { Ok(()) } else { Err(empty.to_string()) }
        });
        assert_eq!(ids(&cached), ["a"]);
    });
}

#[test]
fn an_answer_may_be_kept_and_is_packed_and_its_search_counts_all_the_same() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        put(&mut client, "a", &"고양이 ".repeat(1_000), &[]);
        let path = format!("/api/search?keyword={}", encoded("고양이"));
        let first = client.send("GET", &path, &[("Accept-Encoding", "gzip")], b"").expect(200);
        assert_eq!(first.header("content-encoding"), Some("gzip"));
        assert!(first.body.len() < 1_000, "{}", first.body.len());
        let tag = first.header("etag").expect("a tag").to_owned();
        client.send("GET", &path, &[("If-None-Match", &tag)], b"").expect(304);
        like(&mut client, "1", "a");
        client.send("GET", &path, &[("If-None-Match", &tag)], b"").expect(200);
        searches_recorded(bench, 3);
    });
}

#[test]
fn a_search_takes_the_key_for_reading_and_its_event_none() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory).expect("needs nothing");
    bench.set("WRITE_KEYS", "a-key-for-writing-1");
    bench.set("READ_KEYS", "a-key-for-reading-1");
    bench.start();
    let mut client = bench.client();
    let mut status = |headers: &[_]| client.send("GET", "/api/search?keyword=a&userId=1", headers, b"").status;
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("X-Api-Key", "a-key-for-writing-1")]), 403);
    assert_eq!(status(&[("X-Api-Key", "a-key-for-reading-1")]), 200);
    eventually(Duration::from_secs(5), || match bench.event_rows() {
        1 => Ok(()),
        rows => Err(format!("{rows} events")),
    });
}

#[test]
fn a_ledger_that_hangs_makes_it_503_in_time_and_no_event() {
    let Some(server) = postgres::Server::private() else { return };
    let mut bench = Bench::on(Some(server.database("tracker", "")), None);
    bench.start();
    let mut client = bench.client();
    put(&mut client, "a", "oak", &[]);
    server.freeze();
    let started = Instant::now();
    let answer = client.get("/api/search?keyword=oak&userId=1").expect(503);
    let took = started.elapsed();
    server.thaw();
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    assert_eq!((answer.json()["error"].as_str(), answer.header("retry-after")), (Some("store_unavailable"), Some("1")));
    eventually(Duration::from_secs(20), || match client.get("/api/search?keyword=oak").status {
        200 => Ok(()),
        status => Err(format!("still {status}")),
    });
    searches_recorded(&bench, 1);
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id = '1'"), 0, "it found nothing out");
}

#[test]
fn a_journal_that_is_full_refuses_the_event_and_not_the_search() {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory).expect("needs nothing");
    bench.start();
    put(&mut bench.client(), "a", "oak", &[]);
    bench.stop();
    // More free space than any disk has is asked for: full from the start.
    bench.set("JOURNAL_MIN_FREE", "1000000000000000");
    bench.start();
    let mut client = bench.client();
    let body = json!({"eventType":"CLICK","userId":1,"metadata":{"componentId":1}});
    eventually(Duration::from_secs(5), || match client.post("/api/events", &body).status {
        503 => Ok(()),
        status => Err(format!("the journal is not full: {status}")),
    });
    let refused = |client: &mut Client| {
        let metrics = client.get("/metrics").expect(200);
        let line = metrics.text().lines().find(|line| line.contains("events_total") && line.contains("\"refused\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a counter")
    };
    let before = refused(&mut client);
    finds(&mut client, "oak", &["a"]);
    assert_eq!(refused(&mut client), before + 1);
}

/// What the server should say, in memory.
#[derive(Default)]
struct Model {
    /// Content, folded hashtags, when made.
    posts: BTreeMap<String, (String, Vec<String>, i64)>,
    likes: BTreeSet<(String, String)>,
    searches: i64,
}

impl Model {
    fn find(&self, typed: &str, limit: usize) -> Vec<String> {
        let (keyword, hashtag) = (fold_keyword(typed.trim()).into_owned(), fold_hashtag(typed));
        let likes = |id: &String| self.likes.iter().filter(|(_, post)| post == id).count();
        let mut found: Vec<_> = self
            .posts
            .iter()
            .filter(|(_, (content, tags, _))| tags.contains(&hashtag) || fold_keyword(content).contains(&keyword))
            .map(|(id, (.., at_ms))| (Reverse(likes(id)), Reverse(*at_ms), id.clone()))
            .collect();
        found.sort();
        found.into_iter().take(limit).map(|(.., id)| id).collect()
    }
}

const PIECES: [&str; 14] =
    ["고양이", "강아지", "이", " ", "Oak", "oak", "A", "é", "E\u{301}", "%", "_", "\\", "'", "\u{1F333}"];
const STEPS: usize = 250;

#[test]
fn random_posts_likes_and_searches_are_answered_as_a_look_at_every_post_would() {
    let seed = seed();
    on_pairs(MAIN_PAIRS, |bench| {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut client, mut model) = (bench.client(), Model::default());
        for _ in 0..STEPS {
            step(&mut random, &mut client, &mut model);
        }
        searches_recorded(bench, model.searches);
        bench.check_sums();
    });
}

fn step(random: &mut StdRng, client: &mut Client, model: &mut Model) {
    let mut text = |pieces: usize| -> String {
        (0..random.random_range(1..=pieces)).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect()
    };
    let (content, typed) = (text(6), text(3));
    let id = format!("p{}", random.random_range(0..15));
    match random.random_range(0..10) {
        0 => {
            client.send("DELETE", &format!("/api/posts/{id}"), &[], b"").expect(204);
            model.posts.remove(&id);
            model.likes.retain(|(_, post)| *post != id);
        }
        1..=3 if !content.trim().is_empty() => {
            let at_ms = (1_000_000_000 + random.random_range(0..3)) * 1_000;
            let hashtag = PIECES[random.random_range(0..PIECES.len())];
            let post = json!({"postId":id,"userId":1,"content":content,"hashtags":[hashtag],"createdAt":at_ms});
            let answer = client.post("/api/posts", &post);
            assert!(answer.status < 202, "{}", answer.text());
            let tags = [fold_hashtag(hashtag)].into_iter().filter(|tag| !tag.is_empty()).collect();
            model.posts.insert(id, (content, tags, at_ms));
        }
        4..=5 => {
            let user = random.random_range(0..4).to_string();
            like(client, &user, &id);
            model.likes.insert((user, id));
        }
        _ if !typed.trim().is_empty() => {
            let limit = random.random_range(1..=15);
            let answer = search(client, &typed, &format!("&limit={limit}"));
            assert_eq!(ids(&answer), model.find(&typed, limit), "{typed:?} in {:?}", model.posts);
            model.searches += 1;
        }
        _ => {}
    }
}
