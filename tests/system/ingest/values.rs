//! Values as clients write them: every spelling that the contract allows means one thing, every other one is refused.

use std::collections::BTreeMap;

use super::*;
use crate::support::percent_encoded;

fn view(url: &str) -> Value {
    json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": url}})
}

/// Names and counts of an exact list.
fn ranking(client: &mut Client, path: &str, field: &str) -> Vec<(String, i64)> {
    items(&client.read(&format!("/api/statistics/rankings/{path}")), field)
}

fn count(client: &mut Client, query: &str) -> i64 {
    client.read(&format!("/api/statistics?{query}"))["count"].as_i64().expect("a count")
}

/// The stored rows of these ids, in their order.
fn exported(client: &mut Client, ids: &[String]) -> Vec<Value> {
    let text = client.get("/api/export").expect(200);
    let rows: Vec<Value> = text.text().lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let row = |id: &String| rows.iter().find(|row| row["eventId"] == json!(id)).cloned();
    ids.iter().map(|id| row(id).unwrap_or_else(|| panic!("{id} is not stored"))).collect()
}

/// What the answer says about one field.
#[track_caller]
fn complaint(answer: &crate::support::client::Answer, field: &str) -> String {
    let body = answer.json();
    assert_eq!(answer.status, 400, "{body}");
    body["errors"][field].as_str().unwrap_or_else(|| panic!("{field} in {body}")).to_owned()
}

const PAGES: [(&str, &str); 36] = [
    ("/login?next=https://app.example/dash", "/login"),
    ("/docs#https://app.example/dash", "/docs"),
    ("/go/https://app.example/dash", "/go/https://app.example/dash"),
    ("https://example.org/login?next=https://app.example/dash", "/login"),
    ("HTTPS://user:pass@example.org:8443/a/b?x#y", "/a/b"),
    ("https://example.org", "/"),
    ("https://example.org?q=/x", "/"),
    ("https://user:p%2Fw@example.org#x", "/"),
    ("//example.org/a/b?x", "/a/b"),
    ("//example.org", "/"),
    ("https://example.org//double", "/double"),
    ("?q=1", "/"),
    ("#top", "/"),
    ("/café", "/café"),
    ("/caf%C3%A9", "/café"),
    ("/caf%c3%a9", "/café"),
    ("/a b", "/a b"),
    ("/a%20b", "/a b"),
    ("/%61%2D%7E", "/a-~"),
    ("/x%2Fy", "/x/y"),
    ("/50%25-off", "/50%-off"),
    ("/100%", "/100%"),
    ("/q%3fx", "/q%3Fx"),
    ("/h%23x", "/h%23x"),
    ("/a%2541", "/a%2541"),
    ("/latin%e9", "/latin%E9"),
    ("/la%74in%E9", "/latin%E9"),
    ("/mixed%e9/é", "/mixed%E9/%C3%A9"),
    ("/mixed%E9/%C3%a9", "/mixed%E9/%C3%A9"),
    ("/nul%00", "/nul%00"),
    ("/line%0abreak", "/line%0Abreak"),
    ("/line\nbreak", "/line%0Abreak"),
    ("/bidi%e2%80%aetxt", "/bidi%E2%80%AEtxt"),
    ("/bidi\u{202E}txt", "/bidi%E2%80%AEtxt"),
    ("/delete%7f", "/delete%7F"),
    ("a/b?c", "a/b"),
];

#[test]
fn a_page_has_one_name_however_its_url_is_written() {
    each_pair(|bench, client| {
        let views: Vec<Value> = PAGES.iter().map(|(url, _)| view(url)).collect();
        client.post(WAIT, &Value::Array(views)).expect(201);
        let mut pages: BTreeMap<&str, i64> = BTreeMap::new();
        PAGES.iter().for_each(|(_, page)| *pages.entry(page).or_default() += 1);
        let mut expected: Vec<(String, i64)> = pages.iter().map(|(page, n)| ((*page).to_owned(), *n)).collect();
        expected.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!(ranking(client, "pages?limit=100", "url"), expected);
        let shown: Vec<(&str, i64)> = expected.iter().map(|(page, n)| (page.as_str(), *n)).collect();
        expect_list(client, "pages?limit=100", "url", &shown);
        // A filter takes any spelling, and so the name that a list shows.
        for (url, page) in PAGES.iter().filter(|(url, _)| !url.contains("%00")) {
            for given in [url, page] {
                let given = percent_encoded(given);
                assert_eq!(count(client, &format!("url={given}")), pages[page], "{url}");
                assert_eq!(count(client, &format!("page={given}")), pages[page], "{url}");
            }
        }
        // From rows, too.
        let (from, to) = (now_ms() - 600_000, now_ms() + 60_000);
        let query = format!("url={}&eventType=PAGE_VIEW&from={from}&to={to}", percent_encoded("/caf%C3%A9"));
        assert_eq!(count(client, &query), 3);
        bench.check_sums();
    });
}

