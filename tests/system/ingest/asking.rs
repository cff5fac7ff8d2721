//! What statistics and exports are asked: moments in every form, ranges without anything, filters that no value can have.

use super::*;
use crate::statistics::{next_event, open_stream};

fn complaint(client: &mut Client, path: &str) -> Value {
    let answer = client.get(path);
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]), (400, &json!("invalid_parameter")), "{path}: {body}");
    body["errors"].clone()
}

fn lines_of(client: &mut Client, query: &str) -> usize {
    client.get(&format!("/api/export?{query}")).expect(200).text().lines().count()
}

/// Every way to ask for a count of a range: what it counts of one event.
fn counts(client: &mut Client, range: &str) -> [i64; 4] {
    let of_list = |list: &Value| {
        list.as_array().expect("a list").iter().map(|item| item["count"].as_i64().expect("a count")).sum()
    };
    let count = client.read(&format!("/api/statistics?{range}"))["count"].as_i64().expect("a count");
    let ranked = of_list(&client.read(&format!("/api/statistics/rankings/components?{range}"))["items"]);
    let series = client.read(&format!("/api/statistics/timeseries?interval=day&{range}"));
    let points = of_list(&series["points"]);
    [count, ranked, points, lines_of(client, range) as i64]
}

#[test]
fn a_moment_is_rfc_3339_or_milliseconds_or_a_day_of_the_time_zone() {
    on_pairs(MAIN_PAIRS, |bench| {
        bench.kill();
        bench.set("TIME_ZONE", "Asia/Seoul");
        bench.start();
        let mut client = bench.client();
        // Noon of yesterday in Seoul.
        let seoul = jiff::tz::TimeZone::get("Asia/Seoul").expect("a zone");
        let today = jiff::Timestamp::from_millisecond(now_ms()).unwrap().to_zoned_datetime(seoul).date();
        let (day, before, after) = (today.yesterday().unwrap(), today.yesterday().unwrap().yesterday().unwrap(), today);
        let first = format!("{day}T00:00:00+09:00");
        let last = format!("{day}T23:59:59.999+09:00");
        let events = [&first, &last].map(|at| with(click("u"), "timestamp", json!(at)));
        client.post(WAIT, &json!(events)).expect(201);
        let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        for (from, to, expected) in [
            (format!("{day}"), format!("{day}"), 2),
            (format!("{before}"), format!("{before}"), 0),
            (format!("{after}"), format!("{after}"), 0),
            (format!("{before}"), format!("{after}"), 2),
            // An unescaped plus.
            (format!("{day}T00:00:00+09:00"), format!("{after}T00:00:00+09:00"), 2),
            (format!("{day}T00:00:00.001+09:00"), format!("{after}T00:00:00+09:00"), 1),
            (format!("{day}t00:00:00%2B09:00"), format!("{day}T23:59:59.999000000000%2B09:00"), 1),
            (ms(&first).to_string(), (ms(&last) + 1).to_string(), 2),
            ("-99999999999999999999999".to_owned(), "99999999999999999999999".to_owned(), 2),
            ("0000-01-01".to_owned(), "9999-12-31".to_owned(), 2),
            ("-1".to_owned(), "9999-12-31T23:59:59Z".to_owned(), 2),
        ] {
            let query = format!("from={from}&to={to}");
            let count = client.read(&format!("/api/statistics?{query}"))["count"].clone();
            assert_eq!(count, expected, "{query}");
            assert_eq!(lines_of(&mut client, &query), expected, "{query}");
        }
        let range = format!("from={day}&to={day}");
        assert_eq!(counts(&mut client, &range), [2, 2, 2, 2]);
        let series = client.read(&format!("/api/statistics/timeseries?interval=hour&{range}"));
        assert_eq!(series["points"].as_array().expect("points").len(), 24);
        assert_eq!(client.read(&format!("/api/statistics/users?{range}"))["users"], 1);
        for wrong in ["2026-11-31", "2026-11", "2026-11-01T00:00:00", "2026-11-01 09:00", "1e3", "12.5", "yesterday"] {
            for path in ["", "/rankings/keywords", "/timeseries", "/users"] {
                let wrong = wrong.replace(' ', "%20");
                assert!(complaint(&mut client, &format!("/api/statistics{path}?from={wrong}"))["from"].is_string());
            }
            assert!(complaint(&mut client, &format!("/api/export?to={}", wrong.replace(' ', "%20")))["to"].is_string());
        }
    });
}

