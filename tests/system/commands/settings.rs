//! Settings that can never work, and those that mean nothing: exit code 2 and one line that names the setting.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::support::bench::Bench;
use crate::support::program::{self, Ended};

fn run(command: &mut Command, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    program::run(command.envs(variables.iter().copied()).args(arguments))
}

#[track_caller]
fn refused(bench: &Bench, variables: &[(&str, &str)], arguments: &[&str], words: &[&str]) {
    eprintln!("-- {variables:?} {arguments:?}");
    run(&mut bench.command(), variables, arguments).says(2, words);
    assert!(!bench.data_dir.exists(), "{variables:?} {arguments:?}: it touched the directory");
}

/// Values that can never work, by setting. The first is tried as a flag, too.
const WRONG: [(&str, &[&str]); 20] = [
    ("LISTEN", &["nowhere", "0.0.0.0:0"]),
    ("DATABASE_URL", &["mysql://localhost/x", "postgres://", "postgres:///x"]),
    ("DATABASE_URL", &["postgres://u@localhost/x?sslmod=require", "postgres://u@localhost/x?sslmode=maybe"]),
    ("DATABASE_URL", &["postgres://u@localhost:99999/x", "postgres://u@local host/x", "postgres://u@localhost:0/x"]),
    ("REDIS_URL", &["http://localhost", "redis://", "redis://localhost/abc", "redis://localhost/-1"]),
    ("REDIS_URL", &["redis://localhost:99999", "redis://localhost:0", "rediss://localhost:0"]),
    ("REDIS_URL", &["redis://localhost/0?protocl=resp3", "redis://localhost/0?protocol=resp9"]),
    ("REDIS_URL", &["rediss://localhost/0#insecure"]),
    ("JOURNAL_MAX_BYTES", &["1"]),
    ("JOURNAL_MIN_FREE", &["much"]),
    (
        "LOG",
        &["loud", "info,loud", "info,event_tracker=loud", "info,event_tracker::nothing=debug", "info,x=debug", ","],
    ),
    ("LOG_FORMAT", &["xml"]),
    ("TIME_ZONE", &["Mars/Base"]),
    ("RETENTION_DAYS", &["3", "0", "4294967295"]),
    ("WORKERS", &["-1", "0", "129", "1.5", "none"]),
    ("PG_POOL", &["0"]),
    ("REDIS_POOL", &["100000"]),
    ("SHUTDOWN_MS", &["18446744073709551615"]),
    ("RATE_LIMIT", &["-1"]),
    ("ACK", &["never"]),
];

/// Origins that no browser sends, and hosts that no client asks for. Separated by blanks: in others a blank is the fault.
const ORIGINS: &str = "shop.example *.shop.example https:// https://shop.example/ https://shop.example/path \
    https://shop.example?x https://u@shop.example https://shop.example: https://shop.example:0x50 \
    https://shop.example:70000 https://* https://*shop.example https://a.*.example https://*.*.example \
    https://*.127.0.0.1 https://*.[::1] https://127.1 https://1.2.3.256 https://[::1 https://[shop] \
    https://b\u{fc}cher.example https://shop..example https://.shop.example ftp://shop.example //shop.example \
    NULL.example https://shop.example;https://other.example https://shop.example,other.example ,";
const HOSTS: &str = "https://a.example a.example:443 a.example/ *.*.example a*.example *. , a,,b/ \
    b\u{fc}cher.example [::1 1.2.3.456 a..example";
/// Paths that are no path, or lead to another route.
const ALIASES: &str = "collect / /a?b /a#b /\u{e9} /a/ /api/posts /api/search/recent/x /healthz/live /metrics \
    /api/users/x /api/posts/x";

#[test]
fn a_setting_that_can_never_work_is_refused_by_its_name() {
    let bench = Bench::on(None, None);
    for (name, values) in WRONG {
        for value in values {
            refused(&bench, &[(name, value)], &[], &[name]);
        }
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        refused(&bench, &[], &[&format!("{flag}={}", values[0])], &[name, &flag]);
        // In two words, a negative number is the value and not another flag.
        refused(&bench, &[], &[&flag, values[0]], &[name, &flag]);
    }
    for (name, values) in [("ALLOWED_ORIGINS", ORIGINS), ("ALLOWED_HOSTS", HOSTS), ("EVENTS_ALIAS", ALIASES)] {
        for value in values.split_whitespace() {
            refused(&bench, &[(name, value)], &[], &[name]);
        }
    }
    refused(&bench, &[("PIN_WORKERS", "perhaps")], &[], &["PIN_WORKERS"]);
    for value in ["https://shop example", "https://shop.example https://other.example"] {
        refused(&bench, &[("ALLOWED_ORIGINS", value)], &[], &["ALLOWED_ORIGINS"]);
    }
    refused(&bench, &[("ALLOWED_HOSTS", "a b")], &[], &["ALLOWED_HOSTS"]);
    refused(&bench, &[("EVENTS_ALIAS", "/a b")], &[], &["EVENTS_ALIAS"]);
    refused(&bench, &[("TLS_CERT", "/nowhere.pem")], &[], &["TLS_CERT", "TLS_KEY"]);
}

