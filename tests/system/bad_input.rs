//! Input that no store may ever see: the answer of the contract each time, nothing stored of it, the process well.

use std::io::Write;
use std::sync::OnceLock;

use crate::support::bench::{Bench, MAIN_PAIRS, on_pairs};
use crate::support::memory_kib;
use serde_json::{Value, json};

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
    let (user, word, deep) = (r#""u""#, r#""w""#, nested(65));
    let invalid = |name: &str, body: String| case(name, body, 400, "invalid_field");
    let with_properties = |properties: &str| search(user, word, &format!(r#","properties":{properties}"#));
    vec![
        case("an unknown type", r#"{"eventType":"DANCE","userId":"u"}"#, 400, "unknown_event_type"),
        case("a type that is no text", r#"{"eventType":7,"userId":"u"}"#, 400, "unknown_event_type"),
        case("no type", r#"{"userId":"u"}"#, 400, "missing_field"),
        case("no keyword", r#"{"eventType":"SEARCH","userId":"u","metadata":{}}"#, 400, "missing_field"),
        case("nobody", r#"{"eventType":"SEARCH","metadata":{"keyword":"w"}}"#, 400, "missing_field"),
        case("nesting 65", with_properties(&format!(r#"{{"a":{deep}}}"#)), 400, "nesting_too_deep"),
        case("nesting 65 in an unknown field", search(user, word, &format!(r#","x":{deep}"#)), 400, "nesting_too_deep"),
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
        case("metadata in an array", r#"{"eventType":"SEARCH","userId":"u","metadata":["w"]}"#, 400, "invalid_json"),
        case("half an object", &search(user, word, "").as_bytes()[..40], 400, "invalid_json"),
        case("a word", "event", 400, "invalid_json"),
    ]
}

fn bodies() -> Vec<Case> {
    let gzip = |name: &str, body: Vec<u8>, status, tag| Case {
        headers: "Content-Encoding: gzip\r\n",
        ..case(name, body, status, tag)
    };
    let told = |case: Case, headers, tells| Case { headers, tells, ..case };
    let mut damaged = packed(good().as_bytes(), 1);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut cut = packed(good().repeat(100).as_bytes(), 1);
    cut.truncate(cut.len() - 9);
    let many = format!("[{}]", vec![good(); 1_001].join(","));
    let large = search(r#""u""#, r#""w""#, &format!(r#","x":"{}""#, "x".repeat(65 * 1024)));
    let not_utf8: Vec<u8> = good().bytes().map(|byte| if byte == b'g' { 0xff } else { byte }).collect();
    vec![
        case("invalid UTF-8", not_utf8, 400, "invalid_utf8"),
        case("nothing", "", 400, "empty_body"),
        case("blanks", " \r\n ", 400, "empty_body"),
        told(case("no line", "\n\n", 400, "empty_body"), "Content-Type: application/x-ndjson\r\n", ""),
        gzip("a gzip bomb", bomb(), 413, "body_too_large"),
        gzip("damaged gzip", damaged, 400, "invalid_content_coding"),
        gzip("gzip cut short", cut, 400, "invalid_content_coding"),
        gzip("no gzip at all", good().into_bytes(), 400, "invalid_content_coding"),
        case("1,001 events", many, 413, "too_many_events"),
        case("1 MiB and a byte", vec![b' '; MIB + 1], 413, "body_too_large"),
        case("an event of 65 KiB", large, 413, "event_too_large"),
        told(case("another type", good(), 415, "unsupported_content_type"), "Content-Type: a/b\r\n", "accept-post"),
        told(case("br", good(), 415, "unsupported_content_coding"), "Content-Encoding: br\r\n", "accept-encoding"),
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
        row("a row of 70 KiB", format!(r#"[{{"x":"{}"}}]"#, "x".repeat(70_000)), "event_too_large"),
        Case { path: "/api/events/batch", ..row("one bad line", "{\"eventType\":\"CLICK\"}".into(), "missing_field") },
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
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
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
        let head = format!("POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {promised}\r\n\r\n{bad}");
        hang_up_after(bench, head.as_bytes());
    }
    let head = "POST /api/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    hang_up_after(bench, format!("{head}{:x}\r\n{bad}\r\n", bad.len()).as_bytes());
    hang_up_after(bench, format!("{head}{:x}\r\n{bad}", bad.len() + 1).as_bytes());
}

fn hang_up_after(bench: &Bench, bytes: &[u8]) {
    let mut client = bench.client();
    client.write(bytes).expect("writes");
    client.hang_up();
}

fn is_well(bench: &mut Bench) {
    let mut client = bench.client();
    client.get("/healthz/deps").expect(200);
    let metrics = client.get("/metrics").text().replace("{}", "");
    assert!(metrics.contains("event_tracker_http_handler_panics_total 0\n"), "{metrics}");
    assert_eq!(bench.number("SELECT count(*) FROM dead_letter"), 0);
    let peak = memory_kib(bench.tracker().pid(), "VmHWM");
    eprintln!("{}: {peak} KiB resident at most", bench.name);
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB resident");
    assert!(!bench.log().contains("panicked"), "{}", bench.log());
}

/// A gigabyte of zeros in about a megabyte, which takes seconds to make.
fn bomb() -> Vec<u8> {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    let bomb = BOMB.get_or_init(|| packed(&vec![0; MIB], 1_024));
    assert!(bomb.len() < MIB, "it must pass the bound of the wire");
    bomb.clone()
}

fn packed(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    (0..times).try_for_each(|_| encoder.write_all(piece)).expect("compresses");
    encoder.finish().expect("compresses")
}

/// A batch, its content type, and how many of its rows are good and bad.
type Mixed = (&'static str, &'static str, Vec<u8>, u64, u64);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain;charset=UTF-8";
const LINES: &str = "application/x-ndjson";

/// Rows that are no JSON, or no UTF-8: a row that was cut, and one in Latin-1.
fn broken_rows() -> Vec<Vec<u8>> {
    let row = good();
    let marked = row.replace("\"good\",", "\"caf?\",");
    let latin1 = marked.bytes().map(|byte| if byte == b'?' { 0xe9 } else { byte });
    let cut = |length: usize| row.as_bytes()[..length].to_vec();
    vec![latin1.collect(), cut(1), cut(10), cut(row.len() / 2), cut(row.len() - 1), b"no JSON".to_vec()]
}

/// Every broken row at the start, in the middle and at the end of a batch in every shape.
fn broken_batches() -> Vec<Mixed> {
    let mut all = Vec::new();
    for broken in broken_rows() {
        for at in 0..3 {
            let mut rows = vec![good().into_bytes(), good().into_bytes()];
            rows.insert(at, broken.clone());
            for content_type in [JSON, TEXT, LINES] {
                all.push(("lines", content_type, rows.join(&b'\n'), 2, 1));
                all.push(("lines with blank ones", content_type, rows.join(&b"\r\n \r\n"[..]), 2, 1));
            }
            for content_type in [JSON, TEXT] {
                let array = [&b"["[..], &rows.join(&b','), b"]"].concat();
                let array_of_lines = [&b"[\n"[..], &rows.join(&b",\n"[..]), b"\n]"].concat();
                let envelope = [&b"{\"events\": "[..], &array, b"}"].concat();
                all.push(("an array", content_type, array, 2, 1));
                all.push(("an array of lines", content_type, array_of_lines, 2, 1));
                all.push(("an envelope", content_type, envelope, 2, 1));
            }
        }
    }
    let rows = format!("{},{}", good(), good());
    let (cut, half) = (&good()[..20], &good()[..good().len() / 2]);
    let deep = format!("{}{}", "{\"a\":[".repeat(200), "]}".repeat(200));
    let many = vec![format!("{half},{}", good()); 500].join(",");
    let broken = [
        ("an array that was cut", format!("[{rows},{cut}"), 2, 1),
        ("an envelope that was cut", format!("{{\"events\":[{rows},{cut}"), 2, 1),
        ("an array without its end", format!("[{rows}"), 2, 0),
        ("an array with a gap", format!("[{},,{}]", good(), good()), 2, 1),
        ("an array and more", format!("[{rows}] x"), 2, 1),
        ("a row of 70 KiB", format!("[{rows},{{\"x\":\"{}\"}}]", "x".repeat(70_000)), 2, 1),
        ("a row of nesting 400", format!("[{rows},{deep}]"), 2, 1),
        ("a bracket too much", format!("[{}],{rows}]", good()), 2, 1),
        ("an envelope with a row cut in a list", format!("{{\"events\":[{{\"x\":[1,{rows}],\"x\":0}}"), 2, 1),
        ("500 rows that were cut", format!("[{many}]"), 500, 500),
    ];
    all.extend(broken.map(|(name, body, good, bad)| (name, JSON, body.into_bytes(), good, bad)));
    all
}

#[test]
fn one_bad_row_never_spoils_its_batch() {
    let (bench, mut client) = Bench::with_client(&[]);
    let mut stored = 0;
    for (name, content_type, body, accepted, rejected) in broken_batches() {
        for path in ["/api/events", "/api/events/batch"] {
            let shown = String::from_utf8_lossy(&body[..body.len().min(500)]);
            let answer = client.send("POST", path, &[("Content-Type", content_type)], &body);
            assert_eq!(answer.status, 202, "{name}, {content_type} to {path}: {} to {shown}", answer.text());
            let told = answer.json();
            let counts = ["received", "accepted", "rejected"].map(|field| told[field].as_u64().expect("a count"));
            assert_eq!(counts, [accepted + rejected, accepted, rejected], "{name}, {content_type}: {told} to {shown}");
            stored += accepted;
        }
    }
    bench.settle();
    assert_eq!(bench.number("SELECT count(*) FROM events WHERE user_id = 'good'"), i64::try_from(stored).expect("few"));
    // One event alone is no batch, and neither is one over several lines.
    for body in ["{\n\"eventType\": \"CLICK\",\n\"userId\": 1,\n}", "{\"eventType\":", "{} {}"] {
        let told = client.send("POST", "/api/events", &[("Content-Type", JSON)], body.as_bytes()).expect(400).json();
        assert_eq!(told["error"], "invalid_json", "{told}");
    }
    // No row was accepted: 400 with the body of a batch.
    let told = client.send("POST", "/api/events", &[("Content-Type", TEXT)], b"{\n{\n[").expect(400).json();
    assert_eq!((&told["received"], &told["rejected"]), (&json!(3), &json!(3)), "{told}");
}

#[test]
fn a_byte_order_mark_before_a_body_is_skipped() {
    let (_bench, mut client) = Bench::with_client(&[]);
    let row = good();
    let post = r#"{"userId":1,"content":"oak","postId":"p"}"#.to_owned();
    let like = r#"{"userId":1,"postId":"p"}"#.to_owned();
    let batch = (format!("[{row}]"), format!("{{\"events\":[{row}]}}"), format!("{row}\n{row}"));
    let requests = [
        ("POST", "/api/events", JSON, row.clone(), 202),
        ("POST", "/api/events", TEXT, row.clone(), 202),
        ("POST", "/api/users/events", LINES, row, 202),
        ("POST", "/api/events", JSON, batch.0, 202),
        ("POST", "/api/events/batch", JSON, batch.1, 202),
        ("POST", "/api/events", TEXT, batch.2.clone(), 202),
        ("POST", "/api/events/batch", LINES, batch.2, 202),
        ("POST", "/api/posts", JSON, post, 201),
        ("POST", "/api/posts/like", JSON, like.clone(), 200),
        ("PUT", "/api/posts/p/like", JSON, like.clone(), 200),
        ("DELETE", "/api/posts/p/like", TEXT, like, 200),
        ("PUT", "/api/posts/p/like?userId=7", JSON, String::new(), 200),
    ];
    for (method, path, content_type, body, status) in requests {
        let marked = format!("\u{feff}{body}").into_bytes();
        let zstd = zstd::encode_all(&marked[..], 3).expect("compresses");
        for (coding, bytes) in [("identity", marked.clone()), ("gzip", packed(&marked, 1)), ("zstd", zstd)] {
            let headers = [("Content-Type", content_type), ("Content-Encoding", coding)];
            let answer = client.send(method, path, &headers, &bytes);
            // The second put of a post replaces it.
            let is_put = path == "/api/posts" && answer.status == 200;
            assert!(is_put || answer.status == status, "{method} {path} {content_type} {coding}: {}", answer.text());
            let told = answer.json();
            assert!(told["rejected"].as_u64().is_none_or(|rejected| rejected == 0), "{path} {content_type}: {told}");
        }
    }
    // A mark alone is an empty body.
    let told = client.send("POST", "/api/events", &[("Content-Type", JSON)], "\u{feff}".as_bytes()).expect(400).json();
    assert_eq!(told["error"], "empty_body", "{told}");
}
