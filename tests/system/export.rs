//! Exports: everything stored and nothing else, over HTTP and by the subcommand, at the reader's pace.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use crate::support::bench::{Bench, Ledger, Live, on_pairs};
use crate::support::client::{Answer, Client};
use crate::support::program::{self, Ended, Running};
use crate::support::{eventually_is, gunzip, make_fifo, memory_kib, now_ms, permit, postgres, seed, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

const PAIRS: [(Ledger, Live); 2] = [(Ledger::Postgres, Live::Memory), (Ledger::Sqlite, Live::Memory)];
const DAY_MS: i64 = 86_400_000;
const PAGE_ROWS: usize = event_tracker::limits::EXPORT_PAGE_ROWS_MAX;
const TYPES: [&str; 4] = ["CLICK", "PAGE_VIEW", "SEARCH", "LIKE"];
/// What quoting, encoding and formulas stumble over.
const TEXTS: [&str; 12] = [
    "plain",
    "with \"quotes\" and, commas; and 'these'",
    "two\nlines\r\nand a tab\t",
    "고양이 책상",
    "👩‍👩‍👧 \u{202e}right to left",
    "=1+1",
    "@SUM(A1)",
    "-2",
    "'quoted",
    "\\N \\ \" \u{7f}\u{1}",
    ",",
    "NULL",
];

// ---- reading an export ----

/// An export under way: the head is read, the body is not.
struct Reading {
    client: Client,
}

impl Reading {
    fn start(bench: &Bench) -> Reading {
        let mut client = bench.client();
        client.write(b"GET /api/export HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("writes");
        client.read_head().expect("a head").expect(200);
        Reading { client }
    }

    fn chunk(&mut self) -> Vec<u8> {
        self.client.read_chunk().expect("a piece")
    }

    /// The bytes that are left, and whether the export's end came.
    fn rest(mut self) -> (usize, bool) {
        let mut length = 0;
        while let Ok(chunk) = self.client.read_chunk() {
            if chunk.is_empty() {
                return (length, true);
            }
            length += chunk.len();
        }
        (length, false)
    }
}

fn export(bench: &Bench, query: &str) -> Answer {
    bench.client().get(&format!("/api/export?{query}"))
}

#[track_caller]
fn whole(bench: &Bench, query: &str) -> Vec<u8> {
    export(bench, query).expect(200).body
}

#[track_caller]
fn refused(bench: &Bench) {
    assert!(export(bench, "").expect(503).header("retry-after").is_some());
}

fn run(bench: &Bench, arguments: &[&str]) -> Ended {
    bench.run(&[&["export"], arguments].concat())
}

#[track_caller]
fn exported_by_command(bench: &Bench, arguments: &[&str]) -> Vec<u8> {
    run(bench, arguments).printed().into_bytes()
}

fn lines(ndjson: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(ndjson).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

// ---- what was sent ----

/// A random event as it is sent, every field of it.
fn event(random: &mut StdRng, at_ms: i64) -> Value {
    let event_type = TYPES[random.random_range(0..TYPES.len())];
    let text = |random: &mut StdRng| TEXTS[random.random_range(0..TEXTS.len())];
    let mut metadata = json!({"postId": format!("p{}", random.random_range(0..9))});
    match event_type {
        "CLICK" => metadata["componentId"] = json!(random.random_range(1..i64::MAX)),
        "PAGE_VIEW" => metadata["url"] = json!(text(random)),
        // Trimmed when it is taken.
        "SEARCH" => metadata["keyword"] = json!(text(random).trim()),
        _ => {}
    }
    for (name, of) in [("elementId", 3), ("referrer", 4)] {
        if random.random_range(0..of) == 0 {
            metadata[name] = json!(text(random));
        }
    }
    if random.random_range(0..3) == 0 {
        metadata["resultCount"] = json!(random.random_range(0..50));
    }
    let id = Uuid::from_u128(random.random::<u128>()).to_string();
    let mut event = json!({"eventId": id, "eventType": event_type, "timestamp": at_ms, "metadata": metadata});
    event["userId"] = json!(format!("u{}", random.random_range(0..50)));
    if random.random_range(0..3) == 0 {
        event["sessionId"] = json!(format!("s{}", text(random)));
    }
    if random.random_range(0..4) == 0 {
        event["properties"] = json!({"text": text(random), "number": 1.5, "deep": [{"a": null}, true, text(random)]});
    }
    event
}

/// Random events of five days, in no order; more than two pages of them in one millisecond.
fn events(random: &mut StdRng, many_at_once: usize) -> Vec<Value> {
    let now = now_ms();
    let busy = now - random.random_range(DAY_MS..2 * DAY_MS);
    let mut times: Vec<i64> = (0..900).map(|_| now - random.random_range(0..5 * DAY_MS)).collect();
    times.extend(vec![busy; many_at_once]);
    times.into_iter().map(|at| event(random, at)).collect()
}

/// Events of yesterday with 8 kB of properties each.
fn large_events(count: i64) -> Vec<Value> {
    let (mut random, first) = (StdRng::seed_from_u64(3), now_ms() - DAY_MS);
    let mut large: Vec<Value> = (0..count).map(|n| event(&mut random, first + n)).collect();
    large.iter_mut().for_each(|event| event["properties"] = json!({"blob": "x".repeat(8_000)}));
    large
}

fn post(bench: &Bench, events: &[Value]) {
    let mut client = bench.client();
    for part in events.chunks(500) {
        let body: String = part.iter().map(|event| format!("{event}\n")).collect();
        let answer = client.send("POST", "/api/events", &[("Content-Type", "application/x-ndjson")], body.as_bytes());
        let answer = answer.expect(202).json();
        assert_eq!(answer["accepted"], part.len(), "{answer}");
    }
    bench.settle();
}

/// Stores every row once more, so many times.
fn double(bench: &Bench, times: usize) {
    (0..times).for_each(|_| bench.execute("INSERT INTO events SELECT * FROM events"));
}

fn at_ms(event: &Value) -> i64 {
    let time = &event["timestamp"];
    time.as_i64().unwrap_or_else(|| {
        let text = time.as_str().expect("a time");
        assert!(text.len() == 24 && text.ends_with('Z'), "RFC 3339 with milliseconds: {text}");
        text.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
    })
}

/// By id, without what the server added and with times as numbers.
#[track_caller]
fn by_id(events: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let mut by_id = BTreeMap::new();
    for mut event in events {
        event["timestamp"] = json!(at_ms(&event));
        event.as_object_mut().expect("an object").remove("receivedAt");
        let id = event["eventId"].as_str().expect("an id").to_owned();
        assert!(by_id.insert(id, event).is_none(), "an event came twice");
    }
    by_id
}

/// CSV as the fields of NDJSON, apostrophes taken away.
fn of_csv(bytes: &[u8]) -> Vec<Value> {
    assert!(bytes.ends_with(b"\r\n"));
    let mut csv = csv::Reader::from_reader(bytes);
    let names: Vec<String> = csv.headers().expect("a head").iter().map(str::to_owned).collect();
    let record = |record: csv::StringRecord| {
        let mut event = json!({});
        for (name, cell) in names.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "a formula: {cell}");
            let text = cell.strip_prefix('\'').unwrap_or(cell);
            match name.as_str() {
                "componentId" | "resultCount" => {
                    event["metadata"][name] = text.parse::<i64>().expect("a number").into()
                }
                "properties" => event[name] = serde_json::from_str(text).expect("JSON"),
                "elementId" | "keyword" | "postId" | "url" | "referrer" => event["metadata"][name] = json!(text),
                _ => event[name] = json!(text),
            }
        }
        event
    };
    csv.records().map(|row| record(row.expect("a row"))).collect()
}

// ---- claims ----

#[test]
fn everything_stored_is_exported_once_in_the_order_of_time() {
    let seed = seed();
    on_pairs(PAIRS, |bench| {
        let mut random = StdRng::seed_from_u64(seed);
        let sent = events(&mut random, 2 * PAGE_ROWS + 300);
        let (early, late) = sent.split_at(sent.len() / 2);
        post(bench, early);
        post(bench, late);
        let expected = by_id(sent.clone());
        let answer = export(bench, "");
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        assert!(answer.header("content-disposition").is_some_and(|name| name.contains("events.ndjson")));
        let ndjson = answer.expect(200).body;
        assert!(lines(&ndjson).is_sorted_by_key(at_ms), "in the order of time");
        assert_eq!(by_id(lines(&ndjson)), expected);
        assert!(exported_by_command(bench, &[]) == ndjson, "the command writes the same bytes");
        let table = whole(bench, "format=csv");
        assert_eq!(by_id(of_csv(&table)), expected);
        assert!(exported_by_command(bench, &["--format", "csv"]) == table, "the command writes the same table");
        let from = at_ms(&sent[0]);
        let likes = exported_by_command(bench, &["--from", &from.to_string(), "--event-type", "like"]);
        assert!(likes == whole(bench, &format!("from={from}&eventType=LIKE")), "and takes the same filters");
        // What came in twice under one id and one time is there twice, wherever a page ends.
        double(bench, 1);
        let mut once: Vec<Value> = lines(&ndjson).into_iter().flat_map(|line| [line.clone(), line]).collect();
        let mut twice = lines(&whole(bench, ""));
        assert!(twice.is_sorted_by_key(at_ms), "in the order of time");
        for events in [&mut once, &mut twice] {
            events.sort_by_key(|event| event["eventId"].to_string());
        }
        assert!(once == twice, "each of {} rows twice, not {} lines", once.len() / 2, twice.len());
    });
}

/// Objects that a store might write in another way: numbers, blanks, names that repeat, and the largest of all.
fn odd_properties() -> Vec<String> {
    vec![
        r#"{"a":1e200,"b":1E+2,"c":-0,"d":-0.0,"e":1.10,"f":100000000000000000000,"g":1e999,"h":1e-999}"#.to_owned(),
        r#"{ "b" : 1 ,  "a":[ ] , "a":2, "":{ } }"#.to_owned(),
        r#"{"escapes":"\u00e9\/\"\\\ud83d\ude00","plain":"é😀/"}"#.to_owned(),
        "{}".to_owned(),
        format!("{{\"digits\":{}}}", "7".repeat(8_000)),
        format!("{{\"{}\":[{}1]}}", "n".repeat(64), "1e200,".repeat(1_350)),
        format!("{{\"deep\":{}1{}}}", "[".repeat(31), "]".repeat(31)),
        format!("{{\"text\":\"{}\"}}", "x".repeat(8 * 1024 - 11)),
    ]
}

/// What lines say of `properties`, as bytes, by event id.
fn properties_of(ndjson: &[u8]) -> BTreeMap<String, String> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(rename = "eventId")]
        id: String,
        #[serde(borrow)]
        properties: &'a serde_json::value::RawValue,
    }
    let line = |text: &str| {
        let line: Line<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (line.id, line.properties.get().to_owned())
    };
    std::str::from_utf8(ndjson).expect("UTF-8").lines().map(line).collect()
}

