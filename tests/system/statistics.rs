//! Exact statistics of any range: rankings, series, users, against a model that only knows a list of events; and the
//! same answers at the front door.

mod local_days;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::bench::{Bench, Ledger, Live, MAIN_PAIRS, MIXED_PAIRS, each_pair, items, on_pairs};
use crate::support::client::Client;
use crate::support::ledgers::{DAY, Fixture, HOUR, MINUTE, NOW, each_ledger, event, random_event, seeded};
use crate::support::model::{LISTS, Model};
use crate::support::{eventually, memory_kib, now_ms, redis};
use event_tracker::adapters::memory::MemoryLive;
use event_tracker::adapters::redis::RedisLive;
use event_tracker::events::{Dimension, Event, EventType, Record, Sketch};
use event_tracker::live::{Calendar, window_minutes};
use event_tracker::ports::{
    Interval, LiveBatch, LiveState, LiveStore, LiveWriter, Ranked, RankingQuery, SeriesPoint, SeriesQuery, Snapshot,
    Watermark, Window,
};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

/// A ledger with random events of three days, some without a user, and what the model knows of them.
fn filled(fixture: &Fixture, random: &mut StdRng) -> Model {
    let mut model = Model::default();
    let mut feed = fixture.feed();
    for _ in 0..12 {
        let mut events: Vec<Event<'static>> = (0..random.random_range(1..120)).map(|_| random_event(random)).collect();
        for event in events.iter_mut().filter(|event| !event.event_type.is_like()) {
            if random.random_range(0..5) == 0 {
                event.user_id = None;
                event.session_id = Some("nobody".into());
            }
        }
        events.iter().for_each(|event| model.take(event));
        feed.apply(events.into_iter().map(Record::Event).collect());
    }
    model
}

/// A range whose ends lie on hours, on minutes, or anywhere.
fn random_range(random: &mut StdRng) -> (i64, i64) {
    let mut end = || {
        let at = NOW + MINUTE - random.random_range(0..3 * DAY);
        match random.random_range(0..3) {
            0 => at - at.rem_euclid(HOUR),
            1 => at - at.rem_euclid(MINUTE),
            _ => at,
        }
    };
    let (one, other) = (end(), end());
    (one.min(other), one.max(other))
}

#[test]
fn rankings_of_any_range_are_those_of_the_events_page_by_page() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let model = filled(fixture, &mut random);
        for round in 0..25 {
            let (from_ms, to_ms) = if round == 0 { (NOW - HOUR, NOW) } else { random_range(&mut random) };
            for parts in LISTS {
                let limit = random.random_range(1..5);
                let mut query = RankingQuery { parts: parts.to_vec(), from_ms, to_ms, after: None, before: 0, limit };
                let expected = model.ranking(&query);
                let mut read = Ranked::new();
                loop {
                    let page = fixture.ranking(&query);
                    assert!(page.len() <= limit);
                    let Some((name, sum)) = page.last() else { break };
                    query.after = Some((*sum, name.clone()));
                    read.extend(page);
                    query.before = read.len();
                }
                assert_eq!(read, expected, "{} {query:?}", fixture.name);
            }
        }
    });
}

#[test]
fn series_and_users_are_those_of_the_events() {
    let mut random = seeded();
    each_ledger(|fixture| {
        let model = filled(fixture, &mut random);
        let kinds = [None, Some(EventType::Click), Some(EventType::Like), Some(EventType::Unlike)];
        for _ in 0..12 {
            let (from, to) = random_range(&mut random);
            let users = fixture.ledger.users(from, to).expect("answers");
            assert_eq!(users, Some(model.point(None, from, to).users), "{} {from} to {to}", fixture.name);
            // Days that begin at the half hour, as in some time zones, are read from raw rows in part.
            for (interval, unit, shift) in [
                (Interval::Minute, MINUTE, 0),
                (Interval::Hour, HOUR, 0),
                (Interval::Day, DAY, 9 * HOUR),
                (Interval::Day, DAY, 5 * HOUR + 30 * MINUTE),
            ] {
                let event_type = kinds[random.random_range(0..kinds.len())];
                let first = from - (from + shift).rem_euclid(unit);
                let edges_ms: Vec<i64> = (0..40).map(|n| first + n * unit).collect();
                let query = SeriesQuery { event_type, interval, edges_ms };
                let expected: Vec<SeriesPoint> =
                    query.edges_ms.windows(2).map(|edge| model.point(event_type, edge[0], edge[1])).collect();
                let read = fixture.ledger.series(&query).expect("answers").expect("in time");
                assert_eq!(read, expected, "{} {query:?}", fixture.name);
            }
        }
    });
}

