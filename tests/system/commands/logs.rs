//! Logs and prints without a reader: they neither stop nor end the program.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::bench::Bench;
use crate::support::client::Client;
use crate::support::eventually_is;
use crate::support::program::{Running, answers, free_address};

/// More lines than the queue and a pipe hold.
const REQUESTS: usize = 12_000;
const PIPELINED: usize = 50;
const STATUS: &[u8] = b"HTTP/1.1 200";

/// Both ends of a pipe.
fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: two fresh descriptors, each owned once below.
    let (read, write) = unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    (read.into(), write.into())
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
    let address = free_address();
    let mut command = bench.command();
    command.env("LISTEN", address.to_string()).env("ACCESS_LOG", "1").stderr(stderr);
    let mut running = Running::start(&mut command);
    drop(command);
    answers(address);
    let mut client = Client::new(address);
    let click = json!({"eventType": "CLICK", "userId": 1, "metadata": {"componentId": 1}});
    eventually_is(Duration::from_secs(20), &201, || client.post("/api/events?wait=true", &click).status);
    ask_often(address, REQUESTS);
    client.post("/api/events?wait=true", &click).expect(201);
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
    let (read, write) = pipe();
    drop(read);
    serves(write);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_keeps_whole_lines() {
    let (mut read, write) = pipe();
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
    let address = free_address();
    let (mut read, write) = pipe();
    let mut command = bench.command();
    command.env("LISTEN", address.to_string()).env("ACCESS_LOG", "1").stderr(write);
    let mut running = Running::start(&mut command);
    drop(command);
    answers(address);
    // More than a pipe holds, less than the queue does.
    ask_often(address, 4_000);
    running.signal(libc::SIGTERM);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("text");
    assert_eq!(running.end(), Some(0));
    assert!(text.lines().last().is_some_and(|line| line.contains("stopped")), "{text}");
    assert!(text.lines().filter(|line| line.contains("/healthz/live")).count() >= 4_000, "lines are missing");
}

/// The program ends with a code of its own, whatever cannot be written.
#[track_caller]
fn ends(command: &mut Command, codes: &[i32]) {
    let code = Running::start(command).end();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{command:?}: {code:?}");
}

#[test]
fn a_command_whose_output_cannot_be_written_ends_with_its_own_code() {
    let mut bench = Bench::embedded(&[]);
    bench.stop();
    let commands: [(&[&str], &[i32]); 8] = [
        (&["--help"], &[0, 1]),
        (&["--version"], &[0, 1]),
        (&["check"], &[1]),
        (&["check", "--json"], &[1]),
        // A reader that has seen enough is no failure of these.
        (&["journal", "inspect"], &[0, 1]),
        (&["journal", "verify"], &[0, 1]),
        (&["export", "--output", "-", "--format", "csv"], &[1]),
        (&["seed", "--events", "10", "--output", "-"], &[1]),
    ];
    for (arguments, codes) in commands {
        let (read, write) = pipe();
        drop(read);
        for stdout in [Stdio::from(write), full().into()] {
            ends(bench.command().args(arguments).stdout(stdout).stderr(Stdio::null()), codes);
        }
    }
    // What goes to standard error alone.
    let wrong: [&[&str]; 4] = [&["--workers", "0"], &["--nonsense"], &["import", "/nowhere"], &["check", "--log", "x"]];
    for arguments in wrong {
        let (read, write) = pipe();
        drop(read);
        for stderr in [Stdio::from(write), full().into()] {
            ends(bench.command().args(arguments).stdout(Stdio::null()).stderr(stderr), &[1, 2]);
        }
    }
}
