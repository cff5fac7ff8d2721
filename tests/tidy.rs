//! The shape of the sources: arrows point one way, every file says what it owns, none grows past splitting.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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
    ("ports", &["events", "limits"]),
    ("runtime", &["clock", "limits", "process"]),
    ("http", &["clock", "limits", "process", "runtime"]),
    ("journal", &["clock", "events", "limits", "logging", "ports", "process", "runtime"]),
    ("ledger_fold", &["events", "limits", "ports"]),
    ("seed", &["events"]),
    ("live", &["events", "limits", "ports"]),
    ("sinks", &["clock", "events", "journal", "limits", "ports", "process"]),
    ("adapters", &["clock", "events", "ledger_fold", "limits", "live", "ports"]),
    ("cache", &["limits", "ports"]),
    ("app", &["cache", "clock", "events", "journal", "limits", "live", "ports", "process", "runtime", "sinks"]),
    ("metrics", &["app", "cache", "events", "http", "logging", "sinks"]),
    ("import", &["limits"]),
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

fn sources() -> BTreeMap<PathBuf, String> {
    sources_in(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("src")])
}

fn sources_in(directories: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    directories.iter().for_each(|directory| collect(directory, &mut found));
    found
}

/// The module of the crate that a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = module(&path);
        if matches!(from.as_str(), "main" | "lib" | "commands") {
            continue;
        }
        let allowed = ARROWS.iter().find(|(name, _)| *name == from).map(|(_, to)| *to);
        let allowed = allowed.unwrap_or_else(|| panic!("{from} has no line in ARROWS"));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for part in code.split("crate::").skip(1) {
                let to: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if to != from && !to.is_empty() && !allowed.contains(&to.as_str()) {
                    wrong.push(format!("{}:{}: {from} uses {to}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_owns_and_stays_small() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not open with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines: split it by idea", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a failing property writes beside the sources is in nobody's repository: the smallest input is in the output.
#[test]
fn properties_keep_no_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let properties = concat!("proptest", "! {");
    let keeps: Vec<PathBuf> = sources_in(&[root.join("src"), root.join("tests")])
        .into_iter()
        .filter(|(_, text)| text.contains(properties) && !text.contains("failure_persistence: None"))
        .map(|(path, _)| path)
        .collect();
    assert!(keeps.is_empty(), "{keeps:?}");
}

/// The fuzz targets are a workspace of their own, which nothing but `make fuzz` builds.
#[test]
fn the_lock_of_the_fuzz_targets_knows_every_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let manifest = read("Cargo.toml");
    let (_, wanted) = manifest.split_once("[dependencies]\n").unwrap();
    let wanted = wanted.split("\n[").next().unwrap().lines().filter(|line| !line.starts_with('#'));
    let lock = read("tests/fuzz/Cargo.lock");
    let ours = lock.split("[[package]]").find(|package| package.contains("name = \"event-tracker\"")).unwrap();
    let missing: Vec<&str> = wanted
        .filter_map(|line| line.split(" = ").next())
        .filter(|name| !name.is_empty() && !ours.contains(&format!("\"{name}")))
        .collect();
    assert!(missing.is_empty(), "cargo metadata --manifest-path tests/fuzz/Cargo.toml adds {missing:?}");
}

/// A minimal Debian has no others: `kill` is in procps. The tests do without curl and openssl if those are missing.
#[test]
fn tests_start_no_program_that_a_minimal_system_lacks() {
    const KNOWN: [&str; 5] = ["curl", "mount", "openssl", "redis-server", "umount"];
    let start = concat!("Command::", "new(\"");
    let programs = |text: &str| -> Vec<String> {
        text.split(start).skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
    };
    let tests = sources_in(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")]);
    let others: Vec<(PathBuf, String)> = tests
        .iter()
        .flat_map(|(path, text)| programs(text).into_iter().map(|program| (path.clone(), program)))
        .filter(|(_, program)| !KNOWN.contains(&program.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
