//! Values as clients write them: every spelling that the contract allows means one thing, every other one is refused.

use std::collections::BTreeMap;

use super::*;
use crate::support::percent_encoded;

fn view(url: &str) -> Value {
    json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": {"url": url}})
}

/// Names and counts in the order of lists.
fn ranked<'a>(counts: impl Iterator<Item = (&'a str, i64)>) -> Vec<(&'a str, i64)> {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by_key(|(name, count)| (-count, *name));
    counts
}

#[track_caller]
fn expect_ranking(client: &mut Client, path: &str, field: &str, expected: &[(&str, i64)]) {
    let found = items(&client.read(&format!("/api/statistics/rankings/{path}")), field);
    assert_eq!(found, owned(expected), "{path}");
}

/// The id of an event that is waited for.
fn stored(client: &mut Client, event: &Value) -> String {
    client.post(WAIT, event).expect(201).json()["eventId"].as_str().expect("an id").to_owned()
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
        let expected = ranked(pages.iter().map(|(page, n)| (*page, *n)));
        expect_ranking(client, "pages?limit=100", "url", &expected);
        expect_list(client, "pages?limit=100", "url", &expected);
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
        ("false", "true", {
            let routes = [("/#/", 1), ("/app#/users/1", 1), ("/app/#/users/1/", 1)];
            [&[("/", 2), ("/a", 2), ("/a/", 1), ("/a//", 1)][..], &routes].concat()
        }),
        ("true", "true", vec![("/a", 4), ("/", 3), ("/app#/users/1", 2)]),
    ] {
        let (bench, mut client) = Bench::with_client(&[("PAGE_TRIM_SLASH", trim), ("PAGE_HASH", hash)]);
        client.post(WAIT, &urls.iter().map(|url| view(url)).collect()).expect(201);
        expect_ranking(&mut client, "pages?limit=100", "url", &ranked(expected.iter().copied()));
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
        let event = |typed: &&str| json!({"eventType": "SEARCH", "userId": "reader", "metadata": {"keyword": typed, "resultCount": 0}});
        let events: Value = KEYWORDS.iter().flat_map(|(_, typed)| typed.iter().map(event)).collect();
        client.post(WAIT, &events).expect(201);
        let expected = ranked(KEYWORDS.iter().map(|(folded, typed)| (*folded, typed.len() as i64)));
        for mode in ["mode=count", "mode=zero-result"] {
            expect_ranking(client, &format!("keywords?limit=100&{mode}"), "keyword", &expected);
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
        let last = KEYWORDS.iter().rev().map(|(_, typed)| nfc_of(typed.last().expect("one")));
        expect_recent(client, "reader", &last.collect::<Vec<_>>());
        for (folded, _) in KEYWORDS {
            let path = format!("/api/search/recent/reader?keyword={}", percent_encoded(folded));
            client.send("DELETE", &path, &[], b"").expect(204);
        }
        expect_recent(client, "reader", &[""; 0]);
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
            let is_it = answer["posts"][0]["postId"] == "p" && answer["posts"][1].is_null();
            if is_it { Ok(()) } else { Err(format!("{spelling}: {answer}")) }
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
        let sent = ids.map(|(number, _)| {
            let metadata = format!(r#"{{"componentId":7.0,"postId":{number},"resultCount":0e0}}"#);
            let body = format!(r#"{{"eventType":"CLICK","userId":{number},"metadata":{metadata}}}"#);
            client.json("POST", WAIT, body).expect(201).json()["eventId"].as_str().expect("an id").to_owned()
        });
        for ((number, text), row) in ids.iter().zip(exported(client, &sent)) {
            let metadata = &row["metadata"];
            let stored = [&row["userId"], &metadata["postId"], &metadata["componentId"], &metadata["resultCount"]];
            assert_eq!(stored, [&json!(text), &json!(text), &json!(7), &json!(0)], "{number}: {row}");
        }
        assert_eq!(count(client, "postId=42"), 3);
        expect_ranking(client, "components", "componentId", &[("7", ids.len() as i64)]);
        refused_numbers(client);
        // The other bodies with ids.
        client.json("POST", "/api/posts", r#"{"userId":1.0,"postId":5e1,"content":"x"}"#).expect(201);
        assert_eq!(client.read("/api/posts/50")["userId"], "1");
        let liked = client.json("POST", "/api/posts/like", r#"{"userId":42.0,"postId":50.0}"#).expect(200).json();
        assert_eq!((&liked["userId"], &liked["postId"], &liked["liked"]), (&json!("42"), &json!("50"), &json!(true)));
        client.json("PUT", "/api/posts/50/like", r#"{"userId":4e0}"#).expect(200);
        assert_eq!(client.read("/api/posts/50/like?userId=4")["liked"], true);
        bench.check_sums();
    });
}

fn refused_numbers(client: &mut Client) {
    let rows = client.read("/api/statistics")["count"].clone();
    for number in ["1.5", "1e-1", "9007199254740993.0", "1e16", "1e400", "1e999999999999", "true", "[1]"] {
        for (field, event) in [
            ("userId", r#""CLICK","userId":NUMBER,"metadata":{"componentId":1}"#),
            ("metadata.postId", r#""CLICK","userId":1,"metadata":{"componentId":1,"postId":NUMBER}"#),
            ("metadata.componentId", r#""CLICK","userId":1,"metadata":{"componentId":NUMBER}"#),
            ("metadata.resultCount", r#""SEARCH","userId":1,"metadata":{"keyword":"k","resultCount":NUMBER}"#),
        ] {
            let body = format!("{{\"eventType\":{}}}", event.replace("NUMBER", number));
            complaint(&client.json("POST", EVENTS, body), field);
        }
    }
    for number in ["-1.0", "9223372036854775808"] {
        let body = format!(r#"{{"eventType":"CLICK","userId":1,"metadata":{{"componentId":{number}}}}}"#);
        complaint(&client.json("POST", EVENTS, body), "metadata.componentId");
    }
    assert_eq!(client.read("/api/statistics")["count"], rows, "nothing of it is stored");
}

#[test]
fn placeholders_name_nobody_and_no_post() {
    let (bench, mut client) = Bench::with_client(&[]);
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
    let (bench, mut client) = Bench::with_client(&[]);
    for id in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    ] {
        complaint(&client.post(WAIT, &with(click("u"), "eventId", json!(id))), "eventId");
        complaint(&client.post("/api/posts/like", &json!({"userId": "u", "postId": "p", "eventId": id})), "eventId");
        complaint(&client.json("PUT", "/api/posts/p/like", json!({"userId": "u", "eventId": id})), "eventId");
    }
    assert_eq!(bench.event_rows(), 0);
}

#[test]
fn times_are_rfc_3339_or_milliseconds_and_the_wrong_unit_is_named() {
    each_pair(|bench, client| {
        let base = now_ms() - 3_600_000;
        let second = base - base.rem_euclid(1_000);
        let text = |ms| jiff::Timestamp::from_millisecond(ms).expect("a time").to_string().replace('Z', "");
        let (utc, seoul) = (text(second), text(second + 9 * 3_600_000));
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
        let ids = times.each_ref().map(|(at, _)| stored(client, &with(click("u"), "timestamp", at.clone())));
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
        let text = jiff::Timestamp::from_millisecond(sent).unwrap();
        let after = format!(r#"{{"events":[{}],"sentAt":"{text}"}}"#, event(&ids[2]));
        let null = format!(r#"{{"events":[{}],"sentAt":null}}"#, event(&ids[3]));
        let escaped = format!(r#"{{"\u0065vents":[{}],"x":{{"sentAt":1}},"sentAt":{sent}}}"#, event(&ids[4]));
        for body in [&before, &after, &null, &escaped] {
            client.json("POST", WAIT, body).expect(201);
        }
        let at = |row: &Value| row["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let rows = exported(client, &ids);
        // Corrected by the envelope, by the event itself, by the envelope, not at all, by the envelope.
        for (row, late_ms) in rows.iter().zip([60_000, 3_660_000, 60_000, 3_660_000, 60_000]) {
            let late = at(row) - (now - late_ms);
            assert!((0..30_000).contains(&late), "{late}: {row}");
        }
        let wrong = format!(r#"{{"events":[{}],"sentAt":{}}}"#, click("u"), now / 1_000);
        assert!(complaint(&client.json("POST", EVENTS, wrong), "sentAt").contains("seconds"));
    });
}

#[test]
fn a_long_url_is_cut_at_a_character_and_counted() {
    each_pair(|_, client| {
        let fits = format!("/{}", "a".repeat(2_047));
        let (one_more, letters) = (format!("{fits}b"), format!("/a{}", "한".repeat(700)));
        let sent = [(&fits, &fits), (&one_more, &letters), (&letters, &one_more)].map(|(url, referrer)| {
            let metadata = json!({"url": url, "referrer": referrer});
            stored(client, &json!({"eventType": "PAGE_VIEW", "userId": "u", "metadata": metadata}))
        });
        let cut = format!("/a{}", "한".repeat(682));
        for (row, expected) in exported(client, &sent).iter().zip([[&fits, &fits], [&fits, &cut], [&cut, &fits]]) {
            assert_eq!(json!([row["metadata"]["url"], row["metadata"]["referrer"]]), json!(expected));
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
        // As `items` names elements: behind a sign.
        let named = |answer: &Value| items(answer, "componentId");
        let expected = owned(&[("#buy", 3), ("7", 2), ("#7", 1)]);
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
        assert_eq!(named(&first), expected[..2]);
        assert_eq!(rest["items"], json!([{"rank": 3, "elementId": "7", "count": 1}]));
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
        answer.json()["error"].as_str().unwrap_or("taken").to_owned()
    };
    let check = |settings: &[(&str, &str)], expected: &[(&str, i64, &str)]| {
        let bench = Bench::embedded(settings);
        for (key, days, outcome) in expected {
            assert_eq!(post(&bench, key, *days), *outcome, "{settings:?} {key} {days}");
        }
    };
    check(&[], &[("", 399, "taken"), ("", 401, "too_old")]);
    let keys = [("WRITE_KEYS", write), ("ADMIN_KEYS", admin)];
    let by_admin = [(admin, 7, "taken"), (admin, 399, "taken"), (admin, 401, "too_old")];
    check(&keys, &[&[(write, 6, "taken"), (write, 7, "too_old")], &by_admin[..]].concat());
    check(&[("INGEST_KEYS", write)], &[(write, 6, "taken"), (write, 7, "too_old")]);
    // Reading has keys: this is no server without keys, and sending is still open.
    let age = [("READ_KEYS", write), ("EVENT_AGE_MAX", "30")];
    check(&age, &[("", 29, "taken"), ("", 30, "too_old"), (write, 30, "too_old")]);
    let short = [("WRITE_KEYS", write), ("RETENTION_DAYS", "20"), ("EVENT_AGE_MAX", "30")];
    check(&short, &[(write, 19, "taken"), (write, 21, "too_old")]);
}
