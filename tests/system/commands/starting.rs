//! A start: health is answered from the first moment, a stop ends it, and what it cannot use is said before the port
//! is bound.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::check;
use crate::support::bench::{Bench, SETTLE_WAIT, each_pair};
use crate::support::client::Client;
use crate::support::program::{Running, free_address, hears, run, serve};
use crate::support::{eventually, eventually_is, is_root, memory_kib, permit, signal, wait_until};

const END_WAIT: Duration = Duration::from_secs(20);

/// A server that waits for a PostgreSQL, which takes connections into its backlog and never says a word.
fn starting(bench: &Bench) -> (TcpListener, Running, SocketAddr) {
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("postgres://u@{}/db", silent.local_addr().expect("an address"));
    let log = std::fs::File::create(bench.data_dir.with_extension("log")).expect("a log");
    let (running, address) = serve(bench.command().env("DATABASE_URL", url).stderr(log));
    (silent, running, address)
}

#[test]
fn health_is_answered_from_the_first_moment_and_a_stop_ends_the_start() {
    let bench = Bench::on(None, None);
    let (_silent, mut running, address) = starting(&bench);
    let mut client = Client::new(address);
    let ready = client.get("/healthz/ready").expect(503);
    assert_eq!((ready.json()["status"].as_str(), ready.header("retry-after")), (Some("starting"), Some("1")));
    for (method, path) in [
        ("POST", "/api/events"),
        ("GET", "/api/statistics"),
        ("DELETE", "/api/users/1"),
        ("GET", "/metrics"),
        ("GET", "/healthz/deps"),
        ("GET", "/nothing"),
        ("POST", "/healthz/live"),
    ] {
        let answer = client.send(method, path, &[("Content-Type", "application/json")], b"{}").expect(503);
        assert_eq!(answer.json()["error"], "starting", "{method} {path}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{method} {path}");
    }
    client.get("/healthz/live").expect(200);
    client.hang_up();
    running.signal(libc::SIGTERM);
    assert_eq!(running.end(), Some(0), "a stop that was asked for is no failure");
    assert!(TcpListener::bind(address).is_ok(), "the port is free again");
}

/// Resident memory that is not of files: a debug build maps far more of its program than a release build.
const RESIDENT_KIB_MAX: u64 = 40 * 1024;

#[test]
fn a_server_that_does_little_is_small() {
    each_pair(|bench, client| {
        for number in 0..40 {
            let metadata = serde_json::json!({"keyword": format!("desk {number}")});
            let event = serde_json::json!({"eventType": "SEARCH", "userId": number, "metadata": metadata});
            client.post("/api/events", &event).expect(202);
        }
        bench.settle();
        let pid = bench.tracker().pid();
        let resident = memory_kib(pid, "RssAnon");
        assert!(resident < RESIDENT_KIB_MAX, "{}: {resident} KiB", bench.name);
        // Older kernels do not tell.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        assert!(!status.contains("THP_enabled:\t1"), "{}: huge pages", bench.name);
    });
}

#[test]
fn a_second_signal_ends_a_start_at_once() {
    let bench = Bench::on(None, None);
    let (_silent, mut running, _) = starting(&bench);
    running.signal(libc::SIGTERM);
    running.signal(libc::SIGINT);
    assert_eq!(running.end(), Some(130));
}

/// Runs the program as process 1 of a namespace of its own, as a container does. The child that the test sees passes
/// signals on and ends as the program ends.
fn as_process_1(command: &mut Command) {
    // SAFETY: only async-signal-safe calls; the child has one thread.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWPID) != 0 && libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let mut signals: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            libc::sigaddset(&raw mut signals, libc::SIGTERM);
            libc::sigaddset(&raw mut signals, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
            match libc::fork() {
                -1 => Err(std::io::Error::last_os_error()),
                0 => {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::sigprocmask(libc::SIG_UNBLOCK, &raw const signals, std::ptr::null_mut());
                    Ok(())
                }
                program => {
                    // The standard library waits until its pipe is closed.
                    libc::close_range(3, u32::MAX, 0);
                    loop {
                        let (mut signal, mut status) = (0, 0);
                        libc::sigwait(&raw const signals, &raw mut signal);
                        if signal == libc::SIGTERM {
                            libc::kill(program, libc::SIGTERM);
                        } else if libc::waitpid(program, &raw mut status, libc::WNOHANG) == program {
                            libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 });
                        }
                    }
                }
            }
        })
    };
}

/// Whether the child of a process blocks or catches SIGTERM: before that the kernel discards it for process 1.
fn hears_signals(parent: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    hears(children.trim(), libc::SIGTERM)
}

#[test]
fn process_1_hears_a_stop_at_every_moment_of_its_start() {
    for after_ms in (0..12).map(|step| step * 5) {
        let bench = Bench::on(None, None);
        let mut command = bench.command();
        as_process_1(&mut command);
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(child) = spawned else {
            eprintln!("skipped: no namespace of processes can be made here: {:?}", spawned.err());
            return;
        };
        let mut running = Running(child);
        let begun = Instant::now();
        while !hears_signals(running.0.id()) && !bench.data_dir.exists() {
            assert!(begun.elapsed() < END_WAIT, "it does not start");
        }
        // Not a wait for something: the moment of the signal is what is tried.
        std::thread::sleep(Duration::from_millis(after_ms));
        running.signal(libc::SIGTERM);
        assert_eq!(running.end(), Some(0), "a stop after {after_ms} ms");
    }
}

