//! The journal's commands on the real program: what is damaged is refused, named, salvaged and passed; what the ledger
//! has is never applied twice.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::bench::Bench;
use crate::support::eventually_is;
use crate::support::hold::Hold;
use serde_json::{Value, json};

/// Sends single events, each durable before the next one is sent: a frame each, at the position of its number.
fn post(bench: &Bench, numbers: RangeInclusive<u64>) {
    let mut client = bench.client();
    for number in numbers {
        let event = json!({"eventType": "CLICK", "sessionId": format!("s{number}"), "metadata": {"componentId": 1}});
        client.post("/api/events", &event).expect(202);
    }
}

/// A program that was killed: its ledger has the events up to `applied`, its journal those up to `durable`, and the frames
/// of some are damaged. Which file the last of them is in.
fn damaged(applied: u64, durable: u64, positions: RangeInclusive<u64>) -> (Bench, PathBuf) {
    let mut bench = Bench::embedded(&[]);
    post(&bench, 1..=applied);
    bench.settle();
    let held = Hold::of(None, &bench.data_dir);
    post(&bench, applied + 1..=durable);
    bench.kill();
    held.release();
    let segments: Vec<PathBuf> = positions.map(|position| damage(&journal(&bench), position)).collect();
    (bench, segments.last().expect("a position").clone())
}

fn journal(bench: &Bench) -> PathBuf {
    bench.data_dir.join("journal")
}

/// Flips a bit in the middle of the frame that holds a position; the file it is in.
fn damage(journal: &Path, position: u64) -> PathBuf {
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(journal).expect("there").map(|e| e.expect("a file").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|e| e == "segment"));
    segments.sort();
    for segment in segments {
        let mut bytes = std::fs::read(&segment).expect("reads");
        let number = |at: usize, n: usize| bytes[at..at + n].iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        let mut at = 64;
        while at + 20 < bytes.len() && number(at, 4) > 0 {
            let (length, first, count) = (number(at, 4) as usize, number(at + 8, 8), number(at + 16, 4));
            if (first..first + count).contains(&position) {
                bytes[at + 20 + length / 2] ^= 4;
                std::fs::write(&segment, &bytes).expect("writes");
                return segment;
            }
            at += 20 + length;
        }
    }
    panic!("no frame holds {position}");
}

fn copies(bench: &Bench) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&bench.data_dir).expect("there").map(|e| e.expect("an entry").path());
    entries.filter(|path| path.to_string_lossy().contains("journal.damaged-")).collect()
}

fn stored(bench: &Bench) -> Vec<u64> {
    let rows = bench.rows("SELECT session_id FROM events");
    let mut numbers: Vec<u64> = rows.iter().map(|row| row[0].trim_start_matches('s').parse().expect("ours")).collect();
    numbers.sort_unstable();
    numbers
}

fn without(numbers: RangeInclusive<u64>, lost: &[u64]) -> Vec<u64> {
    numbers.filter(|number| !lost.contains(number)).collect()
}

/// The server refuses; the commands name the damage, and repair it.
fn refuse_and_salvage(bench: &Bench, lost: &str) {
    let refused = bench.run(&[]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("journal salvage"), "{}", refused.err);
    assert!(copies(bench).is_empty(), "a refusal changes nothing");
    let verified = bench.run(&["journal", "verify"]);
    assert_eq!(verified.code, Some(1), "{}", verified.out);
    assert!(verified.out.contains(&format!("lost: {lost}")), "{}", verified.out);
    assert!(bench.run(&["journal", "inspect"]).out.contains("damaged"));
    let salvaged = bench.run(&["journal", "salvage"]);
    assert_eq!(salvaged.code, Some(0), "{}{}", salvaged.out, salvaged.err);
    assert!(salvaged.out.contains(&format!("\nlost: {lost}")), "{}", salvaged.out);
    assert_eq!(bench.run(&["journal", "verify"]).code, Some(0));
}

/// The server starts; the ledger comes to hold just these, each once, and takes more.
fn goes_on_with(bench: &mut Bench, expected: &[u64]) {
    bench.start();
    bench.settle();
    assert_eq!(stored(bench), expected);
    bench.check_sums();
    let event = json!({"eventType": "CLICK", "sessionId": "s1000", "metadata": {"componentId": 1}});
    bench.client().post("/api/events?wait=true", &event).expect(201);
    bench.kill();
    bench.start();
    bench.check_sums();
    assert_eq!(stored(bench).len(), expected.len() + 1);
    let answer = bench.client().read("/api/statistics?eventType=CLICK");
    assert_eq!(answer["count"], expected.len() + 1);
}

#[test]
fn damage_that_the_ledger_has_not_reached_costs_that_frame_alone() {
    let (mut bench, segment) = damaged(5, 15, 10..=10);
    let damaged = std::fs::read(&segment).expect("reads");
    refuse_and_salvage(&bench, "position 10 (1 record)");
    let copy = copies(&bench).pop().expect("a copy was kept");
    assert_eq!(std::fs::read(copy.join(segment.file_name().expect("a name"))).expect("reads"), damaged);
    goes_on_with(&mut bench, &without(1..=15, &[10]));
    bench.says("passed records that the journal has lost");
    let metrics = bench.client().get("/metrics").expect(200);
    assert!(metrics.text().contains("sink_lost_records"), "{}", metrics.text());
}