#[test]
fn an_empty_range_is_zeros_and_a_turned_one_is_refused() {
    each_pair(|_, client| {
        client.post(WAIT, &json!([click("u"), search("u", "k")])).expect(201);
        let now = now_ms();
        let tomorrow = now + DAY_MS;
        for range in [
            "to=0".to_owned(),
            "from=0&to=0".to_owned(),
            "from=-5&to=-1".to_owned(),
            format!("from={now}&to={now}"),
            "from=1700000000123&to=1700000000123".to_owned(),
            format!("from={tomorrow}"),
            "from=999999999999999999&to=9999999999999999999".to_owned(),
        ] {
            assert_eq!(counts(client, &range), [0, 0, 0, 0], "{range}");
            for filter in ["eventType=CLICK", "keyword=k", "componentId=1", "url=/", "keyword=k&componentId=1"] {
                // Several filters need both ends of a range.
                if !filter.contains('&') || range.contains("from") && range.contains("to=") {
                    expect_count(client, &format!("{filter}&{range}"), 0);
                }
            }
            for interval in ["minute", "hour", "day"] {
                let path = format!("/api/statistics/timeseries?interval={interval}&{range}");
                assert_eq!(client.read(&path)["points"], json!([]), "{path}");
            }
            for list in
                "keywords? keywords?mode=zero-result& posts?by=likes& posts?by=score& pages? components?".split(' ')
            {
                let answer = client.read(&format!("/api/statistics/rankings/{list}{range}"));
                assert_eq!((&answer["items"], &answer["next"]), (&json!([]), &Value::Null), "{list} {range}");
            }
            let users = client.read(&format!("/api/statistics/users?{range}"));
            assert_eq!((&users["users"], &users["approximate"]), (&json!(0), &json!(false)), "{range}");
            assert_eq!(client.get(&format!("/api/export?format=csv&{range}")).expect(200).text().lines().count(), 1);
        }
        // Not empty, but before and behind every whole hour.
        for range in ["to=1", "to=3599999", "from=253402207199999"] {
            assert_eq!(counts(client, range), [0, 0, 0, 0], "{range}");
        }
        for interval in ["day", "hour", "minute"] {
            let path = format!("/api/statistics/timeseries?interval={interval}&from=253402207199999&to=9999-12-31");
            let series = client.read(&path);
            assert_eq!(series["to"], "9999-12-30T22:00:00Z", "{path}");
            assert_eq!(series["points"].as_array().map(Vec::len), Some(1), "{path}");
        }
        for turned in ["from=2&to=1", "from=-1&to=-5", "from=2026-11-03&to=2026-11-01"] {
            for path in "statistics statistics/rankings/pages statistics/timeseries statistics/users export".split(' ')
            {
                assert!(complaint(client, &format!("/api/{path}?{turned}"))["from"].is_string());
            }
        }
        // None of it was a fault of the ledger.
        for _ in 0..20 {
            client.get("/api/statistics?to=0").expect(200);
        }
        expect_count(client, "eventType=CLICK", 1);
    });
}

