//! Likes by the front door: each is answered with the state right after it, over both pairs of stores, on one instance
//! and on two, with a ledger that stands still or whose reply is lost.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, each_pair, on_pairs, on_pairs_stopped};
use crate::support::client::{Answer, Client};
use crate::support::hold::Hold;
use crate::support::load::check_like_tables;
use crate::support::relay::{self, Filter};
use crate::support::{eventually_is, postgres, tables};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

fn outcome(post: &str, user: &str, liked: bool, count: i64, changed: bool) -> Value {
    json!({"postId":post,"userId":user,"liked":liked,"likeCount":count,"changed":changed})
}

#[test]
fn a_like_is_answered_with_the_state_right_after_it() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut client = bench.client();
        let mut act = |body: Value| client.post("/api/posts/like", &body).expect(200).json();
        let by = |user: i64, action: &str| json!({"userId":user,"postId":7,"action":action});
        assert_eq!(act(json!({"userId":1,"postId":7})), outcome("7", "1", true, 1, true), "toggle is the default");
        assert_eq!(act(by(2, "like")), outcome("7", "2", true, 2, true));
        assert_eq!(act(by(2, "like")), outcome("7", "2", true, 2, false));
        assert_eq!(act(by(1, "toggle")), outcome("7", "1", false, 1, true));
        assert_eq!(act(by(1, "UNLIKE")), outcome("7", "1", false, 1, false));
        assert_eq!(act(by(2, "unlike")), outcome("7", "2", false, 0, true));
        assert_eq!(act(by(3, "unlike")), outcome("7", "3", false, 0, false), "never below zero");
        // The same by the resource; the user may stand in the query where a client sends no body.
        let mut client = bench.client();
        let liked = client.json("PUT", "/api/posts/7/like", json!({"userId":"é"})).expect(200).json();
        assert_eq!(liked, outcome("7", "é", true, 1, true));
        assert_eq!(client.json("PUT", "/api/posts/7/like", json!({"userId":"é"})).json()["changed"], false);
        let state = |client: &mut Client, query: &str| client.read(&format!("/api/posts/7/like{query}"));
        assert_eq!(state(&mut client, ""), json!({"postId":"7","likeCount":1}));
        assert_eq!(state(&mut client, "?userId=%C3%A9"), json!({"postId":"7","likeCount":1,"liked":true}));
        assert_eq!(state(&mut client, "?userId=1"), json!({"postId":"7","likeCount":1,"liked":false}));
        let unliked = client.send("DELETE", "/api/posts/7/like?userId=%C3%A9", &[], b"").expect(200).json();
        assert_eq!(unliked, outcome("7", "é", false, 0, true));
        let again = client.json("DELETE", "/api/posts/7/like", json!({"userId":"é"})).expect(200).json();
        assert_eq!(again, outcome("7", "é", false, 0, false));
        // Ids of a path are decoded once.
        let odd = client.json("PUT", "/api/posts/a%2Fb%20%2541+/like", json!({"userId":1})).expect(200).json();
        assert_eq!(odd, outcome("a/b %41+", "1", true, 1, true));
        let same = client.post("/api/posts/like", &json!({"userId":1,"postId":"a/b %41+","action":"like"})).json();
        assert_eq!(same["changed"], false);
        assert_eq!(client.read("/api/posts/never/like"), json!({"postId":"never","likeCount":0}));
        bench.check_sums();
        check_like_tables(bench);
        assert_eq!(bench.number("SELECT count(*) FROM post_like_log"), 7, "a row a change");
        let toggles = "SELECT count(*) FROM events WHERE event_type NOT IN ('LIKE', 'UNLIKE')";
        assert_eq!(bench.number(toggles), 0);
    });
}