#[test]
fn names_of_equal_sums_are_in_the_order_of_their_bytes_across_pages() {
    each_ledger(|fixture| {
        let names = ["Z", "a", "é", "고", "a b", "a-b", "~"];
        let mut feed = fixture.feed();
        let records = names.map(|name| {
            Record::Event(Event { post_id: Some(name.into()), url: None, ..event(EventType::PageView, NOW) })
        });
        feed.apply(records.to_vec());
        let mut sorted = names.to_vec();
        sorted.sort_by_key(|name| name.as_bytes());
        // From raw rows, from minutes and from hours alike.
        let whole_hour = NOW - NOW.rem_euclid(HOUR);
        let whole_minute = NOW - NOW.rem_euclid(MINUTE);
        for (from_ms, to_ms) in [(NOW, NOW + 1), (whole_minute, whole_minute + MINUTE), (whole_hour, whole_hour + HOUR)]
        {
            let parts = vec![(Dimension::PostViews, 1)];
            let mut query = RankingQuery { parts, from_ms, to_ms, after: None, before: 0, limit: 1 };
            for name in &sorted {
                let page = fixture.ranking(&query);
                assert_eq!(page, [((*name).to_owned(), 1)], "{}", fixture.name);
                query.after = Some((1, (*name).to_owned()));
            }
        }
    });
}

/// Events of the last two days, by one person each, on both sides of the hour.
fn events_of(now: i64, count: i64) -> Vec<Value> {
    let kinds = ["SEARCH", "PAGE_VIEW", "CLICK"];
    (0..count)
        .map(|n| {
            let name = n * n % 7;
            json!({
                "eventType": kinds[(n % 3) as usize],
                "userId": n % 11,
                "timestamp": now - n * 37 * 60_000 - n,
                "metadata": {"keyword": format!("Word {name}"), "postId": name, "url": format!("/page/{name}?x={n}"),
                             "componentId": name + 1},
            })
        })
        .collect()
}