#[test]
fn damage_behind_the_ledger_costs_nothing_and_nothing_is_applied_twice() {
    let (mut bench, _) = damaged(15, 15, 10..=10);
    refuse_and_salvage(&bench, "position 10 (1 record)");
    goes_on_with(&mut bench, &without(1..=15, &[]));
    assert!(!bench.log().contains("passed records that the journal has lost"));
}

#[test]
fn a_ledger_that_stands_within_what_is_lost_goes_on_behind_it() {
    let (mut bench, _) = damaged(8, 15, 7..=10);
    refuse_and_salvage(&bench, "positions 7 to 10 (4 records)");
    goes_on_with(&mut bench, &without(1..=15, &[9, 10]));
    bench.says("its checksum cannot be compared");
}

#[test]
fn serve_with_salvage_does_the_same_and_says_what_was_lost() {
    let (mut bench, _) = damaged(5, 9, 7..=7);
    let mut serving = bench.command().args(["serve", "--salvage"]).stderr(Stdio::piped()).spawn().expect("starts");
    eventually_is(Duration::from_secs(20), &8, || stored(&bench).len());
    serving.kill().expect("a child");
    let said = serving.wait_with_output().expect("a child").stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("records are lost") && said.contains("first=7") && said.contains("last=7"), "{said}");
    assert_eq!(copies(&bench).len(), 1);
    // Nothing is wrong any more: the flag does nothing.
    goes_on_with(&mut bench, &without(1..=9, &[7]));
}

#[test]
fn a_running_server_is_looked_at_and_never_salvaged() {
    let bench = Bench::embedded(&[]);
    post(&bench, 1..=3);
    let event = json!({"eventType": "SEARCH", "userId": "u", "eventId": "0198c0de-0000-7000-8000-000000000001",
        "metadata": {"keyword": "Oak", "resultCount": 3}, "properties": {"a": [1, 2]}});
    bench.client().post("/api/events", &event).expect(202);
    let inspected = bench.run(&["journal", "inspect"]);
    assert_eq!(inspected.code, Some(0), "{}", inspected.err);
    assert!(inspected.out.contains("running") && inspected.out.contains("position 4"), "{}", inspected.out);
    let as_json: Value = serde_json::from_str(&bench.run(&["journal", "inspect", "--json"]).out).expect("JSON");
    assert_eq!((&as_json["live"], &as_json["end"]), (&json!(true), &json!(4)));
    let records = bench.run(&["journal", "inspect", "--records", "3..4"]).out;
    let lines: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{records}");
    assert_eq!(lines[0]["sessionId"], "s3");
    for field in ["eventType", "userId", "eventId", "metadata", "properties"] {
        assert_eq!(lines[1][field], event[field], "{records}");
    }
    assert_eq!(bench.run(&["journal", "inspect", "--records"]).out.lines().count(), 4);
    let verified = bench.run(&["journal", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.out);
    assert!(verified.out.contains("sound: 1 segment, 4 frames, 4 records, end 4"), "{}", verified.out);
    let refused = bench.run(&["journal", "salvage"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("another process uses this directory"), "{}", refused.err);
    // What was printed can be sent again: it is the same event.
    bench.client().post("/api/events?wait=true", &lines[1]).expect(201);
    bench.settle();
    assert_eq!(bench.event_rows(), 4);
}

#[test]
fn a_directory_without_a_journal_is_one_line() {
    let bench = Bench::on(None, None);
    for action in ["inspect", "verify", "salvage"] {
        bench.run(&["journal", action]).says(1, &[]);
        assert!(!bench.data_dir.exists(), "{action} made a directory");
    }
    bench.run(&["journal", "inspect", "--records", "x..y"]).says(2, &[]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes");
    for entry in std::fs::read_dir(from).expect("there") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
    }
}

#[test]
fn an_older_journal_beside_a_ledger_that_is_further_is_refused_before_it_takes_anything() {
    let mut bench = Bench::embedded(&[]);
    post(&bench, 1..=3);
    bench.settle();
    bench.stop();
    let older = bench.data_dir.join("older");
    copy(&journal(&bench), &older);
    bench.start();
    post(&bench, 4..=6);
    bench.settle();
    bench.stop();
    std::fs::remove_dir_all(journal(&bench)).expect("removes");
    copy(&older, &journal(&bench));
    // Events at positions 4 to 6 would be answered and never applied.
    let said = bench.run(&["serve"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("salvage --last 6"), "{}", said.err);
    assert_eq!(bench.run(&["journal", "salvage", "--last", "6"]).code, Some(0));
    bench.start();
    post(&bench, 7..=8);
    bench.settle();
    assert_eq!(bench.event_rows(), 8);
    bench.check_sums();
}
