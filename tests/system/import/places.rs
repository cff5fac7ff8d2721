//! Where an import comes from and goes to: servers, proxies, state files, devices and terminals.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Desk, Front, Manner, SLOW, answering, at_a_desk, at_a_slow_desk, check_each_once, embedded};
use super::{eventually, name, some_rows, taken, wait_until_under_way};
use crate::support::program::{self, Running};
use crate::support::{eventually_is, make_fifo, signal};

#[test]
fn a_file_goes_to_each_server_once() {
    let (staging, production) = (embedded(), embedded());
    let desk = Desk::new(&staging);
    let url = format!("http://{}", production.address());
    let file = desk.write("in.ndjson", &some_rows(50));
    desk.import(&[name(&file)]).expect(0).says("50 accepted");
    desk.import(&["--url", &url, name(&file)]).expect(0).says("50 accepted");
    desk.import(&[name(&file)]).expect(0).says("already imported");
    desk.import(&["--url", &url, name(&file)]).expect(0).says("already imported");
    // The same server, written otherwise.
    desk.import(&["--url", &format!("{}/", url.replace("http", "HTTP")), name(&file)]).expect(0).says("already");
    assert_eq!((taken(&staging), taken(&production)), (50, 50));
    check_each_once(&production, 50);
    // A state file that was named is about one server.
    let other = desk.write("other.ndjson", &some_rows(20));
    desk.import(&["--resume-file", "mine", name(&other)]).expect(0);
    let report = desk.import(&["--resume-file", "mine", "--url", &url, name(&other)]).expect(1);
    report.says("another server").says(&url);
    assert_eq!(taken(&production), 50);
}

#[test]
fn an_import_that_was_cut_off_on_one_server_is_whole_on_another() {
    const ROWS: usize = 2_000;
    let ((staging, front, desk), production) = (at_a_slow_desk(), embedded());
    let file = desk.write("in.ndjson", &some_rows(ROWS));
    let mut importer = desk.start(&[&SLOW[..], &[name(&file)]].concat());
    wait_until_under_way(&desk, "in.ndjson", &mut importer, 0);
    importer.signal(libc::SIGKILL);
    drop(importer.end());
    desk.import(&["--url", &format!("http://{}", production.address()), name(&file)]).expect(0).says("2,000 accepted");
    check_each_once(&production, ROWS);
    front.behave(Manner::Honest);
    desk.import(&[name(&file)]).expect(0).says("by an earlier run");
    check_each_once(&staging, ROWS);
}

#[test]
fn an_input_without_rows_is_not_remembered() {
    let (bench, desk) = at_a_desk();
    for nothing in ["", "\n\n", "eventType,userId\n"] {
        let file = desk.write("in.csv", nothing.as_bytes());
        let code = if nothing.starts_with('e') { 0 } else { desk.import(&[name(&file)]).code.expect("it ends") };
        desk.import(&[name(&file)]).expect(code);
        desk.write("in.ndjson", b"\n");
        desk.import(&["in.ndjson"]).expect(0).says("0 rows read");
        assert_eq!((desk.state("in.csv"), desk.state("in.ndjson")), (None, None), "{nothing:?}");
    }
    desk.write("in.ndjson", &some_rows(1));
    desk.import(&["in.ndjson"]).expect(0).says("1 row read, 1 accepted, 0 refused, 0 batches sent again");
    assert_eq!(taken(&bench), 1);
}