#[test]
fn pages_may_drop_a_trailing_slash_and_keep_routes_of_the_fragment() {
    let urls =
        ["/a", "/a/", "https://h/a//", "/", "https://h", "/app#/users/1", "/app/#/users/1/?x=1", "/a#top", "/#/"];
    for (trim, hash, expected) in [
        ("false", "false", vec![("/a", 2), ("/", 3), ("/a/", 1), ("/a//", 1), ("/app", 1), ("/app/", 1)]),
        ("true", "false", vec![("/a", 4), ("/", 3), ("/app", 2)]),
        (
            "false",
            "true",
            vec![
                ("/", 2),
                ("/#/", 1),
                ("/a", 2),
                ("/a/", 1),
                ("/a//", 1),
                ("/app#/users/1", 1),
                ("/app/#/users/1/", 1),
            ],
        ),
        ("true", "true", vec![("/a", 4), ("/", 3), ("/app#/users/1", 2)]),
    ] {
        let bench = Bench::embedded(&[("PAGE_TRIM_SLASH", trim), ("PAGE_HASH", hash)]);
        let mut client = bench.client();
        client.post(WAIT, &urls.iter().map(|url| view(url)).collect()).expect(201);
        let mut expected: Vec<(String, i64)> = expected.into_iter().map(|(page, n)| (page.to_owned(), n)).collect();
        expected.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!(ranking(&mut client, "pages?limit=100", "url"), expected, "{trim} {hash}");
        for (page, n) in &expected {
            assert_eq!(count(&mut client, &format!("url={}", percent_encoded(page))), *n, "{trim} {hash} {page}");
        }
        bench.check_sums();
    }
}

/// A normalised keyword, and spellings of it.
const KEYWORDS: [(&str, &[&str]); 7] = [
    ("οδοσ", &["οδος", "ΟΔΟΣ", "οδοσ"]),
    ("strasse", &["Straße", "STRASSE", "STRAẞE", "ﬆraße"]),
    ("i\u{307}stanbul", &["İstanbul", "i\u{307}stanbul", "I\u{307}STANBUL"]),
    ("ısı", &["ısı"]),
    ("Ꭰ", &["ꭰ", "Ꭰ"]),
    ("café", &["CAFÉ", "cafe\u{301}", "CAFE\u{301}"]),
    ("åkm", &["Åkm", "\u{212B}\u{212A}m", "ÅKM"]),
];

#[test]
fn keywords_are_compared_by_full_case_folding_wherever_they_are_compared() {
    each_pair(|bench, client| {
        let mut events = Vec::new();
        for (_, typed) in KEYWORDS {
            events.extend(typed.iter().map(|typed| {
                json!({"eventType": "SEARCH", "userId": "reader", "metadata": {"keyword": typed, "resultCount": 0}})
            }));
        }
        client.post(WAIT, &Value::Array(events)).expect(201);
        let mut expected: Vec<(&str, i64)> =
            KEYWORDS.iter().map(|(folded, typed)| (*folded, typed.len() as i64)).collect();
        expected.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let owned: Vec<(String, i64)> = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        for mode in ["mode=count", "mode=zero-result"] {
            assert_eq!(ranking(client, &format!("keywords?limit=100&{mode}"), "keyword"), owned);
            expect_list(client, &format!("keywords?limit=100&{mode}"), "keyword", &expected);
        }
        let (from, to) = (now_ms() - 600_000, now_ms() + 60_000);
        for (folded, typed) in KEYWORDS {
            for spelling in typed.iter().chain([&folded]) {
                let query = format!("keyword={}", percent_encoded(spelling));
                assert_eq!(count(client, &query), typed.len() as i64, "{spelling}");
                // From rows, too.
                let query = format!("{query}&from={from}&to={to}");
                assert_eq!(count(client, &query), typed.len() as i64, "{spelling}");
            }
        }
        // The recent list has each once, as it was typed last.
        let last: Vec<&str> = KEYWORDS.iter().rev().map(|(_, typed)| *typed.last().expect("one")).collect();
        let nfc: Vec<String> = last.iter().map(|typed| nfc_of(typed)).collect();
        expect_recent(client, "reader", &nfc.iter().map(String::as_str).collect::<Vec<_>>());
        for (folded, _) in KEYWORDS {
            let path = format!("/api/search/recent/reader?keyword={}", percent_encoded(folded));
            client.send("DELETE", &path, &[], b"").expect(204);
        }
        expect_recent(client, "reader", &[]);
        found_in_any_spelling(client);
        bench.check_sums();
    });
}

