//! Settings that can never work, and those that mean nothing: exit code 2 and one line that names the setting.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::starting;
use super::support::bench::Bench;

/// Exit code and standard error of a program with these variables and arguments.
fn run(command: &mut Command, variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    starting::run(command.envs(variables.iter().copied()).args(arguments))
}

#[track_caller]
fn refused(bench: &Bench, variables: &[(&str, &str)], arguments: &[&str], words: &[&str]) {
    let (code, said) = run(&mut bench.command(), variables, arguments);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{variables:?} {arguments:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{variables:?} {arguments:?}: {words:?} in {said}");
    assert!(!bench.data_dir.exists(), "{variables:?} {arguments:?}: it touched the directory");
}

#[test]
fn a_setting_that_can_never_work_is_refused_by_its_name() {
    let bench = Bench::on(None, None);
    for (name, value) in [
        ("LOG", "loud"),
        ("LOG", "info,loud"),
        ("LOG", "info,event_tracker=loud"),
        ("LOG", "info,event_tracker::nothing=debug"),
        ("LOG", "info,somebody=debug"),
        ("LOG", ","),
        ("RETENTION_DAYS", "3"),
        ("RETENTION_DAYS", "0"),
        ("RETENTION_DAYS", "4294967295"),
        ("WORKERS", "0"),
        ("WORKERS", "-1"),
        ("WORKERS", "129"),
        ("WORKERS", "1.5"),
        ("PG_POOL", "0"),
        ("REDIS_POOL", "100000"),
        ("SHUTDOWN_MS", "18446744073709551615"),
        ("RATE_LIMIT", "-1"),
        ("PIN_WORKERS", "perhaps"),
        ("ACK", "never"),
    ] {
        refused(&bench, &[(name, value)], &[], &[name]);
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        refused(&bench, &[], &[&format!("{flag}={value}")], &[name, &flag]);
        // In two words, a negative number is the value and not another flag.
        refused(&bench, &[], &[&flag, value], &[name, &flag]);
    }
    refused(&bench, &[("TLS_CERT", "/nowhere.pem")], &[], &["TLS_CERT", "TLS_KEY"]);
}

#[test]
fn a_flag_is_not_named_if_the_variable_was_given() {
    let bench = Bench::on(None, None);
    for (name, value) in [("RATE_LIMIT", "-1"), ("WORKERS", "0"), ("LOG_FORMAT", "xml")] {
        let (_, said) = run(&mut bench.command(), &[(name, value)], &[]);
        assert!(!said.contains(&format!("--{}", name.to_lowercase().replace('_', "-"))), "{said}");
    }
}

#[test]
fn a_wrong_setting_is_json_if_the_log_is() {
    let bench = Bench::on(None, None);
    let json = ("LOG_FORMAT", "json");
    type Variables = [(&'static str, &'static str)];
    let cases: [(&Variables, &[&str]); 5] = [
        (&[json, ("WORKERS", "0")], &[]),
        (&[json, ("RATE_LIMIT", "x")], &["serve"]),
        (&[json], &["--nonsense"]),
        (&[("WORKERS", "0")], &["--log-format", "json"]),
        (&[("RATE_LIMIT", "x")], &["--log-format=json"]),
    ];
    for (variables, arguments) in cases {
        let (code, said) = run(&mut bench.command(), variables, arguments);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        let line: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(line["level"], "ERROR", "{said}");
        assert!(line["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");
    }
}

/// Every variable of `--help` and its default, where it has one.
fn variables(bench: &Bench) -> BTreeMap<String, Option<String>> {
    let output = bench.command().arg("--help").output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("text").replace('\n', " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let settings = text.split("[env: ").skip(1).filter_map(|rest| {
        let (variable, rest) = rest.split_once(']')?;
        let name = variable.split('=').next()?.to_owned();
        let default = rest.trim_start().strip_prefix("[default: ").and_then(|rest| rest.split_once(']'));
        Some((name, default.map(|(value, _)| value.to_owned())))
    });
    settings.collect()
}

#[test]
fn a_variable_of_white_space_is_not_set() {
    let bench = Bench::on(None, None);
    let all = variables(&bench);
    assert!(all.len() > 40 && all.contains_key("TLS_CERT") && all.contains_key("REDIS_URL"), "{all:?}");
    for blank in ["", " ", "\n"] {
        let mut command = bench.command();
        for name in all.keys().map(String::as_str).chain(["WRITE_KEYS", "READ_KEYS", "ADMIN_KEYS"]) {
            // Those of the bench: a directory that the disk suits, and a free port.
            if !["DATA_DIR", "LISTEN", "ALLOW_TMPFS", "JOURNAL_MIN_FREE"].contains(&name) {
                command.env(name, blank);
            }
        }
        let (code, said) = run(&mut command, &[], &["check"]);
        assert_eq!(code, Some(0), "{blank:?}: {said}");
        for name in ["TLS_CERT", "TLS_KEY", "WRITE_KEYS_FILE", "RATE_LIMIT", "LISTEN", "PIN_WORKERS", "DATA_DIR"] {
            let (code, said) = run(&mut bench.command(), &[(name, blank)], &["check"]);
            assert_ne!(code, Some(2), "{name}={blank:?}: {said}");
        }
    }
    let (code, said) = run(&mut bench.command(), &[("WORKERS", " 2\n"), ("LOG", "info\n")], &["check"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn every_number_is_taken_or_refused_by_its_name() {
    let bench = Bench::on(None, None);
    let is_number = |default: &String| default == "auto" || default.parse::<f64>().is_ok();
    let all = variables(&bench).into_iter().filter(|(_, default)| default.as_ref().is_some_and(is_number));
    let names: Vec<String> = all.map(|(name, _)| name).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        for value in ["0", "-1", "1", "18446744073709551615", "99999999999999999999999", "1e3", "NaN"] {
            // No directory: what costs time is not tried.
            let (code, said) = run(bench.command().env("DATA_DIR", "/dev/null"), &[(&name, value)], &["check"]);
            match code {
                Some(2) => assert!(said.lines().count() == 1 && said.contains(&name), "{name}={value}: {said}"),
                Some(0 | 1) => {}
                other => panic!("{name}={value}: {other:?}: {said}"),
            }
        }
    }
}

#[test]
fn a_key_in_quotes_is_refused() {
    let bench = Bench::on(None, None);
    let root = bench.data_dir.parent().expect("a directory").to_owned();
    for (number, quoted) in
        ["\"0123456789abcdef\"", "'0123456789abcdef'", "\"0123456789abcdef,0123456789abcdeg\""].into_iter().enumerate()
    {
        let path = root.join(format!("keys-{number}"));
        std::fs::write(&path, format!("{quoted}\n")).expect("writes");
        let file = path.to_str().expect("a path");
        refused(&bench, &[("ADMIN_KEYS_FILE", file)], &[], &["ADMIN_KEYS_FILE", "quotes"]);
        refused(&bench, &[("WRITE_KEYS", quoted)], &[], &["WRITE_KEYS", "quotes"]);
    }
}

#[test]
fn a_taken_port_names_its_setting() {
    let bench = Bench::on(None, None);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = listener.local_addr().expect("an address").to_string();
    let (code, said) = run(&mut bench.command(), &[("LISTEN", &taken)], &[]);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("LISTEN") && said.contains(&taken), "{said}");
}