/// 401, 403 and a wrong URL end it with what to do, and nothing of it stays: the file may be mended
/// meanwhile.
#[test]
fn a_server_that_takes_nothing_is_not_remembered() {
    let bench = embedded();
    let answer = |status: u16, body: &str| answering(status, "Content-Type: application/json", body);
    let front = Front::start(bench.address(), answer(200, ""));
    let desk = Desk::at(front.url());
    for (status, body, words) in [
        (401, r#"{"status":401,"error":"unauthorized","message":"m"}"#, "API_KEY"),
        (403, r#"{"status":403,"error":"forbidden","message":"m"}"#, "API_KEY"),
        (404, "<html>", "no answer of an event-tracker"),
        (301, "", "somewhere else"),
    ] {
        front.behave(answer(status, body));
        let file = desk.write("in.ndjson", &some_rows(10 + usize::from(status)));
        let report = desk.import(&[name(&file)]).expect(1);
        assert_eq!(report.told.lines().count(), 2, "{}", report.told);
        report.says(words);
        assert_eq!(desk.state("in.ndjson"), None, "{status}");
    }
    front.behave(Manner::Honest);
    desk.import(&["in.ndjson"]).expect(0).says("311 accepted");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn files_are_made_for_their_owner_alone() {
    let (_bench, desk) = at_a_desk();
    desk.write("in.ndjson", b"nonsense\n");
    desk.import(&["in.ndjson"]).expect(3);
    let beside = ["in.ndjson.import-state", "in.ndjson.rejects.ndjson"].map(|file| desk.path(file));
    assert_eq!(beside.each_ref().map(|path| mode(path)), [0o600; 2]);
}

#[test]
fn lists_and_states_go_through_links_and_never_onto_something_else() {
    let (_bench, desk) = at_a_desk();
    desk.write("in.ndjson", b"nonsense\n");
    fs::create_dir(desk.path("elsewhere")).unwrap();
    for file in ["state", "rejects"] {
        fs::write(desk.path("elsewhere").join(file), "").unwrap();
        symlink(desk.path("elsewhere").join(file), desk.path(file)).unwrap();
    }
    fs::remove_file(desk.path("elsewhere/state")).unwrap();
    desk.import(&["--resume-file", "state", "in.ndjson"]).expect(1).says("state");
    fs::write(desk.path("elsewhere/state"), "").unwrap();
    fs::remove_file(desk.path("state")).unwrap();
    symlink("elsewhere", desk.path("linked")).unwrap();
    desk.import(&["--resume-file", "linked/fresh", "--rejects", "rejects", "in.ndjson"]).expect(3);
    symlink("elsewhere/fresh", desk.path("state")).unwrap();
    desk.import(&["--resume-file", "state", "--again", "--rejects", "rejects", "in.ndjson"]).expect(3);
    let is_link = |file: &str| fs::symlink_metadata(desk.path(file)).unwrap().is_symlink();
    assert!(is_link("state") && is_link("rejects"));
    assert_eq!(fs::read_to_string(desk.path("elsewhere/rejects")).unwrap().lines().count(), 2);
    desk.import(&["--resume-file", "state", "in.ndjson"]).expect(3).says("already imported");
    // A pipe takes the list, and is still one afterwards.
    make_fifo(&desk.path("pipe"));
    let importer = desk.start(&["--again", "--rejects", "pipe", "in.ndjson"]);
    let mut list = String::new();
    File::open(desk.path("pipe")).unwrap().read_to_string(&mut list).unwrap();
    importer.end().expect(3);
    assert!(list.contains("invalid_json") && fs::metadata(desk.path("pipe")).unwrap().file_type().is_fifo(), "{list}");
    // A state has to be read again: a pipe or a device keeps nothing.
    desk.import(&["--resume-file", "pipe", "in.ndjson"]).expect(1).says("regular file");
    assert!(fs::metadata(desk.path("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn a_list_or_a_state_is_never_written_into_an_input() {
    let desk = Desk::at("http://127.0.0.1:1".into());
    let rows = some_rows(3);
    desk.write("in.ndjson", &rows);
    for arguments in [
        &["--rejects", "in.ndjson", "in.ndjson"][..],
        &["--resume-file", "./in.ndjson", "in.ndjson"],
        &["--resume-file", "same", "--rejects", "same", "in.ndjson"],
    ] {
        desk.import(arguments).expect(2);
    }
    assert_eq!(fs::read(desk.path("in.ndjson")).unwrap(), rows);
}

/// Accepts connections and says nothing; how many came.
fn silent_proxy() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let came = Arc::new(AtomicU64::new(0));
    let count = came.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    (url, came)
}

#[test]
fn no_proxy_stands_between_programs_of_one_machine() {
    let (bench, desk) = at_a_desk();
    let (proxy, came) = silent_proxy();
    let port = bench.address().port();
    for (number, variable) in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"].iter().enumerate() {
        let host = ["127.0.0.1", "localhost", "LOCALHOST", "127.0.0.1", "localhost"][number];
        let url = format!("http://{host}:{port}");
        desk.write("in.ndjson", &some_rows(10));
        let mut command = desk.command(&["--again", "--give-up-after", "5", "--url", &url, "in.ndjson"]);
        desk.spawn_command(command.env(variable, &proxy)).end().expect(0);
        for what in [&["--events", "10"][..], &["posts", "--count", "3"]] {
            let mut seed = bench.command();
            seed.arg("seed").args(what).args(["--url", &url]).env(variable, &proxy);
            program::run(&mut seed).printed();
        }
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "a proxy was asked");
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[test]
fn another_machine_gets_bodies_in_zstd() {
    let Some(ip) = outer_address() else { return eprintln!("skipped: only loopback here") };
    let listener = TcpListener::bind((ip, 0)).expect("a port");
    let desk = Desk::at(format!("http://{}", listener.local_addr().unwrap()));
    let rows = some_rows(20);
    let file = desk.write("in.ndjson", &rows);
    let importer = desk.start(&["--give-up-after", "1", name(&file)]);
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut request = BufReader::new(&mut stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        request.read_line(&mut head).expect("more of a head");
    }
    let head = head.to_lowercase();
    assert!(head.contains("\r\ncontent-encoding: zstd"), "{head}");
    let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next()).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    request.read_exact(&mut body).expect("the whole body");
    let events = zstd::decode_all(&body[..]).expect("zstd");
    assert_eq!(events.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 20);
    drop((stream, listener));
    importer.end().expect(1).says("no progress for 1 s");
}

#[test]
fn a_stop_before_anything_came_ends_at_once() {
    let (bench, desk) = at_a_desk();
    for arguments in [&["-"][..], &["--resume-file", "in.import-state", "-"], &["--dry-run", "-"]] {
        let mut importer = desk.spawn(arguments, Stdio::piped());
        let stdin = importer.stdin();
        eventually_is(Duration::from_secs(10), &true, || program::catches(importer.pid(), libc::SIGINT));
        importer.signal(libc::SIGINT);
        let report = importer.end_within(Duration::from_secs(10)).expect(130);
        assert_eq!((desk.state("in"), taken(&bench)), (None, 0), "{}", report.told);
        drop(stdin);
    }
}

/// A terminal: what is written to it, and the other end.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut its) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are filled by the call, the size outlives it; name and settings may
    // be null.
    let made =
        unsafe { libc::openpty(&raw mut ours, &raw mut its, std::ptr::null_mut(), std::ptr::null(), &raw const size) };
    assert_eq!(made, 0, "a terminal");
    // SAFETY: nothing else owns these descriptors.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(its)) }
}

/// The lines that a terminal shows after these bytes: returns, line ends, clearing and moves up are
/// enough for a bar.
fn screen(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let (mut lines, mut row, mut column) = (vec![Vec::<char>::new()], 0, 0);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                let code: String = rest.by_ref().skip(1).take_while(|c| !c.is_ascii_alphabetic()).collect();
                let end = text[..text.len() - rest.as_str().len()].chars().last();
                match end {
                    Some('A') => row -= row.min(code.parse().unwrap_or(1)),
                    Some('K') if code == "2" => lines[row].clear(),
                    Some('K') => lines[row].truncate(column),
                    _ => {}
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>()).filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn the_bar_is_gone_once_a_stop_is_asked_for() {
    for signals in [1, 2] {
        let (mut bench, _front, desk) = at_a_slow_desk();
        desk.write("in.ndjson", &some_rows(4_000));
        let (mut ours, its) = terminal();
        let mut command = desk.command(&[&SLOW[..], &["in.ndjson"]].concat());
        command.stderr(its).env("TERM", "xterm");
        let mut importer = Running::start(&mut command);
        drop(command);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let read = shown.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal whose other end is closed gives an error.
            while let Ok(length) = ours.read(&mut piece) {
                read.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        let shows = |words: &str| {
            let text = String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
            if text.contains(words) { Ok(()) } else { Err(text) }
        };
        eventually(Duration::from_secs(20), || shows("rows done"));
        if signals == 2 {
            // No answer comes any more: it waits for the last ones until the second signal.
            signal(bench.tracker().pid(), libc::SIGSTOP);
        }
        importer.signal(libc::SIGINT);
        eventually(Duration::from_secs(20), || shows("another signal ends at once"));
        if signals == 2 {
            importer.signal(libc::SIGINT);
        }
        assert_eq!(importer.end(), Some(130));
        reader.join().unwrap();
        let lines = screen(&shown.lock().unwrap());
        let is_bar = |line: &String| line.contains(['%', '█', '░']) || line.contains("rows done");
        assert!(!lines.iter().any(is_bar), "{lines:#?}");
        assert!(lines[0].contains("another signal ends at once"), "{lines:#?}");
        assert_eq!(lines.len(), if signals == 1 { 3 } else { 1 }, "{lines:#?}");
    }
}