#[test]
fn properties_come_back_byte_for_byte_and_every_row_can_be_imported_again() {
    for (pair, other) in PAIRS.into_iter().zip(PAIRS.into_iter().rev()) {
        let [first, second] = [pair, other].map(|(ledger, live)| Bench::started(ledger, live));
        let ids = (1..).map(|id| Uuid::from_u128(id).to_string());
        let sent: BTreeMap<String, String> = ids.zip(odd_properties()).collect();
        let click = r#""eventType":"CLICK","userId":1,"metadata":{"componentId":1}"#;
        let line = |(id, properties)| format!("{{\"eventId\":\"{id}\",{click},\"properties\":{properties}}}\n");
        let body: String = sent.iter().map(line).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = first.client().send("POST", "/api/events", &headers, body.as_bytes()).expect(202).json();
        assert_eq!(answer["accepted"], sent.len(), "{answer}");
        first.settle();
        for format in ["ndjson", "csv"] {
            let directory = tempfile::tempdir().expect("a directory");
            let file = directory.path().join(format!("events.{format}"));
            let exported = whole(&first, &format!("format={format}"));
            if format == "ndjson" {
                assert_eq!(properties_of(&exported), sent);
            }
            std::fs::write(&file, exported).expect("writes");
            let mut import = second.command();
            import.arg("import").arg("--url").arg(format!("http://{}", second.address())).arg(&file);
            program::run(&mut import).printed();
            second.settle();
            assert_eq!(properties_of(&whole(&second, "")), sent, "{format}");
        }
    }
}