#[test]
fn days_of_a_series_are_those_of_the_time_zone() {
    for (zone, offset) in [("Asia/Seoul", 9 * HOUR), ("Asia/Kolkata", 5 * HOUR + 30 * MINUTE)] {
        on_pairs(MAIN_PAIRS, |bench| {
            bench.kill();
            bench.set("TIME_ZONE", zone);
            bench.start();
            let mut client = bench.client();
            let today = now_ms() + offset;
            let midnight = today - today.rem_euclid(DAY) - offset;
            // Three of the day before, and one of the day before that.
            let moments =
                [(midnight - 1, "a"), (midnight - DAY, "b"), (midnight - DAY + HOUR, "a"), (midnight - DAY - 1, "a")];
            let event = |(ms, user)| json!({"eventType": "CLICK", "userId": user, "timestamp": ms, "metadata": {"componentId": 1}});
            client.post("/api/events?wait=true", &json!(moments.map(event))).expect(201);
            let path = format!("/api/statistics/timeseries?interval=day&from={}&to={midnight}", midnight - 2 * DAY);
            let series = client.read(&path);
            let points = series["points"].as_array().expect("points").iter();
            let said: Vec<_> = points.map(|point| json!([point["count"], point["users"]])).collect();
            assert_eq!(json!(said), json!([[1, 1], [3, 2]]), "{zone}: {series}");
        });
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_to_do() {
    each_pair(|_, client| {
        client.post("/api/events?wait=true", &json!(events_of(now_ms(), 30))).expect(201);
        // What only rows tell of a time whose rows may be gone.
        let gone = now_ms() - 402 * DAY + 17;
        let answer = client.read(&format!("/api/statistics/rankings/keywords?from={gone}"));
        assert!(answer["from"].as_str().expect("a time").ends_with(":00:00Z"), "a whole hour: {answer}");
        let range = format!("from={}&to={}", now_ms() - 3 * DAY, now_ms());
        let first = client.read(&format!("/api/statistics/rankings/keywords?{range}&limit=1"));
        let next = first["next"].as_str().expect("there are more").to_owned();
        client.read(&format!("/api/statistics/rankings/keywords?cursor={next}"));
        client.read(&format!("/api/statistics/rankings/keywords?{range}&cursor={next}&limit=100"));
        for (path, tag) in [
            ("/rankings/keywords?limit=101", "invalid_parameter"),
            ("/rankings/keywords?from=yesterday", "invalid_parameter"),
            ("/rankings/keywords?mode=hot", "invalid_parameter"),
            ("/rankings/posts?by=name", "invalid_parameter"),
            ("/timeseries?interval=week", "invalid_parameter"),
            ("/timeseries?eventType=TOGGLE", "invalid_parameter"),
            ("/timeseries?interval=minute&from=0&to=90060000", "too_many_points"),
            ("/timeseries?interval=hour&from=0", "too_many_points"),
            (&format!("/users?from={gone}"), "range_not_kept"),
            (&format!("?postId=1&componentId=1&from={gone}&to={}", gone + DAY), "range_not_kept"),
            ("/rankings/keywords?cursor=x", "invalid_cursor"),
            ("/rankings/keywords?cursor=00", "invalid_cursor"),
            ("/rankings/keywords?cursor=31", "invalid_cursor"),
            ("/rankings/keywords?cursor=%C3%A9", "invalid_cursor"),
            ("/rankings/keywords?cursor=%ff", "invalid_encoding"),
            (&format!("/rankings/pages?cursor={next}"), "invalid_cursor"),
            (&format!("/rankings/keywords?mode=zero-result&cursor={next}"), "invalid_cursor"),
            (&format!("/rankings/keywords?from=1&cursor={next}"), "invalid_cursor"),
        ] {
            let answer = client.get(&format!("/api/statistics{path}")).expect(400).json();
            assert_eq!(answer["error"], tag, "{path}: {answer}");
        }
    });
}

#[test]
fn an_exact_answer_that_says_the_same_is_304() {
    each_pair(|_, client| {
        let now = now_ms();
        client.post("/api/events?wait=true", &json!(events_of(now, 30))).expect(201);
        let range = format!("from={}&to={now}", now - DAY);
        let paths = ["rankings/keywords", "timeseries", "users"].map(|path| format!("/api/statistics/{path}?{range}"));
        let tags = paths.each_ref().map(|path| {
            let tag = client.get(path).expect(200).header("etag").expect("a tag").to_owned();
            client.send("GET", path, &[("If-None-Match", &tag)], b"").expect(304);
            tag
        });
        let late = json!({"eventType": "SEARCH", "userId": "new", "timestamp": now - HOUR,
                          "metadata": {"keyword": "word 0"}});
        client.post("/api/events?wait=true", &late).expect(201);
        for (path, tag) in paths.iter().zip(&tags) {
            client.send("GET", path, &[("If-None-Match", tag)], b"").expect(200);
        }
    });
}

const ENDLESS_HOURS: &str = "ALTER TABLE rollup_hour RENAME TO hidden; \
    CREATE VIEW rollup_hour AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
    SELECT i % 2 + 1 AS dimension, i AS bucket, 'x' AS key, 1 AS count FROM n";
/// A walk over the posts does not end.
const ENDLESS_POSTS: &str = "ALTER TABLE post_stat RENAME TO hidden_posts; \
    CREATE VIEW post_stat AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
    SELECT 'x' AS post_id, CAST(i AS bigint) AS like_count, CAST('2000-01-01' AS timestamptz) AS made_at FROM n";

#[test]
fn a_range_that_takes_too_long_is_refused_in_time_and_others_are_answered() {
    each_pair(|bench, client| {
        client.post("/api/events?wait=true", &json!(events_of(now_ms(), 10))).expect(201);
        let content = "endless0 endless1 endless2 endless3 endless4 endless5";
        client.post("/api/posts", &json!({"userId": 1, "content": content})).expect(201);
        bench.execute(ENDLESS_HOURS);
        bench.execute(ENDLESS_POSTS);
        // More of them than failures open a breaker.
        let searches: Vec<String> = (0..6).map(|n| format!("/api/search?keyword=endless{n}")).collect();
        let searches = searches.iter().map(|path| (path.as_str(), "search_too_broad"));
        let ranges = ["/api/statistics/rankings/keywords", "/api/statistics/timeseries"];
        for (path, tag) in ranges.map(|path| (path, "range_too_large")).into_iter().chain(searches) {
            let begun = Instant::now();
            let answer = client.get(path).expect(400);
            assert_eq!(answer.json()["error"], tag, "{path}");
            assert!(answer.header("retry-after").is_none(), "asking again does not help");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        client.read("/api/statistics/timeseries?interval=minute");
        let users = client.read(&format!("/api/statistics/users?from={}&to={}", now_ms() - DAY, now_ms()));
        assert_eq!(users["users"], 10);
    });
}

/// Each hour that is not folded is named in a statement: there are 70 million of them up to the year 9999.
#[test]
fn a_range_up_to_the_end_of_all_time_costs_no_memory() {
    each_pair(|bench, client| {
        client.post("/api/events?wait=true", &json!(events_of(now_ms(), 30))).expect(201);
        let pid = bench.tracker().pid();
        let (first, last) = (i64::MIN, i64::MAX);
        for range in [format!("from={first}&to={last}"), "from=0&to=9999-12-30T00:00:00Z".to_owned()] {
            for list in ["keywords?", "posts?by=score&", "pages?"] {
                let answer = client.read(&format!("/api/statistics/rankings/{list}{range}"));
                assert!(!answer["items"].as_array().expect("a list").is_empty(), "{answer}");
            }
            assert_eq!(client.read(&format!("/api/statistics?{range}"))["count"], 30);
            client.get(&format!("/api/statistics/users?{range}")).expect(400);
        }
        // A cursor that nobody was given.
        let far = format!("1 2x1 {first} {last} 10 7 x");
        let far: String = far.bytes().map(|byte| format!("{byte:02x}")).collect();
        client.get(&format!("/api/statistics/rankings/keywords?cursor={far}")).expect(400);
        let most = memory_kib(pid, "VmHWM");
        assert!(most < 1_000_000, "{most} kB");
    });
}

const WINDOWS: [Window; 4] = [Window::TenMinutes, Window::Hour, Window::Day, Window::Week];

/// A live store that is fed by hand.
struct Fed {
    store: Box<dyn LiveStore>,
    writer: Box<dyn LiveWriter>,
    stream: Uuid,
    at: Watermark,
}

impl Fed {
    fn new(store: Box<dyn LiveStore>, now_ms: i64) -> Fed {
        let mut writer = store.open_writer().expect("a writer");
        let stream = Uuid::new_v4();
        let mut nothing = |_: &jiff::tz::TimeZone| Ok(Snapshot::default());
        writer.rebuild(stream, LiveState::Lost, &mut nothing, now_ms).expect("rebuilds");
        writer.register(stream).expect("registers");
        Fed { store, writer, stream, at: Watermark::default() }
    }

    fn apply(&mut self, users: &[(i64, Box<str>)], now_ms: i64) {
        let to = Watermark { position: self.at.position + 1, crc: 1 };
        let (stream, from, users) = (self.stream, self.at, users.to_vec());
        let batch = LiveBatch { stream, from, to, now_ms, users, ..LiveBatch::default() };
        self.writer.apply(&batch).expect("applies");
        self.at = to;
    }
}

/// Ten hours of random batches on both stores: some late by minutes, hours, days or a month, folded meanwhile.
#[test]
fn both_live_stores_estimate_the_users_of_every_window_as_one_sketch_of_them_does() {
    let mut random = seeded();
    let zone = TimeZone::fixed(jiff::tz::offset(9));
    let calendar = Calendar::new(zone.clone());
    let server = redis::Server::start();
    // Ahead of Redis' own clock, by which keys expire: never behind it.
    let mut now = now_ms();
    let redis = RedisLive::new(&server.url(), 2, zone.clone()).expect("a url");
    let mut stores =
        [("memory", Fed::new(Box::new(MemoryLive::new(zone)), now)), ("redis", Fed::new(Box::new(redis), now))];
    let mut all: Vec<(i64, Box<str>)> = Vec::new();
    for _ in 0..25 {
        now += random.random_range(0..10 * MINUTE);
        let mut users: Vec<(i64, Box<str>)> = (0..random.random_range(1..2_500))
            .map(|_| {
                let late = [0, 0, 0, 10 * MINUTE, 3 * HOUR, 3 * DAY, 31 * DAY][random.random_range(0..7)];
                let at = now - late - random.random_range(0..5 * MINUTE);
                (at.div_euclid(MINUTE), format!("user {}", random.random_range(0..20_000)).into())
            })
            .collect();
        users.sort();
        users.dedup();
        for (_, fed) in &mut stores {
            fed.apply(&users, now);
        }
        all.extend(users);
        let fold = random.random_range(0..3) > 0;
        for window in WINDOWS {
            let minutes = window_minutes(window, now, &calendar);
            let mut expected = Sketch::default();
            all.iter().filter(|(minute, _)| minutes.contains(minute)).for_each(|(_, user)| expected.add(user));
            for (name, fed) in &mut stores {
                if fold {
                    fed.writer.fold(now).expect("folds");
                }
                let users = fed.store.users(window, now).expect("answers");
                assert_eq!(users, expected.estimate(), "{name} {window:?}");
            }
        }
        // A union is kept for the second that it was asked in.
        now += 1_000;
    }
}

fn users_of(client: &mut Client, window: &str) -> (u64, bool) {
    let answer = client.read(&format!("/api/statistics/users?window={window}"));
    (answer["users"].as_u64().expect("users"), answer["approximate"] == true && answer["source"] == "live")
}

#[test]
fn users_of_a_window_are_live_and_survive_a_rebuild_while_a_month_old_batch_lands_in_its_days_only() {
    let claim = |bench: &mut Bench| {
        let mut client = bench.client();
        let now = now_ms();
        let old = now - 30 * DAY;
        let at = |ms: i64, user: i64, keyword: &str| json!({"eventType": "SEARCH", "userId": user, "timestamp": ms, "metadata": {"keyword": keyword}});
        let fresh: Vec<Value> = (0..200).map(|n| at(now - n * 1_000, n % 50, "fresh")).collect();
        let late: Vec<Value> = (0..100).map(|n| at(old + n, 1_000 + n, "late")).collect();
        let nobody = json!({"eventType": "SEARCH", "sessionId": "s", "metadata": {"keyword": "fresh"}});
        client.post("/api/events/batch?wait=true", &json!([&fresh[..], &late[..], &[nobody]].concat())).expect(201);
        bench.settle();
        let check = |client: &mut Client| {
            for window in ["10m", "1h", "24h", "7d"] {
                let (users, is_live) = users_of(client, window);
                // So few are estimated to within one or two.
                if !is_live || users.abs_diff(50) > 2 {
                    return Err(format!("{window}: {users}, live: {is_live}"));
                }
            }
            Ok(())
        };
        check(&mut client).expect("users of each window");
        let exact = client.read(&format!("/api/statistics/users?from={}&to={}", now - HOUR, now + MINUTE));
        assert_eq!((&exact["users"], &exact["approximate"]), (&json!(50), &json!(false)));
        let series = client.read(&format!("/api/statistics/timeseries?interval=day&from={old}&to={}", old + 1));
        assert_eq!((&series["points"][0]["count"], &series["points"][0]["users"]), (&json!(100), &json!(100)));
        let ranked = client.read(&format!("/api/statistics/rankings/keywords?from={}&to={}", old - HOUR, old + HOUR));
        assert_eq!(items(&ranked, "keyword"), [("late".to_owned(), 100)]);
        let live = client.read("/api/statistics/popular/keywords?window=7d");
        assert_eq!(items(&live, "keyword"), [("fresh".to_owned(), 201)], "not in the live windows");
        bench.lose_live();
        let mut client = bench.client();
        eventually(Duration::from_secs(10), || check(&mut client));
        client.get("/api/statistics/users?window=1h&from=1").expect(400);
        client.get("/api/statistics/users?window=2h").expect(400);
    };
    on_pairs(MAIN_PAIRS, claim);
    on_pairs(MIXED_PAIRS, claim);
}

/// A stream of events, read line by line, without chunks.
pub(crate) fn open_stream(bench: &Bench) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(bench.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.write_all(b"GET /api/statistics/stream HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sends");
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    stream.read_line(&mut text).expect("a line");
    text
}

pub(crate) fn next_event(stream: &mut BufReader<TcpStream>) -> Value {
    loop {
        let text = line(stream);
        assert!(!text.is_empty(), "the stream has ended");
        if let Some(data) = text.strip_prefix("data: ") {
            return serde_json::from_str(data).expect("JSON");
        }
    }
}

#[test]
fn a_stream_says_rates_and_tops_once_a_second_to_a_hundred_readers_and_ends_at_a_stop() {
    on_pairs(MAIN_PAIRS, |bench| {
        // What was counted before the first totals were read has no rate.
        bench.settle();
        let mut streams = vec![open_stream(bench)];
        assert!(line(&mut streams[0]).contains(" 200 "), "the head");
        let begun = Instant::now();
        let first = next_event(&mut streams[0]);
        let mut client = bench.client();
        client.post("/api/events?wait=true", &json!(events_of(now_ms(), 3))).expect(201);
        let mut events = 0;
        let seen = std::iter::from_fn(|| Some(next_event(&mut streams[0]))).inspect(|_| events += 1);
        let is_there = |event: &Value| {
            event["keywords"][0]["keyword"] == "word 0" && event["rates"]["SEARCH"].as_f64().is_some_and(|r| r > 0.0)
        };
        let said = seen.take(15).find(is_there).unwrap_or_else(|| panic!("the keyword and its rate after {first}"));
        assert_eq!(said["keywords"][0]["count"], 1, "{said}");
        let seconds = begun.elapsed().as_secs_f64();
        assert!(f64::from(events) <= seconds + 2.0, "{events} in {seconds} s");
        while streams.len() < 100 {
            streams.push(open_stream(bench));
        }
        for stream in &mut streams[1..] {
            assert!(line(stream).contains(" 200 "));
        }
        let refused = client.get("/api/statistics/stream").expect(503).json();
        assert_eq!(refused["error"], "too_many_streams");
        let (one, other) = (next_event(&mut streams[1]), next_event(&mut streams[99]));
        assert!(one["rates"].is_object() && other["rates"].is_object());
        drop(streams.pop());
        eventually(Duration::from_secs(5), || {
            let head = line(&mut open_stream(bench));
            if head.contains(" 200 ") { Ok(()) } else { Err(head) }
        });
        let begun = Instant::now();
        assert!(bench.stop().success());
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    });
}

#[test]
#[ignore = "waits for a heartbeat: 15 s"]
fn a_stream_has_a_heartbeat() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut stream = open_stream(bench);
        let begun = Instant::now();
        while line(&mut stream) != ": still here\n" {
            assert!(begun.elapsed() < Duration::from_secs(18), "no heartbeat");
        }
        assert!(begun.elapsed() > Duration::from_secs(14));
    });
}

