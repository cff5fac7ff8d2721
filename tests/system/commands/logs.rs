//! Logs and prints without a reader: they neither stop nor end the program.

use std::fs::File;
use std::io::{PipeWriter, Read, Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use crate::support::bench::Bench;
use crate::support::client::Client;
use crate::support::program::{self, Running};
use crate::support::{click, eventually_is};

/// More lines than the queue and a pipe hold.
const REQUESTS: usize = 12_000;
const PIPELINED: usize = 50;
const STATUS: &[u8] = b"HTTP/1.1 200";

/// A pipe without a reader.
fn broken_pipe() -> PipeWriter {
    pipe().expect("a pipe").1
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("a full device")
}

/// Asks for what is logged, many times on one connection, and reads every answer.
fn ask_often(address: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
    let request = b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answers = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..count / PIPELINED {
        stream.write_all(&request.repeat(PIPELINED)).expect("sends");
        answers.clear();
        while answers.windows(STATUS.len()).filter(|part| *part == STATUS).count() < PIPELINED {
            let length = stream.read(&mut buffer).expect("an answer in time");
            assert!(length > 0, "the server ended the connection");
            answers.extend_from_slice(&buffer[..length]);
        }
    }
}

/// A server whose log goes there; it must serve, count what it could not write, and end.
fn serves(stderr: impl Into<Stdio>) {
    let bench = Bench::on(None, None);
    let (mut running, address) = program::serve(bench.command().env("ACCESS_LOG", "1").stderr(stderr));
    let mut client = Client::new(address);
    eventually_is(Duration::from_secs(20), &201, || client.post("/api/events?wait=true", &click(1)).status);
    ask_often(address, REQUESTS);
    client.post("/api/events?wait=true", &click(1)).expect(201);
    assert!(client.metric("log_lines_dropped") > 0.0, "dropped lines are counted");
    client.hang_up();
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0), "it ends by itself");
}

#[test]
fn a_log_on_a_full_device_stops_nothing() {
    serves(full());
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    serves(broken_pipe());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_keeps_whole_lines() {
    let (mut read, write) = pipe().expect("a pipe");
    serves(write);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    // The last one may be cut: the pipe was full.
    assert!(lines.len() > 100 && lines[..lines.len() - 1].iter().all(|line| line.contains(" INFO ")), "{text}");
}

#[test]
fn a_reader_that_is_slow_gets_the_last_line() {
    let bench = Bench::on(None, None);
    let (mut read, write) = pipe().expect("a pipe");
    let (mut running, address) = program::serve(bench.command().env("ACCESS_LOG", "1").stderr(write));
    // More than a pipe holds, less than the queue does.
    ask_often(address, 4_000);
    running.signal(libc::SIGTERM);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("text");
    assert_eq!(running.end(), Some(0));
    assert!(text.lines().last().is_some_and(|line| line.contains("stopped")), "{text}");
    assert!(text.lines().filter(|line| line.contains("/healthz/live")).count() >= 4_000, "lines are missing");
}

#[test]
fn a_command_whose_output_cannot_be_written_ends_with_its_own_code() {
    let mut bench = Bench::embedded(&[]);
    bench.stop();
    // The last four write to standard error alone.
    for (arguments, codes) in [
        ("--help", 0..2),
        ("--version", 0..2),
        ("check", 1..2),
        ("check --json", 1..2),
        // A reader that has seen enough is no failure of these.
        ("journal inspect", 0..2),
        ("journal verify", 0..2),
        ("export --output - --format csv", 1..2),
        ("seed --events 10 --output -", 1..2),
        ("--workers 0", 1..3),
        ("--nonsense", 1..3),
        ("import /nowhere", 1..3),
        ("check --log x", 1..3),
    ] {
        for to in [|| Stdio::from(broken_pipe()), || full().into()] {
            let mut command = bench.command();
            let ended = Running::start(command.args(arguments.split(' ')).stdout(to()).stderr(to())).end();
            assert!(ended.is_some_and(|code| codes.contains(&code)), "{arguments}: {ended:?}");
        }
    }
}