/// `serve` ends with one line that names the path, and `check` says the same.
#[track_caller]
fn refuses(command: impl Fn() -> Command, path: &Path) {
    // Bound, it would accept this connection.
    let address = free_address();
    let path = path.to_string_lossy();
    run(command().env("LISTEN", address.to_string())).says(1, &[&path]);
    let (code, findings) = check(&mut command());
    let names_it = |finding: &serde_json::Value| {
        finding["level"] == "fail" && finding["message"].as_str().is_some_and(|message| message.contains(&*path))
    };
    assert!(code == 1 && findings.iter().any(names_it), "{findings:#?}");
}

/// One clean life, so that all files are there.
fn lived() -> Bench {
    let mut bench = Bench::embedded(&[]);
    bench.stop();
    bench
}

#[test]
fn something_else_in_the_place_of_a_file_is_refused_before_the_port_is_bound() {
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "journal", "journal/LOCK", "journal/stream"] {
        let bench = lived();
        let path = bench.data_dir.join(name);
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        match name {
            "journal" => std::fs::write(&path, "").expect("writes"),
            _ => std::fs::create_dir(&path).expect("makes"),
        }
        refuses(|| bench.command(), &path);
    }
    let mut bench = lived();
    std::fs::create_dir(bench.data_dir.join("journal/lost+found")).expect("makes");
    bench.start();
    bench.stop();
    let path = bench.data_dir.join("ledger.sqlite");
    std::fs::remove_file(&path).expect("there");
    std::os::unix::fs::symlink("/nowhere/at/all", &path).expect("links");
    refuses(|| bench.command(), &path);
}

/// A user that has nothing else on this machine.
const STRANGER: u32 = 54_321;

#[test]
fn files_of_another_user_are_refused_before_the_port_is_bound() {
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    use std::os::unix::fs::chown;
    let bench = lived();
    let program = bench.command().get_program().to_owned();
    let reachable = Command::new(&program).arg("--version").uid(STRANGER).gid(STRANGER).output();
    if !reachable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: another user cannot run {}", program.display());
        return;
    }
    let root = bench.data_dir.parent().expect("a directory");
    permit(root, 0o755);
    let inside = |directory: &Path| {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let journal = bench.data_dir.join("journal");
    let all = [inside(&journal), inside(&bench.data_dir), vec![bench.data_dir.clone()]].concat();
    let segment = all.iter().find(|path| path.extension().is_some_and(|ending| ending == "segment"));
    let others = ["ledger.sqlite", "journal/LOCK", "journal/stream", "journal"].map(|name| bench.data_dir.join(name));
    let paths = others.iter().chain(segment).chain([&bench.data_dir]);
    assert_eq!(paths.clone().count(), 6, "{all:?}");
    let command = || {
        let mut command = bench.command();
        command.uid(STRANGER).gid(STRANGER);
        command
    };
    for path in paths {
        all.iter().for_each(|path| chown(path, Some(STRANGER), Some(STRANGER)).expect("gives"));
        chown(path, Some(0), Some(0)).expect("takes");
        refuses(command, path);
    }
}

#[test]
fn a_process_that_may_have_no_more_threads_ends_with_one_line() {
    let bench = Bench::on(None, None);
    let root = bench.data_dir.parent().expect("a directory").to_owned();
    std::os::unix::fs::chown(&root, is_root().then_some(STRANGER), None).expect("gives");
    for threads in 1..40 {
        let mut command = bench.command();
        if is_root() {
            // Root has no such limit, and a user that runs nothing else has exactly these.
            command.uid(STRANGER).gid(STRANGER);
        }
        // SAFETY: setrlimit is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: threads, rlim_max: threads };
                let set = libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) == 0;
                if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            })
        };
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut running = Running::start(command.stderr(log.reopen().expect("a file")));
        let said = || std::fs::read_to_string(&log).expect("a log");
        eventually(END_WAIT, || {
            let ended = running.ended();
            let serves = ["ledger", "live"].iter().all(|sink| said().contains(&format!("following sink=\"{sink}\"")));
            if ended.is_some() || serves { Ok(()) } else { Err(said()) }
        });
        let ended = running.ended();
        if ended.is_none() {
            // As many are enough to serve.
            running.signal(libc::SIGTERM);
            assert_eq!(running.end(), Some(0), "{}", said());
            return;
        }
        assert_eq!(ended.and_then(|status| status.code()), Some(1), "with {threads}: {}", said());
        let lines = said().lines().filter(|line| !line.contains(" INFO ")).count();
        let is_named = said().contains("Resource temporarily unavailable") && !said().contains("panic");
        assert!(lines == 1 && is_named, "with {threads}: {}", said());
    }
}

#[test]
fn a_hangup_during_the_start_does_not_end_it() {
    let bench = Bench::on(None, None);
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut running = Running::start(bench.command().stderr(log.reopen().expect("a file")));
    let text = || std::fs::read_to_string(log.path()).expect("a log");
    eventually_is(SETTLE_WAIT, &true, || hears(running.pid(), libc::SIGHUP));
    running.signal(libc::SIGHUP);
    wait_until(SETTLE_WAIT, text, |text| text.contains("SIGHUP") && text.contains("listening on"));
    assert_eq!(running.ended(), None);
}

#[test]
fn a_hangup_without_tls_ends_nothing() {
    let mut bench = Bench::embedded(&[]);
    let pid = bench.tracker().pid();
    for _ in 0..3 {
        signal(pid, libc::SIGHUP);
    }
    bench.says("SIGHUP");
    bench.client().get("/healthz/live").expect(200);
    assert!(bench.stop().success());
}