/// All statistics without `asOf`. `same_answers.rs` compares them with a model.
fn everything(client: &mut Client, now: i64) -> Vec<Value> {
    let range = format!("from={}&to={now}", now - 3 * DAY);
    let lists = ["keywords?", "keywords?mode=zero-result&", "posts?", "posts?by=score&", "pages?", "components?"];
    let exact = lists.map(|list| format!("rankings/{list}{range}"));
    let live = ["10m", "1h", "24h", "7d"]
        .map(|window| [format!("users?window={window}"), format!("popular/posts?by=score&window={window}")]);
    let others = [format!("users?{range}"), format!("timeseries?interval=hour&{range}"), format!("?{range}")];
    let paths = exact.into_iter().chain(live.concat()).chain(others);
    let read = |path: String| {
        let mut answer = client.read(&format!("/api/statistics/{path}"));
        answer.as_object_mut().expect("an object").remove("asOf");
        answer
    };
    paths.map(read).collect()
}

#[test]
fn several_instances_on_one_pair_of_stores_say_the_same_and_so_they_do_after_a_rebuild() {
    let mut random = seeded();
    let mut first = Bench::new(Ledger::Postgres, Live::Redis);
    let others = [first.beside(), first.beside()];
    first.start();
    let mut instances = vec![first];
    for mut other in others {
        other.start();
        instances.push(other);
    }
    let now = now_ms();
    for number in 0..12 {
        let like = |user: i64| json!({"eventType": "LIKE", "userId": user, "metadata": {"postId": number % 5}});
        let batch = [events_of(now - number * HOUR, 20), (0..number).map(like).collect()].concat();
        let at = random.random_range(0..instances.len());
        instances[at].client().post("/api/events?wait=true", &json!(batch)).expect(201);
    }
    let alike = || {
        // Each follows its own journal, and checks the lists of the live store against the ledger.
        instances.iter().for_each(Bench::check_sums);
        eventually(Duration::from_secs(10), || {
            let said: Vec<_> = instances.iter().map(|instance| everything(&mut instance.client(), now)).collect();
            if said.iter().all(|one| *one == said[0]) { Ok(()) } else { Err(format!("{said:#?}")) }
        });
        let (users, is_live) = users_of(&mut instances[2].client(), "7d");
        assert!(is_live && users.abs_diff(11) <= 2, "{users} users of three journals together");
    };
    alike();
    instances[0].redis.as_ref().expect("Redis").admin("FLUSHALL").expect("flushes");
    alike();
}
