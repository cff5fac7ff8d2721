//! Posts by the front door, over both pairs of stores; and, at the port, the fold of batches that mix likes with posts
//! that are put and deleted, against a model simple enough to believe.

use std::collections::BTreeSet;

use crate::support::bench::{Bench, Ledger, Live, each_pair, items};
use crate::support::client::{Answer, Client};
use crate::support::ledgers::{Fixture, MINUTE, NOW, each_ledger, like};
use crate::support::{now_ms, seed};
use event_tracker::events::{EventType, PostDelete, PostPut, Record};
use event_tracker::ports::{LikeOutcome, PostOutcome, StoreError, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
// The names that the fixtures of ledgers use.
use uuid::Uuid;

fn delete(client: &mut Client, path: &str) -> Answer {
    client.send("DELETE", path, &[], b"")
}

#[test]
fn a_post_is_made_read_replaced_and_deleted() {
    each_pair(|bench, client| {
        let before = now_ms();
        let sent = json!({"userId":1,"content":" Oak, \"é\"\n","hashtags":[" #Oak ","oak","ÉCOLE","#","",null,"a b"],
            "imageUrls":["https://example.org/1.png"],"unknown":{}});
        let made = client.post("/api/posts", &sent).expect(201).json();
        let id = made["postId"].as_str().expect("an id").to_owned();
        assert_eq!(Uuid::parse_str(&id).expect("a UUID").get_version_num(), 7);
        let at: jiff::Timestamp = made["createdAt"].as_str().expect("a time").parse().expect("RFC 3339");
        assert!((before..=now_ms()).contains(&at.as_millisecond()), "{made}");
        let mut expected = json!({"postId":id,"userId":"1","content":" Oak, \"é\"\n","hashtags":["oak","école","a b"],
            "imageUrls":["https://example.org/1.png"],"createdAt":made["createdAt"],"likeCount":0});
        assert_eq!(made, expected);
        let path = format!("/api/posts/{id}");
        assert_eq!(client.read(&path), expected);
        client.post("/api/posts/like", &json!({"userId":2,"postId":id})).expect(200);
        // Replaced: everything but its time and its likes.
        let again = json!({"postId":id,"userId":"u","content":"new"});
        expected = json!({"postId":id,"userId":"u","content":"new","hashtags":[],"imageUrls":[],
            "createdAt":made["createdAt"],"likeCount":1});
        assert_eq!(client.post("/api/posts", &again).expect(200).json(), expected);
        assert_eq!(client.read(&path), expected);
        // A time that is given wins: who brings posts from elsewhere may do so again.
        let dated = json!({"postId":id,"userId":"u","content":"new","createdAt":"2020-01-02T03:04:05.678Z"});
        expected["createdAt"] = json!("2020-01-02T03:04:05.678Z");
        assert_eq!(client.post("/api/posts", &dated).expect(200).json(), expected);
        assert_eq!(client.read(&path), expected);
        assert_eq!(client.send("HEAD", &path, &[], b"").status, 200);
        for _ in 0..2 {
            let gone = delete(client, &path).expect(204);
            assert!(gone.body.is_empty());
            assert_eq!(client.get(&path).expect(404).json()["error"], "not_found");
            assert_eq!(client.read(&format!("{path}/like?userId=2")), json!({"postId":id,"likeCount":0,"liked":false}));
        }
        // Made anew under the same id: a new time, and none of the old likes.
        let anew = client.post("/api/posts", &again).expect(201).json();
        assert_eq!(anew["likeCount"], 0);
        assert_ne!(anew["createdAt"], "2020-01-02T03:04:05.678Z");
        let likes = "SELECT action, like_count, version FROM post_like_log ORDER BY version";
        assert_eq!(bench.rows(likes), [["LIKE", "1", "2"], ["UNLIKE", "0", "5"]], "undone through the log");
        bench.check_sums();
    });
}

#[test]
fn any_id_may_name_a_post_and_is_decoded_once() {
    each_pair(|_, client| {
        for (id, path) in [
            (json!("like"), "/api/posts/like"),
            (json!("a/like"), "/api/posts/a%2Flike"),
            (json!("50%25 é"), "/api/posts/50%2525%20%C3%A9"),
            (json!(42), "/api/posts/42"),
        ] {
            let name = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            let made = client.post("/api/posts", &json!({"userId":1,"content":"c","postId":id})).expect(201).json();
            assert_eq!((&made["postId"], &client.read(path)), (&json!(name), &made));
            client.post("/api/posts/like", &json!({"userId":1,"postId":id})).expect(200);
            assert_eq!(client.read(&format!("{path}/like"))["likeCount"], 1, "{name}");
            delete(client, path).expect(204);
            client.get(path).expect(404);
        }
    });
}

#[test]
fn what_is_wrong_with_a_post_is_named_by_its_field_and_what_is_at_its_bound_is_kept() {
    each_pair(|_, client| {
        let many = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        for (patch, tag, field) in [
            (json!({"userId":null}), "missing_field", "userId"),
            (json!({"userId":"null"}), "invalid_field", "userId"),
            (json!({"content":null}), "missing_field", "content"),
            (json!({"content":" \n"}), "missing_field", "content"),
            (json!({"content":7}), "invalid_field", "content"),
            (json!({"content":"c".repeat(16 * 1024 + 1)}), "invalid_field", "content"),
            (json!({"content":"a\u{0}b"}), "invalid_field", "content"),
            (json!({"postId":"undefined"}), "invalid_field", "postId"),
            (json!({"postId":"a\nb"}), "invalid_field", "postId"),
            (json!({"hashtags":"oak"}), "invalid_field", "hashtags"),
            (json!({"hashtags":[1]}), "invalid_field", "hashtags"),
            (json!({"hashtags":many(31)}), "invalid_field", "hashtags"),
            (json!({"hashtags":["t".repeat(101)]}), "invalid_field", "hashtags"),
            (json!({"hashtags":["a\u{0}"]}), "invalid_field", "hashtags"),
            (json!({"imageUrls":{}}), "invalid_field", "imageUrls"),
            (json!({"imageUrls":many(21)}), "invalid_field", "imageUrls"),
            (json!({"imageUrls":["u".repeat(2_049)]}), "invalid_field", "imageUrls"),
            (json!({"createdAt":"yesterday"}), "invalid_field", "createdAt"),
            (json!({"createdAt":-1}), "invalid_field", "createdAt"),
            (json!({"createdAt":now_ms() + 90_000}), "invalid_field", "createdAt"),
        ] {
            let mut body = json!({"userId":1,"content":"c"});
            body.as_object_mut().expect("an object").extend(patch.as_object().expect("an object").clone());
            let answer = client.post("/api/posts", &body).expect(400).json();
            assert_eq!((answer["error"].as_str(), answer["errors"][field].is_string()), (Some(tag), true), "{answer}");
        }
        let large = format!(r#"{{"userId":1,"content":"{}"}}"#, " ".repeat(512 * 1024));
        for (method, path, body, status) in [
            ("POST", "/api/posts", "", 400),
            ("POST", "/api/posts", r#"["userId"]"#, 400),
            ("POST", "/api/posts", r#"{"userId":1,"content":"\ud800"}"#, 400),
            ("POST", "/api/posts", &large, 413),
            ("GET", "/api/posts", "", 405),
            ("PUT", "/api/posts/p", "{}", 405),
            ("GET", "/api/posts/", "", 405),
            ("GET", "/api/posts/a/b", "", 404),
            ("GET", "/api/posts/%ff", "", 400),
            ("DELETE", "/api/posts/undefined", "", 400),
        ] {
            let answer = client.json(method, path, body);
            assert_eq!(answer.status, status, "{method} {path} {body:.80}: {}", answer.text());
        }
        // Every field at its bound.
        let mut hashtags = vec!["é".repeat(50)];
        hashtags.extend(many(29));
        let urls: Vec<String> = (0..20).map(|n| format!("{n:02}{}", "u".repeat(2_046))).collect();
        let post = json!({"userId":"u".repeat(128),"postId":"p".repeat(128),"content":"\u{1F333}".repeat(4 * 1024),
            "hashtags":hashtags,"imageUrls":urls,"createdAt":now_ms() + 30_000});
        let made = client.post("/api/posts", &post).expect(201).json();
        for field in ["userId", "postId", "content", "hashtags", "imageUrls"] {
            assert_eq!(made[field], post[field], "{field}");
        }
        assert_eq!(client.read(&format!("/api/posts/{}", "p".repeat(128))), made);
    });
}

/// The live store comes back as it was before, the program starts anew: what the ledger decided is read back from it.
#[test]
fn deletes_that_the_live_store_missed_reach_it_by_what_the_ledger_wrote_down() {
    let mut bench = Bench::started(Ledger::Postgres, Live::Redis);
    let mut client = bench.client();
    client.post("/api/posts/like", &json!({"userId":"early","postId":"few"})).expect(200);
    bench.settle();
    let redis = bench.redis.as_mut().expect("Redis");
    redis.save();
    redis.stop();
    // More likes than are read back row by row, and fewer.
    for first in [0, 600] {
        let like = |user| json!({"eventType":"LIKE","userId":user,"metadata":{"postId":"many"}});
        let likes: Vec<Value> = (first..first + 600).map(like).collect();
        client.post("/api/events?wait=true", &json!(likes)).expect(201);
    }
    for path in ["/api/posts/many", "/api/posts/few", "/api/posts/missing"] {
        delete(&mut client, path).expect(204);
    }
    for post in ["many", "few"] {
        client.post("/api/posts/like", &json!({"userId":"late","postId":post})).expect(200);
    }
    bench.kill();
    bench.redis.as_mut().expect("Redis").spawn();
    bench.start();
    bench.check_sums();
    let mut client = bench.client();
    let list = client.read("/api/statistics/popular/posts?by=likes&window=7d");
    assert_eq!(items(&list, "postId"), [], "deleted posts are hidden, whoever likes them");
    for post in ["few", "many"] {
        client.post("/api/posts", &json!({"postId":post,"userId":"u","content":"again"})).expect(201);
    }
    bench.settle();
    // Another limit: the first list may be cached.
    let list = client.read("/api/statistics/popular/posts?by=likes&window=7d&limit=50");
    assert_eq!(items(&list, "postId"), [("few".to_owned(), 1), ("many".to_owned(), 1)], "{list}");
}

fn post_put(post: &str, content: &str, created_at_ms: Option<i64>) -> Record<'static> {
    Record::PostPut(PostPut {
        post_id: post.to_owned().into(),
        user_id: "author".into(),
        content: content.to_owned().into(),
        hashtags: vec!["b".into(), "a".into()],
        image_urls: vec!["\"\\é".into()],
        created_at_ms,
        at_ms: NOW,
    })
}

fn post_delete(post: &str) -> Record<'static> {
    Record::PostDelete(PostDelete { post_id: post.to_owned().into(), at_ms: NOW })
}

/// What the ledger knows of a post.
#[derive(Default)]
struct PostModel {
    /// Content, and when it was made.
    post: Option<(String, i64)>,
    likes: BTreeSet<String>,
    version: i64,
    /// Changes of likes.
    changes: i64,
}

impl PostModel {
    fn count(&self) -> i64 {
        self.likes.len() as i64
    }

    fn like(&mut self, kind: EventType, user: &str) -> Verdict {
        let before = self.likes.contains(user);
        let liked = kind == EventType::Like || kind == EventType::Toggle && !before;
        let changed = if liked { self.likes.insert(user.to_owned()) } else { self.likes.remove(user) };
        self.version += i64::from(changed);
        self.changes += i64::from(changed);
        Verdict::Like(LikeOutcome { liked, changed, like_count: self.count(), version: self.version })
    }

    fn put(&mut self, content: &str, created_at_ms: Option<i64>) -> Verdict {
        let known = self.post.as_ref().map(|(_, made)| *made);
        let created_at_ms = created_at_ms.or(known).unwrap_or(NOW);
        self.post = Some((content.to_owned(), created_at_ms));
        self.version += 1;
        let (replaced, like_count, version) = (known.is_some(), self.count(), self.version);
        Verdict::Post(PostOutcome::Put { replaced, created_at_ms, like_count, version })
    }

    fn delete(&mut self) -> Verdict {
        let (existed, likes_removed) = (self.post.take().is_some(), self.count());
        self.likes.clear();
        self.changes += likes_removed;
        self.version += likes_removed + 1;
        Verdict::Post(PostOutcome::Deleted { existed, likes_removed, version: self.version })
    }
}

/// `POST_BATCHES` (60) a ledger.
#[test]
fn a_batch_of_likes_puts_and_deletes_is_what_one_after_the_other_would_be() {
    let seed = seed();
    let batches = std::env::var("POST_BATCHES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    each_ledger(|fixture| {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut feed, mut other) = (fixture.feed(), fixture.feed());
        let mut model = ["p0", "p1", "p2"].map(|post| (post, PostModel::default()));
        for _ in 0..batches {
            // Small batches too: then most likes of a deleted post are none that its batch names.
            let size = [1, 3, 40][random.random_range(0..3)];
            let mut draw = || {
                let user = format!("u{}", random.random_range(0..12));
                let (post, model) = &mut model[random.random_range(0..3)];
                match random.random_range(0..12) {
                    0 => (post_delete(post), model.delete()),
                    1 | 2 => {
                        let content = format!("c{}", random.random_range(0..99));
                        let made = random.random_bool(0.3).then(|| NOW - random.random_range(0..MINUTE));
                        (post_put(post, &content, made), model.put(&content, made))
                    }
                    _ => {
                        let kinds = [EventType::Like, EventType::Like, EventType::Unlike, EventType::Toggle];
                        let kind = kinds[random.random_range(0..4)];
                        (like(kind, &user, post, NOW), model.like(kind, &user))
                    }
                }
            };
            let (records, expected): (Vec<_>, Vec<_>) = (0..size).map(|_| draw()).unzip();
            // Now by this journal, now by that one: the posts are the same.
            let feed = if random.random_bool(0.5) { &mut feed } else { &mut other };
            let from = feed.at.position;
            let expected: Vec<(u64, Verdict)> = (from + 1..).zip(expected).collect();
            assert_eq!(feed.apply(records), expected);
            let read = fixture.ledger.verdicts(feed.stream, from, feed.at.position).expect("answers");
            let written = expected.into_iter().filter(|(_, v)| !matches!(v, Verdict::Like(o) if !o.changed));
            assert_eq!(read, Some(written.collect()), "what was written down of it");
            model.iter().for_each(|(post, model)| check_post(fixture, post, model));
        }
        assert!(fixture.number("SELECT count(*) FROM verdict WHERE kind = 5 AND likes > 1") > 0, "deletes met likes");
    });
}

fn check_post(fixture: &Fixture, post: &str, model: &PostModel) {
    let likes = fixture.ledger.likes(post, Some("u1")).expect("answers");
    assert_eq!((likes.like_count, likes.liked), (model.count(), model.likes.contains("u1")));
    assert!(!fixture.ledger.likes(post, None).expect("answers").liked);
    let found = fixture.ledger.post(post).expect("answers").map(|found| {
        assert_eq!((found.user_id.as_str(), found.like_count), ("author", model.count()));
        assert_eq!((found.hashtags, found.image_urls), (vec!["b".into(), "a".into()], vec!["\"\\é".to_owned()]));
        (found.content, found.created_at_ms)
    });
    assert_eq!(found, model.post);
    let of = format!("post_like_log WHERE post_id = '{post}' ORDER BY version");
    let log = fixture.rows(&format!("SELECT action, like_count, user_id FROM {of}"));
    let mut liked = BTreeSet::new();
    for row in &log {
        let changes = if row[0] == "LIKE" { liked.insert(&row[2]) } else { liked.remove(&row[2]) };
        assert!(changes, "each row is a change: {row:?}");
        assert_eq!(row[1], liked.len().to_string(), "{row:?}");
    }
    assert_eq!(log.len() as i64, model.changes);
    let version = format!("SELECT coalesce(max(version), 0) FROM post_stat WHERE post_id = '{post}'");
    assert_eq!(fixture.number(&version), model.version);
    let sum = format!("SELECT coalesce(sum(count), 0) FROM rollup_hour WHERE dimension = 6 AND key = '{post}'");
    assert_eq!(fixture.number(&sum), model.count());
}

#[test]
fn a_post_with_more_likes_than_a_batch_goes_with_all_of_them() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        for first in (0..30_000).step_by(10_000) {
            feed.apply((first..first + 10_000).map(|u| like(EventType::Like, &format!("u{u:05}"), "p", NOW)).collect());
        }
        let removed =
            |likes_removed, version| Verdict::Post(PostOutcome::Deleted { existed: false, likes_removed, version });
        let verdicts = feed.apply(vec![
            like(EventType::Unlike, "u00007", "p", NOW),
            post_delete("p"),
            like(EventType::Toggle, "u00009", "p", NOW),
            post_delete("p"),
            like(EventType::Like, "new", "p", NOW),
        ]);
        assert_eq!((verdicts[1].1, verdicts[3].1), (removed(29_999, 60_001), removed(1, 60_004)));
        assert_eq!(fixture.rows("SELECT user_id FROM post_like"), [["new"]]);
        assert_eq!(fixture.rows("SELECT like_count, version FROM post_stat"), [["1", "60005"]]);
        let log = "SELECT count(*), count(DISTINCT version), max(version), min(like_count) FROM post_like_log";
        assert_eq!(fixture.rows(log), [["60003", "60003", "60005", "0"]]);
        let stored = fixture.ledger.verdicts(feed.stream, 30_000, 30_005).expect("answers").expect("not pruned");
        assert_eq!(stored, verdicts);
    });
}

