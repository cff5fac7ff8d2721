//! A worker that stands still ends its process; one that is only busy does not.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use event_tracker::runtime;

/// Set in the process that is to end: what its worker does.
const DEED: &str = "HEARTBEAT_TEST_DEED";

#[test]
fn a_worker_that_stands_still_ends_the_process_and_a_busy_one_does_not() {
    if let Ok(deed) = std::env::var(DEED) {
        return work(&deed);
    }
    let run = |deed: &str| {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        command
            .env(DEED, deed)
            .args(["--exact", "a_worker_that_stands_still_ends_the_process_and_a_busy_one_does_not"]);
        let output = command.output().expect("a test runs");
        (output.status, begun.elapsed())
    };
    let (status, took) = run("blocks");
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(run("yields").0.success());
}

fn work(deed: &str) {
    runtime::start(2, false);
    runtime::watch(Duration::from_millis(50), 10);
    let blocks = deed == "blocks";
    runtime::spawn_on(1, move || {
        if blocks {
            std::thread::sleep(Duration::from_secs(60));
        }
        // Busy for as long as the other is patient, a little at a time.
        let until = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < until {
            runtime::spawn_on(1, || std::thread::sleep(Duration::from_millis(5)));
            may::coroutine::sleep(Duration::from_millis(10));
        }
    });
    std::thread::sleep(Duration::from_secs(if blocks { 60 } else { 2 }));
}