#[test]
fn files_are_whole_or_not_there() {
    on_pairs(PAIRS, |bench| {
        post(bench, &events(&mut StdRng::seed_from_u64(1), 10));
        let plain = exported_by_command(bench, &[]);
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let to = |path: &Path| run(bench, &["--output", path.to_str().expect("UTF-8")]);
        for name in ["plain.ndjson", "small.ndjson.gz", "smaller.ndjson.zst"] {
            to(&at(name)).printed();
        }
        assert!(std::fs::read(at("plain.ndjson")).expect("a file") == plain);
        assert!(gunzip(&std::fs::read(at("small.ndjson.gz")).expect("a file")) == plain);
        let zstd = std::fs::read(at("smaller.ndjson.zst")).expect("a file");
        assert!(zstd.len() < plain.len() && zstd::decode_all(&zstd[..]).expect("zstd") == plain);
        let named = |directory: &Path| std::fs::read_dir(directory).expect("a directory").count();
        assert_eq!(named(directory.path()), 3, "nothing unfinished is left");
        // A store that is not there, and times that are none.
        let mut elsewhere = bench.command();
        elsewhere.env("DATA_DIR", at("nowhere")).env_remove("DATABASE_URL").arg("export");
        program::run(elsewhere.arg("--output").arg(at("never"))).says(1, &["there is no ledger at"]);
        assert!(!at("never").exists() && !at("nowhere").exists());
        for wrong in [["--from", "yesterday"], ["--event-type", "HOVER"]] {
            assert_eq!(run(bench, &wrong).code, Some(2), "{wrong:?}");
        }
    });
}

