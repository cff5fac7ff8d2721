//! Search by the front door, over both pairs of stores: what is found, in which order, and what the search leaves behind.

use std::time::{Duration, Instant};

use crate::support::bench::{Bench, each_pair};
use crate::support::client::Client;
use crate::support::{click, eventually_is, percent_encoded, postgres};
use serde_json::{Value, json};

fn search(client: &mut Client, keyword: &str, more: &str) -> Value {
    client.read(&format!("/api/search?keyword={}{more}", percent_encoded(keyword)))
}

#[track_caller]
fn ids(answer: &Value) -> Vec<&str> {
    let posts = answer["posts"].as_array().unwrap_or_else(|| panic!("posts: {answer}")).iter();
    posts.map(|post| post["postId"].as_str().expect("an id")).collect()
}

#[track_caller]
fn finds(client: &mut Client, keyword: &str, expected: &[&str]) {
    assert_eq!(ids(&search(client, keyword, "")), expected, "{keyword}");
}

/// Nobody waits for the event of a search: it is not even in the journal when the answer comes.
#[track_caller]
fn searches_recorded(bench: &Bench, expected: i64) {
    let mut client = bench.client();
    let count = || client.read("/api/statistics?eventType=SEARCH")["count"].as_i64();
    eventually_is(Duration::from_secs(10), &Some(expected), count);
}

fn put(client: &mut Client, id: &str, content: &str, hashtags: &[&str]) {
    let second = id.bytes().map(i64::from).sum::<i64>();
    let post = json!({"postId":id,"userId":"author","content":content,"hashtags":hashtags,"createdAt":(1_000_000_000 + second) * 1_000});
    client.post("/api/posts", &post).expect(201);
}

fn like(client: &mut Client, user: &str, post: &str) {
    client.post("/api/posts/like", &json!({"userId":user,"postId":post,"action":"like"})).expect(200);
}

#[test]
fn a_post_is_found_by_hashtag_and_by_what_it_says_in_any_case_and_language() {
    each_pair(|_, client| {
        put(client, "a", "우리집 고양이가 잔다", &["일상"]);
        put(client, "b", "An OAK chair, naïve CAFE\u{301}", &["#Oak", "고양이"]);
        put(client, "c", "100% cotton_shirt C:\\temp 'it' \"so\" \u{1F333}", &["Sale"]);
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
            finds(client, keyword, expected);
        }
        let answer = search(client, " Oak ", "&userId=7");
        assert_eq!(json!([answer["keyword"], answer["source"], answer["stale"]]), json!(["Oak", "ledger", false]));
        assert!(answer["asOf"].as_str().expect("a time").parse::<jiff::Timestamp>().is_ok(), "{answer}");
        assert_eq!(answer["posts"][0], client.read("/api/posts/b"), "a post is what it is elsewhere");
    });
}

/// Follows `next` from the first page to the last: the ids of each page, and the largest body.
fn pages(client: &mut Client, keyword: &str, more: &str) -> (Vec<Vec<String>>, usize) {
    let (mut pages, mut largest, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = client.get(&format!("/api/search?keyword={}{more}{cursor}", percent_encoded(keyword))).expect(200);
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
    each_pair(|bench, client| {
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
                let (pages, largest) = pages(client, keyword, limit);
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
    each_pair(|_, client| {
        // `ad` and `bc` were made in the same moment.
        for id in ["bc", "ad", "aa", "zz", "ab"] {
            put(client, id, "tie", &["knot"]);
        }
        like(client, "1", "aa");
        like(client, "2", "aa");
        like(client, "1", "ab");
        for keyword in ["tie", "#knot"] {
            let (pages, _) = pages(client, keyword, "&limit=2");
            assert_eq!(pages, [vec!["aa", "ab"], vec!["zz", "ad"], vec!["bc"]]);
        }
        assert!(search(client, "tie", "&limit=5").get("next").is_none(), "there are no more");
        let first = search(client, "tie", "&limit=2");
        let next = first["next"].as_str().expect("there are more");
        client.send("DELETE", "/api/posts/zz", &[], b"").expect(204);
        assert_eq!(ids(&search(client, "tie", &format!("&limit=2&cursor={next}"))), ["ad", "bc"]);
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
    each_pair(|bench, client| {
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
        let posted = client.send("POST", "/api/search?keyword=a", &[], b"").expect(405);
        assert_eq!(posted.header("allow"), Some("GET, HEAD"));
        search(client, &"한".repeat(66), "");
        search(client, &"k".repeat(200), "");
        searches_recorded(bench, 2);
        bench.settle();
        assert_eq!(bench.event_rows(), 2, "what was refused is no event");
    });
}

#[test]
fn an_answer_may_be_kept_and_is_packed_and_its_search_counts_all_the_same() {
    each_pair(|bench, client| {
        put(client, "a", &"고양이 ".repeat(1_000), &[]);
        let path = format!("/api/search?keyword={}", percent_encoded("고양이"));
        let first = client.send("GET", &path, &[("Accept-Encoding", "gzip")], b"").expect(200);
        assert_eq!(first.header("content-encoding"), Some("gzip"));
        assert!(first.body.len() < 1_000, "{}", first.body.len());
        let tag = first.header("etag").expect("a tag").to_owned();
        client.send("GET", &path, &[("If-None-Match", &tag)], b"").expect(304);
        like(client, "1", "a");
        client.send("GET", &path, &[("If-None-Match", &tag)], b"").expect(200);
        // Asked for without a body: nothing was shown to anybody.
        client.send("HEAD", &path, &[], b"").expect(200);
        searches_recorded(bench, 3);
    });
}

#[test]
fn a_ledger_that_hangs_makes_it_503_in_time_and_no_event() {
    let server = postgres::Server::private();
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
    eventually_is(Duration::from_secs(20), &200, || client.get("/api/search?keyword=oak").status);
    searches_recorded(&bench, 1);
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id = '1'"), 0, "it found nothing out");
}

#[test]
fn a_journal_that_is_full_refuses_the_event_and_not_the_search() {
    let mut bench = Bench::embedded(&[]);
    put(&mut bench.client(), "a", "oak", &[]);
    bench.stop();
    // More free space than any disk has is asked for: full from the start.
    bench.set("JOURNAL_MIN_FREE", "1000000000000000");
    bench.start();
    let mut client = bench.client();
    eventually_is(Duration::from_secs(5), &503, || client.post("/api/events", &click(1)).status);
    let refused = r#"events_total{outcome="refused"}"#;
    let before = client.metric(refused);
    finds(&mut client, "oak", &["a"]);
    assert_eq!(client.metric(refused), before + 1.0);
}
