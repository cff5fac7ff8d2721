//! Answers that may be kept: lists have an ETag that changes with what they say, and are packed for those who ask.

use std::io::Read;
use std::time::Duration;

use crate::support::bench::each_pair;
use crate::support::client::{Answer, Client};
use crate::support::eventually_is;
use serde_json::{Value, json};

const LIST: &str = "/api/statistics/popular/keywords?limit=100";

fn get(client: &mut Client, headers: &[(&str, &str)]) -> Answer {
    client.send("GET", LIST, headers, b"")
}

/// What a packed answer says.
fn unpacked(packed: &Answer) -> Value {
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

fn searches(count: usize) -> Value {
    (0..count)
        .map(|i| json!({"eventType": "SEARCH", "userId": 1, "metadata": {"keyword": format!("keyword {i:03}")}}))
        .collect()
}

#[test]
fn a_list_that_says_the_same_is_304_and_a_large_one_is_packed_on_request() {
    each_pair(|bench, client| {
        client.post("/api/events?wait=true", &searches(3)).expect(201);
        bench.settle();
        let first = get(client, &[("Accept-Encoding", "gzip")]).expect(200);
        assert_eq!(first.header("content-encoding"), None, "too small to pay");
        assert_eq!(first.header("cache-control"), Some("public, max-age=1, stale-while-revalidate=10"));
        let tag = first.header("etag").expect("a tag").to_owned();
        assert!(tag.starts_with("W/\""), "{tag}");
        for known in [tag.as_str(), "*", &format!("\"x\", {tag}"), tag.trim_start_matches("W/")] {
            let kept = get(client, &[("If-None-Match", known)]).expect(304);
            assert_eq!((kept.text(), kept.header("etag")), ("", Some(tag.as_str())), "{known}");
        }
        get(client, &[("If-None-Match", "W/\"0\"")]).expect(200);
        client.post("/api/events?wait=true", &searches(100)).expect(201);
        bench.settle();
        // A list is computed once a second at most.
        eventually_is(Duration::from_secs(5), &200, || get(client, &[("If-None-Match", &tag)]).status);
        let plain = get(client, &[("If-None-Match", &tag), ("Accept-Encoding", "gzip;q=0, br")]).expect(200);
        assert_eq!(plain.header("content-encoding"), None);
        for accepts in ["gzip", "br, GZIP;q=0.5", "*"] {
            let packed = get(client, &[("Accept-Encoding", accepts)]).expect(200);
            assert_eq!(packed.header("vary"), Some("Accept-Encoding"));
            assert_eq!(packed.header("etag"), plain.header("etag"));
            assert!(packed.body.len() < plain.body.len() / 2);
            assert_eq!(unpacked(&packed)["items"], plain.json()["items"], "{accepts}");
        }
    });
}

#[test]
fn lists_of_one_search_are_pieces_of_one_copy_packed_or_not() {
    each_pair(|_, client| {
        let packed = |client: &mut Client, path: &str| {
            unpacked(&client.send("GET", path, &[("Accept-Encoding", "gzip")], b"").expect(200))
        };
        for post in 0..30 {
            let content = format!("{} {post}", "oak desk ".repeat(60));
            let post = json!({"postId": format!("{post:02}"), "userId": 1, "content": content, "hashtags": ["oak"]});
            client.post("/api/posts", &post).expect(201);
        }
        // Newest first: in whichever order they were made within a millisecond, all lists agree.
        let all = client.get("/api/search?keyword=oak&limit=100").expect(200).json();
        let all: Vec<&Value> = all["posts"].as_array().expect("posts").iter().collect();
        assert_eq!(all.len(), 30);
        let mut tags = std::collections::HashSet::new();
        // Twice: what was packed for one list is at hand, and is not taken for another.
        for _ in 0..2 {
            for limit in [20, 2, 100, 19, 30, 25] {
                let path = format!("/api/search?keyword=oak&limit={limit}");
                let plain = client.get(&path).expect(200);
                let shown = plain.json();
                let posts: Vec<&Value> = shown["posts"].as_array().expect("posts").iter().collect();
                assert_eq!(posts, all[..limit.min(30)], "{limit}");
                assert_eq!(packed(client, &path)["posts"], shown["posts"], "{limit}");
                tags.insert(plain.header("etag").expect("a tag").to_owned());
            }
            let typed = packed(client, "/api/search?keyword=OAK&limit=20");
            assert_eq!(typed["keyword"], "OAK", "as typed, from the same copy");
        }
        assert_eq!(tags.len(), 5, "of 2, 19, 20, 25 and all posts: {tags:?}");
    });
}