#[test]
fn a_slow_reader_costs_a_page_and_a_third_is_asked_to_wait() {
    on_pairs(PAIRS, |bench| {
        for part in large_events(500).chunks(100) {
            post(bench, part);
        }
        double(bench, 3);
        // What stays is warmed up first, by two at once: pools, the allocator, the cache of each connection to SQLite.
        let whole = || whole(bench, "").len();
        let two =
            || std::thread::scope(|scope| [(); 2].map(|()| scope.spawn(whole)).map(|one| one.join().expect("all")));
        let [size, other] = [(); 4].map(|()| two())[0];
        assert!(size > 4_000 * 8_000 && other == size, "{size}, {other}");
        let pid = bench.tracker().pid();
        let before = memory_kib(pid, "VmRSS") * 1_024;
        let mut slow = [(); 2].map(|()| Reading::start(bench));
        let mut read = [0; 2];
        let mut most = before;
        // Some pages each, in pieces, with pauses.
        for pause in 0..4 {
            for (reading, read) in slow.iter_mut().zip(&mut read) {
                while *read < pause * PAGE_ROWS / 2 * 8_000 {
                    *read += reading.chunk().len();
                }
            }
            std::thread::sleep(Duration::from_millis(200));
            most = most.max(memory_kib(pid, "VmRSS") * 1_024);
        }
        refused(bench);
        eprintln!("two slow readers of {size} bytes each: from {before} to {most} bytes");
        assert!(most < before + size as u64, "two slow readers of {size} bytes: from {before} to {most}");
        // One goes away in the middle: its place is free soon. The other one gets everything.
        let [leaves, stays] = slow;
        drop(leaves);
        eventually_is(Duration::from_secs(10), &200, || export(bench, "eventType=UNLIKE").status);
        let (rest, is_whole) = stays.rest();
        assert!(is_whole && read[1] + rest == size, "{} of {size}", read[1] + rest);
    });
}

#[test]
fn an_export_whose_ledger_goes_away_is_cut_and_never_looks_whole() {
    let mut server = postgres::Server::private();
    let url = server.tcp(&server.database("tracker", ""));
    let mut bench = Bench::on(Some(url), None);
    bench.start();
    post(&bench, &large_events(100));
    double(&bench, 5);
    let mut reading = Reading::start(&bench);
    assert!(!reading.chunk().is_empty());
    server.kill();
    let (rest, is_whole) = reading.rest();
    assert!(!is_whole, "{rest} bytes and an end");
    bench.says("an export was cut");
    // Before the head it is an answer of its own.
    refused(&bench);
    let directory = tempfile::tempdir().expect("a directory");
    let ended = run(&bench, &["--output", directory.path().join("file").to_str().expect("UTF-8")]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0, "no file, not even a part");
    server.revive();
    let export = || bench.client().try_send("GET", "/api/export", &[], b"").map(|answer| answer.status);
    wait_until(Duration::from_secs(15), export, |status| matches!(status, Ok(200)));
}

#[test]
fn a_stop_cuts_an_export() {
    let mut bench = Bench::embedded(&[]);
    post(&bench, &large_events(1));
    double(&bench, 13);
    let mut reading = Reading::start(&bench);
    assert!(!reading.chunk().is_empty());
    let begun = std::time::Instant::now();
    let (rest, is_whole) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            reading.rest()
        });
        bench.stop();
        reading.join().expect("a reader")
    });
    assert!(!is_whole, "{rest} bytes and an end");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Only a regular file or a new name is replaced: a device, a pipe and a link stay what they are.