#[test]
fn an_unknown_parameter_is_refused_by_its_name_unless_it_begins_with_an_underscore() {
    let (_bench, mut client) = Bench::with_client(&[]);
    let lists = ["popular", "rankings"]
        .map(|kind| ["keywords", "posts", "pages", "components"].map(|list| format!("statistics/{kind}/{list}")));
    let others = ["statistics", "statistics/timeseries", "statistics/users", "statistics/stream", "export"];
    for path in lists.concat().into_iter().chain(others.map(str::to_owned)) {
        for name in ["widow", "Window", "LIMIT", "from_", "x", "%EA%B3%A0"] {
            let errors = complaint(&mut client, &format!("/api/{path}?{name}=1h"));
            let decoded = if name.starts_with('%') { "고" } else { name };
            assert!(errors[decoded].is_string(), "{path} {name}: {errors}");
        }
        assert!(complaint(&mut client, &format!("/api/{path}?widow"))["widow"].is_string());
        if path != "statistics/stream" {
            client.get(&format!("/api/{path}?_=1700000000000&_cache=x&&")).expect(200);
        }
    }
    // A parameter of one list is none of another.
    for path in
        "/popular/pages?by=likes /popular/keywords?from=1 /rankings/pages?window=1h ?window=1h /timeseries?limit=1 \
                 /users?limit=1"
            .split(' ')
    {
        complaint(&mut client, &format!("/api/statistics{path}"));
    }
}

#[test]
fn a_filter_that_no_value_can_have_is_refused() {
    let (_bench, mut client) = Bench::with_client(&[]);
    let of = |n: usize| "x".repeat(n);
    for (name, fits) in [("keyword", 200), ("postId", 128), ("elementId", 200), ("url", 2_048), ("page", 2_048)] {
        client.get(&format!("/api/statistics?{name}={}", of(fits))).expect(200);
        assert!(complaint(&mut client, &format!("/api/statistics?{name}={}", of(fits + 1)))[name].is_string());
    }
    client.get(&format!("/api/statistics?keyword=%20{}%20", "%ED%95%9C".repeat(66))).expect(200);
    // 67 letters of three bytes.
    let many_letters = format!("?keyword={}", "%ED%95%9C".repeat(67));
    for (query, field) in [
        (many_letters.as_str(), "keyword"),
        ("?keyword=%20", "keyword"),
        ("?componentId=9223372036854775808", "componentId"),
        ("?componentId=1.5", "componentId"),
        ("?postId=None", "postId"),
        ("?postId=a%0Ab", "postId"),
        ("/popular/keywords?window=2h", "window"),
        ("/popular/keywords?limit=101", "limit"),
        ("/popular/keywords?limit=0", "limit"),
        ("/popular/keywords?mode=cold", "mode"),
        ("/popular/posts?by=shares", "by"),
        ("?eventType=DANCE", "eventType"),
        ("?componentId=0", "componentId"),
    ] {
        assert!(complaint(&mut client, &format!("/api/statistics{query}"))[field].is_string(), "{query}");
    }
    // Several filters need a range, of 31 days at most.
    let (from, to) = (now_ms() - 31 * DAY_MS - 60_001, now_ms() + 60_000);
    for range in ["", "&from=0", &format!("&from={from}&to={to}")] {
        let body = client.get(&format!("/api/statistics?postId=p&url=/a{range}")).expect(400).json();
        assert_eq!(body["error"], "missing_range", "{range}: {body}");
    }
}

#[test]
fn before_anything_was_applied_as_of_is_null() {
    // No server listens there: the ledger is never reached, so nothing is applied.
    let mut bench = Bench::on(Some("postgres://u:p@127.0.0.1:1/none".to_owned()), None);
    bench.start();
    let mut client = bench.client();
    client.post(EVENTS, &click("u")).expect(202);
    for path in ["/api/statistics/popular/keywords", "/api/search/recent/u"] {
        let answer = client.get(path);
        if answer.status == 200 {
            assert_eq!(answer.json()["asOf"], Value::Null, "{path}: {}", answer.text());
        } else {
            answer.expect(503);
        }
    }
    let deps = client.get("/healthz/deps").json();
    assert!(!deps.to_string().contains("1970-01-01"), "{deps}");
    assert_eq!(deps["sinks"]["ledger"]["asOf"], Value::Null, "{deps}");
    let event = next_event(&mut open_stream(&bench));
    assert_eq!(event["asOf"], Value::Null, "{event}");
}
