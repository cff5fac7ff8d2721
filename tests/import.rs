//! The importer on the real server: every format and packing, every row counted once whatever breaks on the way, and
//! every refusal told.

mod import_support;
#[path = "import/places.rs"]
mod places;
mod support;
#[path = "import/tables.rs"]
mod tables;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use import_support::front::{Front, Manner};
use import_support::input::{self, FORMATS, Format, PACKINGS, Packing};
use import_support::{Desk, Importer, check_each_once, name, taken};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use support::bench::{Bench, Ledger, Live, MAIN_PAIRS, on_pairs, wait_for};
use support::{eventually, now_ms};

/// The server on its embedded stores.
fn embedded() -> Bench {
    let mut bench = Bench::new(Ledger::Sqlite, Live::Memory).expect("embedded stores");
    bench.start();
    bench
}

/// Restarts are on the same port from now on.
fn stay_at_the_port(bench: &mut Bench) {
    let address = bench.address().to_string();
    bench.set("LISTEN", &address);
}

fn random() -> (u64, StdRng) {
    let seed = support::seed();
    (seed, StdRng::seed_from_u64(seed))
}

/// A front that takes its time, so that there is a middle to be interrupted in: some 200 batches a second.
fn slow(bench: &Bench) -> Front {
    Front::start(bench.address(), Manner::Slow { piece_ms: 10 }, 0)
}

/// So slow fronts take a few seconds.
const SLOW: [&str; 4] = ["--batch", "5", "--connections", "3"];

/// Waits until some rows are confirmed in the resume file, and fewer than `rows`.
fn wait_until_under_way(desk: &Desk, input: &str, importer: &mut Importer, behind: u64) {
    eventually(Duration::from_secs(20), || {
        let state = desk.state(input).unwrap_or_default();
        let confirmed = state["accepted"].as_u64().unwrap_or(0);
        if confirmed > behind { Ok(()) } else { Err(format!("{confirmed} confirmed")) }
    });
    assert!(importer.is_running(), "it ended before it could be interrupted");
}

#[test]
fn every_format_and_packing_arrives_as_it_was_written() {
    const ROWS: usize = 150;
    let (_, mut random) = random();
    let bench = embedded();
    let desk = Desk::new(&bench);
    let mut expected: Vec<Vec<String>> = Vec::new();
    let kinds: Vec<(Format, Packing)> = FORMATS.iter().flat_map(|format| PACKINGS.map(|p| (*format, p))).collect();
    for (number, (format, packing)) in kinds.iter().copied().chain(kinds.iter().copied()).enumerate() {
        // Each kind twice: once odd, once by standard input.
        let (is_odd, by_stdin) = (number < kinds.len(), number % 2 == usize::from(number < kinds.len()));
        let events = input::events_from(number * ROWS, ROWS, &mut random);
        let bytes = input::pack(&input::write(&events, format, is_odd), packing);
        let report = if by_stdin {
            desk.import_from(&bytes, &["--batch", "40"])
        } else {
            let file = desk.write(&input::file_name(&format!("in{number}"), format, packing), &bytes);
            desk.import(&["--batch", "40", name(&file)])
        };
        report.expect(0).says("150 accepted, 0 refused");
        expected.extend(events.iter().map(input::expected));
    }
    check_each_once(&bench, expected.len());
    let mut stored = bench.rows(input::STORED);
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
}

#[test]
fn several_files_go_into_postgres_and_redis_too() {
    on_pairs(MAIN_PAIRS, |bench| {
        let (_, mut random) = random();
        let events = input::events(3_000, &mut random);
        let desk = Desk::new(bench);
        let parts = events.chunks(1_000).zip(PACKINGS).enumerate().map(|(number, (part, packing))| {
            let format = FORMATS[number % 2];
            let bytes = input::pack(&input::write(part, format, false), packing);
            desk.write(&input::file_name(&format!("part{number}"), format, packing), &bytes)
        });
        let parts: Vec<_> = parts.collect();
        let paths: Vec<&str> = parts.iter().map(|path| name(path)).collect();
        desk.import(&paths).expect(0);
        check_each_once(bench, events.len());
        desk.import(&paths).expect(0).says("already imported");
        check_each_once(bench, events.len());
    });
}