/// NFC of the few spellings above that are not in it.
fn nfc_of(typed: &str) -> String {
    typed.replace("I\u{307}", "İ").replace("E\u{301}", "É").replace("A\u{30A}", "Å")
}

fn found_in_any_spelling(client: &mut Client) {
    let post = json!({"postId": "p", "userId": "u", "content": "η ΟΔΟΣ, die Straße, CAFE\u{301}", "hashtags": ["#İzmir", "Maß"]});
    client.post("/api/posts", &post).expect(201);
    for spelling in ["οδος", "ΟΔΟΣ", "STRASSE", "straße", "café", "İZMIR", "#i\u{307}zmir", "MASS", "#maß", "#MAẞ"]
    {
        let path = format!("/api/search?record=false&keyword={}", percent_encoded(spelling));
        eventually(LIST_WAIT, || {
            let answer = client.read(&path);
            let ids: Vec<&str> =
                answer["posts"].as_array().expect("posts").iter().filter_map(|p| p["postId"].as_str()).collect();
            if ids == ["p"] { Ok(()) } else { Err(format!("{spelling}: {answer}")) }
        });
    }
}

#[test]
fn a_number_is_an_integer_if_its_value_is_one() {
    each_pair(|bench, client| {
        let ids = [
            ("42.0", "42"),
            ("4.2e1", "42"),
            ("420e-1", "42"),
            ("0.0", "0"),
            ("-0.0", "0"),
            ("-0", "0"),
            ("0e999999999999", "0"),
            ("1e3", "1000"),
            ("1E+3", "1000"),
            ("-7.00", "-7"),
            ("9007199254740992.0", "9007199254740992"),
            ("18446744073709551615", "18446744073709551615"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ];
        let mut sent = Vec::new();
        for (number, _) in ids {
            let body = format!(
                r#"{{"eventType":"CLICK","userId":{number},"metadata":{{"componentId":7.0,"postId":{number},"resultCount":0e0}}}}"#
            );
            let headers = [("Content-Type", "application/json")];
            let body = client.send("POST", WAIT, &headers, body.as_bytes()).expect(201).json();
            sent.push(body["eventId"].as_str().expect("an id").to_owned());
        }
        for ((number, text), row) in ids.iter().zip(exported(client, &sent)) {
            let metadata = &row["metadata"];
            let stored = [&row["userId"], &metadata["postId"], &metadata["componentId"], &metadata["resultCount"]];
            assert_eq!(stored, [&json!(text), &json!(text), &json!(7), &json!(0)], "{number}: {row}");
        }
        assert_eq!(count(client, "postId=42"), 3);
        assert_eq!(ranking(client, "components", "componentId"), [("7".to_owned(), ids.len() as i64)]);
        refused_numbers(client);
        // The other bodies with ids.
        let raw = |client: &mut Client, method: &str, path: &str, body: &str| {
            client.send(method, path, &[("Content-Type", "application/json")], body.as_bytes())
        };
        raw(client, "POST", "/api/posts", r#"{"userId":1.0,"postId":5e1,"content":"x"}"#).expect(201);
        assert_eq!(client.read("/api/posts/50")["userId"], "1");
        let liked = raw(client, "POST", "/api/posts/like", r#"{"userId":42.0,"postId":50.0}"#).expect(200).json();
        assert_eq!((&liked["userId"], &liked["postId"], &liked["liked"]), (&json!("42"), &json!("50"), &json!(true)));
        raw(client, "PUT", "/api/posts/50/like", r#"{"userId":4e0}"#).expect(200);
        assert_eq!(client.read("/api/posts/50/like?userId=4")["liked"], true);
        bench.check_sums();
    });
}

fn refused_numbers(client: &mut Client) {
    let rows = client.read("/api/statistics")["count"].clone();
    for number in ["1.5", "1e-1", "9007199254740993.0", "1e16", "1e400", "1e999999999999", "true", "[1]"] {
        for (field, body) in [
            ("userId", format!(r#"{{"eventType":"CLICK","userId":{number},"metadata":{{"componentId":1}}}}"#)),
            (
                "metadata.postId",
                format!(r#"{{"eventType":"CLICK","userId":1,"metadata":{{"componentId":1,"postId":{number}}}}}"#),
            ),
            (
                "metadata.componentId",
                format!(r#"{{"eventType":"CLICK","userId":1,"metadata":{{"componentId":{number}}}}}"#),
            ),
            (
                "metadata.resultCount",
                format!(r#"{{"eventType":"SEARCH","userId":1,"metadata":{{"keyword":"k","resultCount":{number}}}}}"#),
            ),
        ] {
            let answer = client.send("POST", EVENTS, &[("Content-Type", "application/json")], body.as_bytes());
            complaint(&answer, field);
        }
    }
    for (field, metadata) in [
        ("metadata.componentId", r#"{"componentId":-1.0}"#),
        ("metadata.componentId", r#"{"componentId":9223372036854775808}"#),
    ] {
        let body = format!(r#"{{"eventType":"CLICK","userId":1,"metadata":{metadata}}}"#);
        let answer = client.send("POST", EVENTS, &[("Content-Type", "application/json")], body.as_bytes());
        complaint(&answer, field);
    }
    assert_eq!(client.read("/api/statistics")["count"], rows, "nothing of it is stored");
}

#[test]
fn placeholders_name_nobody_and_no_post() {
    let bench = Bench::embedded(&[]);
    let mut client = bench.client();
    let placeholders = "| |undefined|UNDEFINED|null|NULL| Null |(null)|(NULL)|none|None|nan|NaN|[object Object]|\
                        [OBJECT OBJECT]|\\N|\\n";
    for placeholder in placeholders.split('|') {
        let event = with(click("u"), "userId", json!(placeholder));
        complaint(&client.post(EVENTS, &event), "userId");
        let session = with(with(click("u"), "userId", Value::Null), "sessionId", json!(placeholder));
        complaint(&client.post(EVENTS, &session), "sessionId");
        complaint(&client.post(EVENTS, &like("LIKE", "u", placeholder)), "metadata.postId");
        complaint(&client.post("/api/posts", &json!({"userId": placeholder, "content": "x"})), "userId");
        complaint(&client.post("/api/posts", &json!({"userId": "u", "postId": placeholder, "content": "x"})), "postId");
        complaint(&client.post("/api/posts/like", &json!({"userId": placeholder, "postId": "p"})), "userId");
        complaint(&client.post("/api/posts/like", &json!({"userId": "u", "postId": placeholder})), "postId");
        if placeholder.is_empty() {
            continue;
        }
        let name = percent_encoded(placeholder);
        for (method, path, field) in [
            ("GET", format!("/api/posts/{name}"), "postId"),
            ("DELETE", format!("/api/posts/{name}"), "postId"),
            ("GET", format!("/api/posts/{name}/like"), "postId"),
            ("GET", format!("/api/posts/p/like?userId={name}"), "userId"),
            ("PUT", format!("/api/posts/p/like?userId={name}"), "userId"),
            ("GET", format!("/api/search?keyword=k&userId={name}"), "userId"),
            ("GET", format!("/api/search/recent/{name}"), "userId"),
            ("DELETE", format!("/api/search/recent/{name}"), "userId"),
            ("DELETE", format!("/api/users/{name}"), "userId"),
            ("GET", format!("/api/statistics?postId={name}"), "postId"),
        ] {
            complaint(&client.send(method, &path, &[], b""), field);
        }
    }
    let kept = ["none of these", "nullable", "N", "0"];
    for id in kept {
        client.post(WAIT, &with(click(id), "sessionId", json!(id))).expect(201);
    }
    assert_eq!(bench.event_rows(), kept.len() as i64);
}

#[test]
fn the_nil_and_the_max_uuid_are_placeholders() {
    let bench = Bench::embedded(&[]);
    let mut client = bench.client();
    for id in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    ] {
        complaint(&client.post(WAIT, &with(click("u"), "eventId", json!(id))), "eventId");
        complaint(&client.post("/api/posts/like", &json!({"userId": "u", "postId": "p", "eventId": id})), "eventId");
        complaint(
            &client.send(
                "PUT",
                "/api/posts/p/like",
                &[("Content-Type", "application/json")],
                json!({"userId": "u", "eventId": id}).to_string().as_bytes(),
            ),
            "eventId",
        );
    }
    assert_eq!(bench.event_rows(), 0);
}

#[test]
fn times_are_rfc_3339_or_milliseconds_and_the_wrong_unit_is_named() {
    each_pair(|bench, client| {
        let base = now_ms() - 3_600_000;
        let second = base - base.rem_euclid(1_000);
        let utc = jiff::Timestamp::from_millisecond(second).expect("a time").to_string();
        let utc = utc.trim_end_matches('Z');
        let seoul = jiff::Timestamp::from_millisecond(second + 9 * 3_600_000).expect("a time").to_string();
        let seoul = seoul.trim_end_matches('Z');
        let minute = &utc[..17];
        let leap = second - second.rem_euclid(60_000) + 59_000;
        let times = [
            (json!(format!("{utc}Z")), second),
            (json!(format!("{}z", utc.to_lowercase())), second),
            (json!(format!("{utc}.123456789012345Z")), second + 123),
            (json!(format!("{utc}.9999999999Z")), second + 999),
            (json!(format!("{utc}.1+00:00")), second + 100),
            (json!(format!("{utc}-00:00")), second),
            (json!(format!("{seoul}+09:00")), second),
            (json!(format!("{minute}60Z")), leap),
            (json!(second as f64 + 0.75), second),
            (json!(second), second),
        ];
        let mut ids = Vec::new();
        for (timestamp, _) in &times {
            let body = client.post(WAIT, &with(click("u"), "timestamp", timestamp.clone())).expect(201).json();
            ids.push(body["eventId"].as_str().expect("an id").to_owned());
        }
        for ((timestamp, at_ms), row) in times.iter().zip(exported(client, &ids)) {
            let stored: jiff::Timestamp = row["timestamp"].as_str().expect("a time").parse().expect("RFC 3339");
            assert_eq!(stored.as_millisecond(), *at_ms, "{timestamp}: {row}");
        }
        // Too far in the future: the time of receipt.
        for future in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999999-23:59", "9999-12-31t23:59:59z"] {
            client.post(WAIT, &with(click("future"), "timestamp", json!(future))).expect(201);
        }
        let answer = client.post(WAIT, &with(click("past"), "timestamp", json!("0000-01-01T00:00:00Z")));
        assert_eq!(answer.expect(400).json()["error"], "too_old");
        wrong_units(client, second);
        bench.check_sums();
    });
}

fn wrong_units(client: &mut Client, second: i64) {
    for (number, unit) in [
        (json!(second / 1_000), "seconds"),
        (json!(second as f64 / 1_000.0 + 0.5), "seconds"),
        (json!(0), "seconds"),
        (json!(-1), "seconds"),
        (json!(99_999_999_999_i64), "seconds"),
        (json!(100_000_000_000_001_i64), "microseconds"),
        (json!(second * 1_000), "microseconds"),
        (json!(second * 1_000_000), "nanoseconds"),
        (json!(u64::MAX), "nanoseconds"),
    ] {
        for field in ["timestamp", "sentAt"] {
            let event = with(with(click("u"), "timestamp", json!(second)), field, number.clone());
            let said = complaint(&client.post(EVENTS, &event), field);
            assert!(said.contains(&format!(" {unit}")), "{number}: {said}");
        }
        let post = json!({"userId": "u", "content": "x", "createdAt": number});
        let said = complaint(&client.post("/api/posts", &post), "createdAt");
        assert!(said.contains(&format!(" {unit}")), "{number}: {said}");
    }
    for wrong in ["2026-11-01", "2026-11-01T00:00:00", "2026-02-30T00:00:00Z", "2026-11-01T24:00:01Z", "", "now"] {
        complaint(&client.post(EVENTS, &with(click("u"), "timestamp", json!(wrong))), "timestamp");
        complaint(&client.post("/api/posts", &json!({"userId": "u", "content": "x", "createdAt": wrong})), "createdAt");
    }
    // 10^11 itself is a time: too old, and nothing else is wrong with it.
    let oldest = with(click("u"), "timestamp", json!(100_000_000_000_i64));
    assert_eq!(client.post(EVENTS, &oldest).expect(400).json()["error"], "too_old");
}

#[test]
fn the_envelope_of_a_batch_says_when_it_was_sent() {
    each_pair(|_, client| {
        let now = now_ms();
        // The client's clock is an hour slow.
        let event = |id: &str| with(with(click("u"), "timestamp", json!(now - 3_660_000)), "eventId", json!(id));
        let ids: Vec<String> = (0..5).map(|_| id()).collect();
        let sent = now - 3_600_000;
        let with_own = with(event(&ids[1]), "sentAt", json!(now));
        let before = format!(r#"{{"sentAt":{sent},"events":[{},{with_own}]}}"#, event(&ids[0]));
        let after = format!(
            r#"{{"events":[{}],"sentAt":"{}"}}"#,
            event(&ids[2]),
            jiff::Timestamp::from_millisecond(sent).unwrap()
        );
        let null = format!(r#"{{"events":[{}],"sentAt":null}}"#, event(&ids[3]));
        let escaped = format!(r#"{{"\u0065vents":[{}],"x":{{"sentAt":1}},"sentAt":{sent}}}"#, event(&ids[4]));
        for body in [&before, &after, &null, &escaped] {
            client.send("POST", WAIT, &[("Content-Type", "application/json")], body.as_bytes()).expect(201);
        }
        let at = |row: &Value| row["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let rows = exported(client, &ids);
        // Corrected by the envelope, by the event itself, by the envelope, not at all, by the envelope.
        for (row, late_ms) in rows.iter().zip([60_000, 3_660_000, 60_000, 3_660_000, 60_000]) {
            let expected = now - late_ms;
            let late = at(row) - expected;
            assert!((0..30_000).contains(&late), "{late}: {row}");
        }
        let wrong = format!(r#"{{"events":[{}],"sentAt":{}}}"#, click("u"), now / 1_000);
        let answer = client.send("POST", EVENTS, &[("Content-Type", "application/json")], wrong.as_bytes());
        assert!(complaint(&answer, "sentAt").contains("seconds"));
    });
}

#[test]
fn a_long_url_is_cut_at_a_character_and_counted() {
    each_pair(|_, client| {
        let fits = format!("/{}", "a".repeat(2_047));
        let (one_more, letters) = (format!("{fits}b"), format!("/a{}", "한".repeat(700)));
        let mut sent = Vec::new();
        for (url, referrer) in [(&fits, &fits), (&one_more, &letters), (&letters, &one_more)] {
            let event =
                json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": url, "referrer": referrer}});
            let body = client.post(WAIT, &event).expect(201).json();
            sent.push(body["eventId"].as_str().expect("an id").to_owned());
        }
        let cut = format!("/a{}", "한".repeat(682));
        for (row, expected) in exported(client, &sent).iter().zip([[&fits, &fits], [&fits, &cut], [&cut, &fits]]) {
            assert_eq!(
                [&row["metadata"]["url"], &row["metadata"]["referrer"]],
                expected.map(|url| json!(url)).each_ref()
            );
        }
        assert_eq!(client.metric("events_truncated"), 2.0);
        let with_nul = json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": format!("{one_more}\0")}});
        complaint(&client.post(EVENTS, &with_nul), "metadata.url");
    });
}

#[test]
fn a_click_without_a_component_counts_for_its_element() {
    each_pair(|bench, client| {
        let click = |metadata: Value| json!({"eventType": "CLICK", "userId": "u", "metadata": metadata});
        let events = [
            click(json!({"elementId": "buy"})),
            click(json!({"elementId": "buy"})),
            click(json!({"elementId": "buy", "postId": "p"})),
            click(json!({"elementId": "7"})),
            click(json!({"componentId": 7})),
            click(json!({"componentId": 7, "elementId": "buy"})),
            json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": "/", "elementId": "buy"}}),
        ];
        client.post(WAIT, &json!(events)).expect(201);
        let named = |answer: &Value| -> Vec<(String, String, i64)> {
            let items = answer["items"].as_array().expect("a list").iter();
            items
                .map(|item| {
                    let fields = item.as_object().expect("an object");
                    let (field, name) = fields.iter().find(|(field, _)| field.ends_with("Id")).expect("a name");
                    (field.clone(), name.as_str().expect("text").to_owned(), item["count"].as_i64().expect("a count"))
                })
                .collect()
        };
        let expected = [("elementId", "buy", 3), ("componentId", "7", 2), ("elementId", "7", 1)];
        let expected: Vec<(String, String, i64)> =
            expected.iter().map(|(field, name, n)| ((*field).to_owned(), (*name).to_owned(), *n)).collect();
        assert_eq!(named(&client.read("/api/statistics/rankings/components")), expected);
        wait_until(LIST_WAIT, || client.read("/api/statistics/popular/components"), |answer| named(answer) == expected);
        let (from, to) = (now_ms() - 600_000, now_ms() + 60_000);
        for (query, expected) in [
            ("elementId=buy&eventType=CLICK", 3),
            ("elementId=buy", 4),
            ("elementId=7", 1),
            ("componentId=7", 2),
            ("elementId=nothing", 0),
            ("elementId=buy&postId=p", 1),
        ] {
            assert_eq!(count(client, &format!("{query}&from={from}&to={to}")), expected, "{query}");
            if !query.contains("postId") {
                assert_eq!(count(client, query), expected, "{query}");
            }
        }
        complaint(&client.get("/api/statistics?elementId=buy&componentId=7"), "elementId");
        // Page by page, and the cursor of one is of both.
        let first = client.read("/api/statistics/rankings/components?limit=2");
        let next = first["next"].as_str().expect("there is more");
        let rest = client.read(&format!("/api/statistics/rankings/components?limit=2&cursor={next}"));
        assert_eq!([named(&first), named(&rest)].concat(), expected);
        bench.settle();
    });
}

#[test]
fn only_an_admin_or_a_server_without_keys_takes_old_events() {
    let [write, admin] = ["write-key-0123456", "admin-key-0123456"];
    let post = |bench: &Bench, key: &str, days: i64| {
        let event = with(click("u"), "timestamp", json!(now_ms() - days * DAY_MS - 1_000));
        let headers = [("Content-Type", "application/json"), ("X-Api-Key", key)];
        let headers = if key.is_empty() { &headers[..1] } else { &headers[..] };
        let answer = bench.client().send("POST", EVENTS, headers, event.to_string().as_bytes());
        if answer.status == 202 {
            "taken".to_owned()
        } else {
            answer.json()["error"].as_str().expect("a tag").to_owned()
        }
    };
    let check = |settings: &[(&str, &str)], expected: &[(&str, i64, &str)]| {
        let mut bench = Bench::on(None, None);
        settings.iter().for_each(|(name, value)| bench.set(name, value));
        bench.start();
        for (key, days, outcome) in expected {
            assert_eq!(post(&bench, key, *days), *outcome, "{settings:?} {key} {days}");
        }
    };
    check(&[], &[("", 399, "taken"), ("", 401, "too_old")]);
    let keys = [("WRITE_KEYS", write), ("ADMIN_KEYS", admin)];
    check(
        &keys,
        &[
            (write, 6, "taken"),
            (write, 7, "too_old"),
            (admin, 7, "taken"),
            (admin, 399, "taken"),
            (admin, 401, "too_old"),
        ],
    );
    check(&[("INGEST_KEYS", write)], &[(write, 6, "taken"), (write, 7, "too_old")]);
    // Reading has keys: this is no server without keys, and sending is still open.
    let age = [("READ_KEYS", write), ("EVENT_AGE_MAX", "30")];
    check(&age, &[("", 29, "taken"), ("", 30, "too_old"), (write, 30, "too_old")]);
    let short = [("WRITE_KEYS", write), ("RETENTION_DAYS", "20"), ("EVENT_AGE_MAX", "30")];
    check(&short, &[(write, 19, "taken"), (write, 21, "too_old")]);
}
