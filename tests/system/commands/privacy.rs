//! What others on the machine may see: no password in any line, no file of events.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::check;
use crate::support::bench::Bench;
use crate::support::program::{Running, run, serve};
use crate::support::{click, eventually, eventually_is, permit};

/// Passwords that were not percent-encoded, or were; and the parts of each that no line may hold.
const PASSWORDS: &str = "XK29/QW83|XK29?QW83|XK29?QW83=1|XK29#QW83|XK29@QW83|XK29 QW83|XK29:QW83|XK29%40QW83|\
    XK29%ZZQW83|XK29@QW83?/#x=";
const PARTS: [&str; 2] = ["XK29", "QW83"];

/// URLs of a store that is away: in user and password, as a parameter, without its user's end.
fn urls(scheme: &str, password: &str) -> Vec<String> {
    let mut urls = vec![
        format!("{scheme}://u:{password}@127.0.0.1:1/db"),
        format!("{scheme}://:{password}@127.0.0.1:1"),
        format!("{scheme}://127.0.0.1:1/db?user=u&password={password}"),
    ];
    // With an @ in it, its rest is a host by every rule.
    if !password.contains('@') {
        urls.push(format!("{scheme}://u:{password}"));
    }
    urls
}

#[track_caller]
fn is_silent(text: &str, what: &str) {
    assert!(!PARTS.iter().any(|part| text.contains(part)), "{what}: {text}");
}

fn said(command: &mut Command) -> String {
    let ended = run(command);
    ended.out + &ended.err
}

/// Tries all passwords at the same time: most of the time is spent waiting for stores that are unreachable.
fn each_password(check: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for password in PASSWORDS.split('|') {
            let check = &check;
            scope.spawn(move || check(password));
        }
    });
}

#[test]
fn no_command_shows_a_password() {
    each_password(|password| {
        let bench = Bench::on(None, None);
        // No directory: what costs time is not tried.
        let unusable = ("DATA_DIR", "/dev/null");
        for (variable, schemes) in [("DATABASE_URL", ["postgres", "mysql"]), ("REDIS_URL", ["redis", "rediss"])] {
            for url in schemes.iter().flat_map(|scheme| urls(scheme, password)) {
                let mut command = bench.command();
                command.env(variable, &url).env(unusable.0, unusable.1);
                is_silent(&said(command.arg("check")), &format!("check {variable}={url}"));
            }
            let url = &urls(schemes[0], password)[0];
            let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
            let lines: [&[&str]; 5] = [
                &["check", "--json", "--data-dir", unusable.1, &flag, url],
                &["--workers", "0", &flag, url],
                &["--help", &flag, url],
                &["check", &format!("{flag}x"), url],
                &[url],
            ];
            for arguments in lines {
                is_silent(&said(bench.command().env(variable, url).args(arguments)), &format!("{arguments:?}"));
            }
        }
        let url = format!("postgres://u:{password}@127.0.0.1:1/db");
        let export = said(bench.command().args(["export", "--database-url", &url, "--output", "-"]));
        is_silent(&export, &format!("export of {url}"));
    });
}

#[test]
fn no_log_of_a_server_shows_a_password() {
    each_password(|password| {
        for scheme in ["redis", "rediss"] {
            let bench = Bench::on(None, None);
            let log = bench.data_dir.with_extension("log");
            let mut command = bench.command();
            command.env("DATABASE_URL", format!("postgres://u:{password}@127.0.0.1:1/db"));
            command.env("REDIS_URL", format!("{scheme}://u:{password}@127.0.0.1:1/0"));
            command.env("LOG", "debug").stderr(std::fs::File::create(&log).expect("a log"));
            let mut running = Running::start(&mut command);
            let text = || std::fs::read_to_string(&log).expect("a log");
            // It may refuse the URL; else it tries both stores.
            let mut ended = None;
            eventually(std::time::Duration::from_secs(20), || {
                ended = running.ended();
                let tried = text().contains("sink=\"live\" error") && text().contains("sink=\"ledger\" error");
                if ended.is_some() || tried { Ok(()) } else { Err(text()) }
            });
            if ended.is_none() {
                running.signal(libc::SIGTERM);
                running.end();
            }
            is_silent(&text(), password);
        }
    });
}