#[test]
fn a_post_that_the_ledger_refuses_is_set_aside() {
    each_ledger(|fixture| {
        let mut feed = fixture.feed();
        let late = post_put("p", "late", Some(i64::MAX));
        let mut tagged = post_put("p", "tagged", None);
        if let Record::PostPut(put) = &mut tagged {
            put.hashtags.push("\0".into());
        }
        let records = vec![post_put("p", "nul\0", None), tagged, late, post_put("p", "good", None)];
        let batch = feed.batch(records.clone());
        for index in 0..3 {
            let refused = feed.writer.probe(&batch, index..index + 1);
            assert!(matches!(refused, Err(StoreError::Poison(_))), "{refused:?}");
        }
        feed.writer.probe(&batch, 3..4).expect("it is good");
        let verdicts = feed.try_apply(records, &[(1, "nul"), (2, "tag"), (3, "late")]).expect("the rest is applied");
        let made = Verdict::Post(PostOutcome::Put { replaced: false, created_at_ms: NOW, like_count: 0, version: 1 });
        assert_eq!(verdicts, [(1, Verdict::Dead), (2, Verdict::Dead), (3, Verdict::Dead), (4, made)]);
        assert_eq!(fixture.number("SELECT count(*) FROM dead_letter"), 3);
        assert_eq!(fixture.ledger.post("p").expect("answers").expect("a post").content, "good");
    });
}
