//! What the end-to-end suites share: real servers, the real binary, a client of bytes, a load and its oracle.

#![allow(dead_code, unused_imports, reason = "each suite uses a part")]

mod alone;
pub(crate) mod bench;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod faulty;
pub(crate) mod hold;
pub(crate) mod ledgers;
pub(crate) mod load;
pub(crate) mod model;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod redis;
pub(crate) mod relay;
mod seed;
mod services;
pub(crate) mod small_disk;
pub(crate) mod sqlite_plans;
pub(crate) mod tables;
pub(crate) mod wall_clock;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use alone::alone;
pub(crate) use seed::{seed, setting};

/// Waits until `check` is content; panics with its last complaint.
#[track_caller]
pub(crate) fn eventually(within: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + within;
    while let Err(complaint) = check() {
        assert!(Instant::now() < deadline, "after {within:?}: {complaint}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a value passes a check; panics with the last one that does not.
#[track_caller]
pub(crate) fn wait_until<T: std::fmt::Debug>(
    within: Duration,
    mut value: impl FnMut() -> T,
    is_it: impl Fn(&T) -> bool,
) {
    eventually(within, || match value() {
        found if is_it(&found) => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

#[track_caller]
pub(crate) fn eventually_is<T: PartialEq + std::fmt::Debug>(
    within: Duration,
    expected: &T,
    mut value: impl FnMut() -> T,
) {
    eventually(within, || match value() {
        found if found == *expected => Ok(()),
        found => Err(format!("{found:?} and not {expected:?}")),
    });
}

/// Signals a child of the test that was not waited for, so its id is still its own.
#[track_caller]
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

pub(crate) fn is_root() -> bool {
    // SAFETY: reads the process's own user id.
    unsafe { libc::geteuid() == 0 }
}

pub(crate) fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("our own file");
}

pub(crate) fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: `path` is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

pub(crate) fn click(user: impl Into<Value>) -> Value {
    json!({"eventType": "CLICK", "userId": user.into(), "metadata": {"componentId": 1}})
}

/// A number in KiB of `/proc/<pid>/status`, such as `VmRSS`.
pub(crate) fn memory_kib(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("Linux tells");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Percent-encodes every byte, so that no byte is syntax of a URL.
pub(crate) fn percent_encoded(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

pub(crate) fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
    use flate2::{Compression, read};
    use std::io::Read;
    let mut out = Vec::new();
    let encoded = match coding {
        "gzip" => read::GzEncoder::new(body, Compression::best()).read_to_end(&mut out),
        "deflate" => read::ZlibEncoder::new(body, Compression::best()).read_to_end(&mut out),
        "zstd" => return zstd::encode_all(body, 3).expect("memory takes it"),
        _ => return body.to_vec(),
    };
    encoded.expect("memory takes it");
    out
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).expect("gzip");
    out
}

/// A request whose body comes in these chunks, with an extension after each size and trailers.
pub(crate) fn chunked<'a>(
    head: &str,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    extension: &str,
    trailers: &str,
) -> Vec<u8> {
    let mut request = format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        request.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(&[chunk, b"\r\n"].concat());
    }
    request.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    request
}

pub(crate) fn now_ms() -> i64 {
    event_tracker::clock::Clock::System.now_ms()
}