/// Everything below a directory, itself included, with the permissions of each.
fn modes(path: &Path) -> Vec<(PathBuf, u32)> {
    let about = path.symlink_metadata().expect("there");
    let mut found = vec![(path.to_owned(), about.mode() & 0o7777)];
    if about.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            found.extend(modes(&entry.expect("an entry").path()));
        }
    }
    found
}

fn with_umask(command: &mut Command, umask: libc::mode_t) -> &mut Command {
    // SAFETY: umask is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::umask(umask);
            Ok(())
        })
    }
}

#[test]
fn the_data_directory_is_its_owners_alone_whatever_the_umask() {
    for umask in [0, 0o022, 0o777] {
        let bench = Bench::on(None, None);
        let data_dir = bench.data_dir.join("with/parents");
        let mut command = bench.command();
        let (mut running, address) = serve(with_umask(command.env("DATA_DIR", &data_dir), umask));
        let mut client = crate::support::client::Client::new(address);
        let wait = std::time::Duration::from_secs(20);
        eventually_is(wait, &201, || client.post("/api/events?wait=true", &click(1)).status);
        let found = modes(&data_dir);
        let named = |name: &str| found.iter().any(|(path, _)| path.ends_with(name));
        assert!(named("ledger.sqlite") && named("ledger.sqlite-wal") && named("LOCK") && named("stream"), "{found:?}");
        for (path, mode) in &found {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(*mode, wanted, "umask {umask:o}: {} has mode {mode:o}", path.display());
        }
        client.hang_up();
        running.signal(libc::SIGTERM);
        assert_eq!(running.end(), Some(0));
        // What the other commands write about people.
        let output = bench.data_dir.join("events.ndjson");
        let mut export = bench.command();
        export.env("DATA_DIR", &data_dir).args(["export", "--output"]).arg(&output);
        run(with_umask(&mut export, umask)).printed();
        assert_eq!(output.metadata().expect("there").mode() & 0o777, 0o600);
    }
}

#[test]
fn wider_modes_are_warned_about_and_files_of_an_older_version_become_private() {
    let mut bench = Bench::embedded(&[]);
    bench.stop();
    let warned = |bench: &Bench| {
        let (code, findings) = check(&mut bench.command());
        assert_eq!(code, 0, "{findings:#?}");
        let is_warning = |finding: &&Value| finding["level"] == "warn" && finding["about"] == "data directory";
        findings.iter().find(is_warning).map(|finding| finding["message"].to_string())
    };
    assert_eq!(warned(&bench), None);
    let set = |name: &str, mode: u32| permit(&bench.data_dir.join(name), mode);
    for (name, wide, narrow) in [
        ("", 0o755, 0o700),
        ("", 0o710, 0o700),
        ("journal", 0o750, 0o700),
        ("journal/stream", 0o644, 0o600),
        ("journal/LOCK", 0o640, 0o600),
        ("ledger.sqlite", 0o604, 0o600),
    ] {
        set(name, wide);
        let warning = warned(&bench).unwrap_or_else(|| panic!("no warning about {name} with {wide:o}"));
        assert!(warning.contains("chmod") && warning.contains(&format!("{wide:04o}")), "{warning}");
        set(name, narrow);
    }
    for name in ["ledger.sqlite", "journal/stream", "journal/LOCK"] {
        set(name, 0o644);
    }
    set("", 0o755);
    bench.start();
    bench.says("chmod");
    let found = modes(&bench.data_dir);
    let is_open = |(path, mode): &&(PathBuf, u32)| path.is_file() && mode & 0o077 != 0;
    assert_eq!(found.iter().find(is_open), None, "{found:?}");
}
