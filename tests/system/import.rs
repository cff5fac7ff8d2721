//! The importer on the real server: every format and packing, every row counted once whatever
//! breaks on the way, and every refusal told.

mod old_tables;
mod places;
mod tables;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::import_support::front::{Front, Manner};
use crate::import_support::input::{self, FORMATS, Format, PACKINGS, Packing};
use crate::import_support::{Desk, Importer, check_each_once, name, taken};
use crate::support::bench::{Bench, MAIN_PAIRS, on_pairs};
use crate::support::{eventually, now_ms, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// A server on its embedded stores.
fn embedded() -> Bench {
    Bench::embedded(&[])
}

/// A server, and a directory to import into it from.
fn at_a_desk() -> (Bench, Desk) {
    let bench = embedded();
    let desk = Desk::new(&bench);
    (bench, desk)
}

/// The same with a slow front between them.
fn at_a_slow_desk() -> (Bench, Front, Desk) {
    let bench = embedded();
    let front = slow(&bench);
    let desk = Desk::at(front.url());
    (bench, front, desk)
}

/// Restarts are on the same port from now on.
fn stay_at_the_port(bench: &mut Bench) {
    let address = bench.address().to_string();
    bench.set("LISTEN", &address);
}

fn random() -> StdRng {
    StdRng::seed_from_u64(crate::support::seed())
}

fn some_rows(count: usize) -> Vec<u8> {
    input::write(&input::events(count, &mut random()), Format::Ndjson, false)
}

/// A front that takes its time, so that there is a middle to be interrupted in: some 200 batches a
/// second.
fn slow(bench: &Bench) -> Front {
    Front::start(bench.address(), Manner::Slow { piece_ms: 10 })
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
    let mut random = random();
    let (bench, desk) = at_a_desk();
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
        let events = input::events(3_000, &mut random());
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
    let (bench, desk) = at_a_desk();
    let click = |rest: &str| format!(r#"{{"eventType":"CLICK",{rest}}}"#).into_bytes();
    let good = |number: usize| click(&format!(r#""sessionId":"row-{number}","metadata":{{"componentId":1}}"#));
    let long = |bytes: usize| click(&format!(r#""userId":"u","x":"{}""#, "x".repeat(bytes)));
    let mut lines: Vec<Vec<u8>> = (0..3).map(good).collect();
    let bad: [(&str, Vec<u8>); 9] = [
        ("invalid_json", b"nonsense".to_vec()),
        ("invalid_json", b"[1]".to_vec()),
        ("event_too_large", long(65_500)),
        ("event_too_large", long(3_000_000)),
        ("invalid_utf8", b"{\"eventType\":\"CLICK\",\"userId\":\"\xff\"}".to_vec()),
        ("unknown_event_type", br#"{"eventType":"DANCE","userId":"u"}"#.to_vec()),
        ("missing_field", br#"{"eventType":"LIKE","userId":"u"}"#.to_vec()),
        ("too_old", click(r#""userId":"u","timestamp":100000000000,"metadata":{"componentId":1}"#)),
        ("invalid_field", click(r#""userId":"u","eventId":"mine","metadata":{"componentId":1}"#)),
    ];
    lines.extend(bad.iter().map(|(_, line)| line.clone()));
    lines.push(good(3));
    let file = desk.write("in.ndjson", &lines.join(&b'\n'));
    let report = desk.import(&["--batch", "5", name(&file)]).expect(3);
    report.says("4 accepted, 9 refused (event_too_large 2, invalid_field 1, invalid_json 2").says("RETENTION_DAYS");
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

#[test]
fn refused_records_of_a_table_are_listed_with_their_lines() {
    let (bench, desk) = at_a_desk();
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
    let listed = desk.rejects("in.csv.rejects.ndjson");
    let listed: Vec<String> = listed.iter().map(|(line, error, _)| format!("{line} {error}")).collect();
    assert_eq!(listed.join(", "), "3 invalid_csv, 4 invalid_field, 5 invalid_field, 8 missing_field, 10 invalid_csv");
    check_each_once(&bench, 10_000);
}

#[test]
fn memory_is_bounded_whatever_the_length_of_a_line() {
    const LINE_MIB: usize = 128;
    let (_bench, desk) = at_a_desk();
    for format in ["ndjson", "csv"] {
        let mut importer = desk.spawn(&["--format", format, "-"], Stdio::piped());
        let mut stdin = importer.stdin();
        stdin.write_all(b"eventType,sessionId\n\"").unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        (0..LINE_MIB).for_each(|_| stdin.write_all(&piece).unwrap());
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
    let mut random = random();
    for (format, packing) in [(Format::Ndjson, Packing::Plain), (Format::Csv, Packing::Zstd)] {
        let (bench, front, desk) = at_a_slow_desk();
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
    let (bench, front, desk) = at_a_slow_desk();
    let file = desk.write("in.ndjson", &some_rows(ROWS));
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
    let mut random = random();
    let (bench, front, desk) = at_a_slow_desk();
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
    let (bench, desk) = at_a_desk();
    let bytes = some_rows(ROWS);
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
    let mut random = random();
    let mut bench = embedded();
    stay_at_the_port(&mut bench);
    let front = slow(&bench);
    let desk = Desk::at(front.url());
    let file = desk.write("in.ndjson", &some_rows(ROWS));
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
    let mut random = random();
    for manner in [Manner::Cut { bytes_max: 30_000 }, Manner::Swallow { honest_every: 2 }] {
        let bench = embedded();
        let front = Front::start(bench.address(), manner.clone());
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
    let mut random = random();
    let bench = embedded();
    let front = Front::start(bench.address(), Manner::Swallow { honest_every: 2 });
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

/// A front that answers in the server's place.
fn answering(status: u16, header: &str, body: &str) -> Manner {
    let length = body.len();
    Manner::Answer(format!(
        "HTTP/1.1 {status} So\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

#[test]
fn a_server_that_is_busy_is_waited_for_as_long_as_it_says() {
    for status in [429, 503] {
        let bench = embedded();
        let front = Front::start(bench.address(), answering(status, "Retry-After: 2", ""));
        let desk = Desk::at(front.url());
        let file = desk.write("in.ndjson", &some_rows(50));
        let began = Instant::now();
        let importer = desk.start(&[name(&file)]);
        wait_until(Duration::from_secs(10), || front.connections(), |count| *count > 0);
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
    let front = Front::start(bench.address(), answering(200, "Content-Type: text/html", "<html>hello\n"));
    let desk = Desk::at(front.url());
    let file = desk.write("in.ndjson", &some_rows(50));
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
    let file = desk.write("in.ndjson", &some_rows(50));
    bench.kill();
    desk.import(&["--give-up-after", "2", name(&file)]).expect(1).says("no progress for 2 s, at lines 1 to 50");
    bench.start();
    desk.import(&[name(&file)]).expect(0).says("50 accepted");
    check_each_once(&bench, 50);
}

#[test]
fn only_the_same_input_is_gone_on_with() {
    let (bench, desk) = at_a_desk();
    let events = input::events(60, &mut random());
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
    let (bench, desk) = at_a_desk();
    let mut bytes = input::pack(&some_rows(3_000), Packing::Gzip);
    bytes.truncate(bytes.len() * 2 / 3);
    let file = desk.write("in.ndjson.gz", &bytes);
    desk.import(&[name(&file)]).expect(1).says("cannot read on after line");
    let rows = desk.state("in.ndjson.gz").expect("a resume file")["accepted"].as_u64().expect("a count");
    assert!((1_000..3_000).contains(&rows), "{rows}");
    check_each_once(&bench, rows as usize);
}

#[test]
fn a_dry_run_judges_as_the_server_does_and_sends_nothing() {
    let (bench, desk) = at_a_desk();
    let mut bytes = some_rows(50);
    bytes.extend_from_slice(b"{\"eventType\":\"DANCE\",\"userId\":1}\n{\"eventType\":\"CLICK\",\"userId\":1}\n[]\n");
    let file = desk.write("in.ndjson", &bytes);
    let report = desk.import(&["--dry-run", "--rejects", "dry", name(&file)]).expect(3);
    report.says("nothing was sent: 53 rows read, 50 accepted, 3 refused").says("in.ndjson:51: unknown_event_type");
    assert_eq!((taken(&bench), desk.state("in.ndjson")), (0, None));
    desk.import(&[name(&file)]).expect(3);
    assert_eq!(desk.rejects("dry"), desk.rejects("in.ndjson.rejects.ndjson"));
    assert_eq!(taken(&bench), 50);
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let desk = Desk::at("http://127.0.0.1:1".into());
    let wrong =
        "--connections 0 x|--batch 1001 x|--url nonsense x|--resume-file s x y|--give-up-after 90000 x|--format xml x";
    for arguments in wrong.split('|') {
        let report = desk.import(&arguments.split(' ').collect::<Vec<_>>()).expect(2);
        assert_eq!(report.told.lines().count(), 1, "{arguments}: {}", report.told);
    }
    desk.import(&["missing.ndjson"]).expect(1).says("missing.ndjson");
    for (file, bytes, words) in [
        ("x.json", &b"[{}]"[..], "jq"),
        ("x.bz2", b"BZh91AY", "bzip2 -dc"),
        ("x.csv", b"userId\n1\n", "no column eventType"),
    ] {
        desk.write(file, bytes);
        desk.import(&[file]).expect(1).says(words);
    }
}