#[test]
fn refused_lines_are_listed_with_their_reasons() {
    let bench = embedded();
    let desk = Desk::new(&bench);
    let good =
        |number: usize| format!(r#"{{"eventType":"CLICK","sessionId":"row-{number}","metadata":{{"componentId":1}}}}"#);
    let long = |bytes: usize| format!(r#"{{"eventType":"CLICK","userId":"u","x":"{}"}}"#, "x".repeat(bytes));
    let mut lines: Vec<Vec<u8>> = (0..3).map(|number| good(number).into_bytes()).collect();
    let bad: [(&str, Vec<u8>); 9] = [
        ("invalid_json", b"nonsense".to_vec()),
        ("invalid_json", b"[1]".to_vec()),
        ("event_too_large", long(65_500).into_bytes()),
        ("event_too_large", long(3_000_000).into_bytes()),
        ("invalid_utf8", b"{\"eventType\":\"CLICK\",\"userId\":\"\xff\"}".to_vec()),
        ("unknown_event_type", br#"{"eventType":"DANCE","userId":"u"}"#.to_vec()),
        ("missing_field", br#"{"eventType":"LIKE","userId":"u"}"#.to_vec()),
        (
            "too_old",
            br#"{"eventType":"CLICK","userId":"u","timestamp":100000000000,"metadata":{"componentId":1}}"#.to_vec(),
        ),
        (
            "invalid_field",
            br#"{"eventType":"CLICK","userId":"u","eventId":"mine","metadata":{"componentId":1}}"#.to_vec(),
        ),
    ];
    lines.extend(bad.iter().map(|(_, line)| line.clone()));
    lines.push(good(3).into_bytes());
    let file = desk.write("in.ndjson", &lines.join(&b'\n'));
    let report = desk.import(&["--batch", "5", name(&file)]).expect(3);
    report.says("4 accepted, 9 refused (event_too_large 2, invalid_field 1, invalid_json 2").says_too_old();
    let mut listed = desk.rejects("in.ndjson.rejects.ndjson");
    listed.sort_by_key(|(line, ..)| *line);
    assert_eq!(listed.len(), bad.len());
    for (number, ((line, error, input), (expected, text))) in listed.iter().zip(&bad).enumerate() {
        assert_eq!((*line, error.as_str()), (number as u64 + 4, *expected));
        let text = String::from_utf8_lossy(text);
        assert!(*input == text || (text.len() > 65_500 && text.starts_with(input.as_str()) && input.len() == 1_000));
    }
    check_each_once(&bench, 4);
    // Once more: it is remembered how it ended.
    desk.import(&[name(&file)]).expect(3).says("already imported");
}

impl import_support::Report {
    #[track_caller]
    fn says_too_old(self) {
        self.says("RETENTION_DAYS");
    }
}

#[test]
fn refused_records_of_a_table_are_listed_with_their_lines() {
    let bench = embedded();
    let desk = Desk::new(&bench);
    let text = "eventType,sessionId,componentId,properties,unknown\n\
         CLICK,row-0,1,,\n\
         CLICK,row-1,1\n\
         CLICK,row-1,one,,\n\
         CLICK,row-1,1,\"{\n1\",\n\
         \n\
         ,row-1,1,,\n\
         CLICK,row-1,1,\"{}\",x\n\
         CLICK,\"row-2,1,,\nCLICK,row-2,1,,\n"
        .to_owned();
    let more: String = (3..10_000).map(|number| format!("CLICK,row-{number},1,,\n")).collect();
    let file = desk.write("in.csv", (text + &more).as_bytes());
    let report = desk.import(&[name(&file)]).expect(3);
    report.says("left out: unknown").says("10,000 accepted, 5 refused");
    let listed: Vec<(u64, String)> =
        desk.rejects("in.csv.rejects.ndjson").into_iter().map(|(line, error, _)| (line, error)).collect();
    let expected =
        [(3, "invalid_csv"), (4, "invalid_field"), (5, "invalid_field"), (8, "missing_field"), (10, "invalid_csv")];
    assert_eq!(listed, expected.map(|(line, error)| (line, error.to_owned())));
    check_each_once(&bench, 10_000);
}

#[test]
fn memory_is_bounded_whatever_the_length_of_a_line() {
    const LINE_MIB: usize = 128;
    let bench = embedded();
    let desk = Desk::new(&bench);
    for format in ["ndjson", "csv"] {
        let mut importer = desk.spawn(&["--format", format, "-"], Stdio::piped());
        let mut stdin = importer.stdin();
        stdin.write_all(b"eventType,sessionId\n\"").unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..LINE_MIB {
            stdin.write_all(&piece).unwrap();
        }
        let memory = importer.memory_bytes_max();
        assert!(memory < 64 * 1024 * 1024, "{} MiB", memory >> 20);
        drop(stdin);
        importer.end().expect(3).says("event_too_large 1");
    }
}

#[test]
fn a_killed_importer_goes_on_and_every_row_counts_once() {
    const ROWS: usize = 4_500;
    const KILLS: u64 = 2;
    let (_, mut random) = random();
    for (format, packing) in [(Format::Ndjson, Packing::Plain), (Format::Csv, Packing::Zstd)] {
        let bench = embedded();
        let front = slow(&bench);
        let desk = Desk::at(front.url());
        let bytes = input::write(&input::events(ROWS, &mut random), format, true);
        let file_name = input::file_name("in", format, packing);
        let file = desk.write(&file_name, &input::pack(&bytes, packing));
        let arguments = [&SLOW[..], &[name(&file)]].concat();
        let mut behind = 0;
        for _ in 0..KILLS {
            let mut importer = desk.start(&arguments);
            wait_until_under_way(&desk, &file_name, &mut importer, behind);
            std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
            assert!(importer.is_running(), "it ended before it could be killed");
            importer.signal(libc::SIGKILL);
            assert_eq!(importer.end().code, None);
            behind = desk.state(&file_name).expect("a resume file")["accepted"].as_u64().expect("a count");
        }
        front.behave(Manner::Honest);
        desk.import(&[name(&file)]).expect(0).says("4,500 accepted, 0 refused").says("by an earlier run");
        check_each_once(&bench, ROWS);
        let again = taken(&bench) - ROWS as u64;
        eprintln!("{format:?} {packing:?}: {KILLS} kills, {again} rows were sent again");
    }
}

#[test]
fn an_interrupted_importer_goes_on_without_sending_anything_twice() {
    const ROWS: usize = 4_000;
    let (_, mut random) = random();
    let bench = embedded();
    let front = slow(&bench);
    let desk = Desk::at(front.url());
    let file = desk.write("in.ndjson", &input::write(&input::events(ROWS, &mut random), Format::Ndjson, false));
    let mut behind = 0;
    for _ in 0..2 {
        let mut importer = desk.start(&[&SLOW[..], &[name(&file)]].concat());
        wait_until_under_way(&desk, "in.ndjson", &mut importer, behind);
        importer.signal(libc::SIGINT);
        importer.end().expect(130).says("interrupted").says("the same command goes on from there");
        let state = desk.state("in.ndjson").expect("a resume file");
        assert_eq!((&state["unsettledSinceMs"], &state["isFinished"]), (&Value::Null, &Value::Bool(false)));
        assert_eq!(state["accepted"].as_u64(), Some(taken(&bench)), "what the server took is what is confirmed");
        behind = taken(&bench);
    }
    front.behave(Manner::Honest);
    desk.import(&[name(&file)]).expect(0).says("by an earlier run");
    assert_eq!(taken(&bench), ROWS as u64);
    check_each_once(&bench, ROWS);
}

#[test]
fn a_stream_can_be_resumed_where_a_resume_file_is_named() {
    const ROWS: usize = 3_000;
    let (_, mut random) = random();
    let bench = embedded();
    let front = slow(&bench);
    let desk = Desk::at(front.url());
    let bytes = input::pack(&input::write(&input::events(ROWS, &mut random), Format::Csv, false), Packing::Gzip);
    desk.write("in", &bytes);
    let arguments = [&SLOW[..], &["--resume-file", "in.import-state", "-"]].concat();
    let stdin = || Stdio::from(std::fs::File::open(desk.path("in")).unwrap());
    // A file as standard input is one that can be seeked in: a pipe is not.
    let mut importer = desk.spawn(&arguments, stdin());
    wait_until_under_way(&desk, "in", &mut importer, 0);
    importer.signal(libc::SIGKILL);
    drop(importer.end());
    front.behave(Manner::Honest);
    desk.import_from(&bytes, &arguments).expect(1).says("another input");
    desk.spawn(&arguments, stdin()).end().expect(0);
    check_each_once(&bench, ROWS);
}

#[test]
fn a_pipe_is_known_again_by_its_first_bytes() {
    const ROWS: usize = 6_000;
    let (_, mut random) = random();
    let bench = embedded();
    let desk = Desk::new(&bench);
    let bytes = input::write(&input::events(ROWS, &mut random), Format::Ndjson, false);
    let arguments = ["--batch", "5", "--resume-file", "in.import-state"];
    let mut importer = desk.spawn(&arguments, Stdio::piped());
    let mut stdin = importer.stdin();
    stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
    wait_until_under_way(&desk, "in", &mut importer, 0);
    // The pipe stays open and gives no more: it ends all the same.
    importer.signal(libc::SIGTERM);
    importer.end().expect(130);
    drop(stdin);
    desk.import_from(b"{\"eventType\":\"CLICK\"}", &arguments).expect(1).says("it begins otherwise");
    desk.import_from(&bytes, &arguments).expect(0);
    assert_eq!(taken(&bench), ROWS as u64);
    check_each_once(&bench, ROWS);
}

#[test]
fn the_server_may_be_killed_and_come_back() {
    const ROWS: usize = 6_000;
    let (_, mut random) = random();
    let mut bench = embedded();
    stay_at_the_port(&mut bench);
    let front = slow(&bench);
    let desk = Desk::at(front.url());
    let file = desk.write("in.ndjson", &input::write(&input::events(ROWS, &mut random), Format::Ndjson, false));
    let mut importer = desk.start(&[&SLOW[..], &[name(&file)]].concat());
    for kill in 0..3 {
        wait_until_under_way(&desk, "in.ndjson", &mut importer, kill * 1_000);
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        bench.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        assert!(importer.is_running(), "it ended with the server");
        bench.start();
    }
    importer.end().expect(0).says("6,000 accepted");
    check_each_once(&bench, ROWS);
}

#[test]
fn cut_connections_and_swallowed_answers_count_nothing_twice() {
    const ROWS: usize = 1_500;
    let (seed, mut random) = random();
    for manner in [Manner::Cut { bytes_max: 30_000 }, Manner::Swallow { honest_every: 2 }] {
        let bench = embedded();
        let front = Front::start(bench.address(), manner.clone(), seed);
        let desk = Desk::at(front.url());
        let events = input::events(ROWS, &mut random);
        let file = desk.write("in.ndjson", &input::write(&events, Format::Ndjson, false));
        desk.import(&["--batch", "40", name(&file)]).expect(0).says("1,500 accepted");
        let again = taken(&bench) as usize - ROWS;
        eprintln!("{manner:?}: {} connections, {again} rows taken twice", front.connections());
        assert!(again > 0 && front.connections() > 10, "nothing went wrong");
        check_each_once(&bench, ROWS);
    }
}

#[test]
fn one_connection_keeps_the_order_of_the_input() {
    let (seed, mut random) = random();
    let bench = embedded();
    let front = Front::start(bench.address(), Manner::Swallow { honest_every: 2 }, seed);
    let desk = Desk::at(front.url());
    let mut expected = std::collections::BTreeSet::new();
    let mut text = String::new();
    for _ in 0..600 {
        let (post, likes) = (random.random_range(0..20), random.random_range(0..2) == 0);
        let event_type = if likes { "LIKE" } else { "UNLIKE" };
        text.push_str(&format!("{{\"eventType\":\"{event_type}\",\"userId\":1,\"metadata\":{{\"postId\":{post}}}}}\n"));
        let _ = if likes { expected.insert(vec![post.to_string()]) } else { expected.remove(&vec![post.to_string()]) };
    }
    let file = desk.write("in.ndjson", text.as_bytes());
    desk.import(&["--batch", "50", "--connections", "1", name(&file)]).expect(0);
    bench.check_sums();
    let stored = bench.rows("SELECT post_id FROM post_like").into_iter().collect();
    assert_eq!(expected, stored);
    assert!(taken(&bench) > 600, "no answer was swallowed");
}

fn busy(status: u16, retry_after: &str) -> Manner {
    Manner::Answer(format!(
        "HTTP/1.1 {status} Busy\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn a_server_that_is_busy_is_waited_for_as_long_as_it_says() {
    for status in [429, 503] {
        let bench = embedded();
        let front = Front::start(bench.address(), busy(status, "2"), 0);
        let desk = Desk::at(front.url());
        let (_, mut random) = random();
        let file = desk.write("in.ndjson", &input::write(&input::events(50, &mut random), Format::Ndjson, false));
        let began = Instant::now();
        let importer = desk.start(&[name(&file)]);
        eventually(Duration::from_secs(10), || if front.connections() > 0 { Ok(()) } else { Err("no request".into()) });
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(front.connections(), 1, "it did not wait");
        assert!(front.seen().to_lowercase().contains("authorization: bearer a key\r\n"), "{}", front.seen());
        front.behave(Manner::Honest);
        importer.end().expect(0).says("1 batch sent again");
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        check_each_once(&bench, 50);
    }
}

#[test]
fn a_stranger_that_says_yes_confirms_nothing() {
    let bench = embedded();
    let page =
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<html>hello\n";
    let front = Front::start(bench.address(), Manner::Answer(page.to_owned()), 0);
    let desk = Desk::at(front.url());
    let (_, mut random) = random();
    let file = desk.write("in.ndjson", &input::write(&input::events(50, &mut random), Format::Ndjson, false));
    desk.import(&[name(&file)]).expect(1).says("no answer of an event-tracker").says("0 accepted");
    front.behave(Manner::Honest);
    desk.import(&[name(&file)]).expect(0).says("50 accepted");
    check_each_once(&bench, 50);
}

#[test]
fn without_progress_it_gives_up_and_goes_on_later() {
    let mut bench = embedded();
    stay_at_the_port(&mut bench);
    let desk = Desk::new(&bench);
    let (_, mut random) = random();
    let file = desk.write("in.ndjson", &input::write(&input::events(50, &mut random), Format::Ndjson, false));
    bench.kill();
    desk.import(&["--give-up-after", "2", name(&file)]).expect(1).says("no progress for 2 s, at lines 1 to 50");
    bench.start();
    desk.import(&[name(&file)]).expect(0).says("50 accepted");
    check_each_once(&bench, 50);
}

#[test]
fn only_the_same_input_is_gone_on_with() {
    let bench = embedded();
    let desk = Desk::new(&bench);
    let (_, mut random) = random();
    let events = input::events(60, &mut random);
    let file = desk.write("in.ndjson", &input::write(&events[..50], Format::Ndjson, false));
    desk.import(&[name(&file)]).expect(0);
    // Something was added to it.
    desk.write("in.ndjson", &input::write(&events, Format::Ndjson, false));
    desk.import(&[name(&file)]).expect(1).says("another input");
    assert_eq!(taken(&bench), 50);
    desk.import(&["--again", name(&file)]).expect(0).says("60 accepted");
    assert_eq!(taken(&bench), 110);
    desk.import(&[name(&file)]).expect(0).says("already imported");
    assert_eq!(taken(&bench), 110);
    // Another import of it is under way.
    let held = std::fs::File::open(&file).unwrap();
    held.lock().unwrap();
    desk.import(&["--again", name(&file)]).expect(1).says("under way");
}

#[test]
fn a_damaged_file_is_imported_up_to_the_damage_and_told() {
    let bench = embedded();
    let desk = Desk::new(&bench);
    let (_, mut random) = random();
    let mut bytes =
        input::pack(&input::write(&input::events(3_000, &mut random), Format::Ndjson, false), Packing::Gzip);
    bytes.truncate(bytes.len() * 2 / 3);
    let file = desk.write("in.ndjson.gz", &bytes);
    desk.import(&[name(&file)]).expect(1).says("cannot read on after line");
    let rows = desk.state("in.ndjson.gz").expect("a resume file")["accepted"].as_u64().expect("a count");
    assert!((1_000..3_000).contains(&rows), "{rows}");
    check_each_once(&bench, rows as usize);
}

#[test]
fn a_dry_run_judges_as_the_server_does_and_sends_nothing() {
    let bench = embedded();
    let desk = Desk::new(&bench);
    let (_, mut random) = random();
    let mut bytes = input::write(&input::events(50, &mut random), Format::Ndjson, false);
    bytes.extend_from_slice(b"{\"eventType\":\"DANCE\",\"userId\":1}\n{\"eventType\":\"CLICK\",\"userId\":1}\n[]\n");
    let file = desk.write("in.ndjson", &bytes);
    let report = desk.import(&["--dry-run", "--rejects", "dry", name(&file)]).expect(3);
    report.says("nothing was sent: 53 rows read, 50 accepted, 3 refused").says("in.ndjson:51: unknown_event_type");
    assert_eq!((taken(&bench), desk.state("in.ndjson")), (0, None));
    let errors = |name: &str| -> Vec<(u64, String, String)> { desk.rejects(name) };
    desk.import(&[name(&file)]).expect(3);
    assert_eq!(errors("dry"), errors("in.ndjson.rejects.ndjson"));
    assert_eq!(taken(&bench), 50);
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let desk = Desk::at("http://127.0.0.1:1".into());
    for arguments in [
        &["--connections", "0", "x"][..],
        &["--batch", "1001", "x"],
        &["--url", "nonsense", "x"],
        &["--resume-file", "s", "x", "y"],
        &["--give-up-after", "90000", "x"],
        &["--format", "xml", "x"],
    ] {
        let report = desk.import(arguments).expect(2);
        assert_eq!(report.told.lines().count(), 1, "{}", report.told);
    }
    desk.import(&["missing.ndjson"]).expect(1).says("missing.ndjson");
    desk.write("x.json", b"[{}]");
    desk.import(&["x.json"]).expect(1).says("jq");
    desk.write("x.bz2", b"BZh91AY");
    desk.import(&["x.bz2"]).expect(1).says("bzip2 -dc");
    desk.write("x.csv", b"userId\n1\n");
    desk.import(&["x.csv"]).expect(1).says("no column eventType");
}

/// A file that is as long as one wants, with a kill of the importer and one of the server on the way.
#[test]
#[ignore = "long: IMPORT_ROWS (5,000,000) rows; run it with a release build"]
fn millions_of_rows_arrive_once_through_kills_of_both() {
    let rows: usize = std::env::var("IMPORT_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(5_000_000);
    let (_, mut random) = random();
    let Some(mut bench) = Bench::new(Ledger::Postgres, Live::Redis) else { return };
    bench.start();
    stay_at_the_port(&mut bench);
    let desk = Desk::new(&bench);
    let file = desk.path("in.ndjson");
    write_rows(&file, rows);
    let began = Instant::now();
    let mut importer = desk.start(&[name(&file)]);
    wait_until_under_way(&desk, "in.ndjson", &mut importer, rows as u64 / 5);
    importer.signal(libc::SIGKILL);
    drop(importer.end());
    let mut importer = desk.start(&[name(&file)]);
    wait_until_under_way(&desk, "in.ndjson", &mut importer, rows as u64 / 2);
    std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
    assert!(importer.is_running(), "it ended before the server could be killed");
    bench.kill();
    bench.start();
    eprintln!("{}", end_within(importer, Duration::from_secs(3_600)).expect(0).told);
    let took = began.elapsed().as_secs_f64();
    eprintln!("{rows} rows with both kills: {took:.1} s, {:.0} a second", rows as f64 / took);
    eventually(Duration::from_secs(3_600), || {
        match bench.client().get("/healthz/deps").json()["sinks"]["ledger"]["lagEvents"].as_u64() {
            Some(0) => Ok(()),
            lag => Err(format!("the ledger is {lag:?} events behind")),
        }
    });
    check_each_once(&bench, rows);
    compare_with_a_plain_load(&desk, rows.min(500_000));
}

fn end_within(mut importer: Importer, within: Duration) -> import_support::Report {
    eventually(within, || if importer.is_running() { Err("it runs".into()) } else { Ok(()) });
    importer.end()
}

fn write_rows(path: &std::path::Path, rows: usize) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let at = now_ms();
    for number in 0..rows {
        let (user, page) = (number % 50_000, number % 997);
        writeln!(
            file,
            r#"{{"eventType":"PAGE_VIEW","userId":"u{user}","sessionId":"row-{number}","timestamp":{at},"metadata":{{"url":"/p/{page}"}}}}"#
        )
        .unwrap();
    }
    file.flush().unwrap();
}

/// The rate of an import of `rows` rows, and that of the same bodies posted with nothing else to do.
fn compare_with_a_plain_load(desk: &Desk, rows: usize) {
    let Some(mut bench) = Bench::new(Ledger::Postgres, Live::Redis) else { return };
    bench.start();
    let file = desk.path("rate.ndjson");
    write_rows(&file, rows);
    let text = std::fs::read(&file).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    let bodies: Vec<Vec<u8>> = lines.chunks(1_000).map(<[&[u8]]>::concat).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for part in bodies.chunks(bodies.len().div_ceil(4)) {
            let mut client = bench.client();
            scope.spawn(move || {
                for body in part {
                    let headers = [("Content-Type", "application/x-ndjson")];
                    client.send("POST", "/api/events", &headers, body).expect(202);
                }
            });
        }
    });
    let plain = rows as f64 / began.elapsed().as_secs_f64();
    drop(bench);
    // In turns, so that a machine that is busy for a while is so for all of them.
    for packing in ["none", "zstd", "gzip"].repeat(3) {
        let Some((rate, importer_us, server_us)) = import_rate(desk, &file, rows, packing) else { return };
        eprintln!(
            "{rows} rows: posted {plain:.0}/s; imported, packing {packing}: {rate:.0}/s ({:.2}); CPU a row: importer \
             {importer_us:.2} us, server {server_us:.2} us",
            rate / plain
        );
    }
}

/// Rows a second, and microseconds of CPU that a row costs importer and server until the importer is done.
fn import_rate(desk: &Desk, file: &std::path::Path, rows: usize, packing: &str) -> Option<(f64, f64, f64)> {
    let mut bench = Bench::new(Ledger::Postgres, Live::Redis)?;
    bench.start();
    let url = format!("http://{}", bench.address());
    let (began, server_before, importer_before) = (Instant::now(), cpu_us(bench.tracker().pid()), children_cpu_us());
    let importer = desk.start(&["--again", "--url", &url, "--packing", packing, name(file)]);
    end_within(importer, Duration::from_secs(3_600)).expect(0);
    let each = |us: f64| us / rows as f64;
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    Some((rate, each(children_cpu_us() - importer_before), each(cpu_us(bench.tracker().pid()) - server_before)))
}

/// CPU that a process has used.
fn cpu_us(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Fields 14 and 15 of the line, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10_000.0
}

/// CPU that children have used which were waited for.
fn children_cpu_us() -> f64 {
    // SAFETY: rusage is plain numbers, for which zero is a value; the call only fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` outlives the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

/// A database like the predecessor's: ids as numbers and true types, or all as text.
fn predecessor(server: &support::postgres::Server, is_text: bool) -> String {
    let url = server.database("old", "");
    let (id, list, json, time) = match is_text {
        false => ("bigint", "text[]", "jsonb", "timestamptz"),
        true => ("varchar(40)", "text", "text", "timestamp"),
    };
    let (hashtags, images) = match is_text {
        false => ("ARRAY['oak', 'desk']", "ARRAY['https://x/a.png', 'https://x/b.png']"),
        true => ("'oak,desk'", "'https://x/a.png,https://x/b.png'"),
    };
    let sql = format!(
        "CREATE TABLE statistics (event_type varchar(20), metadata {json}, count bigint);
         CREATE TABLE post (post_id {id} PRIMARY KEY, user_id {id}, content text, image_urls {list}, hashtags {list}, created_at {time});
         CREATE TABLE post_like (user_id {id}, post_id {id}, liked_at {time}, PRIMARY KEY (user_id, post_id));
         INSERT INTO post_like SELECT u, p, now() - interval '1 day' FROM generate_series(1, 30) u, generate_series(1, 50) p
             WHERE (u + p) % 2 = 0;
         INSERT INTO statistics VALUES ('CLICK', '{{\"componentId\":1001}}', 1500), ('CLICK', '{{\"componentId\":\"1002\"}}', 250),
             ('SEARCH', '{{\"keyword\":\"it''s oak\"}}', 3), ('SEARCH', '{{\"keyword\":\"it''s oak\"}}', 4), ('PAGE_VIEW', '{{\"url\":\"/a\"}}', 0),
             ('LIKE', '{{\"postId\":\"1\"}}', 1000000), ('DANCE', '{{}}', 7);
         INSERT INTO post SELECT p, p % 7, 'post ' || p, {images}, {hashtags}, now() - interval '2 days' FROM generate_series(1, 120) p"
    );
    ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap().batch_execute(&sql).unwrap();
    url
}

#[test]
fn likes_and_counts_of_the_predecessor_are_taken_over_once() {
    let Some(server) = support::postgres::Server::shared() else { return };
    for is_text in [false, true] {
        let bench = embedded();
        let desk = Desk::new(&bench);
        let url = predecessor(&server, is_text);
        let database = url.rsplit('/').next().unwrap().to_owned();
        let day_ago = now_ms() - 86_400_000;
        let at = jiff::Timestamp::from_millisecond(day_ago).unwrap().to_string();
        let arguments = ["--from-event-tracker", &url, "--tables", "post_like,statistics", "--statistics-at", &at];
        let report = desk.import(&arguments).expect(3);
        let report = report.says("post_like: done: 750 rows read, 750 accepted, 0 refused");
        report.says(
            "statistics: done: 1,759 rows read, 1,757 accepted, 2 refused (missing_field 1, unknown_event_type 1)",
        );
        let refused = desk.rejects(&format!("event-tracker-{database}.statistics.rejects.ndjson"));
        assert!(
            refused.iter().any(|(_, error, input)| error == "missing_field" && input.contains("1000000")),
            "{refused:?}"
        );
        let check = || {
            bench.check_sums();
            assert_eq!(bench.number("SELECT count(*) FROM post_like"), 750);
            assert_eq!(bench.number("SELECT count(*) FROM post_like WHERE post_id = '2' AND user_id = '4'"), 1);
            assert_eq!(bench.number("SELECT like_count FROM post_stat WHERE post_id = '7'"), 15);
            let count = |filter: &str| bench.number(&format!("SELECT count(*) FROM events WHERE {filter}"));
            assert_eq!(count("event_type = 'CLICK' AND component_id = 1001 AND session_id = 'imported'"), 1_500);
            assert_eq!(count("component_id = 1002"), 250);
            assert_eq!(count("event_type = 'SEARCH' AND keyword = 'it''s oak'"), 7);
            assert_eq!(bench.event_rows(), 750 + 1_757);
        };
        check();
        // Again: nothing is sent. As if new: the same ids, so nothing changes.
        desk.import(&arguments).expect(3).says("post_like: already imported").says("statistics: already imported");
        desk.import(&[&arguments[..], &["--again"]].concat()).expect(3).says("1,757 accepted");
        check();
        // What has grown by three adds three.
        let sql = "UPDATE statistics SET count = count + 3 WHERE count = 250; INSERT INTO post_like VALUES ('77', '1', now())";
        ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap().batch_execute(sql).unwrap();
        desk.import(&[&arguments[..], &["--again"]].concat()).expect(3).says("1,760 accepted");
        bench.settle();
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE component_id = 1002"), 253);
        assert_eq!(bench.number("SELECT count(*) FROM post_like"), 751);
    }
}

#[test]
fn a_takeover_that_was_killed_goes_on_behind_the_last_key() {
    let Some(server) = support::postgres::Server::shared() else { return };
    let (_, mut random) = random();
    for is_text in [false, true] {
        let bench = embedded();
        let front = slow(&bench);
        let desk = Desk::at(front.url());
        let url = predecessor(&server, is_text);
        let database = url.rsplit('/').next().unwrap();
        for (table, rows) in [("post_like", 750), ("statistics", 1_757)] {
            let arguments = ["--from-event-tracker", &url, "--tables", table, "--batch", "3", "--connections", "2"];
            let mut importer = desk.start(&arguments);
            wait_until_under_way(&desk, &format!("event-tracker-{database}.{table}"), &mut importer, 0);
            std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
            importer.signal(libc::SIGKILL);
            assert_eq!(importer.end().code, None, "it ended before it could be killed");
            front.behave(Manner::Honest);
            let report = desk.import(&arguments).expect(if table == "statistics" { 3 } else { 0 });
            report.says("going on after row");
            front.behave(Manner::Slow { piece_ms: 10 });
            bench.settle();
            let filter = if table == "statistics" { "session_id = 'imported'" } else { "event_type = 'LIKE'" };
            assert_eq!(bench.number(&format!("SELECT count(*) FROM events WHERE {filter}")), rows, "{table}");
        }
        bench.check_sums();
        assert_eq!(bench.number("SELECT count(*) FROM post_like"), 750);
    }
}

/// As long as this server has no posts, that is said; from then on they are taken over.
#[test]
fn posts_of_the_predecessor_are_taken_over_or_it_is_said_that_there_are_none() {
    let Some(server) = support::postgres::Server::shared() else { return };
    for is_text in [false, true] {
        let bench = embedded();
        let desk = Desk::new(&bench);
        let url = predecessor(&server, is_text);
        let arguments = ["--from-event-tracker", &url, "--tables", "post"];
        let post = serde_json::json!({"userId": "u", "content": "c", "postId": "probe"});
        if bench.client().post("/api/posts", &post).status == 404 {
            desk.import(&arguments)
                .expect(1)
                .says("this server has no posts yet")
                .says("--tables post_like,statistics");
            continue;
        }
        for again in [false, true] {
            let more: &[&str] = if again { &["--again"] } else { &[] };
            desk.import(&[&arguments[..], more].concat()).expect(0).says("120 accepted, 0 refused");
            let found = bench.client().read("/api/posts/33");
            assert_eq!((&found["userId"], &found["content"]), (&"5".into(), &"post 33".into()), "{found}");
            assert_eq!(found["hashtags"], serde_json::json!(["oak", "desk"]));
            assert_eq!(found["imageUrls"], serde_json::json!(["https://x/a.png", "https://x/b.png"]));
        }
        bench.settle();
        assert_eq!(bench.number("SELECT count(*) FROM post"), 121);
    }
}
