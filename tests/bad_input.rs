//! Input that no store may ever see: the answer of the contract each time, nothing stored of it, the process well.

mod support;

use std::io::Write;

use serde_json::{Value, json};
use support::bench::{Bench, MAIN_PAIRS, on_pairs};
use support::client::Client;

const MIB: usize = 1024 * 1024;
/// Ten times what it takes at rest in a debug build: far from what a bomb of a gigabyte would need.
const RESIDENT_KIB_MAX: u64 = 400 * 1024;

/// A request that must be refused.
struct Case {
    name: String,
    path: &'static str,
    headers: &'static str,
    body: Vec<u8>,
    status: u16,
    /// The answer's tag, or, of a batch, that of its only rejected row.
    tag: &'static str,
    /// A header that the answer must have.
    tells: &'static str,
}

fn case(name: impl Into<String>, body: impl Into<Vec<u8>>, status: u16, tag: &'static str) -> Case {
    let (name, body) = (name.into(), body.into());
    Case { name, path: "/api/events", headers: "Content-Type: application/json\r\n", body, status, tag, tells: "" }
}

/// A search whose fields are given as they stand in JSON.
fn search(user: &str, keyword: &str, rest: &str) -> String {
    format!(r#"{{"eventType":"SEARCH","userId":{user},"metadata":{{"keyword":{keyword}}}{rest}}}"#)
}

fn good() -> String {
    search(r#""good""#, r#""good""#, "")
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn fields() -> Vec<Case> {
    let (user, word) = (r#""u""#, r#""w""#);
    let invalid = |name: &str, body: String| case(name, body, 400, "invalid_field");
    let with_properties = |properties: &str| search(user, word, &format!(r#","properties":{properties}"#));
    let mut cases = vec![
        case("an unknown type", r#"{"eventType":"DANCE","userId":"u"}"#, 400, "unknown_event_type"),
        case("a type that is no text", r#"{"eventType":7,"userId":"u"}"#, 400, "unknown_event_type"),
        case("no type", r#"{"userId":"u"}"#, 400, "missing_field"),
        case("no keyword", r#"{"eventType":"SEARCH","userId":"u","metadata":{}}"#, 400, "missing_field"),
        case("nobody", r#"{"eventType":"SEARCH","metadata":{"keyword":"w"}}"#, 400, "missing_field"),
        case("nesting 65", with_properties(&format!(r#"{{"a":{}}}"#, nested(65))), 400, "nesting_too_deep"),
        case(
            "nesting 65 in a field that nobody reads",
            search(user, word, &format!(r#","x":{}"#, nested(65))),
            400,
            "nesting_too_deep",
        ),
        invalid("properties of 9 KiB", with_properties(&format!(r#"{{"a":"{}"}}"#, "x".repeat(9 * 1024)))),
        invalid("properties that are no object", with_properties("[]")),
        invalid("U+0000 in properties", with_properties(r#"{"a":"x\u0000"}"#)),
        invalid("U+0000 in a name of properties", with_properties(r#"{"\u0000":1}"#)),
        invalid("U+0000 in userId", search(r#""u\u0000""#, word, "")),
        invalid("U+0000 in keyword", search(user, r#""w\u0000""#, "")),
        invalid("U+0000 in sessionId", search(user, word, r#","sessionId":"s\u0000""#)),
        invalid("an id of 129 bytes", search(&format!(r#""{}""#, "u".repeat(129)), word, "")),
        invalid("an id of 43 letters and 129 bytes", search(&format!(r#""{}""#, "한".repeat(43)), word, "")),
        invalid("an id with a line break", search(r#""u\n""#, word, "")),
        invalid("a keyword of 201 bytes", search(user, &format!(r#""{}""#, "w".repeat(201)), "")),
        invalid("a keyword of blanks", search(user, r#""   ""#, "")),
        invalid("an unpaired surrogate in properties", with_properties(r#"{"a":"\ud83d"}"#)),
        invalid("an eventId that is no UUID", search(user, word, r#","eventId":"1""#)),
        invalid("a timestamp in words", search(user, word, r#","timestamp":"yesterday""#)),
        case("an unpaired surrogate in a keyword", search(user, r#""\ud83d""#, ""), 400, "invalid_json"),
        case(
            "metadata that is an array",
            r#"{"eventType":"SEARCH","userId":"u","metadata":["w"]}"#,
            400,
            "invalid_json",
        ),
        case("half an object", &search(user, word, "").as_bytes()[..40], 400, "invalid_json"),
        case("a word", "event", 400, "invalid_json"),
    ];
    for placeholder in ["", "undefined", "null", "[object Object]", "NaN"] {
        let body = search(&format!("\"{placeholder}\""), word, "");
        cases.push(invalid(&format!("the placeholder `{placeholder}` for a user"), body));
    }
    let post = |id: &str| format!(r#"{{"eventType":"LIKE","userId":"u","metadata":{{"postId":{id}}}}}"#);
    cases.push(invalid("a placeholder for a post", post(r#""undefined""#)));
    cases.push(invalid("a fraction for a post", post("1.5")));
    cases
}

fn bodies() -> Vec<Case> {
    let gzip = |body: Vec<u8>| Case { headers: "Content-Encoding: gzip\r\n", ..case("", body, 0, "") };
    let named = |name: &str, status, tag, case: Case| Case { name: name.to_owned(), status, tag, ..case };
    let mut damaged = packed(good().as_bytes(), 1);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut cut = packed(good().repeat(100).as_bytes(), 1);
    cut.truncate(cut.len() - 9);
    let many = format!("[{}]", vec![good(); 1_001].join(","));
    let large = search(r#""u""#, r#""w""#, &format!(r#","x":"{}""#, "x".repeat(65 * 1024)));
    let mut not_utf8 = good().into_bytes();
    let at = not_utf8.iter().position(|b| *b == b'g').expect("a letter");
    not_utf8[at] = 0xff;
    let lines =
        Case { headers: "Content-Type: application/x-ndjson\r\n", ..case("no line", "\n\n", 400, "empty_body") };
    vec![
        case("invalid UTF-8", not_utf8, 400, "invalid_utf8"),
        case("nothing", "", 400, "empty_body"),
        case("blanks", " \r\n ", 400, "empty_body"),
        lines,
        named("a gzip bomb", 413, "body_too_large", gzip(bomb())),
        named("damaged gzip", 400, "invalid_content_coding", gzip(damaged)),
        named("gzip cut short", 400, "invalid_content_coding", gzip(cut)),
        named("no gzip at all", 400, "invalid_content_coding", gzip(good().into_bytes())),
        case("1,001 events", many, 413, "too_many_events"),
        case("1 MiB and a byte", vec![b' '; MIB + 1], 413, "body_too_large"),
        case("an event of 65 KiB", large, 413, "event_too_large"),
        Case {
            headers: "Content-Type: application/xml\r\n",
            tells: "accept-post",
            ..case("another content type", good(), 415, "unsupported_content_type")
        },
        Case {
            headers: "Content-Encoding: br\r\n",
            tells: "accept-encoding",
            ..case("another coding", good(), 415, "unsupported_content_coding")
        },
    ]
}

/// Batches without any good row: 400 with the results.
fn batches() -> Vec<Case> {
    let deep = |levels| format!(r#"{{"eventType":"CLICK","userId":"u","x":{}}}"#, nested(levels));
    let envelope = |row: &str| format!(r#"{{"events":[{row}]}}"#);
    let row = |name: &str, body: String, tag| case(name, body, 400, tag);
    vec![
        row("an array as an event", "[[\"CLICK\",\"u\"]]".into(), "invalid_json"),
        row("a number as an event", "[1]".into(), "invalid_json"),
        row("a row of nesting 65", format!("[{}]", deep(65)), "nesting_too_deep"),
        row("a row of nesting 20,000", format!("[{}]", deep(20_000)), "nesting_too_deep"),
        row("an envelope with a row of nesting 20,000", envelope(&deep(20_000)), "nesting_too_deep"),
        row(
            "a row of 70 KiB",
            format!("[{}]", search(r#""u""#, r#""w""#, &format!(r#","x":"{}""#, "x".repeat(70_000)))),
            "event_too_large",
        ),
        Case { path: "/api/events/batch", ..row("one bad line", "{\"eventType\":\"CLICK\"}".into(), "missing_field") },
    ]
}

/// One bad row among good ones, in each shape: the good ones are stored.
fn mixed() -> Vec<Case> {
    let bad = r#"{"eventType":"CLICK","userId":"bad\u0000","metadata":{"componentId":1}}"#;
    let rows = [good(), bad.to_owned(), good()];
    let lines = |body: Vec<u8>| Case {
        headers: "Content-Type: application/x-ndjson\r\n",
        ..case("lines, one of them invalid UTF-8", body, 202, "invalid_utf8")
    };
    let mut not_utf8 = rows.join("\n").replace("bad\\u0000", "bad?").into_bytes();
    let at = not_utf8.iter().position(|b| *b == b'?').expect("a mark");
    not_utf8[at] = 0xff;
    vec![
        case("an array with one bad row", format!("[{}]", rows.join(",")), 202, "invalid_field"),
        case("an envelope with one bad row", format!(r#"{{"events":[{}]}}"#, rows.join(",")), 202, "invalid_field"),
        case("lines with one bad row", rows.join("\n"), 202, "invalid_field"),
        lines(not_utf8),
    ]
}

#[test]
fn bad_input_is_answered_by_the_contract_and_nothing_of_it_is_stored() {
    on_pairs(MAIN_PAIRS, |bench| {
        let mut good_rows = 0;
        for case in [fields(), bodies(), batches()].into_iter().flatten() {
            refused(bench, &case);
            good_rows += 1;
            assert_eq!(good_is_stored(bench), good_rows, "rows after {}", case.name);
        }
        for case in mixed() {
            refused(bench, &case);
            good_rows += 3;
            assert_eq!(good_is_stored(bench), good_rows, "rows after {}", case.name);
        }
        cut_short(bench);
        assert_eq!(good_is_stored(bench), good_rows + 1, "rows after bodies that were cut short");
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id <> 'good'"), 0);
        bench.check_sums();
        is_well(bench);
    });
}

/// Sends the case as raw bytes on a connection of its own and compares the answer.
fn refused(bench: &Bench, case: &Case) {
    let Case { name, path, headers, body, .. } = case;
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    let mut client = bench.client();
    client.write(&[head.as_bytes(), body].concat()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let answer = client.read_answer(false).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(answer.status, case.status, "{name}: {}", answer.text());
    let body = answer.json();
    if let Some(results) = body["results"].as_array() {
        assert_eq!(results.len(), 1, "{name}: {body}");
        assert_eq!(results[0]["error"], case.tag, "{name}: {body}");
        return;
    }
    assert_eq!((&body["error"], &body["status"]), (&json!(case.tag), &json!(case.status)), "{name}: {body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{name}: {body}");
    if matches!(case.tag, "invalid_field" | "missing_field" | "unknown_event_type") {
        assert_eq!(body["errors"].as_object().map(|fields| fields.len()), Some(1), "{name}: {body}");
    }
    assert!(case.tells.is_empty() || answer.header(case.tells).is_some(), "{name} says no {}", case.tells);
}

/// A good event right after: it is the only one more. Returns the rows of the ledger.
fn good_is_stored(bench: &Bench) -> i64 {
    let event: Value = serde_json::from_str(&good()).expect("JSON");
    bench.client().post("/api/events?wait=true", &event).expect(201);
    bench.event_rows()
}

/// Bodies whose sender goes away in the middle: at a point where what came is a whole event, too.
fn cut_short(bench: &Bench) {
    let bad = search(r#""cut""#, r#""cut""#, "");
    for promised in [bad.len() + 1, 2 * bad.len(), MIB] {
        let head = format!("POST /api/events HTTP/1.1\r\nHost: h\r\nContent-Length: {promised}\r\n\r\n{bad}");
        hang_up_after(bench, head.as_bytes());
    }
    let head = "POST /api/events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let length = bad.len();
    hang_up_after(bench, format!("{head}{length:x}\r\n{bad}\r\n").as_bytes());
    hang_up_after(bench, format!("{head}{:x}\r\n{bad}", length + 1).as_bytes());
}

fn hang_up_after(bench: &Bench, bytes: &[u8]) {
    let mut client: Client = bench.client();
    client.write(bytes).expect("writes");
    client.hang_up();
}

fn is_well(bench: &mut Bench) {
    let mut client = bench.client();
    client.get("/healthz/deps").expect(200);
    let metrics = client.get("/metrics").text().replace("{}", "");
    assert!(metrics.contains("event_tracker_http_handler_panics_total 0\n"), "{metrics}");
    assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", bench.tracker().pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    eprintln!("{}: {peak} KiB resident at most", bench.name);
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB resident");
    assert!(!bench.log().contains("panicked"), "{}", bench.log());
}

/// A gigabyte of zeros in about a megabyte.
fn bomb() -> Vec<u8> {
    let bomb = packed(&vec![0; MIB], 1_024);
    assert!(bomb.len() < MIB, "it must pass the bound of the wire");
    bomb
}

fn packed(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    (0..times).try_for_each(|_| encoder.write_all(piece)).expect("compresses");
    encoder.finish().expect("compresses")
}