#[test]
fn what_is_wrong_with_a_like_is_named_by_its_field() {
    each_pair(|bench, client| {
        for (body, tag, field) in [
            (json!({"postId":"p"}), "missing_field", "userId"),
            (json!({"userId":1}), "missing_field", "postId"),
            (json!({"userId":"undefined","postId":"p"}), "invalid_field", "userId"),
            (json!({"userId":1,"postId":"a\u{0}"}), "invalid_field", "postId"),
            (json!({"userId":1,"postId":"p".repeat(129)}), "invalid_field", "postId"),
            (json!({"userId":1,"postId":[]}), "invalid_field", "postId"),
            (json!({"userId":1,"postId":"p","action":"love"}), "invalid_field", "action"),
            (json!({"userId":1,"postId":"p","action":1}), "invalid_field", "action"),
            (json!({"userId":1,"postId":"p","eventId":"x"}), "invalid_field", "eventId"),
        ] {
            let answer = client.post("/api/posts/like", &body).expect(400).json();
            assert_eq!((answer["error"].as_str(), answer["errors"][field].is_string()), (Some(tag), true), "{answer}");
        }
        for (method, path, body, status) in [
            ("POST", "/api/posts/like", "", 400),
            ("POST", "/api/posts/like", "[]", 400),
            ("POST", "/api/posts/like", "{", 400),
            ("PUT", "/api/posts/p/like", "{}", 400),
            ("PUT", "/api/posts/%00/like", r#"{"userId":1}"#, 400),
            ("PUT", "/api/posts/%zz/like", r#"{"userId":1}"#, 400),
            ("PUT", "/api/posts/null/like", r#"{"userId":1}"#, 400),
            ("GET", "/api/posts/p/like?userId=NaN", "", 400),
            ("DELETE", "/api/posts/p/like", "", 400),
            ("POST", "/api/posts/p/like", r#"{"userId":1}"#, 405),
            ("PUT", "/api/posts/like", r#"{"userId":1}"#, 405),
            ("GET", "/api/posts//like", "", 404),
            ("GET", "/api/posts/a/b/like", "", 404),
        ] {
            let answer = client.json(method, path, body);
            assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        }
        assert_eq!(bench.event_rows(), 0);
    });
}

#[test]
fn a_journal_that_takes_nothing_makes_a_like_and_a_post_503() {
    on_pairs_stopped(MAIN_PAIRS, |bench| {
        bench.set("JOURNAL_MIN_FREE", &(1_u64 << 60).to_string());
        bench.start();
        let mut client = bench.client();
        let post = json!({"userId":1,"content":"c","postId":"p"});
        let like = json!({"userId":1,"postId":"p"});
        eventually_is(Duration::from_secs(5), &503, || client.post("/api/posts/like", &like).status);
        for answer in [
            client.post("/api/posts/like", &like),
            client.post("/api/posts", &post),
            client.send("DELETE", "/api/posts/p", &[], b""),
            client.send("DELETE", "/api/posts/p/like?userId=1", &[], b""),
        ] {
            let answer = answer.expect(503);
            assert_eq!((answer.header("retry-after"), &answer.json()["error"]), (Some("1"), &json!("journal_full")));
        }
    });
}

#[test]
fn a_ledger_that_stands_still_makes_it_202_and_what_was_sent_is_applied_in_order() {
    each_pair(|bench, client| {
        client.post("/api/posts/like", &json!({"userId":0,"postId":"p"})).expect(200);
        let held = Hold::of(bench.database_url.as_deref(), &bench.data_dir);
        let started = Instant::now();
        let address = bench.address();
        let late = |method: &'static str, path: &'static str, body: Value| {
            let sent = std::thread::spawn(move || Client::new(address).json(method, path, body));
            std::thread::sleep(Duration::from_millis(100));
            sent
        };
        // What is behind it in the journal waits for it.
        let sent = [
            late("POST", "/api/posts/like", json!({"userId":1,"postId":"p"})),
            late("POST", "/api/posts", json!({"userId":1,"postId":"p","content":"c"})),
            late("DELETE", "/api/posts/other", json!({})),
        ];
        let [toggled, made, deleted] = sent.map(|sent| sent.join().expect("answered").expect(202).json());
        let took = started.elapsed();
        assert!(took > Duration::from_millis(1_900) && took < Duration::from_millis(4_000), "{took:?}");
        assert_eq!(toggled, json!({"postId":"p","userId":"1","status":"queued"}));
        assert_eq!(made, json!({"postId":"p","status":"queued"}));
        assert_eq!(deleted, json!({"postId":"other","status":"queued"}));
        held.release();
        bench.settle();
        assert_eq!(client.read("/api/posts/p")["likeCount"], 2);
        let unliked = client.post("/api/posts/like", &json!({"userId":1,"postId":"p"})).expect(200).json();
        assert_eq!(unliked, outcome("p", "1", false, 1, true), "the toggle before it is in");
        check_like_tables(bench);
    });
}

#[test]
fn clients_that_toggle_one_post_at_once_on_two_instances_are_each_told_the_count_right_after() {
    toggle_on_two_and_on_one(150, 3);
}

/// `LIKE_CLIENTS` (2,000), each `LIKE_ROUNDS` (5) times.
#[test]
#[ignore = "thousands of threads and connections"]
fn two_thousand_clients_that_toggle_one_post_at_once_are_each_told_the_count_right_after() {
    let setting = |name, default| std::env::var(name).ok().and_then(|n: String| n.parse().ok()).unwrap_or(default);
    toggle_on_two_and_on_one(setting("LIKE_CLIENTS", 2_000), setting("LIKE_ROUNDS", 5));
}

/// Two instances on one pair of stores, then one on embedded stores.
fn toggle_on_two_and_on_one(clients: usize, rounds: usize) {
    let mut first = Bench::new(Ledger::Postgres, Live::Redis);
    let mut second = first.beside();
    first.start();
    second.start();
    toggle_at_once(&[&first, &second], clients, rounds);
    let embedded = Bench::embedded(&[]);
    toggle_at_once(&[&embedded], clients, rounds);
}

/// Each client toggles as one user, now on this instance and now on that one.
fn toggle_at_once(instances: &[&Bench], clients: usize, rounds: usize) {
    let (bench, seed) = (instances[0], crate::support::seed());
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.address()).collect();
    let start = Arc::new(Barrier::new(clients));
    let began = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|user| {
            let (start, addresses) = (start.clone(), addresses.clone());
            let toggle = move || {
                let mut random = StdRng::seed_from_u64(seed ^ user as u64);
                let mut clients: Vec<Client> = addresses.iter().map(|address| Client::new(*address)).collect();
                clients.iter_mut().for_each(|client| drop(client.get("/healthz/live").expect(200)));
                let body = json!({"userId":user,"postId":"hot"});
                start.wait();
                let times = random.random_range(1..=rounds);
                let mut at = || random.random_range(0..addresses.len());
                (0..times).map(|_| clients[at()].post("/api/posts/like", &body)).collect::<Vec<Answer>>()
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn(toggle).expect("a thread")
        })
        .collect();
    let answers: Vec<Vec<Answer>> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    let took = began.elapsed();
    let mut log: HashMap<String, Vec<(bool, i64)>> = HashMap::new();
    // Each instance follows its own journal: what one has applied says nothing of the other.
    for instance in instances {
        eventually_is(Duration::from_secs(60), &200, || instance.client().get("/healthz/deps").status);
        instance.settle();
    }
    let of_post = "post_like_log WHERE post_id = 'hot' ORDER BY version";
    for row in bench.rows(&format!("SELECT user_id, action, like_count FROM {of_post}")) {
        log.entry(row[0].clone()).or_default().push((row[1] == "LIKE", row[2].parse().expect("a count")));
    }
    let mut late = 0;
    for (user, answers) in answers.iter().enumerate() {
        // Every toggle changes something: the answers of a user are its rows, in order.
        let rows = &log[&user.to_string()];
        assert_eq!(rows.len(), answers.len(), "user {user}");
        for (answer, (liked, count)) in answers.iter().zip(rows) {
            match answer.status {
                200 => assert_eq!(answer.json(), outcome("hot", &user.to_string(), *liked, *count, true)),
                202 => late += 1,
                other => panic!("{other}: {}", answer.text()),
            }
        }
    }
    let toggles: usize = answers.iter().map(Vec::len).sum();
    eprintln!("{}: {toggles} toggles by {clients} clients in {took:?}, {late} answered 202", bench.name);
    let odd = answers.iter().filter(|answers| answers.len() % 2 == 1).count() as i64;
    assert_eq!(bench.client().read("/api/posts/hot/like")["likeCount"], odd);
    check_like_tables(bench);
    bench.check_sums();
}

/// Filters of one connection. Once `armed`, the answer to the next commit of a batch goes nowhere.
fn cut_after_commit(armed: &Arc<AtomicI64>, url: &str) -> [Filter; 2] {
    let (is_writer, armed, url) = (Arc::new(AtomicBool::new(false)), armed.clone(), url.to_owned());
    let moves = is_writer.clone();
    let up = move |_: &TcpStream, piece: &[u8]| {
        // Only the follower's connection has a statement that moves the watermark.
        moves.fetch_or(piece.windows(16).any(|text| text == b"UPDATE watermark"), Ordering::SeqCst);
        piece.len()
    };
    let down = move |_: &TcpStream, piece: &[u8]| {
        let before = armed.load(Ordering::SeqCst);
        if before == NOT_ARMED || !is_writer.load(Ordering::SeqCst) || position(&url) == before {
            return piece.len();
        }
        armed.store(NOT_ARMED, Ordering::SeqCst);
        0
    };
    [Box::new(up), Box::new(down)]
}

const NOT_ARMED: i64 = -1;

/// How far the ledger is.
fn position(url: &str) -> i64 {
    tables::of_postgres(url, "SELECT sum(position) FROM watermark")[0][0].parse().expect("a number")
}

#[test]
fn a_lost_reply_of_the_commit_is_settled_by_what_was_written_down() {
    let server = postgres::Server::private();
    let url = server.tcp(&server.database("tracker", ""));
    let armed = Arc::new(AtomicI64::new(NOT_ARMED));
    let (trigger, direct) = (armed.clone(), url.clone());
    let relay = relay::start(server.address(), move || cut_after_commit(&trigger, &direct));
    let through = url.replace(&server.address().to_string(), &relay.to_string());
    let mut bench = Bench::on(Some(through), Some(crate::support::redis::Server::start()));
    bench.start();
    let mut client = bench.client();
    let id = uuid::Uuid::new_v4().to_string();
    client.post("/api/posts/like", &json!({"userId":1,"postId":"p","eventId":id})).expect(200);
    let mut lost = |method: &str, path: &str, body: Value| {
        armed.store(position(&url), Ordering::SeqCst);
        let answer = client.json(method, path, body);
        assert_eq!(armed.load(Ordering::SeqCst), NOT_ARMED, "the reply was lost");
        answer
    };
    let toggled = lost("POST", "/api/posts/like", json!({"userId":2,"postId":"p"})).expect(200).json();
    assert_eq!(toggled, outcome("p", "2", true, 2, true));
    // Nothing is written down of a like that changed nothing: its count right after is not known.
    let same = lost("PUT", "/api/posts/p/like", json!({"userId":2})).expect(202).json();
    assert_eq!(same, json!({"postId":"p","userId":"2","status":"queued"}));
    let again = lost("POST", "/api/posts/like", json!({"userId":1,"postId":"p","eventId":id})).expect(200).json();
    assert_eq!(again, outcome("p", "1", true, 2, false));
    let made = json!({"userId":1,"postId":"p","content":"c","createdAt":1_700_000_000_000_i64});
    let post = lost("POST", "/api/posts", made.clone()).expect(201).json();
    assert_eq!((&post["createdAt"], &post["likeCount"]), (&json!("2023-11-14T22:13:20Z"), &json!(2)));
    assert_eq!(lost("POST", "/api/posts", made).expect(200).json(), post);
    lost("DELETE", "/api/posts/p", json!({})).expect(204);
    lost("DELETE", "/api/posts/p", json!({})).expect(204);
    assert_eq!(client.get("/api/posts/p").status, 404);
    assert_eq!(client.read("/api/posts/p/like")["likeCount"], 0);
    bench.check_sums();
    check_like_tables(&bench);
    assert_eq!(bench.number("SELECT count(*) FROM post_like_log"), 4, "two likes, and both undone");
}

#[test]
fn likes_of_a_moderate_load_share_syncs_while_their_batch_is_yet_to_begin() {
    on_pairs(MAIN_PAIRS, |bench| {
        let rests = |client: &mut Client| client.metric("journal_rests_total");
        let mut watcher = bench.client();
        bench.client().post("/api/posts/like", &json!({"userId":0,"postId":"p"})).expect(200);
        assert_eq!(rests(&mut watcher), 0.0, "nobody lets a single one wait");
        // Nobody searches, and whoever only waits for the disk has no time: it is the ledger's sink that says when it begins.
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for user in 1..=8 {
                let (mut client, is_over) = (bench.client(), &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        client.post("/api/posts/like", &json!({"userId":user,"postId":"p"})).expect(200);
                    }
                });
            }
            let begun = Instant::now();
            while rests(&mut watcher) == 0.0 && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        // A disk that takes long for a sync leaves no time: see `Journal::next_batch_begins`.
        let ms = watcher.metric("journal_sync_seconds_total") * 1e3 / watcher.metric("journal_syncs_total");
        assert!(rests(&mut watcher) > 0.0 || ms > 2.0, "it never says so, and a sync takes {ms} ms");
    });
}