#[test]
fn an_output_that_is_no_regular_file_is_written_to_and_stays() {
    let bench = Bench::embedded(&[]);
    post(&bench, &events(&mut StdRng::seed_from_u64(seed()), 20));
    let expected = exported_by_command(&bench, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let start = |name: &str| {
        let mut command = bench.command();
        command.args(["export", "--output"]).arg(path(name)).stderr(std::process::Stdio::piped());
        command.spawn().expect("it starts")
    };
    let export_to = |name: &str| start(name).wait_with_output().expect("it ends");
    let is = |name: &str| std::fs::symlink_metadata(path(name)).expect("it is there").file_type();
    // Links, to a file, to a file that is not there yet, and to a device.
    std::fs::write(path("target"), "old and longer ".repeat(10_000)).expect("writes");
    for (link, to) in [("to-file", path("target")), ("to-new", path("new")), ("to-null", "/dev/null".into())] {
        symlink(&to, path(link)).expect("links");
        let output = export_to(link);
        assert!(output.status.success() && is(link).is_symlink(), "{link}: {output:?}");
        assert!(to == Path::new("/dev/null") || std::fs::read(&to).expect("a file") == expected, "{link}");
    }
    assert_eq!(std::fs::metadata(path("new")).expect("a file").permissions().mode() & 0o777, 0o600);
    make_fifo(&path("pipe"));
    let (writer, read) = (start("pipe"), std::fs::read(path("pipe")).expect("a pipe"));
    assert!(writer.wait_with_output().expect("it ends").status.success());
    assert!(read == expected && is("pipe").is_fifo());
    // A device that takes nothing: told in one line, and it stays one. Only root may make it.
    let name = CString::new(path("full").to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: `name` is a C string that outlives the call.
    if unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 7)) } == 0 {
        let output = export_to("full");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(is("full").is_char_device());
    }
    // `seed` writes through the same door.
    program::run(bench.command().args(["seed", "--events", "3", "--output"]).arg(path("to-file"))).printed();
    assert!(is("to-file").is_symlink());
    assert_eq!(lines(&std::fs::read(path("target")).expect("a file")).len(), 3);
    // A new name and a regular file become a whole file for its owner alone.
    for _ in 0..2 {
        assert!(export_to("plain").status.success());
        assert_eq!(std::fs::metadata(path("plain")).expect("a file").permissions().mode() & 0o777, 0o600);
        permit(&path("plain"), 0o644);
    }
    assert!(!export_to(".").status.success());
    let left = std::fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(left, 8 - usize::from(!path("full").exists()), "nothing unfinished is left");
}

#[test]
fn a_signal_leaves_no_unfinished_file() {
    let bench = Bench::on(None, None);
    let directory = tempfile::tempdir().expect("a directory");
    let names = || std::fs::read_dir(directory.path()).expect("a directory").count();
    for (name, signal) in [("out.ndjson", libc::SIGINT), ("out.ndjson.gz", libc::SIGTERM)] {
        let mut command = bench.command();
        command.args(["seed", "--events", "1000000000", "--output"]).arg(directory.path().join(name));
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut running = Running::start(command.stderr(log.reopen().expect("a file")));
        wait_until(Duration::from_secs(10), names, |count| *count > 0);
        running.signal(signal);
        let (code, said) = (running.end(), std::fs::read_to_string(log.path()).expect("text"));
        assert_eq!((names(), said.as_str(), code), (0, "event-tracker: interrupted\n", Some(130)));
    }
}

#[test]
fn csv_for_excel_begins_with_a_mark() {
    let bench = Bench::embedded(&[]);
    post(&bench, &events(&mut StdRng::seed_from_u64(seed()), 5));
    let plain = exported_by_command(&bench, &["--format", "csv"]);
    let marked = exported_by_command(&bench, &["--format", "csv", "--bom"]);
    assert!(marked.strip_prefix("\u{feff}".as_bytes()) == Some(&plain[..]));
    assert!(whole(&bench, "format=csv&bom=true") == marked);
    assert!(whole(&bench, "format=csv&bom=false") == plain);
    assert_eq!(run(&bench, &["--bom"]).code, Some(2));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let bench = Bench::embedded(&[]);
    let wrong = "from=yesterday to=x eventType=HOVER format=xml from=2&to=1 from=%ff bom=true format=csv&bom=perhaps";
    for query in wrong.split(' ') {
        let refused = export(&bench, query);
        let body: Value = serde_json::from_slice(&refused.body).expect("JSON");
        assert!(refused.status == 400 && body["error"].is_string(), "{query}: {body}");
    }
    assert!(whole(&bench, "").is_empty(), "nothing is stored yet");
    assert_eq!(whole(&bench, "format=csv").iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(bench.client().send("POST", "/api/export", &[], b"").status, 405);
}