#[test]
fn every_form_of_an_origin_is_taken() {
    let bench = Bench::on(None, None);
    for value in ["", " ", "*", "null", "https://*.org", "http://127.0.0.1:8080", "https://xn--bcher-kva.example"] {
        assert_ne!(run(&mut bench.command(), &[("ALLOWED_ORIGINS", value)], &["check"]).code, Some(2), "{value}");
    }
    assert_ne!(run(&mut bench.command(), &[("ALLOWED_HOSTS", " ")], &["check"]).code, Some(2));
}

#[test]
fn a_flag_is_not_named_if_the_variable_was_given() {
    let bench = Bench::on(None, None);
    for (name, value) in [("RATE_LIMIT", "-1"), ("WORKERS", "0"), ("LOG_FORMAT", "xml")] {
        let said = run(&mut bench.command(), &[(name, value)], &[]).err;
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
        let ended = run(&mut bench.command(), variables, arguments);
        ended.says(2, &[]);
        let said = ended.err;
        let line: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(line["level"], "ERROR", "{said}");
        assert!(line["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");
    }
}

/// Every variable of a help and its default, if it has one.
fn variables(bench: &Bench, help: &[&str]) -> BTreeMap<String, Option<String>> {
    let text = bench.run(help).printed();
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
fn help_shows_what_an_operator_needs_and_with_all_every_setting() {
    let bench = Bench::on(None, None);
    let names = |help: &[&str]| variables(&bench, help).into_keys().collect::<Vec<_>>();
    for command in [&[][..], &["serve"], &["check"]] {
        let with = |flags: &[&'static str]| names(&[command, flags].concat());
        let (usual, all) = (with(&["--help"]), with(&["--all", "--help"]));
        assert_eq!((usual.len(), all.len()), (40, 59), "{usual:?} {all:?}");
        assert_eq!(with(&["-h"]), usual);
        assert_eq!(with(&["-h", "--all"]), all);
        assert!(!usual.contains(&"HEAD_BYTES_MAX".to_owned()) && all.contains(&"HEAD_BYTES_MAX".to_owned()));
    }
}

#[test]
fn a_variable_of_white_space_is_not_set() {
    let bench = Bench::on(None, None);
    let all = variables(&bench, &["--help", "--all"]);
    assert!(all.len() > 40 && all.contains_key("TLS_CERT") && all.contains_key("REDIS_URL"), "{all:?}");
    for blank in ["", " ", "\n"] {
        let mut command = bench.command();
        for name in all.keys().map(String::as_str).chain(["WRITE_KEYS", "READ_KEYS", "ADMIN_KEYS"]) {
            // Those of the bench: a directory that the disk suits, and a free port.
            if !["DATA_DIR", "LISTEN", "ALLOW_TMPFS", "JOURNAL_MIN_FREE"].contains(&name) {
                command.env(name, blank);
            }
        }
        run(&mut command, &[], &["check"]).printed();
        for name in ["TLS_CERT", "TLS_KEY", "WRITE_KEYS_FILE", "RATE_LIMIT", "LISTEN", "PIN_WORKERS", "DATA_DIR"] {
            let ended = run(&mut bench.command(), &[(name, blank)], &["check"]);
            assert_ne!(ended.code, Some(2), "{name}={blank:?}: {}", ended.err);
        }
    }
    run(&mut bench.command(), &[("WORKERS", " 2\n"), ("LOG", "info\n")], &["check"]).printed();
}

#[test]
fn every_number_is_taken_or_refused_by_its_name() {
    let bench = Bench::on(None, None);
    let is_number = |default: &String| default == "auto" || default.parse::<f64>().is_ok();
    let all = variables(&bench, &["--help", "--all"])
        .into_iter()
        .filter(|(_, default)| default.as_ref().is_some_and(is_number));
    let names: Vec<String> = all.map(|(name, _)| name).collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        for value in ["0", "-1", "1", "18446744073709551615", "99999999999999999999999", "1e3", "NaN"] {
            // No directory: what costs time is not tried.
            let ended = run(bench.command().env("DATA_DIR", "/dev/null"), &[(&name, value)], &["check"]);
            match ended.code {
                Some(2) => ended.says(2, &[&name]),
                Some(0 | 1) => {}
                other => panic!("{name}={value}: {other:?}: {}", ended.err),
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
    run(&mut bench.command(), &[("LISTEN", &taken)], &[]).says(1, &["LISTEN", &taken]);
}
