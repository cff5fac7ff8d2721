//! The shape of the sources: arrows point one way, every file says what it owns, none grows past splitting.

mod imports;
mod language;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What each module may use. `http → api → app → ports ← adapters`; `commands`, which `main` calls, alone knows everybody.
const ARROWS: &[(&str, &[&str])] = &[
    // Run by cargo before the crate is built.
    ("build", &[]),
    ("limits", &[]),
    ("clock", &[]),
    ("shutdown", &[]),
    ("logging", &["limits"]),
    ("process", &["limits", "logging"]),
    ("events", &["limits"]),
    ("ports", &["events", "journal", "limits"]),
    ("runtime", &["clock", "limits", "process"]),
    ("http", &["clock", "limits", "process", "runtime"]),
    ("journal", &["clock", "limits", "logging", "process", "runtime"]),
    ("ledger", &["events", "limits", "ports"]),
    ("seed", &["events"]),
    ("live", &["events", "limits", "ports"]),
    ("sinks", &["clock", "events", "journal", "limits", "ports", "process", "runtime"]),
    ("adapters", &["clock", "events", "ledger", "limits", "live", "ports"]),
    ("cache", &["limits", "ports"]),
    ("app", &["cache", "clock", "events", "journal", "limits", "live", "ports", "process", "runtime", "sinks"]),
    ("metrics", &["app", "cache", "events", "http", "logging", "sinks"]),
    ("import", &["clock", "limits"]),
    ("config", &["api", "app", "cache", "events", "http", "journal", "limits", "logging", "process"]),
    (
        "api",
        &[
            "app", "cache", "clock", "events", "http", "journal", "limits", "metrics", "ports", "runtime", "shutdown",
            "sinks",
        ],
    ),
];

const LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COMMENT_COLUMNS_MAX: usize = 100;
/// Lines of comments that are longer today. Lower this number whenever the count has fallen.
const LONG_COMMENTS_MAX: usize = 1_065;

/// The files below a folder of this crate, by their paths in it, such as `http/head.rs`.
fn sources(folder: &str) -> BTreeMap<String, String> {
    fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = BTreeMap::new();
    collect(&root, &root, &mut found);
    found
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let from = path.split(['/', '.']).next().unwrap();
        if matches!(from, "main" | "lib" | "commands") {
            continue;
        }
        let allowed = ARROWS.iter().find(|(name, _)| *name == from).map(|(_, to)| *to);
        let allowed = allowed.unwrap_or_else(|| panic!("{from} has no line in ARROWS"));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for part in code.split("crate::").skip(1) {
                let to: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if to != from && !to.is_empty() && !allowed.contains(&to.as_str()) {
                    wrong.push(format!("{path}:{}: {from} uses {to}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_owns_and_stays_small() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not open with //!"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path} has {lines} lines: split it by idea"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a failing property writes beside the sources is in nobody's repository: the smallest input is in the output.
#[test]
fn properties_keep_no_files() {
    let properties = concat!("proptest", "! {");
    let keeps = |text: &str| text.contains(properties) && !text.contains("failure_persistence: None");
    let all = sources("src").into_iter().chain(sources("tests"));
    let those: Vec<String> = all.filter(|(_, text)| keeps(text)).map(|(path, _)| path).collect();
    assert!(those.is_empty(), "{those:?}");
}

/// A minimal Debian has no others: `kill` is in procps. The tests do without curl and openssl if those are missing.
#[test]
fn tests_start_no_program_that_a_minimal_system_lacks() {
    const KNOWN: [&str; 5] = ["curl", "mount", "openssl", "sh", "umount"];
    let start = concat!("Command::", "new(\"");
    for (path, text) in sources("tests") {
        for program in text.split(start).skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(KNOWN.contains(&program), "{path} starts {program}");
        }
    }
}

#[test]
fn no_files_of_a_folder_use_each_other_in_a_circle() {
    let circles = imports::Sources::new(sources("src")).circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

/// First line and length of each function, by the indentation that rustfmt gives its braces.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_part = |word: &str| word.starts_with("pub") || ["const", "unsafe", "in"].contains(&word);
    let begins = |line: &str| line.split_once("fn ").is_some_and(|(before, _)| before.split_whitespace().all(is_part));
    let length = |first: usize| {
        let rest = &lines[first..];
        let signature = rest.iter().position(|line| line.ends_with(['{', '}', ';']))?;
        let indent = &rest[0][..rest[0].len() - rest[0].trim_start().len()];
        let is_end = |line: &&str| line.strip_prefix(indent).is_some_and(|line| line.starts_with('}'));
        match rest[signature].chars().last()? {
            ';' => None,
            '}' => Some(signature + 1),
            _ => Some(signature + 2 + rest[signature + 1..].iter().position(is_end)?),
        }
    };
    let firsts = (0..lines.len()).filter(|at| begins(lines[*at]));
    firsts.filter_map(|first| Some((lines[first].trim(), length(first)?))).collect()
}

#[test]
fn functions_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources("src") {
        for (function, lines) in functions(&text).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            long.push(format!("{path}: {lines} lines: {function}"));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn lines_of_comments_end_by_column_100() {
    let is_long = |line: &&str| line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS_MAX;
    let texts = sources("src").into_values().chain(sources("tests").into_values());
    let long: usize = texts.map(|text| text.lines().filter(is_long).count()).sum();
    assert!(long <= LONG_COMMENTS_MAX, "{long} lines of comments are longer, {LONG_COMMENTS_MAX} may be");
}

/// The check itself: circles directly, through a third file, through a folder's own file, and none.
#[test]
fn circles_of_imports_are_found() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        imports::Sources::new(files).circles().into_values().flatten().collect::<Vec<_>>()
    };
    let a = ("x/a.rs", "use super::b::B;");
    assert_eq!(circles(&[a, ("x/b.rs", "fn f() { crate::x::a::g() }")]), ["a uses b", "b uses a"]);
    assert_eq!(circles(&[a, ("x/b.rs", "use super::{c::C, d};"), ("x/c.rs", "use super::a;")]).len(), 3);
    let own = ("x/mod.rs", "mod a;\nmod b;\npub use a::A;\nstruct Own;");
    assert_eq!(circles(&[own, ("x/a.rs", "use super::Own;"), ("x/b.rs", "use super::A;")]), [""; 0]);
    assert_eq!(circles(&[own, ("x/a.rs", "use super::b::B;"), ("x/b.rs", "use crate::x::{A, Own};")]).len(), 2);
    let uses = ("x/mod.rs", "mod a;\npub use a::A;\nstruct Own(A);");
    assert_eq!(circles(&[uses, ("x/a.rs", "use super::Own;")]), ["a uses mod", "mod uses a"]);
    assert_eq!(circles(&[a, ("x/b.rs", "// super::a\n#[cfg(test)]\nmod tests { use super::super::a; }")]), [""; 0]);
}
